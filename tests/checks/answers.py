"""How the tests of checks hold answers: functions of a class, in order."""

import pytest


def answers(holder):
    """The functions of a class that hold an answer each; a wrong one's docstring names it."""
    return [v for k, v in vars(holder).items() if callable(v) and v.__name__ == k]


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
