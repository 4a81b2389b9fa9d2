"""The output of a check: a line for each property on stdout, then why the first one failed.

Nothing is written to stderr, where nbgrader would read any text as a failure.
"""

import contextlib
import functools
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from torch import Tensor

from lab_utils.checks.values import close, describe, differ
from lab_utils.questions.odd_tensors import odd_kind
from lab_utils.questions.usual_causes import without_usual_cause

SENTENCES = textwrap.TextWrapper(100, break_long_words=False, break_on_hyphens=False)
# What has passed in this process: the exercise and the aspect, as a report's title has them.
_passed: set[tuple[str, ...]] = set()


def passed(exercise: str, aspects: Collection[str]) -> bool:
    """Return whether the checks of an exercise have passed in this process, for all aspects."""
    return all((exercise, aspect) in _passed for aspect in aspects)


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Do not count what passes inside: the code that is checked there is not the student's."""
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
        name: a short name for it.
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
        super().__init__(text if mistake is None else without_usual_cause(text))
        self.student_lines = student_lines or []
        self.mistake = mistake
        self.on_page = False  # whether `lab_utils.checks.page` has shown it

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows (IPython's hook): the sentence, not the checks' stack.

        Where the student's own code raised, its lines come first. Sentences are broken between
        words: Validate's window cuts off what is longer.
        """
        if self.on_page:
            return [f"{type(self).__name__}: see above."]
        sentences = f"{type(self).__name__}: {self}".splitlines()
        broken = (SENTENCES.wrap(line) or [""] for line in sentences)
        return [*self.student_lines, *(line for lines in broken for line in lines)]


class Report:
    """Prints a line for each property of an exercise, and fails at the end if one failed.

    Use it as a context manager. Every property is looked at, so that a student sees all that
    is missing; the error that is raised when the block ends describes the first one.

    Args:
        title: what is checked, as the first line has it.
        quiet: print nothing, for a look aside.
    """

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.title = title
        self._quiet = quiet
        self.first_problem: str | None = None
        self.first_mistake: Mistake | None = None
        self._said: set[tuple[bool, str]] = set()

    def __enter__(self) -> "Report":
        self._say(self.title)
        return self

    def expect(
        self,
        holds: bool,
        prop: str,
        problem: str,
        mistake: Mistake | Callable[[], Mistake | None] | None = None,
    ) -> bool:
        """Print whether a property holds; keep the problem if it is the first one.

        A property that is checked again, for another case, is printed again if it fails.

        Args:
            mistake: what explains the problem, or what finds it: it is called for the first
                problem only.
        """
        if (holds, prop) not in self._said:
            self._said.add((holds, prop))
            self._say(f"  {'ok  ' if holds else 'FAIL'}  {prop}")
        if not holds and self.first_problem is None:
            mistake = mistake() if callable(mistake) else mistake
            self.first_problem = problem if mistake is None else f"{problem}\n{mistake}"
            self.first_mistake = mistake
        return holds

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line)

    def expect_close(
        self,
        found: Tensor,
        expected: Tensor,
        prop: str,
        mistakes: Sequence[tuple[Tensor, Mistake]] = (),
    ) -> bool:
        """Compare two tensors; if they differ, look for a mistake that explains `found`.

        Args:
            mistakes: what `found` would be after each known mistake.
        """
        return self.expect_cases(prop, [Comparison(prop, found, expected, lambda: mistakes)])

    def expect_cases(
        self,
        prop: str,
        cases: Sequence["Comparison"],
        otherwise: Callable[[], Mistake | None] = lambda: None,
    ) -> bool:
        """Compare tensors of several cases; if some differ, look for a mistake that explains all.

        Args:
            otherwise: finds another explanation, where no known mistake explains what differs.
        """
        different = next((case for case in cases if not case.is_right()), None)
        if different is None:
            return self.expect(True, prop, "")
        problem = f"{different.label}: {different.difference()}."
        return self.expect(
            False, prop, problem, lambda: the_one_that_explains(cases) or otherwise()
        )

    def expect_tensor(self, value: object, what: str, mistake: Mistake | None = None) -> bool:
        """Print if a value is anything but a plain tensor of real numbers.

        Args:
            mistake: what to name if it is none.
        """
        problem = f"expected {what} as a tensor of real numbers, found {describe(value)}."
        plain = isinstance(value, Tensor) and not odd_kind(value)
        return plain or self.expect(False, f"{what} is a tensor", problem, mistake)

    def __exit__(
        self, kind: type | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, CheckFailed):
            self._say(f"  FAIL  {error}")
        if self.first_problem is not None and (error is None or isinstance(error, CheckFailed)):
            raise CheckFailed(self.first_problem, mistake=self.first_mistake) from error
        if error is None and not self._quiet:
            _passed.add(tuple(self.title.split(" · ")[:2]))


def named(failure: CheckFailed, mistake: Mistake | None) -> CheckFailed:
    """Return a failure that also names a mistake, if there is one."""
    if mistake is None:
        return failure
    return CheckFailed(f"{failure}\n{mistake}", failure.student_lines, mistake)


@dataclass(frozen=True)
class Comparison:
    """A tensor of the student's beside what it should be, and what each known mistake gives.

    Attributes:
        label: what it is, for the message.
        predict: returns each mistake that may be named, with what `found` is after it, or None
            where it changes nothing. A mistake may be there more than once, for each way to make
            it; None stands for one that is known not to be made. All cases have as many, in the
            same order. It is asked only where something differs.
        scale_dim: the dimension whose entries share a scale; all entries do if None.
        tolerance: as in `close`.
    """

    label: str
    found: Tensor
    expected: Tensor
    predict: Callable[[], Iterable[tuple[Tensor | None, Mistake | None]]] = tuple
    scale_dim: int | None = None
    tolerance: float = 1e-4

    @functools.cached_property
    def wrong(self) -> list[tuple[Tensor | None, Mistake | None]]:
        """What was predicted."""
        return list(self.predict())

    def is_right(self) -> bool:
        return self._agrees_with(self.expected)

    def difference(self) -> str:
        """Say how it differs from what it should be."""
        return differ(self.found, self.expected, self.scale_dim)

    def is_explained_by(self, index: int) -> bool:
        """Return whether the mistake of this index gives what was found."""
        wrong, _ = self.wrong[index]
        return self.is_right() if wrong is None else self._agrees_with(wrong)

    def _agrees_with(self, value: Tensor) -> bool:
        return close(self.found, value, self.tolerance, self.scale_dim)


def the_one_that_explains(cases: Sequence[Comparison]) -> Mistake | None:
    """Return the mistake that explains all cases, if there is one and no other does so too."""
    explaining = [
        mistake
        for index, (_, mistake) in enumerate(cases[-1].wrong)
        if mistake is not None and all(case.is_explained_by(index) for case in cases)
    ]
    return explaining[0] if len(set(explaining)) == 1 else None


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
