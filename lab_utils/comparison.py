"""Compare methods fairly: choose each one's learning rate, pair the seeds, give an interval."""

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import scipy  # and scipy.stats, which takes long, with its first use
import torch
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from lab_utils.adapters import NAMES
from lab_utils.training import Settings, train_and_evaluate

SETTINGS = tuple(Settings.__dataclass_fields__)
RESULTS = Path(__file__).parent / "results"


class PairingError(ValueError):
    """Two runs that were to be compared differ in more than the method."""


def train_and_record(run: Settings) -> dict:
    """Train once and return the record of it."""
    return as_record(train_and_evaluate(verbose=False, **asdict(run)))


def sweep(
    runs: Sequence,
    results_file: str | os.PathLike,
    *,
    n_jobs: int = -1,
    measure: Callable[[Any], dict] = train_and_record,
) -> list[dict]:
    """Make every run that the results file lacks, several at a time, and return all of them.

    Each result is written as soon as it is there, so an interrupted sweep loses only the runs
    that were under way: call it again, and it continues. Runs go through joblib: processes on this
    machine, or, inside `joblib.parallel_config(backend="dask")`, the workers of the Dask cluster
    that a `distributed.Client` is connected to.

    Args:
        runs: `Settings`, or another frozen dataclass whose fields identify a run.
        results_file: JSON lines, one a run; made if it is not there.
        n_jobs: runs at a time; -1 for as many as there are cores or workers.
        measure: makes a run and returns its record, numbers and texts with the run's fields
            among them; by default it trains and returns what `as_record` says.

    Returns:
        A record of each run, in the order of `runs`.

    Raises:
        ValueError: a line of the results file is not a valid record.
        RuntimeError: runs raised an error; the others were finished and written.
    """
    path = Path(results_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_unfinished_line(path)
    settings = type(runs[0]) if runs else Settings
    known = read_results(path, settings) if path.exists() else []
    found = {_key(record, settings): record for record in known}
    missing = [run for run in dict.fromkeys(runs) if _key(asdict(run), settings) not in found]
    failures = []
    bar = tqdm(total=len(missing), unit="run", disable=not missing)
    with open(path, "a", encoding="utf-8") as file, bar:
        # results come as they are finished, not in the order of the runs
        parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        for run, outcome in parallel(delayed(_attempt)(measure, run) for run in missing):
            bar.update()
            if isinstance(outcome, Exception):
                failures.append((run, outcome))
                continue
            found[_key(outcome, settings)] = outcome
            file.write(json.dumps(outcome) + "\n")
            file.flush()
            os.fsync(file.fileno())
    if failures:
        run, error = failures[0]
        raise RuntimeError(f"{len(failures)} of {len(missing)} runs failed; {run}: {error}")
    return [found[_key(asdict(run), settings)] for run in runs]


def _attempt(measure: Callable[[Any], dict], run: Any) -> tuple[Any, dict | Exception]:
    """Make a run in a worker; hand an error back, which would end the sweep if it were raised."""
    try:
        return run, measure(run)
    except Exception as error:
        return run, error


def as_record(result: dict, parts: int = 24) -> dict:
    """Return what a results file keeps of a run: numbers and short lists, and where it was made.

    `step_losses` and `gradient_norms` become means over `parts` equal stretches of the training,
    and `magnitude_history` is left out.
    """
    record = {key: value for key, value in result.items() if key != "magnitude_history"}
    for key in ("step_losses", "gradient_norms"):
        stretches = torch.tensor(result[key]).tensor_split(parts)
        record[key] = [round(s.mean().item(), 4) for s in stretches if len(s)]
    record["made_with"] = made_with()
    return record


def made_with() -> dict:
    """Return the command and the versions that a record was made with."""
    return {
        "command": _command(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _command() -> str:
    """Return how this program was started, with a module by its name.

    `python -m` puts the module's whole path into `sys.argv`, which is all that a worker process of
    joblib knows of the program that started it.
    """
    program, options = Path(sys.argv[0]), sys.argv[1:]
    started = program.name
    if program.is_absolute() and program.is_relative_to(Path.cwd()):
        parts = program.relative_to(Path.cwd()).with_suffix("").parts
        if all(part.isidentifier() for part in parts):  # not .venv/bin, for one
            started = f"python -m {'.'.join(parts).removesuffix('.__main__')}"
    return " ".join([started, *options])


def read_results(path: str | os.PathLike, settings: type = Settings) -> list[dict]:
    """Return the records of a results file, with every setting that runs have today.

    Args:
        path: JSON lines, one a run, as `sweep` writes them.
        settings: the dataclass of the runs. A record that is older than one of its fields gets
            the field's default, which is what the run was made with; nothing else is changed.

    Raises:
        ValueError: a line is not the record of a run: it is not JSON, or lacks a setting that
            has no default. (A last line that was cut short is not one either, but `sweep`
            removes it.)
    """
    records = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
        try:
            records.append(_with_defaults(json.loads(line), settings))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is not the record of a run ({error}); delete that line, "
                "and the sweep will train the run again"
            ) from error
    return records


def _with_defaults(record: dict, settings: type) -> dict:
    """Return a record that has every field of `settings`.

    Raises:
        TypeError: it is not a record, or lacks a field without a default.
    """
    if not isinstance(record, dict):
        raise TypeError(f"it is {record!r}, which must be an object")
    missing = [field for field in fields(settings) if field.name not in record]
    needed = [f.name for f in missing if f.default is MISSING and f.default_factory is MISSING]
    if needed:
        raise TypeError(f"it lacks {', '.join(needed)}")
    if not missing:
        return record
    # Made anew, because a default may stand for a value that follows from the other settings.
    known = {field.name: record[field.name] for field in fields(settings) if field not in missing}
    return record | {field.name: getattr(settings(**known), field.name) for field in missing}


def _drop_unfinished_line(path: Path) -> None:
    """Remove a last line without an end: its writer was interrupted."""
    if path.exists():
        with open(path, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _key(record: dict, settings: type) -> tuple:
    """Return what identifies a run: its settings."""
    values = (record[field.name] for field in fields(settings))
    return tuple(tuple(v) if isinstance(v, list) else v for v in values)  # JSON has no tuples


def select(records: Sequence[dict], **settings) -> list[dict]:
    """Return the records that have these settings, ordered by seed."""
    chosen = [r for r in records if all(r[name] == value for name, value in settings.items())]
    return sorted(chosen, key=lambda record: record["seed"])


def learning_rate_curve(records: Sequence[dict], metric: str) -> dict[float, list[float]]:
    """Return the metric of every seed by learning rate, both in rising order.

    Raises:
        ValueError: there are no records, or not every rate was run with the same seeds, which
            would compare rates by luck.
    """
    rates = sorted({record["learning_rate"] for record in records})
    by_rate = {rate: select(records, learning_rate=rate) for rate in rates}
    seeds = {rate: [record["seed"] for record in found] for rate, found in by_rate.items()}
    if not rates or any(found != seeds[rates[0]] for found in seeds.values()):
        raise ValueError(f"the seeds by learning rate are {seeds}; they must be the same for each")
    return {rate: [record[metric] for record in found] for rate, found in by_rate.items()}


def choose_learning_rate(records: Sequence[dict], metric: str = "validation_loss") -> float:
    """Return the rate with the lowest mean of a metric, by default the validation loss.

    Args:
        records: runs of one method at one rank, with the same seeds at every rate. A run that
            ended in NaN counts as infinitely bad.
        metric: what to choose by; never one of the test part.

    Raises:
        ValueError: as in `learning_rate_curve`, or no rate gave a finite loss.
    """
    means = {
        rate: statistics.fmean(math.inf if math.isnan(loss) else loss for loss in losses)
        for rate, losses in learning_rate_curve(records, metric).items()
    }
    best = min(means, key=means.get)
    if math.isinf(means[best]):
        raise ValueError(f"every learning rate diverged: {sorted(means)}; try lower ones")
    return best


def of_the_search(records: Sequence[dict]) -> list[dict]:
    """Return the runs of those seeds that every learning rate was tried with: they may choose.

    Raises:
        ValueError: no seed was tried with every rate.
    """
    seeds = {
        rate: {record["seed"] for record in select(records, learning_rate=rate)}
        for rate in {record["learning_rate"] for record in records}
    }
    common = set.intersection(*seeds.values()) if seeds else set()
    if not common:
        raise ValueError(
            f"the seeds by learning rate are {seeds}; none of them was tried at every rate"
        )
    return [record for record in records if record["seed"] in common]


def reported(records: Sequence[dict]) -> list[dict]:
    """Return the runs to report, by seed: at the chosen rate, with seeds that did not choose it.

    Args:
        records: runs of one method at one rank. The seeds that every rate was tried with choose
            the rate; those that only that rate was trained with are reported.

    Raises:
        ValueError: as in `choose_learning_rate`, or every seed took part in the choice.
    """
    search = of_the_search(records)
    chose = {record["seed"] for record in search}
    found = select(records, learning_rate=choose_learning_rate(search))
    reported = [record for record in found if record["seed"] not in chose]
    if not reported:
        raise ValueError(f"the seeds {sorted(chose)} chose the rate; train others to report")
    return reported


@dataclass(frozen=True)
class PairedDifference:
    """How much another method's loss differs from a baseline's: below zero, the other is lower.

    Attributes:
        baseline, other: names of the methods.
        mean: of the differences, `other - baseline`, over the seeds.
        low, high: ends of the confidence interval of the mean.
        relative: `mean` as a share of the baseline's mean; NaN if that is zero.
        seeds: how many pairs.
        confidence: of the interval.
        windows: how many windows of text the interval is over, besides the seeds; 0 if the text is
            taken as it is.
    """

    baseline: str
    other: str
    mean: float
    low: float
    high: float
    relative: float
    seeds: int
    confidence: float
    windows: int = 0

    def __str__(self) -> str:
        """Say in two lines what was found and what follows, and no more than that."""
        other, baseline = NAMES[self.other], NAMES[self.baseline]
        over = f"{self.seeds} paired seeds"
        if self.windows:
            over += f", {self.windows} windows"
        found = (
            f"{other} minus {baseline}: {self.mean:+.4f} ({100 * self.confidence:g}% interval "
            f"{self.low:+.4f} to {self.high:+.4f}, {over})."
        )
        if self.low <= 0 <= self.high:
            return (
                f"{found}\nThe interval contains zero: these runs do not show which of the two "
                "ends lower."
            )
        lower, higher = (other, baseline) if self.mean < 0 else (baseline, other)
        return (
            f"{found}\n{lower} ends lower than {higher}, by {abs(self.relative):.1%}, on this task "
            "with these settings."
        )


def paired_difference(
    baseline: Sequence[dict],
    other: Sequence[dict],
    metric: str = "test_loss",
    confidence: float = 0.95,
    *,
    over_text: bool = False,
) -> PairedDifference:
    """Compare two methods seed by seed, with Student's t interval of the mean difference.

    The seeds' own luck (their batches, their `lora_A`) is the same on both sides and drops out
    of the difference. How much narrower that makes the interval depends on how far the two losses
    of a seed rise and fall together.

    Args:
        baseline, other: runs of one method each, the same seeds in both.
        metric: what to compare, such as `"test_loss"` or `"validation_loss"`.
        confidence: of the interval, between 0 and 1.
        over_text: take the windows of the test text as a sample, too, so that the interval says how
            far another text *like this one* might move the mean. Its variance is then that over
            the seeds plus that over the windows. The runs must have `window_losses`, and `metric`
            is ignored.

    Raises:
        PairingError: the seeds differ, or the runs of a seed started from another base or
            `lora_A`, saw other batches, were made on another device or are of another length:
            their difference would not be the method's.
        ValueError: there are fewer than two pairs, or a loss is NaN.
        KeyError: a run has no such metric.
    """
    seeds = [sorted(record["seed"] for record in records) for records in (baseline, other)]
    if seeds[0] != seeds[1]:
        raise PairingError(f"the seeds are {seeds[0]} and {seeds[1]}; they must be the same")
    if len(seeds[0]) < 2:
        raise ValueError(f"there are {len(seeds[0])} pairs; an interval needs two or more")
    pairs = list(zip(select(baseline), select(other), strict=True))
    for left, right in pairs:
        _check_pair(left, right)
    if over_text:
        losses = torch.tensor([[run["window_losses"] for run in pair] for pair in pairs])
        by_window = (losses[:, 1] - losses[:, 0]).mean(dim=0).tolist()
        pairs = [[{metric: statistics.fmean(run["window_losses"])} for run in p] for p in pairs]
    differences = [right[metric] - left[metric] for left, right in pairs]
    if not all(math.isfinite(difference) for difference in differences):
        raise ValueError(f"the differences are {differences}; a run diverged")
    mean = statistics.fmean(differences)
    baseline_mean = statistics.fmean(left[metric] for left, _ in pairs)
    spread = scipy.stats.sem(differences)
    if over_text:
        spread = math.hypot(spread, scipy.stats.sem(by_window))
    # Equal differences have no spread, and the interval is the point.
    low, high = (
        scipy.stats.t.interval(confidence, len(pairs) - 1, mean, spread) if spread else (mean,) * 2
    )
    return PairedDifference(
        baseline=baseline[0]["adapter_type"],
        other=other[0]["adapter_type"],
        mean=mean,
        low=float(low),
        high=float(high),
        relative=mean / baseline_mean if baseline_mean else math.nan,
        seeds=len(pairs),
        confidence=confidence,
        windows=len(by_window) if over_text else 0,
    )


def _check_pair(left: dict, right: dict) -> None:
    """Raise `PairingError` unless two runs differ in the method alone."""
    pair = left, right
    same = {"device": [record.get("device", "cpu") for record in pair]}  # which round differently
    same |= {what: [record["pairing"][what] for record in pair] for what in ("base", "batches")}
    lora_A = [record["pairing"].get("lora_A") for record in pair]
    if all(lora_A) and left["rank"] == right["rank"]:  # that of another rank is another one
        same["lora_A"] = lora_A
    for what, (one, other) in same.items():
        if one != other:
            raise PairingError(
                f"the runs of seed {left['seed']} ({left['adapter_type']} and "
                f"{right['adapter_type']}) do not have the same {what}, so their difference is "
                "not that of the methods; train both with train_and_evaluate and the same seed"
            )
