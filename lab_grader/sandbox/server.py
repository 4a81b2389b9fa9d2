"""The fork server of a sandbox as the grader has it: a process that takes orders, line by line."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 120  # a busy machine takes its time to import PyTorch


class ServerEnded(Exception):
    """The fork server has ended, or failed to do what it was told."""


class Server:
    """Starts the `fork_server` in a sandbox.

    Args:
        sandboxed: the beginning of a command, which runs the rest of it in a sandbox.
        stderr: the file that its stderr is added to.
    """

    def __init__(self, sandboxed: Sequence[str], stderr: Path) -> None:
        command = [
            # However the grader ends, what it started ends with it.
            *("setpriv", "--pdeathsig", "KILL", *sandboxed),
            # -P: import nothing from the folder that it runs in
            *(sys.executable, "-P", "-m", "lab_grader.sandbox.fork_server"),
        ]
        with open(stderr, "ab") as file:  # to append, since it may be cut
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                bufsize=0,
                umask=0o022,  # kernels are other users: folders above what they see let them pass
            )

    @property
    def pid(self) -> int:
        """The id of the process that the grader started."""
        return self._process.pid

    def order(self, order: dict[str, Any], answer: str) -> None:
        """Tell the server what to do, and wait until it says that it has done so.

        Raises:
            ServerEnded: it could not, or has ended.
        """
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ServerEnded("the sandbox had ended") from error
        deadline = time.monotonic() + START_SECONDS  # it may still be importing
        while line := self._next_line(deadline - time.monotonic()):
            if line == answer:
                return
            if line == "failed":
                break
            # Else it begins with "ended": the kernel ended by itself before it was told anything.
        raise ServerEnded("the sandbox gave no answer")

    def says_that_the_kernel_ended(self) -> str:
        """Return what it says about a kernel that has ended, or "ended" if it has itself.

        As long as the kernel runs, that is "".
        """
        # While a kernel runs, the server has nothing to say but that.
        said = self._next_line(0)
        return said or ("ended" if self._process.poll() is not None else "")

    def _next_line(self, seconds: float) -> str:
        """Return what the server says next; "" if it says nothing in time, or has ended."""
        ready, _, _ = select.select([self._process.stdout], [], [], max(0, seconds))
        return self._process.stdout.readline().decode().strip() if ready else ""

    def end(self) -> None:
        """End the server, and all kernels with it."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
