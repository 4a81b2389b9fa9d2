"""What can be told of a layer whose output no known mistake gives: which law of W' x it breaks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lab_utils.checks.layer.asking import Answers, ask_trained, own_weight
from lab_utils.checks.layer.case import Case
from lab_utils.checks.layer.mistakes import (
    ANOTHER_NORM,
    CHANGES_BY_ITSELF,
    COLUMN_ON_OUTPUT,
    DIMENSION_ADDED,
    DIVIDED_BY_MAGNITUDE,
    MAGNITUDE_CHANGED,
    MIXED_VECTORS,
    NOT_LINEAR,
    SCALING_OTHER,
    SQUEEZED,
    WHOLE_NORM,
)
from lab_utils.checks.report import CheckFailed, Mistake
from lab_utils.checks.values import close


def unexplained(layer_type: Any, method: str, case: Case) -> Callable[[], Mistake | None]:
    """Return a function that asks a trained layer for the law that it breaks."""

    def ask_for_law() -> Mistake | None:
        try:
            return _broken_law(layer_type, method, case)
        except CheckFailed:
            return None

    return ask_for_law


def _broken_law(layer_type: Any, method: str, case: Case) -> Mistake | None:
    x = case.x
    inputs = {"x": x, "alone": x[:1], "nothing": 0 * x, "twice": 2 * x, "negative": -x}
    inputs["vector"] = x.flatten(0, -2)[0] if x.ndim > 1 else x
    answers = _trained(layer_type, method, case, inputs)
    output, expected = answers.output("x"), (*x.shape[:-1], len(case.weight))
    if not close(answers.output("again"), output):
        return CHANGES_BY_ITSELF
    if output.shape != expected:
        return _wrong_shape(tuple(output.shape), expected)
    if not answers.fails("vector") and answers.output("vector").shape != expected[-1:]:
        return _wrong_shape(tuple(answers.output("vector").shape), expected[-1:])
    if not output.isfinite().all():
        of_ones = (
            _with_magnitude(case, torch.ones_like(case.magnitude)) if method == "dora" else case
        )
        finite = _trained(layer_type, method, of_ones, {"x": x}).output("x").isfinite().all()
        return DIVIDED_BY_MAGNITUDE if finite and of_ones is not case else None
    if x.ndim > 1 and not close(answers.output("alone"), output[:1]):
        return MIXED_VECTORS
    bias = answers.output("nothing")
    twice, negative = (answers.output(name) - bias for name in ("twice", "negative"))
    size = output.abs().max()
    if not all(
        _near(part, factor * (output - bias), size) for part, factor in ((twice, 2), (negative, -1))
    ):
        return NOT_LINEAR
    if method == "dora":
        # W' is m times what does not depend on m. Here any constant may be added to it.
        one, two, minus = (
            _trained(
                layer_type, method, _with_magnitude(case, k * case.magnitude), {"x": x}
            ).output("x")
            for k in (1, 2, -1)
        )
        if not _near(minus, 3 * one - 2 * two, size + two.abs().max()):
            return MAGNITUDE_CHANGED
    weight = own_weight(layer_type, method, case)
    return None if weight is None else wrong_weight(weight, method, case)


def wrong_weight(weight: Tensor, method: str, case: Case) -> Mistake | None:
    """Return what is wrong with a weight whose vectors are those of W0 and of B A, added."""
    if weight.shape != case.weight.shape or not weight.isfinite().all():
        return None
    if (scaling := case.scaling_that_gives(weight, method)) is not None:
        if math.isclose(scaling, case.scaling, rel_tol=1e-3):
            return None
        found = f"Here B A is multiplied by {scaling:.4g} where alpha / rank is {case.scaling:.4g}."
        return replace(SCALING_OTHER, why=f"{SCALING_OTHER.why} {found}")
    if method == "lora":
        return None
    kept, _ = case.shares(weight)
    lengths, magnitude = kept.view_as(case.magnitude), case.magnitude.double()
    if not close(weight, lengths * (case.weight + case.update())):
        return None
    factors = (lengths / magnitude)[magnitude != 0]
    alike = close(factors, factors.mean().expand_as(factors))
    return WHOLE_NORM if alike and len(factors) > 2 else ANOTHER_NORM


def _trained(layer_type: Any, method: str, case: Case, inputs: dict[str, Tensor]) -> Answers:
    steps = {name: ["forward", x, False, 0] for name, x in inputs.items()}
    steps["again"] = ["forward", inputs["x"], False, 1]
    return ask_trained(layer_type, method, case, steps)


def _with_magnitude(case: Case, magnitude: Tensor) -> Case:
    changed = case.scaled(case.scaling)
    changed.magnitude = magnitude
    return changed


def _near(found: Tensor, expected: Tensor, size: Tensor) -> bool:
    return bool(((found - expected).abs() <= 1e-4 * size).all())


def _wrong_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> Mistake | None:
    if found == (expected[-1], expected[-1]) and len(expected) == 1:
        return COLUMN_ON_OUTPUT
    if torch.Size(found).numel() != torch.Size(expected).numel():
        return None
    return SQUEEZED if len(found) < len(expected) else DIMENSION_ADDED
