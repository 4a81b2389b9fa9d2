"""The grader's end of the wire: what a check holds in place of a student's object."""

from collections.abc import Callable
from typing import Any, Protocol

from lab_grader.wire.values import LONGEST_DESCRIPTION, give_back, pack, unpack
from lab_utils.checks.report import CheckFailed
from lab_utils.checks.subject import Remote, call_function


class Kernel(Protocol):
    """What holds the student's objects."""

    hidden: frozenset[str]  # the files that it can not see

    def ask(self, name: str, question: str) -> str:
        """Return the packed answer to a packed question about an object."""


class ReferenceInReach(Exception):
    """A check asks about an exercise whose reference the student's process can see."""


class RemoteObject(Remote):
    """Stands for the object of one name in a student's notebook.

    Raises:
        NameError: the notebook has no such name.
    """

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel, self._name = kernel, name
        if self._ask(None) is False:
            raise NameError(f"name '{name}' is not defined")

    def _ask(self, way: Callable | None, *arguments: Any, **named: Any) -> Any:
        question = pack((self._name, way, list(arguments), named))
        try:
            return unpack(self._kernel.ask(self._name, question))
        except ValueError as error:  # only a process that was tampered with answers so
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CheckFailed:
        return CheckFailed(f"{self._name} gave an answer that cannot be read: {error}")

    def ask(
        self, reference: tuple[str, ...], way: Callable, /, *arguments: Any, **named: Any
    ) -> Any:
        """See `Remote.ask`."""
        if not self._kernel.hidden.issuperset(reference):
            seen = sorted(set(reference) - self._kernel.hidden)
            raise ReferenceInReach(
                f"the check of {self._name} asks with another reference than at first: "
                f"{', '.join(seen)}. All questions of one test cell must name the same files."
            )
        answer = self._ask(way, *arguments, **named)
        try:
            return self._read(answer, way, arguments)
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise self._unreadable(error) from error

    def _read(self, answer: dict[str, Any], way: Callable, arguments: tuple) -> Any:
        if way is call_function:
            # The student's function was given these very arguments, and the check may look
            # whether they stayed as they were. Elsewhere they are the check's own business,
            # and a process that was tampered with must not change what it will compare with.
            give_back(list(arguments), answer["after"])
        if "failed" in answer:
            lines = [str(line)[:500] for line in answer["lines"][:50]]
            raise CheckFailed(str(answer["failed"])[:LONGEST_DESCRIPTION], lines)
        return answer["result"]


class Revealed(Exception):
    """Carries the reference of the first question of a check."""

    def __init__(self, reference: tuple[str, ...]) -> None:
        super().__init__()
        self.reference = frozenset(reference)


class Revealer(Remote):
    """Finds out which reference a check forbids: by its first question, asked of nobody."""

    def ask(
        self, reference: tuple[str, ...], way: Callable, /, *arguments: Any, **named: Any
    ) -> Any:
        """Raise `Revealed`."""
        raise Revealed(reference)
