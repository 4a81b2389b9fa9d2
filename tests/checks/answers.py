"""How the tests of checks hold answers: functions of a class, in order, and tables by exercise.

A module of answers, one a lesson, has

- `EXERCISES`: by exercise its check, and the classes of right and of wrong answers;
- `BROKEN_BY`: by exercise what its text promises, and the wrong answers that break it;
- `AS_RIGHT`: by exercise the small changes of its solution that leave a right answer, if any.
"""

import importlib
from pathlib import Path

import pytest

EARLY = ("test_mathematics", "test_from_scratch", "test_decomposition_checks")
LATER = tuple(sorted(path.stem for path in Path(__file__).parent.glob("answers_to_*.py")))


def of_lessons(table, modules=(*EARLY, *LATER)):
    """The tables of this name of all lessons, or of some, as one."""
    found = {}
    for module in modules:
        found |= getattr(importlib.import_module(module), table, {})
    return found


def answers(holder):
    """The functions of a class that hold an answer each; a wrong one's docstring names it."""
    return [v for k, v in vars(holder).items() if callable(v) and not k.startswith("_")]


def cases(exercises, index):
    """Parameters (check, answer) for each right (1) or wrong (2) answer of every exercise."""
    return [
        pytest.param(entry[0], answer, id=f"{name}-{answer.__name__}")
        for name, entry in exercises.items()
        for answer in answers(entry[index])
    ]


def assert_named(check, answer, capsys):
    """A wrong answer fails with the sentence in its docstring, and stderr stays empty."""
    with pytest.raises(AssertionError) as raised:
        check(answer)
    assert type(raised.value).__name__ == "CheckFailed"
    assert answer.__doc__ in str(raised.value), str(raised.value)
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert captured.err == ""


def assert_passes(capsys, check, answer, **sizes):
    """A right answer passes, says so for each property, and writes nothing to stderr."""
    check(answer, **sizes)
    captured = capsys.readouterr()
    assert "ok" in captured.out
    assert "FAIL" not in captured.out
    assert captured.err == ""
