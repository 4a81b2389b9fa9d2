"""Whatever the sizes, the dtype and the seed: a right answer gets full marks, a mistake never."""

import functools

import pytest
import torch
from by_cell_decomposition import (
    RightCoupling,
    RightDirection,
    RightMagnitude,
    WrongCoupling,
    WrongDirection,
    WrongMagnitude,
)
from by_cell_from_scratch import D, L, WrongDoRA, WrongLoRA
from by_cell_mathematics import RightDecompose, RightRecompose, WrongDecompose, WrongRecompose
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab_utils import checks
from lab_utils.checks import report

# Drawn alike in every run, and few: a check of a layer takes half a second.
bounded = functools.partial(
    settings, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
seeds = st.integers(0, 2**31 - 1)
weights = st.fixed_dictionaries(
    {
        "out_features": st.integers(3, 9),
        "in_features": st.integers(3, 9),
        "seed": seeds,
        "dtype": st.sampled_from([torch.float32, torch.float64]),
    }
).filter(lambda sizes: sizes["out_features"] != sizes["in_features"])
points = st.fixed_dictionaries({"points": st.integers(6, 20), "seed": seeds})
layers = st.fixed_dictionaries(
    {
        "out_features": st.integers(4, 7),
        "in_features": st.integers(8, 12),
        "rank": st.integers(2, 3),
        "alpha": st.sampled_from([3.0, 5.0, 7.0]),
        "bias": st.booleans(),
        "seed": seeds,
    }
)
FUNCTIONS = [
    (checks.check_decompose, weights, RightDecompose.where, WrongDecompose.squares),
    (checks.check_decompose, weights, RightDecompose.masked, WrongDecompose.eps_in_root),
    (checks.check_recompose, weights, RightRecompose.mul, WrongRecompose.guesses),
    (checks.check_magnitude_change, weights, RightMagnitude.plain, WrongMagnitude.abs_outside),
    (checks.check_direction_change, weights, RightDirection.cosine, WrongDirection.absolute),
    (checks.check_coupling, points, RightCoupling.formula, WrongCoupling.squared),
]
LAYERS = [
    (checks.check_lora_layer, layers, L, WrongLoRA.whole),
    (checks.check_dora_layer, layers, D, WrongDoRA.norm_unscaled),
]
CASES = [
    *(pytest.param(30, *case) for case in FUNCTIONS),
    *(pytest.param(4, *case, marks=pytest.mark.slow) for case in LAYERS),
]


@pytest.mark.parametrize(("examples", "check", "drawn", "right", "wrong"), CASES)
def test_a_right_answer_passes_and_a_wrong_one_does_not(examples, check, drawn, right, wrong):
    @bounded(max_examples=examples)
    @given(drawn)
    def ask(case):
        check(right, **case)
        with pytest.raises(checks.CheckFailed):
            check(wrong, **case)

    ask()


def refuse(*_):
    raise AssertionError("a mistake is looked for")


@pytest.mark.parametrize(("check", "right"), [(c, r) for c, _, r, _ in FUNCTIONS + LAYERS])
def test_for_a_right_answer_no_mistake_is_looked_for(check, right, monkeypatch):
    """It would cost more than the check itself."""
    monkeypatch.setattr(report.Comparison, "wrong", property(refuse))
    check(right)


def test_a_mistake_is_looked_for_at_the_first_problem_only():
    looked = []
    with pytest.raises(report.CheckFailed, match="one"), report.Report("any") as found:
        found.expect(True, "right", "none", lambda: looked.append("right"))
        found.expect(False, "wrong", "one", lambda: looked.append("wrong"))
        found.expect(False, "wrong, too", "two", lambda: looked.append("wrong, too"))
    assert looked == ["wrong"]
