"""Checks of lesson 05: `compare_across_ranks` and `track_magnitude_changes`."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lab_utils.checks.diagnosis import (
    nothing_returned,
    only_explanation,
    other_kind,
    returned_kind,
    roundings,
    so_far,
)
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import call_watched, check
from lab_utils.checks.values import apart, describe, differ, is_plain, listed, near, number
from lab_utils.questions.runs import ask_runs
from lab_utils.training import Settings, train_and_evaluate

RANKS = "2. Exercise: compare across ranks"
TRACK = "4. Exercise: track the magnitude"
COMPARED = ("lora", "dora")  # by the exercise
EPOCHS = 1  # of every run of compare_across_ranks, as the exercise says
STEPS_PER_EPOCH = 32  # 256 sequences in batches of 8
CLOSE = 1e-5  # relative: the same run gives the same numbers


def _ranks(name: str, why: str) -> Mistake:
    return Mistake(name, why, RANKS)


METHOD_NAMES = _ranks("other names of the methods", 'The keys are "lora" and "dora".')
OTHER_KEYS = _ranks("more keys than asked for", 'The keys are "lora" and "dora" alone.')
METHOD_MISSING = _ranks("a method missing", 'Train both: the keys are "lora" and "dora".')
FLAT_KEYS = _ranks(
    "one key for method and rank",
    "Nest the dicts: the outer keys are methods, the inner ones ranks.",
)
RANK_FIRST = _ranks(
    "ranks outside, methods inside", 'The outer keys are "lora" and "dora", the inner ones ranks.'
)
METHODS_LEFT_OUT = _ranks(
    "methods left out", 'The outer keys are "lora" and "dora", each with a dict by rank.'
)
RANKS_AS_TEXT = _ranks("ranks as text", "The keys are the ranks themselves, whole numbers.")
LISTS = _ranks("lists in place of dicts", "Each method has a dict from each rank to its loss.")
RANKS_LEFT_OUT = _ranks("ranks left out", "Train at every rank; return comes after the loops.")
OWN_RANKS = _ranks("other ranks than those given", "Go through the argument ranks.")
OTHER_ORDER = _ranks("another order", "Keep the ranks in the order in which they were given.")
WHOLE_RECORD = _ranks("the whole result kept", 'Of each result only the key "test_loss" is wanted.')
NO_FLOATS = _ranks("losses that are not floats", 'The value of "test_loss" is a float: keep it.')
RANK_LOST = _ranks("rank not passed on", "No run has the rank of its key: pass rank=rank to each.")
ONE_RANK = _ranks("one run for all ranks", "Train once for each rank, and keep each loss.")
TOGETHER = _ranks(
    "losses of several ranks together",
    "Each rank has the loss of its own run: not the best, first or last of several, nor their sum "
    "or mean.",
)
SWAPPED = _ranks("methods swapped", 'The runs of "dora" stand under "lora".')
SAME_METHOD = _ranks(
    "one method twice",
    "Pass the method of the row to train_and_evaluate, and give each method its own dict.",
)
OTHER_AXIS = _ranks("norm_dim=0", 'The method is "dora", not "dora-input".')
TRAINING_LOSS = _ranks("training loss", 'Compare what the model has not seen: the key "test_loss".')
VALIDATION_LOSS = _ranks(
    "validation loss",
    'That part is there to choose learning rates by; report the key "test_loss".',
)
EXPONENTIAL = _ranks("exponential of the loss", "Return the loss itself.")
OTHER_NUMBER = _ranks("a number made of the loss", "Return the loss itself.")
BEFORE_TRAINING = _ranks("loss before training", 'Report what training led to: "test_loss".')
OTHER_EPOCHS = _ranks("another number of epochs", "Train for one epoch: n_epochs=1.")
OTHER_SEED = _ranks("another seed", "Every run has seed=0.")
OTHER_ALPHA = _ranks("another alpha", "Leave alpha out: it is then twice the rank.")
ANOTHER_RANK = _ranks("another rank", "Each run has the rank of its key: rank=rank.")
OTHER_SETTING = _ranks(
    "a setting that was not asked for",
    'A run has a method, n_epochs=1, a rank, task="regression" and seed=0: leave the rest out.',
)
MISPLACED = _ranks(
    "losses under other ranks", "The losses are right, but each stands under another rank's key."
)
OTHER_KEY = _ranks("another number of the result", 'Of each result the key "test_loss" is wanted.')
DIFFERENCES = _ranks(
    "a difference of the methods", "Return each method's own loss; compare them in your plot."
)
RANKS_ROUNDED = _ranks("rounded", "Return the losses themselves; round what you print.")


def _track(name: str, why: str) -> Mistake:
    return Mistake(name, why, TRACK)


NO_DICT = _track("no dict", "Return a dict with the keys history, mean_change and relative_change.")
KEY_MISSING = _track("a key missing", "The keys are history, mean_change and relative_change.")
NO_TENSOR = _track("no tensor", "torch.stack makes a tensor of a list of tensors.")
ATTACHED = _track("with gradient", "Keep copies without gradient: .detach().clone().")
PRECISION_LOST = _track("precision lost", "Keep the numbers in float32, as they are.")
ALIASED = _track(
    "no copy",
    "A parameter changes in place: without .clone() every row is the last one.",
)
ROW_TWICE = _track("a row twice", "on_step is called once at each step, before training too.")
EARLIER_ROWS = _track(
    "rows of an earlier call",
    "Begin with an empty list inside the function: a list outside it keeps the rows of every call.",
)
ROWS_LEFT_OUT = _track("rows left out", "Keep a row at every call of on_step.")
COLUMNS_LEFT_OUT = _track("magnitudes left out", "A layer has 32 of them: keep all.")
START_MISSING = _track(
    "start left out", "on_step is called with step 0 before training: keep that row too."
)
END_MISSING = _track("end left out", "Keep the row of the last call of on_step, too.")
EACH_EPOCH = _track("one row an epoch", "Keep a row at every call of on_step.")
EPOCHS_LOST = _track("n_epochs not passed on", "Pass n_epochs=n_epochs to train_and_evaluate.")
OTHER_LAYER = _track("another layer", "Track model.q_proj.magnitude.")
NEVER_TRAINED = _track(
    "the norm of the base", "base_norm never changes: track the parameter, model.q_proj.magnitude."
)
NOT_FLAT = _track("magnitude not flat", "A magnitude has the shape (32, 1): use .flatten().")
TRANSPOSED = _track("transposed", "A row of the history is a step, a column a magnitude.")
CHANGES_KEPT = _track("changes in place of magnitudes", "history holds m itself, not m - m0.")
MEANS_KEPT = _track("means in place of magnitudes", "history holds all 32 magnitudes.")
PER_INPUT = _track("norm_dim=0", 'The method is "dora", not "dora-input".')
NORM_OF_V = _track(
    "the norm of V", "V = W0 + scaling * B A is divided by its norm; the magnitude is m itself."
)
OTHER_START = _track("compared with another row", "m0 is the first row, before training.")
END_ALONE = _track("the end alone", "mean_change has one number for every call of on_step.")
OTHER_RANK = _track("another rank", "Train at rank 8, which is the default.")
ANOTHER_SEED = _track("another seed", "Train with seed 0, which is the default.")
ANOTHER_METHOD = _track("another method", 'The method is "dora": train_and_evaluate("dora", ...).')
ANOTHER_SETTING = _track(
    "a setting that was not asked for",
    'A run has rank 8, task="regression", seed 0 and n_epochs as given: leave the rest out.',
)
ROWS_MOVED = _track("rows in another order", "Keep the rows as on_step is called, from the start.")
COLUMNS_MOVED = _track("magnitudes in another order", "Keep the magnitudes as the layer has them.")
LARGEST_COMPARED = _track(
    "largest in place of norms", "Divide the norm of the change by the norm of the first row."
)
WAY = _track(
    "length of the path",
    "Take the distance from the first row to the last, not the length of the path between them.",
)
NEGATIVE = _track("sign", "relative_change is a ratio of two norms: not below zero.")
SIGNED = _track("signed changes", "Magnitudes that grew and that shrank cancel out: abs() first.")
NOT_A_CHANGE = _track("the start not subtracted", "Subtract m0, the first row, from every row.")
FROM_PREVIOUS = _track("change since the last step", "Compare each row with the first.")
SUMMED = _track("sum instead of mean", "Average over the magnitudes.")
ROOT_MEAN_SQUARE = _track("root mean square", "Take the mean of |m - m0|, without squares.")
SQUARED = _track("squared changes", "Take the mean of |m - m0|, without squares.")
NORM_OF_CHANGE = _track("norm instead of mean", "mean_change is a mean over the magnitudes.")
LARGEST = _track("largest instead of mean", "mean_change is a mean over the magnitudes.")
MEDIAN = _track("median instead of mean", "mean_change is a mean over the magnitudes.")
DEVIATION = _track("standard deviation instead of mean", "Take the mean of |m - m0|.")
OVER_STEPS = _track(
    "mean over the steps", "Average over the magnitudes, dim=1: one number for every call."
)
NOT_AVERAGED = _track("no mean", "Average over the magnitudes: one number for every call.")
SO_FAR = _track(
    "made of all steps so far", "Each number is of one row alone: no sum, mean, least or largest."
)
MADE_RELATIVE = _track("relative changes", "mean_change is the mean of |m - m0|: do not divide it.")
RELATIVE_TO_END = _track("divided by the end", "Divide by the norm of the first row.")
NOT_RELATIVE = _track("not divided", "Divide by the norm of the first row.")
NORMS_COMPARED = _track(
    "difference of the norms", "Take the norm of the difference of the last and first row."
)
MEANS_COMPARED = _track(
    "means in place of norms", "Divide the norm of the change by the norm of the first row."
)
ENTRY_BY_ENTRY = _track(
    "ratios of single magnitudes", "Divide one norm by one norm, not magnitude by magnitude."
)
PER_CENT = _track("in per cent", "Return the share itself; multiply what you print.")
FIRST_STEP = _track("change of the first step", "Compare the last row with the first.")
NOT_THE_END = _track(
    "other steps than the end",
    "m_end is the last row: not where the change was largest, and not a mean over steps.",
)
OTHER_HISTORY = _track(
    "statistics of another history",
    "They follow from your history, which is not right yet: correct that first.",
)
TRACK_ROUNDED = _track("rounded", "Return the numbers themselves; round what you print.")


@check(forbids=(), seeded=True, needs=["optimizers"])
def check_compare_across_ranks(
    compare_across_ranks: Callable,
    aspect: str | None = None,
    *,
    ranks: Sequence[int] = (16, 4),
    seed: int = 0,
) -> None:
    """Check a `compare_across_ranks(ranks) -> {"lora": {rank: loss}, "dora": {rank: loss}}`.

    Args:
        aspect: `"keys"` or `"losses"`; both if None.
        ranks: what to ask for, besides 8, which is the default of a run.
        seed: of one more rank that is asked for, last. Where it can, it lies between two others, so
            that the ranks neither rise nor fall.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    low, high = (min(ranks), max(ranks)) if len(ranks) > 1 else (1, 16)
    others = [rank for rank in range(low + 1, high) if rank not in (8, *ranks)]
    drawn = torch.randint(len(others), (), generator=torch.Generator().manual_seed(seed))
    ranks = (*ranks, others[int(drawn)])
    for name in chosen(aspect, ("keys", "losses")):
        with Report(f"compare_across_ranks · {name} · ranks {ranks}") as report:
            answer = call_watched(ask_runs, compare_across_ranks, ranks)
            found, runs = answer["result"], answer["runs"]
            if not report.expect(
                isinstance(found, dict),
                "it returns a dict",
                f"compare_across_ranks must return a dict; found {describe(found)}.",
                LISTS if isinstance(found, list | tuple) else returned_kind(found, "a dict", RANKS),
            ):
                continue
            if name == "keys":
                _check_keys(report, found, ranks)
            else:
                _check_losses(report, found, ranks, runs)


def _setting_at_fault(
    runs: list[dict], wanted: list[Settings], mistakes: dict[str, Mistake]
) -> Mistake | None:
    """Return what is wrong with the runs that were made, where one that is wanted was not.

    Args:
        mistakes: the mistake of another value, by the field of `Settings`; the first counts.
            `"dora-input"` is the mistake of that method, and `""` that of any other field.
    """

    def full(settings: dict[str, Any]) -> dict[str, Any]:
        usual = settings["alpha"] in (None, 2.0 * (settings["rank"] or 0))
        return settings | {
            "alpha": not usual and settings["alpha"],
            "targets": settings["targets"] or "attention",
        }

    made = [full(run["settings"]) for run in runs]
    for settings in wanted:
        want = full(asdict(settings))
        if want in made or not made:
            continue
        fields = min(
            ({key for key in want if run[key] != want[key]} for run in made),
            key=lambda d: (len(d), "adapter_type" in d, "rank" in d),
        )
        if "adapter_type" in fields and any(r["adapter_type"] == "dora-input" for r in made):
            return mistakes["dora-input"]
        return mistakes[next((key for key in mistakes if key in fields), "")]
    return None


def _check_keys(report: Report, found: dict, ranks: Sequence[int]) -> None:
    if not _expect_methods(report, found, set(found) == set(COMPARED)):
        return
    for method in COMPARED:
        losses = found[method]
        if not _expect_dict(report, method, losses):
            continue
        report.expect(
            list(losses) == list(ranks),
            f"{method}: a loss for each rank",
            f"{method}: expected the keys {list(ranks)}, in this order, found {_keys(losses)}.",
            _wrong_ranks(list(losses), list(ranks)),
        )
        odd = [value for value in losses.values() if not _finite(value)]
        report.expect(
            bool(losses) and not odd,
            f"{method}: the losses are finite floats",
            f"{method}: expected finite floats, found {describe(odd[0]) if odd else 'none'}.",
            _wrong_loss(odd[0]) if odd else None,
        )


def _expect_methods(report: Report, found: dict, right: bool) -> bool:
    names = [key.lower() for key in found if isinstance(key, str)]
    mistake = None
    if sorted(names) == sorted(COMPARED) and len(found) == 2:
        mistake = METHOD_NAMES
    elif found and all(_is_rank(key) for key in found):
        nested = all(isinstance(value, dict) for value in found.values())
        mistake = RANK_FIRST if nested else METHODS_LEFT_OUT
    elif set(found) > set(COMPARED):
        mistake = OTHER_KEYS
    elif found and set(found) < set(COMPARED):
        mistake = METHOD_MISSING
    elif found and all(_holds_both(key) for key in found):
        mistake = FLAT_KEYS
    return report.expect(
        right,
        'the keys are "lora" and "dora"',
        f"expected the keys 'lora' and 'dora', found {_keys(found)}.",
        mistake,
    )


def _holds_both(key: Any) -> bool:
    """Return whether a key names a method and something else."""
    parts = [key] if isinstance(key, str) else key if isinstance(key, tuple) else []
    return any(isinstance(p, str) and p.lower().startswith(COMPARED) for p in parts)


def _expect_dict(report: Report, method: str, losses: Any) -> bool:
    sequence = hasattr(losses, "__len__") and not isinstance(losses, str | dict)
    return report.expect(
        isinstance(losses, dict),
        f"{method}: a dict from rank to loss",
        f"{method}: expected a dict from each rank to its loss, found {describe(losses)}.",
        LISTS if sequence else nothing_returned(losses, RANKS),
    )


def _wrong_loss(value: Any) -> Mistake | None:
    if isinstance(value, dict):
        return WHOLE_RECORD
    return NO_FLOATS if isinstance(value, Tensor | str) else other_kind(value, "a number", RANKS)


def _is_rank(key: Any) -> bool:
    return number(key) is not None or (isinstance(key, str) and key.isdigit())


def _as_number(key: Any) -> Any:
    """Return the only whole number that stands in a text; anything else as it is."""
    numbers = re.findall(r"\d+", key) if isinstance(key, str) else []
    return int(numbers[0]) if len(numbers) == 1 else key


def _finite(value: Any) -> bool:
    found = number(value)
    return found is not None and not isinstance(value, int) and math.isfinite(found)


def _keys(found: dict) -> str:
    keys = [repr(k) if isinstance(k, str | int | float | bool) else describe(k) for k in found]
    return f"[{listed(keys, 6)}]"


def _wrong_ranks(keys: list, ranks: list[int]) -> Mistake | None:
    if [*map(_as_number, keys)] == ranks:
        return RANKS_AS_TEXT
    if not all(isinstance(key, int) for key in keys):
        return None
    if set(keys) < set(ranks):
        return RANKS_LEFT_OUT
    return OTHER_ORDER if sorted(keys) == sorted(ranks) else OWN_RANKS


def _check_losses(report: Report, found: dict, ranks: Sequence[int], runs: list[dict]) -> None:
    losses = _expect_losses(report, found, ranks)
    if losses is None:
        return
    expected = {method: [_run(method, rank)["test_loss"] for rank in ranks] for method in COMPARED}
    mistake = None
    if not near(losses, expected, CLOSE):
        mistake = _why_other_losses(losses, expected, ranks, runs)
    for method in COMPARED:
        wrong = [
            f"at rank {rank} {apart(right, loss)}"
            for rank, right, loss in zip(ranks, expected[method], losses[method], strict=True)
            if not near(loss, right, CLOSE)
        ]
        report.expect(
            not wrong,
            f"{method}: test loss at each rank",
            f"{method}: test loss of a run with n_epochs=1, task='regression', seed=0 and nothing "
            f"else: {'; '.join(wrong)}.",
            mistake,
        )


def _expect_losses(
    report: Report, found: dict, ranks: Sequence[int]
) -> dict[str, list[float]] | None:
    """Return the losses of each method in the order of the ranks; None if there is not one each."""
    if not _expect_methods(report, found, set(found) >= set(COMPARED)):
        return None
    losses: dict[str, list[float]] = {}
    for method in COMPARED:
        of_method = found[method]
        if not _expect_dict(report, method, of_method):
            return None
        missing = [rank for rank in ranks if rank not in of_method]
        values = [_loss(of_method.get(rank)) for rank in ranks]
        there = [of_method[rank] for rank in ranks if rank in of_method]
        odd = next((value for value in there if _loss(value) is None), None)
        if not report.expect(
            not missing,
            f"{method}: a loss for each rank",
            f"{method}: expected a loss for each of the ranks {list(ranks)}, found the keys "
            f"{_keys(of_method)}.",
            _wrong_ranks(list(of_method), list(ranks)),
        ) or not report.expect(
            None not in values,
            f"{method}: the losses are numbers",
            f"{method}: expected numbers, found {describe(odd)}.",
            _wrong_loss(odd),
        ):
            return None
        losses[method] = values
    return losses


def _why_other_losses(
    losses: dict[str, list[float]],
    expected: dict[str, list[float]],
    ranks: Sequence[int],
    runs: list[dict],
) -> Mistake | None:
    """Return the mistake that explains the losses, judging by them and by the runs made."""
    wanted = [
        Settings(adapter_type=method, n_epochs=EPOCHS, rank=rank, task="regression")
        for method in COMPARED
        for rank in ranks
    ]
    every_rank = {run["settings"]["rank"] for run in runs} >= set(ranks)
    # Which runs were made is observed; what was made of them shows only in the numbers.
    mistake = _setting_at_fault(runs, wanted, RUNS_OF_RANKS)
    if mistake in (None, RANK_LOST, SAME_METHOD):
        wrong = [*_wrong_losses(ranks, every_rank), *roundings(expected, RANKS_ROUNDED)]
        mistake = only_explanation(losses, wrong, _same_losses) or mistake
    if mistake is RANK_LOST and len({run["settings"]["rank"] for run in runs}) > 1:
        mistake = ANOTHER_RANK
    mistake = mistake or _kept_run(losses, expected, wanted, runs)
    mistake = mistake or _another_key(losses, ranks, runs)
    if mistake:
        return mistake
    exchanged = {"lora": losses["dora"], "dora": losses["lora"]}
    if only_explanation(exchanged, _wrong_losses(ranks, every_rank), _same_losses) or _another_key(
        exchanged, ranks, runs
    ):
        return SWAPPED
    return OTHER_SEED if any(run["settings"]["seed"] != 0 for run in runs) else None


def _loss(value: Any) -> float | None:
    """Return a loss, also from a tensor: its type is checked elsewhere. A text is not a loss."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        return float(value.detach())
    return number(value)


def _same_losses(found: dict, predicted: dict) -> bool:
    return near(found, predicted, CLOSE)


def _wrong_losses(
    ranks: Sequence[int], every_rank: bool
) -> Iterator[tuple[Mistake, dict[str, list[float]]]]:
    """Yield what is found after each known mistake.

    Args:
        every_rank: whether runs of every rank were made.
    """

    def table(loss: Callable[[str, int], float]) -> dict[str, list[float]]:
        return {method: [loss(method, rank) for rank in ranks] for method in COMPARED}

    def test_loss(method: str, rank: int, **settings: Any) -> float:
        return _run(method, rank, **settings)["test_loss"]

    yield SWAPPED, table(lambda m, rank: test_loss("dora" if m == "lora" else "lora", rank))
    for method in COMPARED:
        yield SAME_METHOD, table(lambda m, rank, method=method: test_loss(method, rank))
    for key, mistake in (
        ("final_train_loss", TRAINING_LOSS),
        ("validation_loss", VALIDATION_LOSS),
    ):
        yield mistake, table(lambda m, rank, key=key: _run(m, rank)[key])
    for pick in (min, max, lambda losses: losses[-1]):
        yield TRAINING_LOSS, table(lambda m, rank, pick=pick: pick(_run(m, rank)["step_losses"]))
    for change in (math.exp, math.sqrt, math.log, lambda loss: -loss):
        changed = table(lambda m, rank, change=change: change(test_loss(m, rank)))
        yield EXPONENTIAL if change is math.exp else OTHER_NUMBER, changed
    for key in ("validation_losses", "step_losses"):
        yield BEFORE_TRAINING, table(lambda m, rank, key=key: _run(m, rank)[key][0])
    yield RANK_LOST, table(lambda m, rank: test_loss(m, 8))
    right = table(test_loss)
    orders = (sorted(ranks), sorted(ranks, reverse=True), [*ranks[1:], ranks[0]], ranks[::-1])
    for order in map(tuple, orders):
        if order != tuple(ranks):
            yield MISPLACED, {m: [right[m][ranks.index(r)] for r in order] for m in COMPARED}
    gains = [a - b for a, b in zip(right["lora"], right["dora"], strict=True)]
    shares = [gain / a for gain, a in zip(gains, right["lora"], strict=True)]
    for made in (gains, shares, [100 * share for share in shares]):
        for sign in (1, -1):
            signed = [sign * value for value in made]
            yield DIFFERENCES, {"lora": right["lora"], "dora": signed}
            yield DIFFERENCES, {"lora": signed, "dora": signed}
    for rank in dict.fromkeys((ranks[0], ranks[-1])):
        one = table(lambda m, _, rank=rank: test_loss(m, rank))
        yield TOGETHER if every_rank else ONE_RANK, one
    if every_rank:
        for lora, dora in zip(*(so_far(right[method]) for method in COMPARED), strict=True):
            yield TOGETHER, {"lora": lora, "dora": dora}
            yield (
                TOGETHER,
                {m: row[-1:] * len(ranks) for m, row in (("lora", lora), ("dora", dora))},
            )


RUNS_OF_RANKS = {
    "task": OTHER_SETTING,
    "n_epochs": OTHER_EPOCHS,
    "seed": OTHER_SEED,
    "rank": RANK_LOST,
    "alpha": OTHER_ALPHA,
    "dora-input": OTHER_AXIS,
    "": OTHER_SETTING,
    "adapter_type": SAME_METHOD,
}


def _kept_run(
    found: dict[str, list[float]],
    expected: dict[str, list[float]],
    wanted: list[Settings],
    runs: list[dict],
) -> Mistake | None:
    """Return how a run differs whose loss was kept in place of that of a right run."""
    losses, right = ([x for m in COMPARED for x in table[m]] for table in (found, expected))
    for loss, expected_loss, settings in zip(losses, right, wanted, strict=True):
        kept = [run for run in runs if near(loss, run["numbers"].get("test_loss", math.nan), CLOSE)]
        if kept and not near(loss, expected_loss, CLOSE):
            return _setting_at_fault(kept, [settings], RUNS_OF_RANKS)
    return None


def _another_key(
    found: dict[str, list[float]], ranks: Sequence[int], runs: list[dict]
) -> Mistake | None:
    """Return whether every loss is another number in the result of its run, unchanged."""
    numbers = {(r["settings"]["adapter_type"], r["settings"]["rank"]): r["numbers"] for r in runs}
    cases = [
        (numbers.get((method, rank), {}), loss)
        for method in COMPARED
        for rank, loss in zip(ranks, found[method], strict=True)
    ]
    keys = {key for of_run, _ in cases for key in of_run}
    same = any(all(near(loss, of_run.get(k, math.nan)) for of_run, loss in cases) for k in keys)
    return OTHER_KEY if same else None


@cache
def _run(method: str, rank: int, n_epochs: int = EPOCHS, seed: int = 0, **settings: Any) -> dict:
    return train_and_evaluate(
        method, n_epochs, rank, verbose=False, task="regression", seed=seed, **settings
    )


@check(forbids=(), seeded=True, needs=["optimizers"])
def check_track_magnitude_changes(
    track_magnitude_changes: Callable,
    aspect: str | None = None,
    *,
    n_epochs: int = 2,
    seed: int = 0,
) -> None:
    """Check a `track_magnitude_changes(n_epochs) -> dict`.

    The dict has `history`, a tensor `(32 * n_epochs + 1, 32)`; `mean_change`, a tensor
    `(32 * n_epochs + 1,)`; and `relative_change`, a float.

    Args:
        aspect: `"history"` or `"statistics"`; both if None.
        n_epochs: what to ask for.
        seed: of another number of epochs, asked for once the first is right. In training, changes
            grow to the end; here they are made up, and turn back before it.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    others = [epochs for epochs in range(1, 5) if epochs != n_epochs]
    drawn = torch.randint(len(others), (), generator=torch.Generator().manual_seed(seed))
    for name in chosen(aspect, ("history", "statistics")):
        with Report(f"track_magnitude_changes · {name} · {n_epochs} epochs") as report:
            _check_tracked(report, track_magnitude_changes, name, n_epochs)
            if report.first_problem is None:
                other = others[int(drawn)]
                made_up = _turning_back(other, seed)
                _check_tracked(report, track_magnitude_changes, name, other, made_up)


def _check_tracked(
    report: Report,
    track_magnitude_changes: Callable,
    name: str,
    n_epochs: int,
    made_up: Tensor | None = None,
) -> None:
    """Ask for some epochs.

    Args:
        made_up: a history that steps of training take on, in place of what they would lead to.
    """
    steps = None if made_up is None else made_up[1:]
    answer = call_watched(ask_runs, track_magnitude_changes, n_epochs, told=[steps])
    found, runs = answer["result"], answer["runs"]
    if not report.expect(
        isinstance(found, dict),
        "it returns a dict",
        f"track_magnitude_changes must return a dict; found {describe(found)}.",
        nothing_returned(found, TRACK) or NO_DICT,
    ):
        return
    if any(run["played"] for run in runs):
        expected, label = made_up, "with magnitudes that turn back before the end, "
    else:  # also where somebody's own loop trains
        expected, label = _histories(n_epochs)["q_proj"], ""
    if name == "history":
        _check_history(report, found, expected, n_epochs, runs, label)
    else:
        _check_statistics(report, found, expected, _wrong_run(runs, n_epochs), label)


RUN_TRACKED = {
    "task": ANOTHER_SETTING,
    "n_epochs": EPOCHS_LOST,
    "seed": ANOTHER_SEED,
    "rank": OTHER_RANK,
    "dora-input": PER_INPUT,
    "": ANOTHER_SETTING,
    "adapter_type": ANOTHER_METHOD,
}


def _wrong_run(runs: list[dict], n_epochs: int) -> Mistake | None:
    """Return what is wrong with the run that was made, if anything."""
    wanted = Settings(adapter_type="dora", n_epochs=n_epochs, task="regression")
    return _setting_at_fault(runs, [wanted], RUN_TRACKED)


def _check_history(
    report: Report, found: dict, expected: Tensor, n_epochs: int, runs: list[dict], label: str
) -> None:
    history = _tensor(report, found, "history")
    if history is None:
        return
    if near(history, expected, CLOSE):
        report.expect(True, "history: a row at every step", "")
        return
    mistake = _wrong_run(runs, n_epochs) or only_explanation(
        history,
        [*_wrong_histories(expected, n_epochs), *roundings(expected, TRACK_ROUNDED)],
        lambda a, b: near(a, b, CLOSE),
    )
    if mistake is None and history.dim() == 2 and history.shape[1] == expected.shape[1]:
        steps = len(history) - 1
        if steps >= len(expected) and near(history[-len(expected) :], expected, CLOSE):
            mistake = EARLIER_ROWS
        elif steps % STEPS_PER_EPOCH == 0 and steps > 0 and steps != len(expected) - 1:
            mistake = EPOCHS_LOST
        elif history.shape == expected.shape:
            narrow = history.dtype in (torch.float16, torch.bfloat16)
            mistake = PRECISION_LOST if narrow and near(history, expected, 0.01) else None
    problem = f"{label}history: {differ(history, expected)}."
    report.expect(False, "history: a row at every step", problem, mistake)


def _wrong_histories(expected: Tensor, n_epochs: int) -> Iterator[tuple[Mistake, Tensor]]:
    yield NEVER_TRAINED, expected[:1].expand_as(expected)
    yield START_MISSING, expected[1:]
    yield END_MISSING, expected[:-1]
    for first in (0, STEPS_PER_EPOCH, STEPS_PER_EPOCH - 1, 1):
        yield EACH_EPOCH, expected[first::STEPS_PER_EPOCH]
    for name, other in _histories(n_epochs).items():
        yield ALIASED, other[-1:].expand_as(other)
        if name != "q_proj":
            yield NORM_OF_V if name == "norm of V" else OTHER_LAYER, other
    layers = [history for name, history in _histories(n_epochs).items() if name != "norm of V"]
    yield OTHER_LAYER, torch.stack(layers).mean(dim=0)
    for shaped in (expected.unsqueeze(-1), expected.unsqueeze(1), expected.flatten()):
        yield NOT_FLAT, shaped
    yield ROW_TWICE, torch.cat([expected[:1], expected])
    yield ROW_TWICE, torch.cat([expected, expected[-1:]])
    yield ROW_TWICE, expected.repeat_interleave(2, dim=0)
    for every in (2, 3, 4, 5, 8, 10, 16):
        for first in (0, every - 1, every):
            yield ROWS_LEFT_OUT, expected[first::every]
    for some in (expected[:, :16], expected[:, :8], expected[:, 1:], expected[:, :-1]):
        yield COLUMNS_LEFT_OUT, some
    yield TRANSPOSED, expected.T
    yield ROWS_MOVED, expected.flip(0)
    yield ROWS_MOVED, expected.roll(1, 0)
    yield ROWS_MOVED, expected.roll(-1, 0)
    for descending in (False, True):
        yield COLUMNS_MOVED, expected.sort(dim=1, descending=descending).values
    yield COLUMNS_MOVED, expected.flip(1)
    change = expected - expected[0]
    relative = expected / expected[0]
    for changes in (change, change.abs(), change[1:], change.abs()[1:], relative, relative - 1):
        yield CHANGES_KEPT, changes
    for means in (expected.mean(dim=1), expected.mean(dim=1, keepdim=True), expected.norm(dim=1)):
        yield MEANS_KEPT, means


def _wrong_means(history: Tensor) -> Iterator[tuple[Mistake, Tensor]]:
    change = history - history[0]
    size = change.abs()
    steps = (history[1:] - history[:-1]).abs().mean(dim=1)
    yield SIGNED, change.mean(dim=1)
    yield SIGNED, change.mean(dim=1).abs()
    yield FROM_PREVIOUS, steps
    yield FROM_PREVIOUS, torch.cat([torch.zeros(1), steps])
    for row in (1, -1):
        yield OTHER_START, (history - history[row]).abs().mean(dim=1)
    yield OTHER_START, (history - history.mean(dim=0)).abs().mean(dim=1)
    yield NOT_A_CHANGE, history.mean(dim=1)
    yield NOT_A_CHANGE, history.norm(dim=1)
    yield END_ALONE, size[-1].mean()
    yield SUMMED, size.sum(dim=1)
    yield START_MISSING, size.mean(dim=1)[1:]
    yield END_MISSING, size.mean(dim=1)[:-1]
    yield ROOT_MEAN_SQUARE, change.square().mean(dim=1).sqrt()
    yield SQUARED, change.square().mean(dim=1)
    yield NORM_OF_CHANGE, change.norm(dim=1)
    yield LARGEST, size.max(dim=1).values
    yield MEDIAN, size.median(dim=1).values
    yield DEVIATION, change.std(dim=1)
    yield DEVIATION, change.std(dim=1, correction=0)
    yield FROM_PREVIOUS, torch.cat([torch.zeros(1), steps]).cumsum(0)
    for made in so_far(size.mean(dim=1).tolist()):
        yield SO_FAR, torch.tensor(made)
    for last in range(1, len(size) - 1):  # one less than all: START_MISSING
        yield ROWS_LEFT_OUT, size[-last:].mean(dim=1)
    yield OVER_STEPS, size.mean(dim=0)
    yield OVER_STEPS, size.mean()
    yield NOT_AVERAGED, size
    yield NOT_FLAT, size.mean(dim=1, keepdim=True)
    yield MADE_RELATIVE, (size / history[0]).mean(dim=1)
    yield MADE_RELATIVE, size.mean(dim=1) / history[0].mean()
    yield MADE_RELATIVE, change.norm(dim=1) / history[0].norm()


def _wrong_ratios(history: Tensor) -> Iterator[tuple[Mistake, float]]:
    start, end = history[0], history[-1]
    moved, size = (end - start).norm(), (end - start).abs()
    right = moved / start.norm()
    wrong = (
        (NOT_RELATIVE, moved),
        (RELATIVE_TO_END, moved / end.norm()),
        (NORMS_COMPARED, (end.norm() - start.norm()) / start.norm()),
        (NORMS_COMPARED, (end.norm() - start.norm()).abs() / start.norm()),
        (NORMS_COMPARED, end.norm() / start.norm()),
        (MEANS_COMPARED, size.mean() / start.mean()),
        (MEANS_COMPARED, (end - start).mean() / start.mean()),
        (MEANS_COMPARED, (end - start).mean().abs() / start.mean()),
        (MEANS_COMPARED, size.mean() / start.norm()),
        (ENTRY_BY_ENTRY, (size / start).mean()),
        (ENTRY_BY_ENTRY, ((end - start) / start).mean()),
        (ENTRY_BY_ENTRY, ((end - start) / start).norm()),
        (ENTRY_BY_ENTRY, (size / start).max()),
        (PER_CENT, 100 * right),
        (SQUARED, right**2),
        (NEGATIVE, -right),
        (LARGEST_COMPARED, size.max() / start.max()),
        (LARGEST_COMPARED, size.max() / start.norm()),
        (LARGEST_COMPARED, size.max()),
        (WAY, (history[1:] - history[:-1]).norm(dim=1).sum() / start.norm()),
        (WAY, (history[1:] - history[:-1]).norm(dim=1).sum()),
        (OTHER_START, (end - history[1]).norm() / history[1].norm()),
        (OTHER_START, (end - history[1]).norm() / start.norm()),
        (END_MISSING, (history[-2] - start).norm() / start.norm()),
        (ENTRY_BY_ENTRY, ((end - start) / start).square().mean().sqrt()),
        (FIRST_STEP, (history[1] - start).norm() / start.norm()),
        *((NOT_THE_END, change / start.norm()) for change in _of_other_steps(history)),
        (FROM_PREVIOUS, (end - history[-2]).norm() / history[-2].norm()),
        (FROM_PREVIOUS, (end - history[-2]).norm() / start.norm()),
    )
    for mistake, value in wrong:
        yield mistake, value.item()


def _of_other_steps(history: Tensor) -> list[Tensor]:
    """Return sizes of a change that are made of several steps in place of the last."""
    change = history - history[0]
    sizes = change.norm(dim=1)
    last_epoch = slice(-STEPS_PER_EPOCH, None)
    return [
        *(sizes.max(), sizes[::STEPS_PER_EPOCH].max(), change.abs().amax(dim=0).norm()),
        *(sizes.max() - sizes[-1], (history.amax(dim=0) - history.amin(dim=0)).norm()),
        *(sizes.mean(), sizes[1:].mean(), change.mean(dim=0).norm(), sizes.sum()),
        *(sizes.median(), sizes[1:].median()),
        *(sizes[last_epoch].mean(), change[last_epoch].mean(dim=0).norm()),
    ]


def _check_statistics(
    report: Report, found: dict, history: Tensor, wrong_run: Mistake | None, label: str
) -> None:
    own = found.get("history")
    own = own.detach() if is_plain(own) else None
    if own is None or own.dim() != 2 or len(own) < 2 or near(own, history, CLOSE):
        own = None
    mean_change = _tensor(report, found, "mean_change")
    if mean_change is not None:
        expected = (history - history[0]).abs().mean(dim=1)

        def why_other_means() -> Mistake | None:
            mistakes = [*_wrong_means(history), *roundings(expected, TRACK_ROUNDED)]
            if own is not None:
                mistakes = [(OTHER_HISTORY, (own - own[0]).abs().mean(dim=1))]
            known = only_explanation(mean_change, mistakes, lambda a, b: near(a, b, CLOSE))
            return known or wrong_run

        report.expect(
            near(mean_change, expected, CLOSE),
            "mean_change: of |m - m0| at every step",
            f"{label}mean_change: {differ(mean_change, expected)}.",
            why_other_means,
        )
    relative = number(found.get("relative_change"))
    if report.expect(
        relative is not None,
        "relative_change is a float",
        "expected relative_change as a float, found "
        + (describe(found["relative_change"]) if "relative_change" in found else _none_in(found))
        + ".",
        other_kind(found["relative_change"], "a number", TRACK)
        if "relative_change" in found
        else KEY_MISSING,
    ):
        ratio = ((history[-1] - history[0]).norm() / history[0].norm()).item()

        def why_other_ratio() -> Mistake | None:
            mistakes = [*_wrong_ratios(history), *roundings(ratio, TRACK_ROUNDED)]
            if own is not None:
                mistakes = [(OTHER_HISTORY, ((own[-1] - own[0]).norm() / own[0].norm()).item())]
            known = only_explanation(relative, mistakes, lambda a, b: near(a, b, CLOSE))
            return known or wrong_run

        report.expect(
            near(relative, ratio, CLOSE),
            "relative_change: ||m_end - m0|| / ||m0||",
            f"{label}relative_change: {apart(ratio, relative)}.",
            why_other_ratio,
        )


def _tensor(report: Report, found: dict, key: str) -> Tensor | None:
    value = found.get(key)
    right = isinstance(value, Tensor) and not value.requires_grad
    report.expect(
        right,
        f"{key} is a tensor without gradient",
        f"expected {key} as a tensor without gradient, found "
        + (describe(value) if key in found else _none_in(found))
        + ".",
        ATTACHED if isinstance(value, Tensor) else NO_TENSOR if key in found else KEY_MISSING,
    )
    return value.detach() if isinstance(value, Tensor) else None


def _none_in(found: dict) -> str:
    return f"no such key among {_keys(found)}"


@cache
def _turning_back(n_epochs: int, seed: int) -> Tensor:
    """Return a made-up history, `(steps + 1, 32)`, whose largest change is not that of its end."""
    start = _histories(EPOCHS)["q_proj"][0]
    way = torch.linspace(0, 1, STEPS_PER_EPOCH * n_epochs + 1)[:, None]
    luck = torch.rand(2, 1, len(start), generator=torch.Generator().manual_seed(seed)) - 0.5
    return start * (1 + 0.5 * (2.5 * way).sin() * luck[0] + 0.2 * way * luck[1])


@cache
def _histories(n_epochs: int) -> dict[str, Tensor]:
    """Return each layer's magnitude and the norm of q_proj's V at every step, `(steps + 1, 32)`."""
    rows: dict[str, list[Tensor]] = {}

    def record(step: int, model: nn.Module, loss: float) -> None:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            magnitude = model.get_submodule(name).magnitude.detach().flatten().clone()
            rows.setdefault(name, []).append(magnitude)
        layer = model.get_submodule("q_proj")
        v = layer.original_layer.weight + layer.scaling * layer.lora_B @ layer.lora_A
        rows.setdefault("norm of V", []).append(v.detach().norm(dim=1))

    train_and_evaluate(
        "dora", n_epochs, 8, verbose=False, task="regression", seed=0, on_step=record
    )
    return {name: torch.stack(found) for name, found in rows.items()}
