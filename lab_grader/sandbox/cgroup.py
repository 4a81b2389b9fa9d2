"""A limit on memory that Linux itself enforces, where it can: a cgroup for each sandbox.

It counts what no look from outside can: buffers, and what is taken between two looks. systemd makes
one for whoever grades, root or not; in most containers, and with cgroups of version 1, there is
none, and the limits that the grader watches are all there is.
"""

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lab_grader.sandbox.limits import Limits

# What the fork server and its imports take besides.
SERVER_BYTES = 2 << 30
SECONDS = 10  # for systemd to make one
BOOTED = Path("/run/systemd/system")  # is there where systemd started the machine
# Prints the limit of the cgroup that it runs in; without a dollar sign, which some versions of
# systemd-run expand.
LIMIT_OF_THIS = """\
own = next(line for line in open("/proc/self/cgroup") if line.startswith("0::"))
print(open(f"/sys/fs/cgroup{own.strip()[3:]}/memory.max").read())
"""
# If Linux ends a kernel in it, systemd (from version 253) would end the fork server, too.
GO_ON = ("-p", "OOMPolicy=continue")  # which older versions do not know


def memory_of_sandbox(limits: Limits) -> int:
    """Return how many bytes a sandbox may take in all."""
    return limits.memory_bytes + limits.scratch_bytes + SERVER_BYTES


@dataclass(frozen=True)
class Confining:
    """How a command is run in a cgroup.

    Attributes:
        command: what runs another one there; empty where that is not possible.
        why_not: what systemd said, where it runs and still makes none.
    """

    command: tuple[str, ...] = ()
    why_not: str = ""


@functools.cache
def confining(memory_bytes: int) -> Confining:
    """Return how to run a command in a cgroup, after trying whether the limit is in force there.

    Args:
        memory_bytes: what all processes in it may take together.
    """
    program = shutil.which("systemd-run")
    if program is None:
        return Confining()
    said = ""
    for more in (GO_ON, ()):
        command = (
            *(program, *(() if os.geteuid() == 0 else ("--user",))),
            *("--scope", "--quiet", "--collect", "--no-ask-password"),
            *("-p", f"MemoryMax={memory_bytes}", "-p", "MemorySwapMax=0", *more, "--"),
        )
        try:
            tried = subprocess.run(
                [*command, sys.executable, "-I", "-c", LIMIT_OF_THIS],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
            break
        if tried.stdout.strip() == str(memory_bytes):
            return Confining(command)
        said = tried.stderr.strip() or f"the limit there is {tried.stdout.strip() or 'unknown'}"
    return Confining(why_not=said.splitlines()[-1] if BOOTED.is_dir() else "")
