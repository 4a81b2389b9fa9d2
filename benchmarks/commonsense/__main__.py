"""`python -m benchmarks.commonsense`: measure LoRA against DoRA, and print the table."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.commonsense import runs
from lab_utils.commonsense import measurement
from lab_utils.commonsense.hub import HubUnreachable
from lab_utils.commonsense.language_model import NoLanguageModel
from lab_utils.commonsense.rows import TASKS, RowsError, tasks_in


def main(arguments: list[str] | None = None) -> None:
    """Measure what the results file lacks, and print what follows from it."""
    args = _parser().parse_args(arguments)
    records = runs.measure_all(
        machine_of(args),
        args.results,
        ranks=args.ranks,
        rates=args.rates,
        grid_seeds=args.grid_seeds,
        seeds=args.seeds,
        epochs=args.epochs,
        batch_size=args.batch_size,
        steps=args.steps,
        rows=args.rows,
    )
    summary = measurement.summarise(records, args.grid_seeds)
    print(measurement.table(summary))
    for rank, differences in summary["differences"].items():
        d = differences["average"]
        print(
            f"rank {rank}: DoRA minus LoRA, average over tasks: {100 * d.mean:+.2f} points "
            f"({d.confidence:.0%} interval {100 * d.low:+.2f} to {100 * d.high:+.2f}, "
            f"{d.seeds} paired seeds)"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commonsense",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_machine_options(parser)
    add = parser.add_argument
    add("--results", type=Path, required=True, help="JSON lines, one a run; resumed if it is there")
    add("--ranks", nargs="+", type=int, default=[8, 32])
    add("--rates", nargs="+", type=float, default=runs.RATES, help="learning rates to try")
    add("--grid-seeds", type=int, default=3, help="seeds that every rate is tried with")
    add("--seeds", type=int, default=7, help="other seeds at the best rate, 2 or more")
    add("--epochs", type=int, default=2)
    add("--batch-size", type=int, default=64)
    add("--steps", type=int, help="stop each training after so many steps")
    add("--rows", type=int, help="take so many training and test rows of each task")
    return parser


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add what `machine_of` reads to a parser."""
    add = parser.add_argument
    add("--model", default="smollm2-135m", help="smollm2-135m, or a folder with a model")
    add("--data", default=os.environ.get("DORA_LAB_DATA"), help="folder with rows; else the hub's")
    add("--tasks", nargs="+", choices=TASKS, help="by default all that --data has")
    add(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="such as cuda, cuda:1 or cpu; only runs on a CPU repeat to the last digit",
    )
    add("--compile", action="store_true", help="fuse the operations of each layer")
    add("--cuda-graphs", action=argparse.BooleanOptionalAction, default=True)
    add("--jobs", type=int, default=1, help="runs at a time; times are measured only with 1")


def machine_of(args: argparse.Namespace) -> runs.Machine:
    """Return where and how to measure, by a parser's arguments."""
    return runs.Machine(
        model=args.model,
        data=args.data,
        tasks=tuple(args.tasks or (tasks_in(args.data) if args.data else TASKS)),
        device=args.device,
        compiled=args.compile,
        cuda_graphs=args.cuda_graphs,
        jobs=args.jobs,
    )


def _device(name: str) -> str:
    """Return the name of a device that this machine has; the parser reports any other."""
    try:
        torch.empty(1, device=name)
    except Exception as error:  # each backend has its own
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"this machine has no {name!r}: {reason}") from error
    return name


def start(program: Callable[[], None]) -> None:
    """Run a program; what its user can mend ends it with a sentence."""
    try:
        program()
    except (HubUnreachable, NoLanguageModel, RowsError, ValueError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    start(main)
