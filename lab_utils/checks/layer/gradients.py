"""The gradients of a trained layer, with DoRA's norm a constant."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lab_utils.checks.layer.asking import (
    Answers,
    as_answered,
    ask_trained,
    trained_names,
    trained_values,
)
from lab_utils.checks.layer.case import Case, apply
from lab_utils.checks.layer.mistakes import (
    BASE_TRAINABLE,
    EARLIER_NORM,
    EARLIER_WEIGHT,
    GRADIENT_CUT,
    MAGNITUDE_FROZEN,
    NOT_DETACHED,
    ZERO_DIVISION,
)
from lab_utils.checks.report import CheckFailed, Report
from lab_utils.checks.values import close

RATE = 0.05  # of the step of gradient descent that a check takes


def gradients(report: Report, layer_type: Any, method: str, case: Case) -> None:
    for each in (case, case.other()):
        given = [each.x, each.output_weights]
        answers = ask_trained(
            layer_type,
            method,
            each,
            {
                "output": ["forward", each.x, False, 0],
                "in training": ["forward", each.x, True, 0],
                "once more": ["forward", each.x, True, 1],
                "training": ["gradients", *given, True],
                "evaluation": ["gradients", *given, False],
                "learned": ["learn", *given, RATE],
            },
        )
        each, expected = as_answered(layer_type, answers.output("output"), method, each)
        if each is None:
            if report.first_problem is None:
                raise CheckFailed(
                    "the output of a trained layer is not right yet; its gradients are looked at "
                    "once it is. The check of forward says what is wrong."
                )
            return
        in_training, again = answers.output("in training"), answers.output("once more")
        modes = ["training", "evaluation"]
        if method == "lora" and not close(in_training, again):  # dropout costs its own points
            modes.remove("training")
        elif not close(in_training, expected):
            raise CheckFailed(
                "with dropout=0.0 the output in training mode is not that in evaluation mode; its "
                "gradients are looked at once it is. The check of dropout says more."
            )
        for mode in modes:
            _expect_gradients(report, answers, answers[mode], method, each, mode)
            if report.first_problem is not None:
                return
        if "training" not in modes:
            continue
        learned = answers.tensor(answers["learned"], "forward")
        _expect_learned(report, learned, method, each)
    if method == "dora" and report.first_problem is None:
        _expect_finite_of_zeros(report, layer_type, case)


def _expect_finite_of_zeros(report: Report, layer_type: Any, case: Case) -> None:
    """Expect gradients that are numbers where a vector of the weight is zero, as it starts.

    An output that is none costs the points of start.
    """
    start = case.with_zero_vector().at_start()
    steps = {
        "output": ["forward", start.x, True, 0],
        "training": ["gradients", start.x, start.output_weights, True],
    }
    answers = ask_trained(layer_type, "dora", start, steps)
    found = answers["training"]
    if found is None or not answers.output("output").isfinite().all():
        return
    wrong = [name for name, g in found.items() if g is not None and not g.isfinite().all()]
    vector = "row" if case.norm_dim else "column"
    report.expect(
        not wrong,
        f"gradients where the weight has a {vector} of zeros",
        f"with a {vector} of zeros in the weight, expected finite gradients, found NaN or infinity "
        f"in {' and '.join(wrong)}: a step would write it into the layer.",
        ZERO_DIVISION,
    )


def _expect_gradients(
    report: Report, answers: Answers, found: dict | None, method: str, case: Case, mode: str
) -> None:
    names = (*trained_names(method), "x")
    if found is None:
        report.expect(
            False,
            f"in {mode} mode, gradients of {', '.join(names)}",
            f"in {mode} mode the output of forward depends on nothing trainable, so nothing could "
            "be trained.",
            GRADIENT_CUT,
        )
        return
    right, full = (_textbook_gradients(case, method, detached) for detached in (True, False))
    if (
        method == "dora"
        and mode == "evaluation"
        and all(found[n] is not None and close(found[n].view_as(full[n]), full[n]) for n in names)
    ):
        return  # a norm that is a constant in training mode only is right, too
    for name in names:
        prop = f"in {mode} mode, gradient of {name}"
        gradient = found[name]
        if gradient is None:
            mistake = MAGNITUDE_FROZEN if name == "magnitude" else GRADIENT_CUT
            report.expect(False, prop, f"{prop}: expected one, found none.", mistake)
            continue
        nothing = torch.zeros_like(right[name])
        cut = MAGNITUDE_FROZEN if name == "magnitude" else GRADIENT_CUT
        mistakes = [(full[name], NOT_DETACHED)] if method == "dora" else []
        parts = {"x": _parts_of_x, "magnitude": _parts_of_magnitude}
        if name in parts:
            mistakes += [(part, GRADIENT_CUT) for part in parts[name](case, method)]
        gradient = (
            gradient.view_as(right[name]) if gradient.numel() == nothing.numel() else gradient
        )
        report.expect_close(gradient, right[name], prop, [*mistakes, (nothing, cut)])
    start = answers["parameters"]  # what was trainable from the start, the check of start says
    base = [
        name
        for name, value in found.items()
        if value is not None and name not in names and not start[name].requires_grad
    ]
    problem = f"expected gradients of {', '.join(names)} only, found also {', '.join(base)}."
    report.expect(not base, f"in {mode} mode, no others", problem, BASE_TRAINABLE)


def _parts_of_x(case: Case, method: str) -> list[Tensor]:
    """Return the gradient of x through the frozen path alone, and through the update alone."""
    factor = case.factor() if method == "dora" else 1.0
    return [case.output_weights @ (factor * part) for part in (case.weight, case.update())]


def _parts_of_magnitude(case: Case, method: str) -> list[Tensor]:
    """Return the gradient of m through the frozen path alone, and through the update alone."""
    length = case.length(case.weight + case.update()).clamp_min(1e-8)
    found = []
    for part in (case.weight, case.update()):
        m = case.magnitude.clone().requires_grad_()
        (F.linear(case.x, m * part / length) * case.output_weights).sum().backward()
        found.append(m.grad)
    return found


def _textbook_gradients(case: Case, method: str, detach_norm: bool) -> dict[str, Tensor]:
    """Return the gradients of the formula itself, with the norm a constant or not."""
    given = {**trained_values(method, case), "x": case.x}
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    weight = case.weight + case.scaling * leaves["lora_B"] @ leaves["lora_A"]
    if method == "dora":
        norm = case.length(weight.detach() if detach_norm else weight)
        weight = leaves["magnitude"] * weight / norm
    (F.linear(leaves["x"], weight, case.bias) * case.output_weights).sum().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def _expect_learned(report: Report, found: Tensor, method: str, case: Case) -> None:
    """Expect the output after a step with all that is trainable: a base that moves shows here."""
    stepped = copy.copy(case)
    for name, gradient in _textbook_gradients(case, method, True).items():
        if name != "x":
            setattr(stepped, name, getattr(case, name) - RATE * gradient)
    expected = apply(case.x, stepped.merged(method), case.bias)
    prop = "output after a step of gradient descent"
    mistakes = [(apply(case.x, case.merged(method), case.bias), EARLIER_WEIGHT)]
    if method == "dora":
        before = case.length(case.weight + case.update()).clamp_min(1e-8)
        kept = stepped.magnitude * (stepped.weight + stepped.update()) / before
        mistakes.append((apply(case.x, kept, case.bias), EARLIER_NORM))
    report.expect_close(found, expected, prop, mistakes)
