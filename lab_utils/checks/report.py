"""How a check speaks: a line for each property on stdout, then why the first one failed.

Nothing is written to stderr, where nbgrader would read any text as a failure.
"""

import contextlib
import math
import traceback
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

LAB_UTILS = str(Path(__file__).resolve().parents[1])
SITE_PACKAGES = str(Path(torch.__file__).resolve().parents[1])


# What has passed in this process: the exercise and the aspect, as a report's title has them.
_passed: set[tuple[str, ...]] = set()


def passed(exercise: str, aspects: Collection[str]) -> bool:
    """Return whether the checks of an exercise have passed in this process, for all aspects."""
    return all((exercise, aspect) in _passed for aspect in aspects)


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Let what passes inside not count: it is not the student's code that is checked there."""
    before = set(_passed)
    try:
        yield
    finally:
        _passed.clear()
        _passed.update(before)


@dataclass(frozen=True)
class Mistake:
    """A well-known way to go wrong.

    Attributes:
        name: what teachers call it.
        why: what it does and what to do instead.
        section: the heading of the lesson that explains it.
    """

    name: str
    why: str
    section: str

    def __str__(self) -> str:
        return f"Known mistake: {self.name}.\n{self.why}\nSee the section “{self.section}”."


class CheckFailed(AssertionError):
    """An exercise is not right yet; its text says what was expected and what was found.

    Args:
        student_lines: the lines of the student's own code that raised, where they are known.
        mistake: the well-known mistake that explains it, if one does. The text names it, too.
    """

    def __init__(
        self,
        text: str,
        student_lines: list[str] | None = None,
        mistake: Mistake | None = None,
    ) -> None:
        super().__init__(text)
        self.student_lines = student_lines or []
        self.mistake = mistake

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows (IPython's hook): the sentence, not the checks' stack.

        Where the student's own code raised, its lines come first.
        """
        return [*self.student_lines, *f"{type(self).__name__}: {self}".splitlines()]


def student_lines(error: BaseException | None) -> list[str]:
    """Return the lines that led to an error, without those of the lab and of its packages."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    own = [f for f in frames if not f.filename.startswith((LAB_UTILS, SITE_PACKAGES))]
    return [f"in {frame.name}, line {frame.lineno}:  {frame.line}" for frame in own]


class Report:
    """Prints a line for each property of an exercise, and fails at the end if one failed.

    Use it as a context manager. Every property is looked at, so that a student sees all that
    is missing; the error that is raised when the block ends speaks of the first one.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.first_problem: str | None = None
        self.first_mistake: Mistake | None = None

    def __enter__(self) -> "Report":
        print(self.title)
        return self

    def expect(self, holds: bool, prop: str, problem: str, mistake: Mistake | None = None) -> bool:
        """Print whether a property holds; keep the problem if it is the first one."""
        print(f"  {'ok  ' if holds else 'FAIL'}  {prop}")
        if not holds and self.first_problem is None:
            self.first_problem = problem if mistake is None else f"{problem}\n{mistake}"
            self.first_mistake = mistake
        return holds

    def expect_close(
        self, found: Tensor, expected: Tensor, prop: str, mistakes: list[tuple[Tensor, Mistake]]
    ) -> bool:
        """Compare two tensors; where they differ, look for a mistake that explains `found`.

        Args:
            mistakes: what `found` would be after each known mistake, likeliest first.
        """
        if close(found, expected):
            return self.expect(True, prop, "")
        named = next((mistake for wrong, mistake in mistakes if close(found, wrong)), None)
        return self.expect(False, prop, f"{prop}: {difference(found, expected)}.", named)

    def expect_number(self, value: object, what: str) -> bool:
        """Print whether a value is a plain, finite number; a text names what is in its place."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        found = value if number or isinstance(value, str) else f"a {type(value).__name__}"
        return self.expect(
            number and math.isfinite(value),
            f"{what} is a finite number",
            f"expected {what} as a finite float, found {found}.",
        )

    def __exit__(
        self, kind: type | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, CheckFailed):
            print(f"  FAIL  {error}")
        if self.first_problem is not None and (error is None or isinstance(error, CheckFailed)):
            raise CheckFailed(self.first_problem, mistake=self.first_mistake) from error
        if error is None:
            _passed.add(tuple(self.title.split(" · ")[:2]))


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Return whether two tensors of any dtypes agree, relative to the size of `expected`.

    The tolerance allows float32 rounding and an epsilon that is added to a norm or clamps it.
    """
    if found.shape != expected.shape:
        return False
    found, expected = found.double(), expected.double()
    atol = tolerance * expected.abs().nan_to_num().max().item()
    return torch.allclose(found, expected, rtol=tolerance, atol=atol, equal_nan=True)


def difference(found: Tensor, expected: Tensor) -> str:
    """Say in what two tensors differ: their shapes, or the value that is furthest off."""
    if found.shape != expected.shape:
        return f"expected shape {tuple(expected.shape)}, found {tuple(found.shape)}"
    if not found.isfinite().all():
        count = int((~found.isfinite()).sum())
        return f"expected finite numbers, found NaN or infinity in {count} of {found.numel()}"
    gap = (found.double() - expected.double()).abs()
    index = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    place = f" at index {index}" if index else ""
    return f"expected {expected[index].item():.4g}{place}, found {found[index].item():.4g}"


def chosen(aspect: str | None, aspects: Collection[str]) -> list[str]:
    """Return the aspects to check: the named one, or all of them if None.

    Raises:
        ValueError: there is no such aspect. A check that cannot run must not pass.
    """
    if aspect is None:
        return list(aspects)
    if aspect not in aspects:
        raise ValueError(f"aspect is {aspect!r}; it must be one of {', '.join(aspects)}, or None")
    return [aspect]
