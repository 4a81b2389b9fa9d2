"""The output of a trained layer, for inputs of every shape."""

import functools
from typing import Any

from torch import Tensor

from lab_utils.checks.diagnosis import misfit
from lab_utils.checks.layer.asking import (
    Answers,
    ask_trained,
    compare,
    expect_base_unchanged,
    is_as_before,
)
from lab_utils.checks.layer.case import Case, apply
from lab_utils.checks.layer.mistakes import LORA, SOME_SHAPES, SQUEEZED, X_CHANGED
from lab_utils.checks.layer.unexplained import unexplained
from lab_utils.checks.report import CheckFailed, Comparison, Mistake, Report


def forward(report: Report, layer_type: Any, method: str, case: Case) -> None:
    refused: dict[str, Answers] = {}  # what came of shapes of x that fail, where others do not

    def look(each: Case) -> list[Comparison]:
        inputs = each.inputs()
        steps = {name: ["forward", x, False, 0] for name, x in inputs.items()}
        answers = ask_trained(layer_type, method, each, steps | {"base": ["base"]})
        wrong = functools.cache(lambda: list(each.wrong_layers(method)))
        taken = {name: x for name, x in inputs.items() if not answers.fails(name)}
        for name in inputs:
            if name not in taken:
                refused.setdefault(name, answers)
        if not taken:
            answers.output(next(iter(inputs)))
        lost = [name for name, x in taken.items() if _is_squeezed(answers.output(name), x, each)]
        if lost:
            found = tuple(answers.output(lost[0]).shape)
            problem = f"the output for an x {lost[0]} has the shape {found}."
            report.expect(False, "the output has the leading dimensions of x", problem, SQUEEZED)
        comparisons = [
            Comparison(
                f"output for an x {name}, {each}",
                answers.output(name),
                apply(x, each.merged(method), each.bias),
                lambda x=x: [(apply(x, weight, bias), m) for weight, bias, m in wrong()],
            )
            for name, x in taken.items()
        ]
        changed = [name for name, x in taken.items() if not is_as_before(answers[name]["x"], x)]
        report.expect(
            not changed,
            "forward leaves x as it is",
            f"the x {' and '.join(changed[:1])} has other values after forward than before.",
            X_CHANGED,
        )
        expect_base_unchanged(report, answers["base"], each, "forward")
        return comparisons

    prop = "output of a trained layer" + ("" if case.norm_dim else " with norm_dim=0")
    cases = (case, case.other(), *([case.by_default()] if case.norm_dim == 1 else []))
    compare(report, prop, cases, look, unexplained(layer_type, method, case))
    for name, answers in refused.items():
        try:
            answers.output(name)
        except CheckFailed as failure:
            report.expect(False, "forward takes an x of any leading dimensions", *_said(failure))
            break


def _said(failure: CheckFailed) -> tuple[str, Mistake]:
    """Return what a failure says, and what is wrong where other shapes of x do not fail."""
    known = None if misfit(failure, LORA) else failure.mistake
    return str(failure).removesuffix(f"\n{failure.mistake}"), known or SOME_SHAPES


def _is_squeezed(output: Tensor, x: Tensor, case: Case) -> bool:
    """Return whether an output lacks dimensions of size 1."""
    shape = (*x.shape[:-1], len(case.weight))
    without = [size for size in shape if size != 1]
    return output.ndim < len(shape) and [size for size in output.shape if size != 1] == without
