"""What dropout drops: each input of the low-rank path by itself, and nothing else."""

import math
from typing import Any

import torch
from torch import Tensor

from lab_utils.checks.layer.asking import (
    as_answered,
    ask_trained,
    expect_base_unchanged,
    is_as_before,
)
from lab_utils.checks.layer.case import Case, apply
from lab_utils.checks.layer.mistakes import (
    CHANGES_BY_ITSELF,
    DROPOUT_IN_EVAL,
    DROPOUT_ON_FROZEN,
    DROPOUT_UNUSED,
    DROPPED_ELSEWHERE,
    DROPPED_TWICE,
    MASK_FIXED,
    MASK_SHARED,
    NOT_RESCALED,
    OTHER_IN_TRAINING,
    P_FIXED,
    P_MIRRORED,
    RESCALED_OTHERWISE,
    TWO_MASKS,
    VECTORS_DROPPED,
    X_CHANGED,
)
from lab_utils.checks.report import CheckFailed, Mistake, Report
from lab_utils.checks.values import close

P = 0.3  # not 0.5, which is its own mirror
SEEDS = tuple(range(6))
ROWS = 24  # inputs with one entry, for each feature


def dropout(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Look at a layer without dropout, then at its start, where B A is zero, and then at B A."""
    plain = _expect_no_dropout(report, layer_type, method, case)
    if plain is None:
        return
    _expect_frozen_path(report, layer_type, method, case)
    _expect_masks(report, layer_type, method, case, plain)


def _expect_no_dropout(report: Report, layer_type: Any, method: str, case: Case) -> Tensor | None:
    """Expect dropout=0.0 to change nothing in training; return the output, or None if it does."""
    without = ask_trained(
        layer_type,
        method,
        case,
        {
            "built": ["base"],
            "evaluation": ["forward", case.x, False, 1],
            "training": ["forward", case.x, True, 1],
            "once more": ["forward", case.x, True, 2],
            "last": ["forward", case.x, False, 1],
            "base": ["base"],
        },
    )
    if not all(torch.equal(p, without["base"][name]) for name, p in without["built"].items()):
        expect_base_unchanged(report, without["base"], case, "forward in training")
    plain, again, other = map(without.output, ("evaluation", "training", "once more"))
    report.expect(
        close(without.output("last"), plain),
        "in evaluation, the same output twice",
        "with dropout=0.0, the output in evaluation is another after two passes in training, with "
        "the same parameters and the same random numbers.",
        CHANGES_BY_ITSELF,
    )
    if report.first_problem is not None:  # so no two outputs can be compared
        return
    nothing = any(close(again, frozen) for frozen in _frozen_ways(method, case, case.x).values())
    same = report.expect(
        close(again, plain),
        "with dropout=0.0, training and evaluation give the same",
        "with dropout=0.0, the output in training differs from that in evaluation"
        f"{': every input is dropped' if nothing else ''}.",
        P_FIXED if not close(again, other) else P_MIRRORED if nothing else OTHER_IN_TRAINING,
    )
    return plain if same else None


def _expect_frozen_path(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Expect no dropout on what the base gives: in a layer at its start nothing else is there."""
    fresh = ask_trained(
        layer_type,
        method,
        case.at_start(),
        {
            "given": ["forward", case.x, True, 3],
            "evaluation": ["forward", case.x, False, 1],
            "training": ["outputs", case.x, SEEDS],
        },
        dropout=P,
    )
    report.expect(
        is_as_before(fresh["given"]["x"], case.x),
        "in training, forward leaves x as it is",
        "in training, the x that was passed in has other values after forward than before.",
        X_CHANGED,
    )
    own = fresh.output("evaluation")
    outputs = [fresh.tensor(output, "forward") for output in fresh["training"]]
    # lora_B is zero here, so whatever dropout does to B A cannot be seen, and what it does
    # to the frozen path can. (PEFT's form of dropout, which lesson 02 explains, passes too.)
    report.expect(
        all(close(output, own) for output in outputs),
        "in training, the frozen path sees every input",
        f"with dropout={P} and lora_B = 0, the output in training differs from that in evaluation.",
        None if all(close(output, outputs[0]) for output in outputs) else DROPOUT_ON_FROZEN,
    )


def _expect_masks(report: Report, layer_type: Any, method: str, case: Case, plain: Tensor) -> None:
    """Look at inputs with one entry: it is dropped, or it is not, with nothing in between.

    Args:
        plain: the output without dropout.
    """
    rows = torch.eye(case.weight.shape[1]).repeat(ROWS, 1) * 1.5
    if len(case.leading) == 2:
        rows = rows[None]
    answers = ask_trained(
        layer_type,
        method,
        case,
        {
            "first": ["forward", case.x, False, 1],
            "second": ["forward", case.x, False, 2],
            "rows": ["forward", rows, False, 0],
            "dropped": ["outputs", rows, SEEDS],
            "whole": ["outputs", case.x, SEEDS],
        },
        dropout=P,
    )
    first, second = answers.output("first"), answers.output("second")
    case = as_answered(layer_type, first, method, case)[0] or case
    report.expect(
        close(first, second),
        "in evaluation, nothing is dropped",
        f"with dropout={P}, two passes after layer.eval() gave different outputs.",
        DROPOUT_IN_EVAL,
    )
    report.expect(
        close(first, plain) or not close(first, second),
        "in evaluation, nothing is rescaled",
        f"with dropout={P}, the output after layer.eval() is not that with dropout=0.0.",
        DROPOUT_IN_EVAL,
    )
    if report.first_problem is not None:
        return
    tensors = [answers.tensor(output, "forward") for output in answers["dropped"]]
    dropped, whole = torch.stack(tensors), answers.output("rows")
    if len(case.leading) == 2:
        rows, dropped, whole = rows.flatten(0, -2), dropped.flatten(1, -2), whole.flatten(0, -2)
    if dropped.shape[1:] != whole.shape or whole.shape != (*rows.shape[:1], len(case.weight)):
        raise CheckFailed(f"for {tuple(rows.shape)} inputs, found {tuple(whole.shape)} outputs.")
    report.expect(
        not close(dropped[0], dropped[1]) or close(dropped[0], whole),
        "in training, the next pass drops others",
        "two passes in training mode dropped the same inputs, although the seed was another.",
        MASK_FIXED,
    )
    if close(whole, apply(rows, case.merged(method), case.bias)):
        if _expect_dropped(report, method, case, rows, whole, dropped):
            together = [answers.tensor(output, "forward") for output in answers["whole"]]
            _expect_single(report, method, case, first, torch.stack(together), dropped)
    else:  # for another reason, so no name is sure
        _expect_two_values(report, whole, dropped)


def _expect_dropped(
    report: Report, method: str, case: Case, rows: Tensor, whole: Tensor, dropped: Tensor
) -> bool:
    """Compare each output in training with the two that there may be.

    Args:
        whole: the layer's own outputs for the rows in evaluation, `(rows, out)`.
        dropped: those in training, `(seeds, rows, out)`.
    """
    ways = _frozen_ways(method, case, rows)
    found = {way: _shares(dropped, frozen, whole) for way, frozen in ways.items()}
    right = [
        way
        for way, (all_or_nothing, share, scale) in found.items()
        if all_or_nothing and abs(share - P) < 0.1 and abs(scale * (1 - P) - 1) < 1e-3
    ]
    all_or_nothing, share, scale = found["ours"]
    if not all_or_nothing:
        all_or_nothing, share, scale = found["PEFT's"]
    apart = not right and not all_or_nothing and _is_dropped_twice_over(method, case, rows, dropped)
    what = (
        f"its part of B A was dropped as a whole in {share:.0%} of the outputs, and else "
        f"multiplied by {scale:.3g}"
        if all_or_nothing
        else "a part of what B A gives is there and a part is not"
    )
    if math.isnan(share):
        what = "B A is in no output"
    if apart:
        what = "W0 x and B A x were each dropped by themselves"
    if not dropped.isfinite().all():
        what = "NaN or infinity was found"
    return report.expect(
        bool(right),
        f"in training, each input of B A is dropped with probability {P}, else divided by {1 - P}",
        f"for an x with one entry and dropout={P}, expected its part of B A either dropped "
        f"({P:.0%} of the time) or divided by {1 - P}; found that {what}.",
        TWO_MASKS if apart else _wrong_dropout(all_or_nothing, share, scale),
    )


def _is_dropped_twice_over(method: str, case: Case, rows: Tensor, dropped: Tensor) -> bool:
    """Return whether, in PEFT's form, W0 x and B A x are each dropped by themselves."""
    if method != "dora":
        return False
    rest = apply(rows, (case.factor() - 1) * case.weight, None) / (1 - P)
    update = apply(rows, case.factor() * case.update(), None) / (1 - P)
    plain = apply(rows, case.weight, case.bias)
    ways = [plain, plain + rest, plain + update, plain + rest + update]
    size = 1e-4 * torch.stack(ways).abs().amax()
    fits = [((dropped - way).abs() <= size).all(-1) for way in ways]
    return bool(torch.stack(fits).any(0).all()) and all(bool(way.any()) for way in fits)


def _expect_single(
    report: Report, method: str, case: Case, whole: Tensor, together: Tensor, dropped: Tensor
) -> None:
    """Expect each input of each vector to be dropped by itself.

    Args:
        whole: outputs for x in evaluation.
        together: those in training, of several seeds.
        dropped: those in training for inputs with one entry, each of them `ROWS` times.
    """
    size = whole.shape[-1]
    whole, together = whole.reshape(-1, size), together.reshape(len(together), -1, size)
    x = case.x.reshape(-1, case.x.shape[-1])
    found = [_shares(together, frozen, whole) for frozen in _frozen_ways(method, case, x).values()]
    report.expect(
        not any(all_or_nothing for all_or_nothing, _, _ in found),
        "in training, an input is dropped without the rest of its vector",
        f"with dropout={P} every vector was dropped as a whole, or kept as a whole.",
        VECTORS_DROPPED,
    )
    alike = dropped.view(len(dropped), ROWS, -1, size)
    report.expect(
        not close(alike, alike[:, :1].expand_as(alike)),
        "in training, an input is dropped for one vector and not for another",
        f"with dropout={P} the same inputs were dropped for all vectors of a pass.",
        MASK_SHARED,
    )


def _frozen_ways(method: str, case: Case, x: Tensor) -> dict[str, Tensor]:
    """Return the frozen part of the output in either form of dropout that is right."""
    factor = case.factor() if method == "dora" else torch.ones(())
    return {
        "ours": apply(x, factor * case.weight, case.bias),
        "PEFT's": apply(x, case.weight, case.bias),
    }


def _expect_two_values(report: Report, whole: Tensor, dropped: Tensor) -> None:
    """Expect two outputs for each input with one entry, which average to that in evaluation.

    What either should be is not known, since the output in evaluation is not right.
    """
    features = len(whole) // ROWS
    whole = whole[:features].double()
    samples = dropped.double().view(-1, *whole.shape)  # (seeds * ROWS, features, out)
    size = 1e-3 * samples.abs().amax((0, 2))

    def is_near(value: Tensor) -> Tensor:
        return (samples - value).abs().amax(-1) <= size

    first = is_near(samples[0])
    other = samples[first.double().argmin(0), torch.arange(features)]
    both = bool((first | is_near(other)).all())
    share = first.double().mean(0)
    constant = first.all(0) & ((samples[0] - whole).abs().amax(-1) <= size)  # m may be zero
    ends = [(share, samples[0], other), (1 - share, other, samples[0])]
    fits = [
        ((low + (1 - P) * (high - low) - whole).abs().amax(-1) <= size) & ((part - P).abs() < 0.2)
        for part, low, high in ends
    ]
    report.expect(
        both and bool((fits[0] | fits[1] | constant).all()) and not constant.all(),
        f"in training, each input of B A is dropped with probability {P}, else divided by {1 - P}",
        f"for an x with one entry and dropout={P}, expected two outputs in training whose mean is "
        "that in evaluation. (That one is not right yet either: the check of forward says why.)",
    )


def _shares(dropped: Tensor, frozen: Tensor, whole: Tensor) -> tuple[bool, float, float]:
    """Return whether every output is the frozen part plus nothing or plus a multiple of the rest,
    in which share it is nothing, and the multiple."""
    rest = (whole - frozen).double()
    extra = (dropped - frozen).double()
    seen = rest.square().sum(-1) > 1e-8 * (frozen.double().square().sum(-1) + 1)
    multiple = (extra * rest).sum(-1) / rest.square().sum(-1).clamp_min(1e-30)
    left = extra - multiple.unsqueeze(-1) * rest
    size = rest.abs().amax(-1, keepdim=True) + frozen.double().abs().amax(-1, keepdim=True)
    fits = (left.abs() <= 1e-4 * size).all(-1)
    multiple = multiple[:, seen]
    is_dropped = multiple.abs() < 1e-3
    kept = multiple[~is_dropped]
    scale = kept.median().item() if kept.numel() else 0.0
    same = bool(((kept - scale).abs() < 1e-2).all())
    return bool(fits.all()) and same, is_dropped.double().mean().item(), scale


def _wrong_dropout(all_or_nothing: bool, share: float, scale: float) -> Mistake | None:
    if not all_or_nothing:
        return DROPPED_ELSEWHERE
    if share == 0:
        return DROPOUT_UNUSED
    if abs(scale - 1) < 1e-3:
        return NOT_RESCALED
    if abs(scale * (1 - share) - 1) < 0.2 and abs(share - (1 - P)) < 0.1:
        return P_MIRRORED
    if abs(share - (1 - (1 - P) ** 2)) < 0.05 and abs(scale * (1 - P) ** 2 - 1) < 1e-3:
        return DROPPED_TWICE
    if abs(scale * (1 - share) - 1) < 0.2:
        return P_FIXED
    return RESCALED_OTHERWISE if abs(share - P) < 0.05 else None
