"""No mistake gives the right numbers by chance, and no two the same, for any seed that is used."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from answers import EARLY, answers, of_lessons

from lab_utils import checks
from lab_utils.checks.report import Report

pytestmark = pytest.mark.slow

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
EXERCISES = of_lessons("EXERCISES", EARLY)
RIGHT = {check.__name__: answers(right)[0] for check, right, _ in EXERCISES.values()}
# Before training several ways to go wrong are one and the same; a gradient is named by itself.
SAME = re.compile("before training|gradient")


def calls_of_the_lessons():
    """Every call of these checks in the lessons, hidden ones too: its name and its settings."""
    for path in sorted(SOLUTIONS.glob("0[123]-*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="checks"), attr=name)):
                    named = {
                        k.arg: torch.float64 if k.arg == "dtype" else ast.literal_eval(k.value)
                        for k in node.keywords
                    }
                    if name in RIGHT and all(isinstance(a, ast.Constant) for a in node.args[1:]):
                        yield name, [a.value for a in node.args[1:]], named


CALLS = list(calls_of_the_lessons())
FRESH = [
    (name, [], {"seed": seed})
    for name in RIGHT
    for seed in torch.randint(2**31, (8,), generator=torch.Generator().manual_seed(0)).tolist()
]


def test_the_calls_of_the_lessons_are_found():
    assert {name for name, _, _ in CALLS} == set(RIGHT)
    assert len(CALLS) > 40


@pytest.fixture
def compared(monkeypatch):
    """What a check compares: the property, its cases, and the mistakes that it may name."""
    seen = []
    expect_cases = Report.expect_cases

    def noted(self, prop, cases, *otherwise):
        seen.append((prop, cases, [mistake for _, mistake in cases[-1].wrong]))
        return expect_cases(self, prop, cases, *otherwise)

    monkeypatch.setattr(Report, "expect_cases", noted)
    return seen


@pytest.mark.parametrize(("name", "aspects", "settings"), [*CALLS, *FRESH])
def test_no_two_explain_the_same(name, aspects, settings, compared):
    getattr(checks, name)(RIGHT[name], *aspects, **settings)
    assert compared or aspects in (["dropout"], ["constant"])
    for prop, cases, mistakes in compared:
        if SAME.search(prop):
            continue
        # What each mistake gives in all cases, rounded as far as the check can tell.
        for one, other in may_agree(cases[0], len(mistakes)):
            if mistakes[one] is mistakes[other]:
                continue
            pairs = [(c, value(c, one), value(c, other)) for c in cases]
            alike = all(agree(c, a, b) for c, a, b in pairs)
            wrong = any(not agree(c, a, c.expected) for c, a, _ in pairs)
            assert not (alike and wrong), (prop, mistakes[one].name, mistakes[other].name)


def may_agree(case, count):
    """Yield the pairs of mistakes that give nearly the same in a case: few need a closer look."""
    by_shape = defaultdict(list)
    for index in range(count):
        by_shape[value(case, index).shape].append(index)
    for shape, indices in by_shape.items():
        values = torch.stack([value(case, i).detach().double().flatten() for i in indices])
        values = values.nan_to_num(nan=1e30, posinf=1e31, neginf=-1e31)
        gaps = (values[:, None] - values[None]).abs().amax(-1) if shape.numel() else 0.0
        sizes = values.abs().amax(-1) if shape.numel() else torch.zeros(len(indices))
        near = gaps <= 3 * case.tolerance * torch.maximum(sizes[:, None], sizes[None])
        for one, other in near.tril(-1).nonzero().tolist():
            yield indices[one], indices[other]


def value(case, index):
    wrong, _ = case.wrong[index]
    return case.expected if wrong is None else wrong


def agree(case, one, other):
    return type(case)("", one, other, tuple, case.scale_dim, case.tolerance).is_right()
