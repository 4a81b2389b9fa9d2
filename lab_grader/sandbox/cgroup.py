"""A limit on memory that Linux itself holds, where it can be had: a cgroup for each sandbox.

It counts what no look from outside can: buffers, and what is taken between two looks. systemd makes
one for whoever grades, root or not; in most containers, and with cgroups of version 1, there is
none, and the limits that the grader watches are all there is.
"""

import functools
import os
import shutil
import subprocess

# What the fork server and its imports take besides.
SERVER_BYTES = 2 << 30
SECONDS = 10  # for systemd to make one
LIMIT_OF_THIS = 'cat "/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.max"'


@functools.cache
def confining(memory_bytes: int) -> tuple[str, ...]:
    """Return the command that runs another one in a cgroup; nothing where that has no effect.

    Args:
        memory_bytes: what all processes in it may take together.
    """
    program = shutil.which("systemd-run")
    if program is None:
        return ()
    command = (
        *(program, *(() if os.geteuid() == 0 else ("--user",))),
        *("--scope", "--quiet", "--collect", "--no-ask-password"),
        *("-p", f"MemoryMax={memory_bytes}", "-p", "MemorySwapMax=0", "--"),
    )
    try:
        tried = subprocess.run(
            [*command, "sh", "-c", LIMIT_OF_THIS], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return ()
    return command if tried.stdout.strip() == str(memory_bytes) else ()
