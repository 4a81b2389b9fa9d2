"""What decides the marks of a submission, and the result of executing it.

Both are plain values that travel to a worker and back, and can be cached. Nothing here imports
PyTorch, which takes seconds.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from lab_grader.sandbox.limits import Limits


@dataclass(frozen=True)
class Cell:
    """A code cell of a submission.

    Attributes:
        role: `"exercise"`, `"test"`, `"manual"` (an answer that a person marks), `"lesson"` (as
            it was released) or `"student"` (added or changed).
        released: the text of the same cell as it was released; empty for the student's own.
    """

    source: str
    role: Literal["exercise", "test", "manual", "lesson", "student"]
    released: str = ""


@dataclass(frozen=True)
class Job:
    """Everything that decides a submission's marks.

    Attributes:
        notebooks: the cells of each notebook; None for text cells.
        files: what else was handed in.
    """

    notebooks: dict[str, list[Cell | None]]
    files: dict[str, bytes]
    limits: Limits = field(default_factory=Limits)
    sandbox: bool = True

    @property
    def seed(self) -> int:
        """The seed of fresh inputs: it cannot be foreseen, and a rerun draws the same."""
        return int.from_bytes(hashlib.sha256(repr(self.notebooks).encode()).digest()[:4])


@dataclass(frozen=True)
class FailedTest:
    """A test that failed, and why, as data.

    Attributes:
        cell: the index of the test cell in the notebook of `lesson`.
        call: which of the cell's calls failed, from 0; the hidden ones come last.
        problem: what was expected and what was found, in one sentence.
        name, why, section: of the mistake that explains it; empty where none is known.
    """

    lesson: str
    cell: int
    call: int
    problem: str
    name: str = ""
    why: str = ""
    section: str = ""


@dataclass
class Result:
    """The result of executing a submission.

    Attributes:
        outputs: of each cell; None if it was not run. Those of a test are one stream for each
            call that was made, and then the error, if it failed.
        notes: what a person should look at.
        failed: the tests that failed, each once.
    """

    outputs: dict[str, list[list[dict] | None]]
    notes: list[str]
    failed: list[FailedTest] = field(default_factory=list)
