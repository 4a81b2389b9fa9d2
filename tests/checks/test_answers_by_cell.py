"""Answers to lessons 01 to 03 as students write them: what each cell of a lesson says of them.

One mistake costs the points of the cells that ask for what it breaks, and no others; and it is
named as what it is. The docstring of a wrong answer says so: cells and a name, for each name.
"""

import importlib

import pytest
from answers import answers

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


def cases(index):
    return [
        pytest.param(
            name,
            answer,
            id=f"{'-'.join(name)}-{answer.__name__}",
            marks=[pytest.mark.slow] if name[1] in ("lora", "dora") else [],
        )
        for name, exercise in EXERCISES.items()
        for answer in answers(exercise[index])
    ]


def expected_of(answer):
    """What each cell that fails says, from the docstring: the mistake's name, or "unnamed"."""
    said = [part.rsplit(": ", 1) for part in " ".join(answer.__doc__.split()).split("; ")]
    return {cell: name for cells, name in said for cell in cells.split(", ")}


@pytest.mark.parametrize(("name", "answer"), cases(1))
def test_a_right_answer_loses_no_point(name, answer, capsys):
    check = EXERCISES[name][0]
    check(answer)
    check(answer, seed=11)
    captured = capsys.readouterr()
    assert "FAIL" not in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(("name", "answer"), cases(2))
def test_a_wrong_answer_loses_the_points_of_what_it_breaks(name, answer, capsys):
    check = EXERCISES[name][0]
    said = {}
    for cell in CELLS[name[1]]:
        try:
            check(answer) if cell == "all" else check(answer, cell)
        except checks.CheckFailed as failure:
            said[cell] = failure.mistake.name if failure.mistake else "unnamed"
    assert said == expected_of(answer)
    assert capsys.readouterr().err == ""


def test_four_of_five_wrong_answers_are_named():
    wrong = [answer for exercise in EXERCISES.values() for answer in answers(exercise[2])]
    named = [answer for answer in wrong if set(expected_of(answer).values()) != {"unnamed"}]
    assert len(wrong) > 300
    assert len(named) > 0.9 * len(wrong)


def test_every_cell_is_failed_by_some_answer():
    failed = {name: set() for name in CELLS}
    for (_, name), exercise in EXERCISES.items():
        failed[name] |= {cell for answer in answers(exercise[2]) for cell in expected_of(answer)}
    assert failed == {name: set(cells) for name, cells in CELLS.items()}
