"""The grader's end of the wire: the stand-in for a student's object that checks use."""

import functools
import importlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

from lab_grader.wire.values import LONGEST_DESCRIPTION, pack, unpack
from lab_utils import questions
from lab_utils.checks.report import CheckFailed
from lab_utils.checks.subject import Remote

MOST_LINES, LONGEST_LINE = 50, 500  # of the student's own code, in a message


class Holder(Protocol):
    """Whatever holds the student's objects and answers questions about them."""

    hidden: frozenset[str]  # the files that it cannot see

    def deliver(self, name: str, question: bytes) -> bytes:
        """Return the packed answer to a packed question about an object."""


class ReferenceInReach(Exception):
    """A check asks about an exercise whose reference solution the student's process can see."""


class RemoteObject(Remote):
    """Stands for the object with a given name in a student's notebook.

    Raises:
        NameError: the notebook has no such name.
    """

    def __init__(self, holder: Holder, name: str) -> None:
        self._holder, self._name = holder, name
        self.__name__ = name  # as a function or class has it
        if self._send(None, None, None, [], "", []) is False:
            raise NameError(f"name '{name}' is not defined")

    def _send(self, *question: Any) -> Any:
        try:
            return unpack(self._holder.deliver(self._name, pack([self._name, *question])))
        except ValueError as error:  # only a process that was tampered with sends such an answer
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CheckFailed:
        return CheckFailed(f"{self._name} gave an answer that cannot be read: {error}")

    def ask(
        self, question: Callable, *arguments: Any, step: str, reference: Collection[str]
    ) -> Any:
        """See `Remote.ask`."""
        if not self._holder.hidden.issuperset(reference):
            seen = sorted(set(reference) - self._holder.hidden)
            raise ReferenceInReach(
                f"the check of {self._name} does not declare that it forbids {', '.join(seen)}, "
                "so the student's process can see them. Name them in @check(forbids=...)."
            )
        text, file = _text_of(question.__module__)
        reply = self._send(text, file, question.__name__, list(arguments), step, sorted(reference))
        match reply:
            case {"result": result}:
                return result
            case {"failed": str(why), "lines": list(lines)}:
                lines = [str(line)[:LONGEST_LINE] for line in lines[:MOST_LINES]]
                raise CheckFailed(why[:LONGEST_DESCRIPTION], lines)
            case _:
                raise self._unreadable(ValueError("it is not a reply to a question"))


@functools.cache
def _text_of(module: str) -> tuple[str, str]:
    """Return the text and the file of a module of questions."""
    if not module.startswith(f"{questions.__name__}."):
        raise TypeError(
            f"{module} is not a module of {questions.__name__}: its text may not travel"
        )
    file = importlib.import_module(module).__file__
    return Path(file).read_text("utf-8"), file
