"""The calls in a test cell: each calls a check with the student's objects.

A test cell does not run in the student's process. It is parsed here, and the grader makes its
calls. So it must be simple: each line is `checks.check_something(...)`, and an argument is a
literal, a dtype of torch, or the name of something that the student wrote.
"""

import ast
import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lab_utils import checks


class NotATestCell(ValueError):
    """The text of a test cell does not have the form that the grader can run."""


@dataclass(frozen=True)
class Student:
    """Stands for a student's object in the arguments of a check."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call of a check."""

    check: Callable
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    def make(self, stand_in: Callable[[str], Any], **more: Any) -> Any:
        """Call the check; `stand_in` returns what replaces the object with a given name."""

        def filled(value: Any) -> Any:
            return stand_in(value.name) if isinstance(value, Student) else value

        named = {key: filled(value) for key, value in self.named.items()}
        return self.check(*map(filled, self.arguments), **named | more)

    @property
    def forbids(self) -> frozenset[str]:
        """The files that this check forbids the student's code to call."""
        return self.check.forbids

    @property
    def needs(self) -> frozenset[str]:
        """What the student's process will import for it, of what is slow to import."""
        return self.check.needs

    @property
    def seeded(self) -> bool:
        """Whether the check draws its inputs from a seed that may be given."""
        return self.check.seeded

    def names(self) -> set[str]:
        """Return the names of the student's objects."""
        values = [*self.arguments, *self.named.values()]
        return {value.name for value in values if isinstance(value, Student)}


@functools.cache
def read_test_cell(source: str) -> tuple[Call, ...]:
    """Return the calls that a test cell makes.

    Raises:
        NotATestCell: with the line, and what is allowed there.
    """
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise NotATestCell(f"line {error.lineno} is not Python: {error.msg}") from error
    calls = tuple(_read_call(line) for line in lines)
    if not calls:
        raise NotATestCell("a test cell that calls no check would give full marks to everybody")
    return calls


def _read_call(line: ast.stmt) -> Call:
    call = line.value if isinstance(line, ast.Expr) else None
    match call:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="checks"), attr=name)):
            pass
        case _:
            raise NotATestCell(
                f"line {line.lineno}, {ast.unparse(line)!r}: each line of a test cell is "
                "checks.check_something(...), so that it can run outside the student's process"
            )
    if not name.startswith("check_") or name not in checks.__all__:
        raise NotATestCell(f"line {line.lineno}: lab_utils.checks has no {name}")
    arguments = tuple(_read_value(value) for value in call.args)
    named = {keyword.arg: _read_value(keyword.value) for keyword in call.keywords}
    read = Call(getattr(checks, name), arguments, named)
    if not read.names():
        raise NotATestCell(f"line {line.lineno}: {name} is given nothing that the student wrote")
    return read


def _read_value(value: ast.expr) -> Any:
    match value:
        case ast.Name(id=name):
            return Student(name)
        case ast.Attribute(value=ast.Name(id="torch"), attr=name):
            dtype = getattr(torch, name, None)
            if isinstance(dtype, torch.dtype):
                return dtype
        case _:
            with contextlib.suppress(ValueError):
                return ast.literal_eval(value)
    raise NotATestCell(
        f"line {value.lineno}: {ast.unparse(value)!r} may be a literal, a dtype such as "
        "torch.float64, or the name of what the student wrote"
    )
