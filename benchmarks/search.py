"""Search a learning rate for every arm of an experiment, then train new seeds at the rate found.

An arm is a `Settings` without its learning rate and seed: they are searched and counted here. The
rates lie on one lattice, each about 1.6 times the one before. The seeds in `CHOOSING` train at
several of them; while the rate with the lowest mean validation loss has a neighbour that was not
tried, that is tried too. Then the seeds in `REPORTING`, which took no part in the choice, train
at that rate.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab_utils.comparison import (
    as_record,
    choose_learning_rate,
    read_results,
    select,
    sweep,
    train_and_record,
)
from lab_utils.data import Split, language_task, reference_split
from lab_utils.decomposition import intruders
from lab_utils.models import attention_layers
from lab_utils.training import Settings, WeightRecorder, evaluate, train_and_evaluate

RATES = (3e-4, 5e-4, 8e-4, 1.3e-3, 2e-3, 3.2e-3, 5e-3, 7.7e-3, 1.2e-2, 1.9e-2, 3e-2, 4.6e-2)
CHOOSING = range(5)
REPORTING = range(10, 20)


def search(
    arms: Sequence[Settings],
    results: Path,
    *,
    first: dict[Settings, Sequence[float]],
    choosing: Sequence[int] = CHOOSING,
    n_jobs: int = -1,
) -> list[dict]:
    """Make all runs of the arms that the results file lacks, and return its records.

    Args:
        arms: what to compare. An interrupted search continues with those that come first.
        results: JSON lines, as of `lab_utils.comparison.sweep`.
        first: the rates to begin with, by arm.
        choosing: the seeds that choose.
        n_jobs: runs at a time; -1 for as many as there are cores.
    """
    records = read_results(results) if results.exists() else []
    while True:
        runs = [run for arm in arms for run in next_runs(arm, records, first[arm], choosing)]
        if not runs:
            return records
        sweep(runs, results, n_jobs=n_jobs, measure=measure)
        records = read_results(results)


def next_runs(
    arm: Settings, records: Sequence[dict], first: Sequence[float], choosing: Sequence[int]
) -> list[Settings]:
    """Return the runs that an arm needs next, or none if it has all."""
    made = {(r["learning_rate"], r["seed"]) for r in of_arm(records, arm)}
    tried = [rate for rate in RATES if all((rate, seed) in made for seed in choosing)]
    wanted = [rate for rate in first if rate not in tried]
    seeds = choosing
    if not wanted:
        found = [
            record
            for record in of_arm(records, arm)
            if record["seed"] in choosing and record["learning_rate"] in tried
        ]
        best = choose_learning_rate(found)
        at = RATES.index(best)
        wanted = [rate for rate in RATES[max(0, at - 1) : at + 2] if rate not in tried]
        if not wanted:
            wanted, seeds = [best], REPORTING
    return [
        replace(arm, learning_rate=rate, seed=seed)
        for seed in seeds
        for rate in wanted
        if (rate, seed) not in made
    ]


def of_arm(records: Sequence[dict], arm: Settings) -> list[dict]:
    """Return the runs of an arm, at any learning rate and seed."""
    settings = asdict(arm)
    del settings["learning_rate"], settings["seed"]
    return select(records, **settings)


def measure(run: Settings) -> dict:
    """Train once and return the record of it, in full if its seed reports."""
    if run.seed in REPORTING:
        return measure_in_full(run)
    return train_and_record(run)


def measure_in_full(run: Settings) -> dict:
    """Train once and return the record of it, which besides what `as_record` keeps has

    - `train_loss`: on the training part, after training;
    - `window_losses`: on each window of the test part, in nats per byte;
    - `reference_loss`: on text of the kind that the base was pretrained on;
    - `intruders`: over all attention layers, see `lab_utils.decomposition.intruders`.
    """
    task = language_task()
    end = {}

    def keep(step: int, model: nn.Module, loss: float) -> None:
        end["model"] = model

    record = as_record(train_and_evaluate(verbose=False, on_step=keep, **asdict(run)))
    model = end["model"]
    before, after = (WeightRecorder(attention_layers(task.base), [0]) for _ in range(2))
    before(0, task.base, 0.0)
    after(0, model, 0.0)
    pairs = ((weight, after.weights[0][name]) for name, weight in before.weights[0].items())
    return record | {
        "train_loss": evaluate(model, task.train, task.loss),
        "window_losses": [round(loss, 4) for loss in window_losses(model, task.test).tolist()],
        "reference_loss": evaluate(model, reference_split(), task.loss),
        "intruders": sum(intruders(*pair) for pair in pairs),
    }


@torch.no_grad()
def window_losses(model: nn.Module, split: Split) -> Tensor:
    """Return the mean loss on each window of a part, `(windows,)`."""
    model.eval()
    logits = torch.cat([model(inputs) for inputs in split.inputs.split(64)])
    return F.cross_entropy(logits.transpose(1, 2), split.targets, reduction="none").mean(dim=1)


def command_line(doc: str, results: Path | None = None) -> argparse.ArgumentParser:
    """Return the parser of the options that the benchmarks have in common.

    Args:
        doc: the benchmark's docstring, whose first line is its description.
        results: where its records go, unless `--results` says otherwise; None if it has no such
            option.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=-1, help="runs at a time; -1: one a core")
    if results is not None:
        parser.add_argument("--results", type=Path, default=results)
    return parser
