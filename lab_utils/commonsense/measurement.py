"""What was measured of LoRA against DoRA on commonsense rows, and what follows from it.

`benchmarks/commonsense` makes the runs; `lab_utils/results/commonsense.jsonl` has them.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab_utils import comparison, published
from lab_utils.adapters import NAMES
from lab_utils.commonsense.rows import TASKS

PAIR = ("lora", "dora")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What decides the numbers of a run.

    Attributes:
        adapter_type: `"lora"`, `"dora"` or `"frozen"`: the base as it is, which has no rank,
            learning rate, seed, epochs or batch.
        rank, learning_rate, seed, epochs, batch_size: see `benchmarks/commonsense`.
        steps: stop after so many, or None to train for all epochs.
        rows: take so many training and so many test rows of each task, or None for all.
    """

    adapter_type: str
    rank: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    rows: int | None = None


def require_one_base(records: Sequence[dict]) -> None:
    """Raise `ValueError` unless all runs have the same base model and the same test rows."""
    found = {(record["pairing"]["base"], record["pairing"]["test"]) for record in records}
    if len(found) > 1:
        raise ValueError(
            f"the results have runs of {len(found)} models or sets of test rows; write those of "
            "another model, other rows or another device to a separate file"
        )


def chosen_rate(records: Sequence[dict], grid_seeds: int) -> float:
    """Return the learning rate with the fewest errors on the validation rows.

    Args:
        records: runs of one method at one rank.
        grid_seeds: the seeds below this number choose, and no others.
    """
    grid = [record for record in records if record["seed"] < grid_seeds]
    return comparison.choose_learning_rate(grid, "validation_error")


def at_each_rate(
    records: Sequence[dict], name: str = "average", confidence: float = 0.95
) -> dict[int, dict[float, comparison.PairedDifference]]:
    """Return DoRA minus LoRA by rank and rate, over the seeds that both were trained with.

    Args:
        records: of a results file of `benchmarks/commonsense`.
        name: of a task, or `"average"`: which accuracy.
        confidence: of the intervals.
    """
    adapted = [record for record in records if record["rank"]]
    rates = sorted({(record["rank"], record["learning_rate"]) for record in adapted})
    differences = {}
    for rank, rate in rates:
        pair = [
            comparison.select(adapted, adapter_type=method, rank=rank, learning_rate=rate)
            for method in PAIR
        ]
        common = set.intersection(*({run["seed"] for run in runs} for runs in pair))
        pair = [[run for run in runs if run["seed"] in common] for runs in pair]
        pair = [_with_metric(runs, name) for runs in pair]
        found = comparison.paired_difference(*pair, "compared", confidence)
        differences.setdefault(rank, {})[rate] = found
    return differences


def summarise(records: Sequence[dict], grid_seeds: int = 3, confidence: float = 0.95) -> dict:
    """Return what follows from the records of a measurement.

    Args:
        records: of a results file of `benchmarks/commonsense`.
        grid_seeds: the seeds below this number chose the learning rates; the others report.
        confidence: of the intervals.

    Returns:
        - `tasks`: in the order of the columns; `test_rows`: of each;
        - `zero_shot`: `accuracy` by task, `standard_error` by task and `average`;
        - `methods`: for each method and rank `adapter_type`, `rank`, `learning_rate`, `at_edge`
          (the best rate was the lowest or highest tried), `seeds`, `accuracy` by task, `average`,
          `standard_error` by task, `average_standard_error`, `seed_spread` (standard deviation of
          the average over seeds), `trainable_params`, `seconds` and `peak_memory` (medians; None
          where runs shared the device or had none to measure);
        - `differences`: for each rank, DoRA minus LoRA: `average` and each task's
          `PairedDifference`.

        A standard error says how much an accuracy would vary with other test rows. Seeds do not
        narrow it, since all are tested on the same rows.

    Raises:
        ValueError: there is no run of the base, or too few seeds for an interval.
    """
    require_one_base(records)
    base = comparison.select(records, adapter_type="frozen")
    if len(base) != 1:
        raise ValueError(f"there are {len(base)} runs of the base; a summary needs one")
    tasks = list(base[0]["accuracy"])
    ranks = sorted({record["rank"] for record in records if record["rank"]})
    best = {}
    for rank in ranks:
        for method in PAIR:
            found = comparison.select(records, adapter_type=method, rank=rank)
            at_best = comparison.select(found, learning_rate=chosen_rate(found, grid_seeds))
            reported = [run for run in at_best if run["seed"] >= grid_seeds]
            if len(reported) < 2:
                raise ValueError(
                    f"{NAMES[method]} at rank {rank} has {len(reported)} runs at its best rate "
                    f"besides the {grid_seeds} seeds that chose it; measure two or more"
                )
            best[rank, method] = found, reported
    return {
        "tasks": tasks,
        "test_rows": base[0]["test_rows"],
        "zero_shot": _accuracies(base),
        "methods": [_of_method(*of_pair) for of_pair in best.values()],
        "differences": {
            rank: {
                name: comparison.paired_difference(
                    *(_with_metric(best[rank, method][1], name) for method in PAIR),
                    "compared",
                    confidence,
                )
                for name in ("average", *tasks)
            }
            for rank in ranks
        },
    }


def _with_metric(records: Sequence[dict], name: str) -> list[dict]:
    """Return records in which `compared` is the accuracy of a task, or the average."""
    return [
        record | {"compared": (record["accuracy"] | {"average": record["average_accuracy"]})[name]}
        for record in records
    ]


def _accuracies(records: Sequence[dict]) -> dict:
    tasks = records[0]["accuracy"]
    accuracy = {t: statistics.fmean(record["accuracy"][t] for record in records) for t in tasks}
    rows = records[0]["test_rows"]
    error = {t: math.sqrt(a * (1 - a) / rows[t]) for t, a in accuracy.items()}
    return {
        "accuracy": accuracy,
        "average": statistics.fmean(accuracy.values()),
        "standard_error": error,
        "average_standard_error": math.hypot(*error.values()) / len(error),
    }


def _of_method(tried: Sequence[dict], chosen: Sequence[dict]) -> dict:
    rates = {record["learning_rate"] for record in tried}
    alone = [record for record in chosen if record["made_with"]["jobs"] == 1]
    memory = [record["peak_memory"] for record in alone if record["peak_memory"]]
    averages = [record["average_accuracy"] for record in chosen]
    return {
        **{key: chosen[0][key] for key in ("adapter_type", "rank", "learning_rate")},
        "at_edge": chosen[0]["learning_rate"] in (min(rates), max(rates)),
        "seeds": len(chosen),
        **_accuracies(chosen),
        "seed_spread": statistics.stdev(averages) if len(averages) > 1 else None,
        "trainable_params": chosen[0]["trainable_params"],
        "seconds": statistics.median(r["seconds"] for r in alone) if alone else None,
        "peak_memory": statistics.median(memory) if memory else None,
    }


def table(summary: dict) -> str:
    """Return a summary as a Markdown table: a column for each method, which fits a page.

    Accuracies and their standard errors are in per cent.
    """
    names = dict(zip(TASKS, published.TASKS, strict=True))  # both in the order of the paper's table
    methods = [summary["zero_shot"], *summary["methods"]]
    adapted = [f"{NAMES[row['adapter_type']]}, rank {row['rank']}" for row in summary["methods"]]

    def line(name: str, cells: Iterable[object]) -> str:
        return "| " + " | ".join([name, *map(str, cells)]) + " |"

    def per_cent(accuracy: float, error: float) -> str:
        return f"{accuracy:.1%} ± {error:.1%}"

    seconds = [row.get("seconds") for row in methods]
    memory = [row.get("peak_memory") for row in methods]
    lines = [
        line("task", ["zero-shot", *adapted]),
        "| --- " * (len(methods) + 1) + "|",
        line("learning rate", (row.get("learning_rate", "") for row in methods)),
        *(
            line(
                names[task],
                (per_cent(row["accuracy"][task], row["standard_error"][task]) for row in methods),
            )
            for task in summary["tasks"]
        ),
        line(
            "average",
            (per_cent(row["average"], row["average_standard_error"]) for row in methods),
        ),
    ]
    if any(seconds):
        lines.append(line("time of a run", (f"{s:.1f} s" if s else "" for s in seconds)))
    if any(memory):
        lines.append(line("memory", (f"{m / 2**30:.2f} GiB" if m else "" for m in memory)))
    return "\n".join(lines)
