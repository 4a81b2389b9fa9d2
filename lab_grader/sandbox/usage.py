"""What a kernel uses of the machine, as Linux counts it: its processes, memory and sockets."""

import contextlib
import functools
import resource
from collections.abc import Iterator
from pathlib import Path


def processes_below(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and those that they started.

    The machine's other processes are not looked at, so that they cost no time.
    """
    with contextlib.suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text("utf-8").split():
                yield int(child)
                yield from processes_below(int(child))


def memory_of(kernel: list[int], enough: int) -> int:
    """Return how many bytes of memory a kernel uses, its sockets' buffers among them.

    Memory that several processes share counts once. Finding out takes long, so it is only done if
    the quick answer, which counts it for each of them, is more than `enough`.

    Args:
        kernel: its processes, its first one first.
        enough: a kernel with no more than this is not looked at more closely.
    """
    waiting = _sockets(kernel[0]) * socket_bytes() if kernel else 0
    resident = sum(map(_resident_bytes, kernel)) + waiting
    if resident <= enough:
        return resident
    return sum(map(_proportional_bytes, kernel)) + waiting


def _resident_bytes(pid: int) -> int:
    """Return the memory of a process, including what it shares; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return (
            int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * resource.getpagesize()
        )
    return 0


def _proportional_bytes(pid: int) -> int:
    """Return the memory of a process, with an nth of what n processes share.

    Linux walks over all of its pages for this. Where it gives no answer, all of it counts.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return _resident_bytes(pid)


def _sockets(pid: int) -> int:
    """Return how many sockets there are in a process's network, even if their owners have ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/net/unix").read_bytes().count(b"\n") - 1
    return 0


def killed_for_memory() -> int:
    """Return how many processes Linux has killed because memory ran out; 0 if it does not say.

    It counts those of the whole machine since its start, and those of each cgroup with them.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text("utf-8").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


@functools.cache
def socket_bytes() -> int:
    """Return how many bytes can wait at a socket whose buffers have Linux's default size."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/net/core/wmem_default").read_text("utf-8"))
    return 1 << 18
