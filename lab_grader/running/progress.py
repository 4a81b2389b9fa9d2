"""How far a long run is: a bar for who watches, a line now and then for a log."""

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from lab_grader.plain import plain

EVERY_SECONDS = 30  # between two lines of a log
TICK_SECONDS = 1  # between two looks of a bar at the clock


def duration(seconds: float) -> str:
    """Return a time as people say it: `"40 s"`, `"12 min"`, `"1 h 05 min"`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class Progress:
    """Counts what is done of a number of things. Use it as a context manager.

    On a terminal it is a bar whose clock goes on also while nothing ends; elsewhere a line at the
    start, every half minute and at the end. It says how many of how many, the last student, the
    rate and the time left.

    Args:
        total: of things; those done before the start are not counted in the rate.
    """

    def __init__(
        self, total: int, what: str, file: TextIO | None = None, every: float = EVERY_SECONDS
    ) -> None:
        self.total, self.what, self.every = total, what, every
        self.file = file or sys.stderr
        self.done, self.last, self.start = 0, "", time.monotonic()
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.bar: tqdm | None = None

    def __enter__(self) -> "Progress":
        if self.file.isatty():
            self.bar = tqdm(
                total=self.total, desc=self.what, unit="student", file=self.file, dynamic_ncols=True
            )
        elif self.total:
            self._say()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def step(self, student: str) -> None:
        """Count a student as done."""
        with self.lock:
            self.done, self.last = self.done + 1, student
            if self.bar is not None:
                self.bar.set_postfix_str(plain(student, most=20), refresh=False)
                self.bar.update()

    def _watch(self) -> None:
        while not self.ended.wait(TICK_SECONDS if self.bar is not None else self.every):
            with self.lock:
                if self.bar is not None:
                    self.bar.refresh()
                elif self.done < self.total:
                    self._say()

    def _say(self) -> None:
        passed = time.monotonic() - self.start
        parts = [f"{self.what}: {self.done} of {self.total}"]
        if self.last:
            parts.append(f"the last was {plain(self.last, most=40)}")
        if self.done:
            parts.append(f"{duration(passed / self.done)} each")
        parts.append(f"{duration(passed)} gone")
        if 0 < self.done < self.total:
            left = passed / self.done * (self.total - self.done)
            parts.append(f"about {duration(left)} left")
        print(", ".join(parts), file=self.file, flush=True)

    def __exit__(
        self, kind: type | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()
        if self.bar is not None:
            self.bar.close()
        elif self.total:
            self._say()
