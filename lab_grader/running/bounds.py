"""What bounds a kernel: a `Guard` on what it uses, and `Patience` with what it was asked."""

import threading
import time

from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.place import Sandbox, Unconfined

WATCH_SECONDS = 0.25  # between two looks


class Guard:
    """Watches all the time what a kernel uses, and kills it if that is more than it may.

    It also watches between two requests: the student's threads go on then, while the grader may be
    busy with what a check compares.

    Attributes:
        exceeded: what it used too much of, in words; empty until then.
        fine_at: when the last look began that found nothing, on the monotonic clock.
    """

    def __init__(self, place: Sandbox | Unconfined, limits: Limits) -> None:
        self.exceeded, self.fine_at = "", 0.0
        self._place, self._limits = place, limits
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more; what runs next is another kernel."""
        self._ended.set()
        self._thread.join()

    def _look_again_and_again(self) -> None:
        while not self._ended.wait(WATCH_SECONDS):
            began = time.monotonic()
            self.exceeded = self.exceeded or self._too_much()
            if self.exceeded:
                self._place.kill_kernel()
            else:
                self.fine_at = began

    def _too_much(self) -> str:
        processes, memory_bytes = self._place.usage()
        if processes > self._limits.processes:
            return f"it had more than {self._limits.processes} processes"
        if memory_bytes > self._limits.memory_bytes:
            return f"it took more than {self._limits.memory_bytes >> 20:,} MB of memory"
        return ""


class Patience:
    """The time that a request may take; then it is interrupted, and if that does not help, ended.

    Attributes:
        interrupted: whether the request was.
        exceeded: the reason, in words.
    """

    def __init__(self, seconds: float) -> None:
        self.interrupted, self.exceeded = False, f"it took more than {seconds:g} s"
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Allow so much from now on."""
        self._deadline = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() > self._deadline
