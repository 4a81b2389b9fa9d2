"""Checks of lesson 05: `compare_across_ranks` and `track_magnitude_changes`."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from lab_utils.checks.report import CheckFailed, Mistake, Report, chosen, close
from lab_utils.checks.subject import call_function
from lab_utils.training import train_and_evaluate

RANKS = "2. Exercise: compare across ranks"
TRACK = "4. Exercise: track the magnitude"
EPOCHS = 1  # of every run of compare_across_ranks, as the exercise says
STEPS_PER_EPOCH = 32  # 256 sequences in batches of 8

RANK_LOST = Mistake(
    "rank not passed on", "Every run has rank 8: hand rank=rank to train_and_evaluate.", RANKS
)
SWAPPED = Mistake("methods swapped", 'The runs of "dora" stand under "lora".', RANKS)
SAME_METHOD = Mistake(
    "one method twice", "Hand the method of the row to train_and_evaluate.", RANKS
)
TRAINING_LOSS = Mistake(
    "training loss", 'Compare what the model has not seen: the key "test_loss".', RANKS
)
VALIDATION_LOSS = Mistake(
    "validation loss",
    'That part is there to choose learning rates by; report the key "test_loss".',
    RANKS,
)
OTHER_SETTINGS = Mistake(
    "other settings", "Train for 1 epoch on the regression task, seed 0, all else as it is.", RANKS
)
ALIASED = Mistake(
    "no copy",
    "A parameter changes in place: without .clone() every row is the same tensor at its end.",
    TRACK,
)
START_MISSING = Mistake(
    "start left out", "on_step is called with step 0 before training: keep that row too.", TRACK
)
EACH_EPOCH = Mistake("one row an epoch", "Keep a row at every call of on_step.", TRACK)
OTHER_LAYER = Mistake("another layer", "Track model.q_proj.magnitude.", TRACK)
SIGNED = Mistake(
    "signed changes", "Magnitudes that grew and that shrank cancel out: abs() comes first.", TRACK
)
FROM_PREVIOUS = Mistake("change since the last step", "Compare each row with the first.", TRACK)
SUMMED = Mistake("sum instead of mean", "Average over the magnitudes.", TRACK)
RELATIVE_TO_END = Mistake("divided by the end", "Divide by the norm of the first row.", TRACK)
NOT_RELATIVE = Mistake("not divided", "Divide by the norm of the first row.", TRACK)
NORMS_COMPARED = Mistake(
    "difference of the norms", "Take the norm of the difference of the last and first row.", TRACK
)


def check_compare_across_ranks(
    compare_across_ranks: Callable,
    aspect: str | None = None,
    *,
    ranks: Sequence[int] = (2, 16),
) -> None:
    """Check a `compare_across_ranks(ranks) -> {"lora": {rank: loss}, "dora": {rank: loss}}`.

    Args:
        aspect: `"keys"` or `"losses"`; both if None.
        ranks: what to ask for.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("keys", "losses")):
        with Report(f"compare_across_ranks · {name} · ranks {tuple(ranks)}") as report:
            found = call_function(compare_across_ranks, tuple(ranks), reference=())
            if not isinstance(found, dict):
                raise CheckFailed(
                    f"compare_across_ranks must return a dict; found a {type(found).__name__}."
                )
            if name == "keys":
                _check_keys(report, found, ranks)
            else:
                _check_losses(report, found, ranks)


def _check_keys(report: Report, found: dict, ranks: Sequence[int]) -> None:
    report.expect(
        found.keys() == {"lora", "dora"},
        'the keys are "lora" and "dora"',
        f"expected the keys 'lora' and 'dora', found {list(found)}.",
    )
    for method in ("lora", "dora"):
        losses = found.get(method)
        keys = list(losses) if isinstance(losses, dict) else None
        report.expect(
            keys == list(ranks),
            f"{method}: a loss for each rank",
            f"{method}: expected a dict with the keys {list(ranks)}, in this order, found "
            f"{keys if keys is not None else type(losses).__name__}.",
        )
        numbers = list(losses.values()) if isinstance(losses, dict) else []
        report.expect(
            bool(numbers) and all(isinstance(n, float) and math.isfinite(n) for n in numbers),
            f"{method}: the losses are finite floats",
            f"{method}: expected finite floats, found {numbers!r}.",
        )


def _check_losses(report: Report, found: dict, ranks: Sequence[int]) -> None:
    try:
        losses = {
            method: torch.tensor([float(found[method][rank]) for rank in ranks])
            for method in ("lora", "dora")
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CheckFailed(
            "expected a loss for each method and rank, as found['dora'][16]; "
            f"it raised {type(error).__name__}: {error}."
        ) from error
    for method, other in (("lora", "dora"), ("dora", "lora")):
        runs = {m: [_run(m, rank) for rank in ranks] for m in (method, other)}

        def column(key: str, which: str = method, runs: dict = runs) -> Tensor:
            return torch.tensor([run[key] for run in runs[which]])

        swapped = close(losses[other], column("test_loss"))
        mistakes = [
            (column("test_loss", other), SWAPPED if swapped else SAME_METHOD),
            (column("final_train_loss"), TRAINING_LOSS),
            (column("validation_loss"), VALIDATION_LOSS),
            (torch.full((len(ranks),), _run(method, 8)["test_loss"]), RANK_LOST),
            (losses[method], OTHER_SETTINGS),  # whatever else it is
        ]
        report.expect_close(
            losses[method], column("test_loss"), f"{method}: test loss at each rank", mistakes
        )


@cache
def _run(method: str, rank: int) -> dict:
    return train_and_evaluate(method, EPOCHS, rank, verbose=False, task="regression", seed=0)


def check_track_magnitude_changes(
    track_magnitude_changes: Callable, aspect: str | None = None, *, n_epochs: int = 2
) -> None:
    """Check a `track_magnitude_changes(n_epochs) -> dict`.

    The dict has `history`, a tensor `(32 * n_epochs + 1, 32)`; `mean_change`, a tensor
    `(32 * n_epochs + 1,)`; and `relative_change`, a float.

    Args:
        aspect: `"history"` or `"statistics"`; both if None.
        n_epochs: what to ask for.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    expected = _histories(n_epochs)["q_proj"]
    for name in chosen(aspect, ("history", "statistics")):
        with Report(f"track_magnitude_changes · {name} · {n_epochs} epochs") as report:
            found = call_function(track_magnitude_changes, n_epochs, reference=())
            if not isinstance(found, dict):
                raise CheckFailed(
                    f"track_magnitude_changes must return a dict; found a {type(found).__name__}."
                )
            if name == "history":
                _check_history(report, found, expected, n_epochs)
            else:
                _check_statistics(report, found, expected)


def _check_history(report: Report, found: dict, expected: Tensor, n_epochs: int) -> None:
    history = _tensor(report, found, "history")
    if history is None:
        return
    mistakes = [
        (expected[-1:].expand_as(expected), ALIASED),
        (expected[1:], START_MISSING),
        (expected[:-1], START_MISSING),
        (expected[::STEPS_PER_EPOCH], EACH_EPOCH),
        (expected[STEPS_PER_EPOCH::STEPS_PER_EPOCH], EACH_EPOCH),
        *((other, OTHER_LAYER) for other in _histories(n_epochs).values()),
    ]
    report.expect_close(history, expected, "history: a row at every step", mistakes)


def _check_statistics(report: Report, found: dict, history: Tensor) -> None:
    change = history - history[0]
    mean_change = _tensor(report, found, "mean_change")
    if mean_change is not None:
        steps = (history[1:] - history[:-1]).abs().mean(dim=1)
        mistakes = [
            (change.mean(dim=1), SIGNED),
            (change.mean(dim=1).abs(), SIGNED),
            (steps, FROM_PREVIOUS),
            (torch.cat([torch.zeros(1), steps]), FROM_PREVIOUS),
            (change.abs().sum(dim=1), SUMMED),
            (change.abs().mean(dim=1)[1:], START_MISSING),
        ]
        prop = "mean_change: of |m - m0| at every step"
        report.expect_close(mean_change, change.abs().mean(dim=1), prop, mistakes)
    relative = found.get("relative_change")
    if report.expect(
        isinstance(relative, float),
        "relative_change is a float",
        f"expected relative_change as a float, found {type(relative).__name__}.",
    ):
        moved, start, end = change[-1].norm(), history[0].norm(), history[-1].norm()
        mistakes = [
            (moved, NOT_RELATIVE),
            (moved / end, RELATIVE_TO_END),
            ((end - start) / start, NORMS_COMPARED),
            ((end - start).abs() / start, NORMS_COMPARED),
        ]
        prop = "relative_change: ||m_end - m0|| / ||m0||"
        report.expect_close(torch.tensor(relative), moved / start, prop, mistakes)


def _tensor(report: Report, found: dict, key: str) -> Tensor | None:
    value = found.get(key)
    right = isinstance(value, Tensor) and not value.requires_grad
    report.expect(
        right,
        f"{key} is a tensor without gradient",
        f"expected {key} as a tensor without gradient, found "
        f"{'one with' if isinstance(value, Tensor) else type(value).__name__}.",
    )
    return value.detach() if isinstance(value, Tensor) else None


@cache
def _histories(n_epochs: int) -> dict[str, Tensor]:
    """Return every layer's magnitude at every step, `(steps + 1, 32)`."""
    rows: dict[str, list[Tensor]] = {}

    def record(step: int, model: nn.Module, loss: float) -> None:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            magnitude = model.get_submodule(name).magnitude.detach().flatten().clone()
            rows.setdefault(name, []).append(magnitude)

    train_and_evaluate(
        "dora", n_epochs, 8, verbose=False, task="regression", seed=0, on_step=record
    )
    return {name: torch.stack(found) for name, found in rows.items()}
