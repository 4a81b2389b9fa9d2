"""How the tests of checks hold answers: functions of a class, in order, and tables by exercise.

A file of `changes` has answers that are small changes of a right one: see `changed_answers`. For
lessons 01 to 03 it says of a wrong one what each cell says, as docstrings of `by_cell_*` do.

A module of answers, one a lesson, has

- `EXERCISES`: by exercise its check, and the classes of right and of wrong answers;
- `BROKEN_BY`: by exercise what its text promises, and the wrong answers that break it;
- `AS_RIGHT`: by exercise the small changes of its solution that leave a right answer, if any.
"""

import importlib
import linecache
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Changed:
    """An answer that is written as a change of a right one.

    Attributes:
        name: what the answer does, in a word.
        told: the name of the mistake that its check tells, or `"unnamed"`, by cell in lessons 01
            to 03; None if it is right.
        source: its code.
    """

    name: str
    told: str | None
    source: str


def changed_answers(path: Path) -> dict[str, list[Changed]]:
    """Read the answers of a file, by check.

    `= check` begins an exercise, and a right answer follows. `> name: right` or
    `> name: wrong: mistake` begins another: lines with `-` that stand once in the right answer
    become those with `+`; `...` stands between two such places. Where it has lines with neither,
    these are the whole answer.
    """
    found: dict[str, list[Changed]] = {}
    for exercise in ("\n" + path.read_text("utf-8")).split("\n= ")[1:]:
        check, *blocks = exercise.rstrip("\n").split("\n> ")
        check, _, first = check.partition("\n")
        right = textwrap.dedent(first).splitlines()
        found[check] = [Changed("as_it_is", None, "\n".join(right))]
        for block in blocks:
            title, _, lines = block.partition("\n")
            name, _, told = title.partition(": ")
            kind, _, mistake = told.partition(": ")
            assert kind == ("wrong" if mistake else "right"), title
            source = _changed(right, lines.splitlines(), title)
            found[check].append(Changed(name, mistake or None, source))
    return found


def function_of(answer: Changed, names: dict[str, object]) -> Callable:
    """Run an answer's code as a cell; return the last function or class that it defines.

    Args:
        names: what the cells above have made.
    """
    file = f"<answer {answer.name}>"
    linecache.cache[file] = len(answer.source), None, answer.source.splitlines(True), file
    cell = dict(names)
    exec(compile(answer.source, file, "exec"), cell)
    return [v for k, v in cell.items() if callable(v) and k not in names and k[0] != "_"][-1]


def _changed(right: list[str], lines: list[str], title: str) -> str:
    if not any(line.startswith(("-", "+")) for line in lines):
        return textwrap.dedent("\n".join(lines))
    changed = list(right)
    for place in reversed("\n".join(lines).split("\n...\n")):
        taken, put = ([x[2:] for x in place.splitlines() if x[0] == sign] for sign in "-+")
        at = [i for i in range(len(right)) if right[i : i + len(taken)] == taken]
        assert len(at) == 1, f"{title}: {taken} stands {len(at)} times"
        changed[at[0] : at[0] + len(taken)] = put
    return "\n".join(changed)
