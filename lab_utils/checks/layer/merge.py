"""The merged layer, and what merging must leave as it is."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lab_utils.checks.diagnosis import returned_kind
from lab_utils.checks.layer.asking import (
    MODES,
    Answers,
    ask_trained,
    compare,
    expect_base_unchanged,
    trained_names,
    trained_values,
)
from lab_utils.checks.layer.case import Case, apply
from lab_utils.checks.layer.dropout import P
from lab_utils.checks.layer.mistakes import (
    ADAPTER_CHANGED,
    BASE_TRAINABLE,
    BIAS_LOST,
    BIAS_MADE_UP,
    BIAS_OF_ZEROS,
    BIAS_SCALED,
    BIAS_TWICE,
    FROZEN_LEFT_OUT,
    IN_PLACE,
    MAGNITUDE_UNUSED,
    MERGE,
    MERGED_BY_MODE,
    MERGED_COARSE,
    MERGED_EARLIER,
    MERGED_RANDOM,
    MERGED_TRANSPOSED,
    MODE_CHANGED,
    NO_NORMALISATION,
    NO_PLAIN_LINEAR,
    NORM_MISSING_IN_MERGE,
    UPDATE_LEFT_OUT,
    ZERO_DIVISION,
)
from lab_utils.checks.layer.unexplained import wrong_weight
from lab_utils.checks.report import CheckFailed, Comparison, Mistake, Report, named
from lab_utils.checks.values import close
from lab_utils.questions.layers import in_shape

# A layer that does so little does it without merge(), too: what it merges shows nothing.
TOO_LITTLE = (UPDATE_LEFT_OUT, FROZEN_LEFT_OUT, MAGNITUDE_UNUSED)


def merge(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Expect a new `nn.Linear` with W' and the base's bias, and nothing else changed."""

    def look(each: Case) -> list[Comparison]:
        answers = _ask(layer_type, method, each)
        expect_base_unchanged(report, answers["kept before"], each, "building the layer")
        if report.first_problem is not None:  # merge() can only be told from the base as it was
            return []
        for mode in MODES:
            _expect_merged(report, answers, answers[mode], mode, method, each)
        expect_base_unchanged(report, answers["kept"], each, "merge()")
        _expect_adapter_kept(report, answers, method, each)
        weights = {mode: answers[mode]["weight"] for mode in MODES}
        _expect_usable(report, weights, method, each)
        _expect_anew(report, answers, method, each)
        before, right = answers.output("before"), each.merged(method)
        wrong = functools.cache(lambda: list(_wrong_merges(method, each)))
        # What merges alike without an update has merged none.
        without = None if answers.fails("reset merge") else answers["reset merge"].get("weight")
        comparisons = [
            Comparison(
                f"weight of merge() in {mode} mode",
                weight,
                # The output of a layer that is wrong by itself costs the points of forward, and
                # merge() is to compute the same.
                weight
                if not close(weight, right) and _is_own(weight, before, without, wrong(), each)
                else right,
                wrong,
            )
            for mode, weight in weights.items()
        ]
        return comparisons

    cases = [case, case.other()]
    if method == "dora":
        cases.append(case.with_zero_vector().at_start())

    def otherwise() -> Mistake | None:
        weight = ask_trained(layer_type, method, case, {"merge": ["merge", False]})["merge"]
        return wrong_weight(weight["weight"], method, case)

    compare(report, "weight of merge()", cases, look, otherwise)


def _ask(layer_type: Any, method: str, case: Case) -> Answers:
    """Merge a trained layer in both modes; look at the layer before and after it."""
    return ask_trained(
        layer_type,
        method,
        case,
        {
            "before": ["forward", case.x, False, 0],
            "again": ["forward", case.x, False, 0],
            "kept before": ["kept"],
            "evaluation": ["merge", False],
            "training": ["merge", True],
            "after": ["forward", case.x, False, 0],
            "now": ["held", trained_names(method)],
            "trainable": ["parameters"],
            "kept": ["kept"],
            "reset": ["change", {"lora_B": torch.zeros_like(case.lora_B)}],
            "reset merge": ["merge", False],
        },
        dropout=P,
    )


def _expect_usable(report: Report, weights: dict[str, Tensor], method: str, case: Case) -> None:
    """Expect weights that were filled, whatever the mode, and that have all digits."""
    right = case.merged(method)
    if _is_random(weights, right):
        problem = "expected the weight of W' in the merged layer, found random numbers."
        report.expect(False, "weight of merge()", problem, MERGED_RANDOM)
    if [close(weights[mode], right) for mode in MODES] == [True, False]:
        problem = "the merged weight is right in evaluation mode, and another in training mode."
        report.expect(False, "weight of merge()", problem, MERGED_BY_MODE)
    for weight in weights.values():
        coarse = weight.dtype in (torch.float16, torch.bfloat16) and weight.dtype != case.dtype
        report.expect(
            not coarse,
            "merge() keeps the precision",
            f"expected a merged weight of {case.dtype}, found {weight.dtype}.",
            MERGED_COARSE,
        )


def _expect_anew(report: Report, answers: Answers, method: str, case: Case) -> None:
    """Expect another layer of each call, with the weight of the parameters as they are then."""
    again = any(answers[mode]["again"] for mode in MODES)
    if not answers.fails("reset merge") and "weight" in answers["reset merge"]:
        weight, right = answers["reset merge"]["weight"], case.merged(method)
        kept = close(weight, right) and not close(case.without_update().merged(method), right)
        again = again or (kept and close(answers["training"]["weight"], right))
    report.expect(
        not again,
        "merge() makes a new layer at every call",
        "merge() was called again after training had gone on, and returned the layer or the weight "
        "of an earlier call.",
        MERGED_EARLIER,
    )


def _is_own(
    weight: Tensor,
    before: Tensor,
    without: Tensor | None,
    wrong: list[tuple[Tensor, Mistake]],
    case: Case,
) -> bool:
    """Return whether a merged weight does what the layer itself does.

    Args:
        before: the output of the layer.
        without: the merged weight of the layer without an update; None if there is none.
        wrong: what known mistakes merge.
    """
    known = {mistake for value, mistake in wrong if close(weight, value)}
    if weight.shape != case.weight.shape or (known and known <= set(TOO_LITTLE)):
        return False
    if case.lora_B.any() and (without is None or close(weight, without)):
        return False
    return any(close(apply(case.x, weight.float(), b), before) for b in (case.bias, None))


def _is_random(weights: dict[str, Tensor], expected: Tensor) -> bool:
    """Return whether the two merged weights differ, and neither is right: nothing filled them."""
    one, other = weights.values()
    if one.shape != expected.shape or other.shape != expected.shape:
        return False
    return not any(close(a, b) for a, b in ((one, other), (one, expected), (other, expected)))


def _expect_merged(
    report: Report, answers: Answers, merged: dict, mode: str, method: str, case: Case
) -> None:
    if merged["type"] != "nn.Linear":
        kind = merged["type"]
        failure = CheckFailed(f"{answers.name}.merge() must return an nn.Linear; found a {kind}.")
        example = {"NoneType": None, "Tensor": torch.zeros(1), "Parameter": torch.zeros(1)}
        example |= {"tuple": (), "list": [], "dict": {}, "OrderedDict": {}}
        known = NO_PLAIN_LINEAR
        if kind in example:
            known = returned_kind(example[kind], "an nn.Linear", MERGE)
        raise named(failure, known)
    _expect_merged_bias(report, merged["bias"], method, case)
    report.expect(
        merged["training"] is (mode == "training"),
        f"merge() leaves the layer in {mode} mode",
        f"the layer was in {mode} mode before merge(), and is in the other one after it.",
        MODE_CHANGED,
    )
    report.expect(
        merged["new"],
        "merge() returns a new layer",
        "expected a new nn.Linear, found the layer that was passed in.",
        IN_PLACE,
    )


def _wrong_merges(method: str, case: Case) -> Iterator[tuple[Tensor, Mistake]]:
    for weight, mistake in case.wrong_weights(method):
        yield weight, NORM_MISSING_IN_MERGE if mistake is NO_NORMALISATION else mistake
    yield case.merged(method).T, MERGED_TRANSPOSED
    for coarse in (torch.float16, torch.bfloat16):
        yield case.merged(method).to(coarse).to(case.dtype), MERGED_COARSE
    if method == "dora":
        yield case.factor() * case.weight, UPDATE_LEFT_OUT
        length = case.length(case.weight + case.update())
        yield torch.where(length == 0, torch.nan, case.merged(method)), ZERO_DIVISION


def _expect_merged_bias(report: Report, bias: Tensor | None, method: str, case: Case) -> None:
    prop = "bias of merge()"
    if case.bias is None:
        zero = bias is not None and not bias.any()
        report.expect(
            bias is None,
            "no bias in merge()",
            f"expected no bias, as in the base layer, found {'zeros' if zero else 'one'}.",
            BIAS_OF_ZEROS if zero else BIAS_MADE_UP,
        )
    elif bias is None:
        report.expect(False, prop, f"{prop}: expected the base's, found none.", BIAS_LOST)
    else:
        mistakes = [(2 * case.bias, BIAS_TWICE), (torch.zeros_like(case.bias), BIAS_LOST)]
        if method == "dora" and case.norm_dim == 1:
            mistakes.append((case.factor().flatten() * case.bias, BIAS_SCALED))
        if not close(bias, case.bias) and not any(close(bias, wrong) for wrong, _ in mistakes):
            mistakes.append((bias, BIAS_MADE_UP))
        report.expect_close(bias, case.bias, prop, mistakes)


def _expect_adapter_kept(report: Report, answers: Answers, method: str, case: Case) -> None:
    now, expected = answers["now"], trained_values(method, case)
    changed = [
        name
        for name, value in expected.items()
        if now[name] is None or not torch.equal(now[name].float(), in_shape(value, now[name].shape))
    ]
    before, again, after = map(answers.output, ("before", "again", "after"))
    same = close(after, before) or not close(again, before)  # which forward does by itself
    report.expect(
        not changed and same,
        "merge() leaves the adapter as it was",
        f"expected the adapter as it was before merge(), found other values in "
        f"{', '.join(changed) or 'the output'}.",
        ADAPTER_CHANGED,
    )
    at_first = answers["kept before"]["trainable"]
    trainable = [name for name in answers["kept"]["trainable"] if name not in at_first]
    start, end = answers["parameters"], answers["trainable"]
    frozen = [n for n in start if n in end and start[n].requires_grad > end[n].requires_grad]
    report.expect(
        not trainable and not frozen,
        "merge() freezes nothing and makes nothing trainable",
        f"after merge(), {', '.join(trainable or frozen)} "
        f"{'requires gradients' if trainable else 'requires no gradients'}.",
        BASE_TRAINABLE if trainable else None,
    )
