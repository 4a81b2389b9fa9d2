"""What holds for the check of every exercise: of lessons 04 to 07, or of all lessons."""

import importlib
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from answers import answers, assert_named, assert_passes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lab_utils.checks
from lab_utils import checks
from lab_utils.checks.report import Mistake

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
LESSONS = [
    importlib.import_module(f"test_{name}")
    for name in ("head_to_head", "rank_and_magnitude", "peft_and_commonsense", "rslora")
]
# By check: its right and its wrong answers, and the settings to ask the right ones with, too.
EXERCISES = {
    check: (answers(right), answers(wrong), lesson.HIDDEN[check])
    for lesson in LESSONS
    for check, right, wrong in lesson.EXERCISES.values()
}
RIGHT = [(check, answer) for check, (right, _, _) in EXERCISES.items() for answer in right]
WRONG = [(check, answer) for check, (_, wrong, _) in EXERCISES.items() for answer in wrong]


def name_of(value):
    return getattr(value, "__qualname__", None)


@pytest.mark.parametrize("check", EXERCISES, ids=name_of)
def test_there_are_three_right_and_eight_wrong_answers(check):
    right, wrong, _ = EXERCISES[check]
    assert len(right) >= 3
    assert len(wrong) >= 8


@pytest.mark.usefixtures("runs_are_made_once")
@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=name_of)
def test_right_answers_pass(check, answer, capsys):
    for hidden in ({}, *EXERCISES[check][2]):
        assert_passes(capsys, check, answer, **hidden)


@pytest.mark.usefixtures("runs_are_made_once")
@pytest.mark.parametrize(("check", "answer"), WRONG, ids=name_of)
def test_wrong_answers_are_named(check, answer, capsys):
    assert_named(check, answer, capsys)


# ---- whatever the sizes and the seed

SEEDS = st.integers(0, 2**31 - 1)
RANKS = st.integers(3, 60).filter(lambda rank: rank not in (4, 8, 16, 32))
SIZES = {
    checks.check_add_adapters: {
        "n_blocks": st.integers(1, 3),
        "rank": st.integers(1, 9),
        "alpha": st.sampled_from([0.5, 4.0, 12.0, 16.0]),
    },
    checks.check_train_step: {
        "max_norm": st.sampled_from([0.1, 0.5, 2.0, 100.0]),
        "steps": st.integers(1, 4),
    },
    checks.check_paired_difference: {
        "seeds": st.integers(2, 12),
        "confidence": st.floats(0.5, 0.99),
    },
    checks.check_make_config: {"rank": RANKS},
    checks.check_to_peft_state: {
        "in_features": st.integers(3, 9),
        "out_features": st.integers(3, 9),
        "rank": st.integers(2, 3),
    },
    checks.check_choice_accuracy: {"questions": st.integers(8, 40)},
    checks.check_lora_scaling: {"alpha": st.floats(1.5, 64.0), "rank": st.integers(2, 200)},
}
FEW = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("check", SIZES, ids=name_of)
@given(data=st.data())
@FEW
def test_a_right_answer_passes_whatever_the_sizes_and_the_seed(check, data, capsys):
    answer = data.draw(st.sampled_from(EXERCISES[check][0]))
    sizes = {name: data.draw(values, name) for name, values in SIZES[check].items()}
    check(answer, **sizes, seed=data.draw(SEEDS, "seed"))


@pytest.mark.parametrize("check", SIZES, ids=name_of)
@given(data=st.data())
@FEW
def test_a_wrong_answer_never_passes_whatever_the_seed(check, data, capsys):
    answer = data.draw(st.sampled_from(EXERCISES[check][1]))
    with pytest.raises(checks.CheckFailed):
        check(answer, seed=data.draw(SEEDS, "seed"))


# ---- whatever is returned


class _SaysNothing:
    def __repr__(self):
        raise ValueError("no repr")

    def __eq__(self, other):
        raise TypeError("no comparison")

    __hash__ = None


class _Mapping(dict):
    def __getitem__(self, key):
        raise KeyError(key)


def _ring():
    ring = []
    ring.append(ring)
    return ring


ODD = {
    "object": object(),
    "says nothing": _SaysNothing(),
    "ellipsis": ...,
    "nan": float("nan"),
    "infinity": float("inf"),
    "complex": 1j,
    "huge": 10**400,
    "decimal": Decimal("0.5"),
    "fraction": Fraction(1, 3),
    "bytes": b"0.5",
    "text": "0.5",
    "empty text": "",
    "true": True,
    "array": np.arange(6.0).reshape(2, 3),
    "array of objects": np.array([None, "x"], dtype=object),
    "date": np.datetime64("2026-01-01"),
    "meta": torch.empty(2, device="meta"),
    "sparse": torch.eye(3).to_sparse(),
    "empty tensor": torch.empty(0),
    "complex tensor": torch.ones(2, dtype=torch.complex64),
    "integers": torch.ones(3, dtype=torch.int64),
    "with gradient": torch.ones(3, requires_grad=True) * 2,
    "module": torch.nn.Linear(2, 2),
    "class": dict,
    "function": len,
    "generator": (i for i in range(3)),
    "set": {1, 2},
    "ring": _ring(),
    "mapping": _Mapping(lora=1, dora=2),
    "empty dict": {},
    "empty tuple": (),
    "odd keys": {None: 1, (1, 2): 2, 3.5: [], b"x": {}},
}
# What an odd value may stand in, so that the check looks inside.
PLACES = {
    "alone": lambda odd: odd,
    "pair": lambda odd: (odd, 1.0),
    "triple": lambda odd: (0.5, odd, 1.0),
    "by method": lambda odd: {"lora": odd, "dora": {16: odd}},
    "by rank": lambda odd: {16: odd, 4: 1.0, 64: odd},
    "by name": lambda odd: {"history": odd, "mean_change": odd, "relative_change": odd},
    "tensors": lambda odd: {"base_model.model.blocks.0.q_proj.lora_A.weight": odd},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("check", EXERCISES, ids=name_of)
def test_whatever_is_returned_ends_in_a_sentence(check, odd, capsys):
    for place in PLACES.values():
        returned = place(ODD[odd])
        with pytest.raises(checks.CheckFailed) as raised:
            check(lambda *args, returned=returned, **named: returned)
        assert len(str(raised.value).splitlines()[0]) < 900
    assert capsys.readouterr().err == ""


# ---- of all lessons


@pytest.mark.parametrize("name", [n for n in checks.__all__ if n.startswith("check_")])
def test_an_unknown_aspect_is_an_error_and_not_a_pass(name):
    with pytest.raises(ValueError, match=r"aspect is 'none such'; it must be one of \w+"):
        getattr(checks, name)(None, "none such")


def test_every_section_that_a_check_names_is_a_heading_of_a_lesson():
    headings = {
        heading
        for path in SOLUTIONS.glob("0*.py")
        for heading in re.findall(r"^# #+ (.*)$", path.read_text(), re.M)
    }
    modules = [m for m in vars(lab_utils.checks).values() if type(m) is type(re)]
    values = [v for m in modules for v in vars(m).values()]
    values += [part for v in values if isinstance(v, dict) for part in v.values()]
    mistakes = [value for value in values if isinstance(value, Mistake)]
    assert len(mistakes) > 250
    assert {mistake.section for mistake in mistakes} <= headings
