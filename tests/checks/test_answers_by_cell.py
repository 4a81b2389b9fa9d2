"""Answers to lessons 01 to 03 as students write them: what each cell of a lesson says of them.

One mistake costs the points of the cells that ask for what it breaks, and no others; and it is
named as what it is. The docstring of a wrong answer says so: cells and a name, for each name.
"""

import copy
import importlib
import math
import statistics
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from answers import answers, changed_answers, function_of
from torch import nn

from lab_utils import checks

CELLS = {
    "decompose": ("rows", "columns", "zeros"),
    "recompose": ("all",),
    "count": ("lora", "dora", "dora-input"),
    "lora": ("start", "forward", "dropout", "merge"),
    "dora": ("start", "forward", "axis", "gradients", "dropout", "merge"),
    "magnitude": ("rows", "columns"),
    "direction": ("rows", "columns", "zeros"),
    "coupling": ("correlation", "constant"),
}
MODULES = ("mathematics", "from_scratch", "decomposition", "further")
EXERCISES = {
    (module, name): exercise
    for module in MODULES
    for name, exercise in importlib.import_module(f"by_cell_{module}").EXERCISES.items()
}
CHECKS = {name: exercise[0] for (_, name), exercise in EXERCISES.items()}
ABOVE = {"torch": torch, "nn": nn, "F": F, "copy": copy, "math": math, "fmean": statistics.fmean}


def expected_of(told):
    """What each cell that fails says: the mistake's name, or "unnamed"."""
    said = [part.rsplit(": ", 1) for part in " ".join(told.split()).split("; ")]
    return {cell: name for cells, name in said for cell in cells.split(", ")}


def collected():
    """Every answer: its exercise, an id, itself, and what is said of it if it is wrong."""
    for (module, name), (_, right, wrong) in EXERCISES.items():
        for answer in answers(right):
            yield name, f"{module}-{name}-{answer.__name__}", answer, None
        for answer in answers(wrong):
            yield name, f"{module}-{name}-{answer.__name__}", answer, answer.__doc__
    for lesson in MODULES[:3]:
        path = Path(__file__).parent / "changes" / f"{lesson}.txt"
        for name, found in changed_answers(path).items():
            for answer in found:
                yield name, f"{lesson}-{name}-changed-{answer.name}", answer, answer.told


ANSWERS = list(collected())


def cases(wrong):
    return [
        pytest.param(
            name,
            *([answer, expected_of(told)] if wrong else [answer]),
            id=title,
            marks=[pytest.mark.slow] if name in ("lora", "dora") else [],
        )
        for name, title, answer, told in ANSWERS
        if (told is not None) is wrong
    ]


def made(answer):
    """Return an answer as a cell makes it, if it is one of `changes`."""
    return answer if callable(answer) else function_of(answer, ABOVE)


@pytest.mark.parametrize(("name", "answer"), cases(wrong=False))
def test_a_right_answer_loses_no_point(name, answer, capsys):
    check, answer = CHECKS[name], made(answer)
    check(answer)
    check(answer, seed=11)
    captured = capsys.readouterr()
    assert "FAIL" not in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(("name", "answer", "expected"), cases(wrong=True))
def test_a_wrong_answer_loses_the_points_of_what_it_breaks(name, answer, expected, capsys):
    check, answer = CHECKS[name], made(answer)
    said = {}
    for cell in CELLS[name]:
        try:
            check(answer) if cell == "all" else check(answer, cell)
        except checks.CheckFailed as failure:
            said[cell] = failure.mistake.name if failure.mistake else "unnamed"
    assert said == expected
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "answer", "expected", "seed"),
    [
        pytest.param(*case.values, 1 + i % 20, id=f"{case.id}-{1 + i % 20}")
        for i, case in enumerate(cases(wrong=True))
        if not case.marks
    ],
)
def test_neither_points_nor_names_depend_on_luck(name, answer, expected, seed):
    """Other random numbers tell the same of an answer: each is tried with one of twenty seeds."""
    check, answer = CHECKS[name], made(answer)
    said = {}
    for cell in CELLS[name]:
        try:
            check(answer, *([] if cell == "all" else [cell]), seed=seed)
        except checks.CheckFailed as failure:
            said[cell] = failure.mistake.name if failure.mistake else "unnamed"
    assert said == expected


def test_four_of_five_wrong_answers_are_named():
    wrong = [told for _, _, _, told in ANSWERS if told is not None]
    named = [told for told in wrong if set(expected_of(told).values()) != {"unnamed"}]
    assert len(wrong) > 800
    assert len(named) > 0.9 * len(wrong)


def test_every_cell_is_failed_by_some_answer():
    failed = {name: set() for name in CELLS}
    for name, _, _, told in ANSWERS:
        failed[name] |= set(expected_of(told)) if told is not None else set()
    assert failed == {name: set(cells) for name, cells in CELLS.items()}
