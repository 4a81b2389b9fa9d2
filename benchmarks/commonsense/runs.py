"""Measure LoRA against DoRA on commonsense rows: train, test, and keep every run in a file."""

import copy
import functools
import gc
import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

import torch
from torch import nn
from tqdm.auto import tqdm

from benchmarks.commonsense.training import add_peft_adapters, make_batches, train
from lab_utils import comparison
from lab_utils.adapters import trainable_parameters
from lab_utils.commonsense.language_model import load_language_model
from lab_utils.commonsense.measurement import PAIR, Run, chosen_rate, require_one_base
from lab_utils.commonsense.rows import load_rows
from lab_utils.commonsense.scoring import Text, correct, encode, score_texts
from lab_utils.training import fingerprint

RATES = (2e-4, 6e-4, 2e-3, 6e-3)
VALIDATION = 10  # every tenth training row is for choosing the learning rate


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides how fast a run is, and its rounding.

    Attributes:
        model: as in `load_language_model`.
        data: folder of the rows, or None as in `load_rows`.
        tasks: to train on and to test.
        device: such as `"cuda"`, `"cuda:1"` or `"cpu"`. On a GPU the base is in bfloat16, on a CPU
            in float32. Runs on a CPU give the same numbers again. On a GPU they do not to the last
            digit, since attention's backward pass adds up in no fixed order there; what a pair
            shares (base, `lora_A`, batches) is the same all the same.
        compiled, cuda_graphs: as in `train`.
        jobs: runs at a time; those that shared the device do not measure time.
    """

    model: str
    data: str | None
    tasks: tuple[str, ...]
    device: str
    compiled: bool = False
    cuda_graphs: bool = True
    jobs: int = 1


@dataclass(frozen=True)
class Rows:
    """Tokenized rows of every task: `train` only the right answers, the others every choice."""

    train: list[Text]
    validation: dict[str, tuple[list[dict], list[Text]]]
    test: dict[str, tuple[list[dict], list[Text]]]


@functools.cache  # a worker process makes many runs
def _base(name: str) -> tuple:
    base, tokenizer = load_language_model(name)
    return base, tokenizer, fingerprint(base.parameters())


@functools.cache
def _rows(machine: Machine, limit: int | None) -> Rows:
    _, tokenizer, _ = _base(machine.model)
    train, validation, test = [], {}, {}
    for task in machine.tasks:
        known = load_rows(task, "train", machine.data)[:limit]
        held_out = known[::VALIDATION]
        validation[task] = held_out, _choices(tokenizer, task, held_out)
        rows = load_rows(task, "test", machine.data)[:limit]
        test[task] = rows, _choices(tokenizer, task, rows)
        train += [
            encode(tokenizer, task, row["question"], row["choices"][row["answer"]])
            for i, row in enumerate(known)
            if i % VALIDATION
        ]
    return Rows(train, validation, test)


def _choices(tokenizer, task: str, rows: Sequence[dict]) -> list[Text]:
    return [encode(tokenizer, task, row["question"], c) for row in rows for c in row["choices"]]


def measure(run: Run, machine: Machine) -> dict:
    """Train and test once.

    Returns:
        The settings by their names, and

        - `accuracy`, `validation_accuracy`: of each task, a share of its rows;
        - `average_accuracy`: over tasks, which all count the same;
        - `validation_error`: the share of all validation rows that were answered wrongly. Rows
          count the same, because a task with few of them would add more noise than it tells;
        - `validation_rows`, `test_rows`: how many rows of each task were held out and tested;
        - `losses` of training, means over stretches; `trainable_params`;
        - `seconds` of training, `setup_seconds`, `scoring_seconds`; `peak_memory` in bytes of
          training, on a GPU;
        - `pairing`: fingerprints, as in `lab_utils.training.train_and_evaluate`, and of the rows
          tested;
        - `made_with`: versions, the device, `machine`'s settings and the command.
    """
    base, _, base_fingerprint = _base(machine.model)
    rows = _rows(machine, run.rows)
    on_gpu = torch.device(machine.device).type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32
        gc.collect()  # the last run's model, which would count as this one's memory
        torch.cuda.reset_peak_memory_stats(machine.device)
    pairing = {"base": f"{base_fingerprint} {dtype}", "test": _fingerprint_texts(rows.test)}
    result = {}
    if run.adapter_type in PAIR:
        model = add_peft_adapters(base, run.adapter_type, run.rank, run.seed, dtype)
        model.to(machine.device)
        batches = make_batches(rows.train, run.batch_size, run.epochs, run.seed)[: run.steps]
        # detached: a copy's graph would tie the parameter's gradient to the stream it was made on,
        # and then steps on another stream can't be recorded
        lora_a = [
            p.detach().cpu() for name, p in trainable_parameters(model).items() if "lora_A" in name
        ]
        pairing["lora_A"] = fingerprint(lora_a)
        pairing["batches"] = fingerprint(tensor for b in batches for tensor in b.tensors())
        with tqdm(total=len(batches), leave=False, disable=machine.jobs > 1, unit="step") as bar:
            result = train(
                model,
                batches,
                run.learning_rate,
                compiled=machine.compiled,
                cuda_graphs=machine.cuda_graphs,
                on_step=bar.update,
            )
        stretches = torch.tensor(result["losses"]).tensor_split(24)
        result["losses"] = [round(s.mean().item(), 4) for s in stretches if len(s)]
        result["trainable_params"] = sum(p.numel() for p in trainable_parameters(model).values())
        result["peak_memory"] = torch.cuda.max_memory_allocated(machine.device) if on_gpu else None
    else:
        model = copy.deepcopy(base).to(machine.device, dtype)
    started = time.perf_counter()
    model.eval()
    with torch.compiler.set_stance("force_eager"):  # compiled layers would compile these shapes too
        validation, accuracy = (_accuracy(model, part) for part in (rows.validation, rows.test))
    held_out = {task: len(known) for task, (known, _) in rows.validation.items()}
    return asdict(run) | {
        "accuracy": accuracy,
        "average_accuracy": statistics.fmean(accuracy.values()),
        "validation_accuracy": validation,
        "validation_error": 1 - _pooled(validation, held_out),
        "validation_rows": held_out,
        "test_rows": {task: len(tested) for task, (tested, _) in rows.test.items()},
        "train_rows": len(rows.train),
        **result,
        "scoring_seconds": time.perf_counter() - started,
        "pairing": pairing,
        "made_with": _made_with(machine),
    }


def _pooled(accuracy: dict[str, float], rows: dict[str, int]) -> float:
    """Return the share of right answers over the rows of all tasks."""
    return sum(accuracy[task] * count for task, count in rows.items()) / sum(rows.values())


def _accuracy(model: nn.Module, part: dict[str, tuple[list[dict], list[Text]]]) -> dict[str, float]:
    """Return the share of rows of each task in which the right choice scores highest."""
    texts = [text for _, choices in part.values() for text in choices]
    lines = 64 if next(model.parameters()).is_cuda else 8
    scores = iter(score_texts(model, texts, lines).tolist())
    found = {}
    for task, (rows, _) in part.items():
        of_rows = [[next(scores) for _ in row["choices"]] for row in rows]
        found[task] = statistics.fmean(correct(of_rows, rows))
    return found


def _fingerprint_texts(part: dict[str, tuple[list[dict], list[Text]]]) -> str:
    tokens = {task: [text.tokens for text in texts] for task, (_, texts) in part.items()}
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]


def _made_with(machine: Machine) -> dict:
    versions = {name: version(name) for name in ("transformers", "peft")}
    versions["cuda"] = torch.version.cuda
    on_gpu = torch.device(machine.device).type == "cuda"
    device = torch.cuda.get_device_name(machine.device) if on_gpu else platform.machine()
    return comparison.made_with() | versions | asdict(machine) | {"device": device}


def measure_all(
    machine: Machine,
    results_file: str | os.PathLike,
    *,
    ranks: Sequence[int] = (8, 32),
    rates: Sequence[float] = RATES,
    grid_seeds: int = 3,
    seeds: int = 7,
    epochs: int = 2,
    batch_size: int = 64,
    steps: int | None = None,
    rows: int | None = None,
) -> list[dict]:
    """Measure the base, every method and rank at every rate, and at the best rate with new seeds.

    The best rate is that with the lowest `validation_error` over the seeds of the grid, which are
    not among those that report.

    Args:
        machine: where and how.
        results_file: as in `lab_utils.comparison.sweep`, which continues after an interruption.
        ranks, rates: of the grid.
        grid_seeds: how many seeds every rate is tried with: they choose.
        seeds: how many others report, at the best rate.
        epochs, batch_size, steps, rows: as in `Run`.

    Returns:
        The records of all runs.

    Raises:
        ValueError: the results file has runs of another model or other rows.
    """
    shared = {"epochs": epochs, "batch_size": batch_size, "steps": steps, "rows": rows}
    measured = functools.partial(measure, machine=machine)
    sweep = functools.partial(
        comparison.sweep, results_file=results_file, n_jobs=machine.jobs, measure=measured
    )

    def runs(method: str, rank: int, rate: float, which: range) -> list[Run]:
        settings = {"adapter_type": method, "rank": rank, "learning_rate": rate, **shared}
        return [Run(seed=seed, **settings) for seed in which]

    pairs = [(method, rank) for rank in ranks for method in PAIR]
    grid = [Run(adapter_type="frozen", rows=rows)]
    choosing, reporting = range(grid_seeds), range(grid_seeds, grid_seeds + seeds)
    grid += [run for pair in pairs for rate in rates for run in runs(*pair, rate, choosing)]
    records = sweep(grid)
    require_one_base(records)
    best = {
        (m, r): chosen_rate(comparison.select(records, adapter_type=m, rank=r), grid_seeds)
        for m, r in pairs
    }
    return sweep(grid + [run for pair in pairs for run in runs(*pair, best[pair], reporting)])
