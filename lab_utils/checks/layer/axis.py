"""All of it along the other axis."""

from collections.abc import Callable
from typing import Any

from lab_utils.checks.layer.case import Case
from lab_utils.checks.layer.dropout import dropout
from lab_utils.checks.layer.forward import forward
from lab_utils.checks.layer.gradients import gradients
from lab_utils.checks.layer.merge import merge
from lab_utils.checks.layer.mistakes import (
    ALPHA_LEFT_OUT,
    BIAS_ASSUMED,
    BIAS_LOST,
    BIAS_TWICE,
    IN_PLACE,
    POSITIVE_MAGNITUDE,
    SCALING_FIXED,
    SCALING_LEFT_OUT,
    SCALING_MULTIPLIED,
    SCALING_OTHER,
    SCALING_TWICE,
    SCALING_UPSIDE_DOWN,
    SCALING_WHOLE,
    SOME_SHAPES,
    UPDATE_SUBTRACTED,
    X_CHANGED,
)
from lab_utils.checks.layer.start import start_of_axis
from lab_utils.checks.report import CheckFailed, Mistake, Report

PARTS = {
    "start_of_axis": "start",
    "forward": "output",
    "gradients": "gradients",
    "merge": "merge()",
    "dropout": "dropout",
}


# Mistakes in the output that have nothing to do with the norm.
NO_NORM_CONCERNED = (
    *(SCALING_LEFT_OUT, SCALING_TWICE, SCALING_OTHER, SCALING_MULTIPLIED, SCALING_UPSIDE_DOWN),
    *(ALPHA_LEFT_OUT, SCALING_WHOLE, SCALING_FIXED, UPDATE_SUBTRACTED),
    *(BIAS_LOST, BIAS_TWICE, BIAS_ASSUMED, SOME_SHAPES, X_CHANGED, IN_PLACE, POSITIVE_MAGNITUDE),
)


def axis(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Expect with norm_dim=0 what is expected with norm_dim=1.

    What is wrong with both in the same way has cost its points already, except for the output:
    without a norm there is no axis.
    """
    with_rows = case.along(1, given=1)
    for part in (start_of_axis, forward, gradients, merge, dropout):
        failure = _failure(part, layer_type, method, case)
        if failure is not None and (part is not forward or _is_without_norm(failure.mistake)):
            usual = _failure(part, layer_type, method, with_rows)
            if usual is not None and _is_alike(usual, failure):
                report.expect(
                    True, f"{PARTS[part.__name__]}: nothing else is wrong with norm_dim=0", ""
                )
                continue
        if failure is None:
            report.expect(True, f"{PARTS[part.__name__]} with norm_dim=0", "")
            continue
        problem = str(failure).removesuffix(f"\n{failure.mistake}")
        if failure.student_lines:
            raise failure
        report.expect(False, f"{PARTS[part.__name__]} with norm_dim=0", problem, failure.mistake)
        return


def _is_without_norm(mistake: Mistake | None) -> bool:
    return mistake is not None and mistake.name in {known.name for known in NO_NORM_CONCERNED}


def _failure(part: Callable, layer_type: Any, method: str, case: Case) -> CheckFailed | None:
    """Return how a part of the check fails, if it does."""
    try:
        with Report("", quiet=True) as report:
            part(report, layer_type, method, case)
    except CheckFailed as failure:
        return failure
    return None


def _is_alike(one: CheckFailed, other: CheckFailed) -> bool:
    if one.mistake is None and other.mistake is None:
        return str(one).split(":")[0] == str(other).split(":")[0]
    return one.mistake == other.mistake
