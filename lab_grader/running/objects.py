"""The student's objects of one notebook, as checks ask them: see `wire.remote.Holder`."""

import io
import sys
from collections import Counter, defaultdict
from collections.abc import Callable

from lab_grader.running.kernel import Died, TimedOut
from lab_grader.running.lasting import LastingKernel
from lab_utils.checks.report import CheckFailed

LONGEST_KEPT = 256 << 10  # bytes of an answer that is kept for other checks


class KeptAnswers:
    """What the student's code answered and printed since the last cell ran.

    Several checks ask the same question, such as one training of the student's. The answer to the
    first is kept for the others. A check that asks twice gets two answers, though: what it wants to
    know may be whether they differ.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, bytes], list[tuple[str, bytes]]] = defaultdict(list)
        self._asked: Counter[tuple[str, bytes]] = Counter()  # by the check that is under way

    def forget(self) -> None:
        """A cell runs, which may change what the next answer is."""
        self._kept.clear()

    def next_check(self) -> None:
        """Another check begins to ask."""
        self._asked.clear()

    def find(self, name: str, question: bytes) -> tuple[str, bytes] | None:
        """Return what was printed and answered when an earlier check asked this; None if none did.

        A check's second time to ask is answered by what another check got the second time.
        """
        times = self._asked[name, question]
        self._asked[name, question] += 1
        kept = self._kept[name, question]
        return kept[times] if times < len(kept) else None

    def keep(self, name: str, question: bytes, printed: str, answer: bytes) -> None:
        """Keep an answer for other checks, unless it is large."""
        if len(answer) <= LONGEST_KEPT:
            self._kept[name, question].append((printed, answer))


class StudentObjects:
    """Answers questions about the objects of a notebook, each name's until it ends a kernel.

    What the student's code prints meanwhile is printed to stdout, up to the room that `allow` gave.

    Args:
        kernel: in which the objects are.
        answers: what was answered already.
        note: called with a sentence on what a person should know.

    Attributes:
        hidden: the files that the student's code cannot see.
    """

    def __init__(
        self, kernel: LastingKernel, answers: KeptAnswers, note: Callable[[str], None]
    ) -> None:
        self.hidden = kernel.hidden
        self._kernel, self._answers, self._note = kernel, answers, note
        self._broken: dict[str, str] = {}  # names whose code ended the kernel or looped, and how
        self._room = 0

    def allow(self, room: int) -> None:
        """Let the student's code print so many characters from now on."""
        self._room = room

    def next_check(self) -> None:
        """Another check begins to ask."""
        self._answers.next_check()

    def deliver(self, name: str, question: bytes) -> bytes:
        """Ask the student's object of a name; see `wire.remote.Holder`.

        Raises:
            CheckFailed: its code ended the kernel or looped, now or before.
            Again: the kernel had ended before: the test is to be made again.
        """
        kept = self._answers.find(name, question)
        if name in self._broken:
            raise CheckFailed(f"{name} is not run again: {self._broken[name]}.")
        if kept:
            printed, answer = kept
            self._print(printed)
            return answer
        shown = io.StringIO()

        def show(text: str) -> None:
            shown.write(text[: max(0, self._room)])
            self._print(text)

        try:
            answer = self._kernel.exchange(name, question, show)
        except (Died, TimedOut) as error:
            self._broken[name] = str(error)
            if isinstance(error, TimedOut):  # the kernel says itself why it died
                self._note(f"{name}: {error}")
            raise CheckFailed(f"{name} was stopped: {error}.") from error
        self._answers.keep(name, question, shown.getvalue(), answer)
        return answer

    def _print(self, text: str) -> None:
        """Print what the student's code printed, as far as there is room for it."""
        if self._room > 0:
            sys.stdout.write(text[: self._room])
            self._room -= len(text)
            if self._room <= 0:
                sys.stdout.write("\n(more output; cut here)\n")
