"""What decides the marks of a submission, and what comes of executing it: plain values that travel
to a worker and back, and can be kept. Nothing here imports PyTorch, which takes seconds.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Limits:
    """What one kernel may use. Memory counts all processes of it; a process has `2 x` of it as
    address space, because PyTorch maps more than it touches."""

    cell_seconds: float = 30
    submission_seconds: int = 1800  # all of its kernels
    cpu_seconds: int = 300
    memory_bytes: int = 4 << 30
    processes: int = 128  # and threads
    file_bytes: int = 64 << 20
    scratch_bytes: int = 256 << 20
    output_bytes: int = 256 << 10  # of a cell; what is beyond is dropped
    message_bytes: int = 16 << 20  # of one message; a larger one is never received

    def describe(self) -> dict[str, float]:
        """Return the limits as plain values, for a cache key."""
        return asdict(self)


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
    """All that decides a submission's marks.

    Attributes:
        notebooks: the cells of each notebook; None in the place of text cells.
        files: what was handed in besides.
    """

    notebooks: dict[str, list[Cell | None]]
    files: dict[str, bytes]
    limits: Limits = field(default_factory=Limits)
    sandbox: bool = True

    @property
    def seed(self) -> int:
        """What fresh inputs are drawn from: nobody can foresee it, and a rerun draws the same."""
        return int.from_bytes(hashlib.sha256(repr(self.notebooks).encode()).digest()[:4])


@dataclass
class Result:
    """The outputs of each cell (None: it was not run), and what a person should look at."""

    outputs: dict[str, list[list[dict] | None]]
    notes: list[str]
