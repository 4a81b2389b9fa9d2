"""The first process in a sandbox: it imports what every kernel needs, and forks one when told to.

A kernel of its own takes two seconds of CPU to start, most of them to import PyTorch; one that is
forked takes a fraction. Kernels of one student follow those of another here, and nothing of one
reaches the next:
- this process runs no code of theirs and reads nothing of theirs, so it stays as it was after its
  imports, and that is all that two kernels have in common;
- each kernel has its own view of the files with empty folders in memory, its own network, host name
  and shared memory (namespaces), its own random numbers, and no right to change any of it;
- before the next one is forked every process but this one is killed.

On standard input comes a JSON line for each order, on standard output goes a word for each answer:

    {"connection": ..., "masks": ..., "limits": ..., "uid": ...}    ready
    (the kernel has ended by itself)                                ended
    {}                                                              stopped: no process is left

No module of the lab is imported before the fork: some are hidden from a kernel. The child takes its
rights away from itself before it reads anything of the student's.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path

GIVEN, MASKS, SOCKETS, WORK = "/given", "/masks", "/sockets", "/work-folder"
CONNECTION = "/tmp/connection.json"
IN_MEMORY = ("/dev/shm", "/tmp", WORK)  # folders that each kernel finds empty
REAP_SECONDS = 1.0
SETTINGS = (  # of every kernel
    "--HistoryManager.enabled=False",
    # the folder comes last: a torch.py beside the notebook is not imported in place of torch
    "--IPKernelApp.exec_lines=import sys, os; sys.path.append(os.getcwd()); del sys, os",
)

# From the Linux headers sched.h, mount.h, prctl.h and capability.h.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 1 << 17, 1 << 26, 1 << 27, 1 << 30
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
CAPABILITY_VERSION = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: object) -> None:
    """Call the system; raise `OSError` if it refuses."""
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    texts = (text.encode() for text in (source, target, kind))
    _call("mount", *texts, ctypes.c_ulong(flags), options.encode())


def serve() -> None:
    """Obey until standard input ends. Refuses to run anywhere but in a sandbox."""
    if os.getpid() != 1:
        sys.exit("fork_server ends every process that it sees: it starts as the first of a sandbox")
    # A kernel's user may be this process's user too, and here nothing is hidden.
    _call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    _import_what_kernels_need()
    kernel = None
    while True:
        waiting = [0] if kernel is None else [0, kernel]
        ready, _, _ = select.select(waiting, [], [], REAP_SECONDS)
        _reap()
        if kernel in ready:
            os.close(kernel)
            kernel = None
            os.write(1, b"ended\n")
            continue
        if not ready:
            continue
        line = sys.stdin.buffer.raw.readline()
        if not line:
            return
        order = json.loads(line)
        if order:
            pid = os.fork()
            if pid == 0:
                _become_a_kernel(order)
            kernel = os.pidfd_open(pid)
            os.write(1, b"ready\n")
        else:
            _end_all_others()
            if kernel is not None:
                os.close(kernel)
                kernel = None
            os.write(1, b"stopped\n")


def _import_what_kernels_need() -> None:
    import ipykernel.ipkernel
    import ipykernel.kernelapp  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401

    gc.freeze()  # so that a collection in a child does not touch, and so copy, all of this


def _end_all_others() -> None:
    """Kill every process of the sandbox but this one, whatever they fork meanwhile."""
    with contextlib.suppress(ProcessLookupError):  # there is none, or none any more
        while True:
            os.kill(-1, signal.SIGKILL)
            _reap()
            time.sleep(0.001)


def _reap() -> None:
    """Let go of the processes that have ended: orphans come to the first process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _become_a_kernel(order: dict) -> None:
    """Confine this process, then run a kernel in it; never return."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.closerange(3, 1024)
        _hide(order["masks"], order["limits"]["scratch_bytes"])
        _limit(order["limits"])
        _give_up_rights(order["uid"])
        _run_kernel(order["connection"])
        status = 0
    finally:
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def _hide(masks: dict[str, str], scratch_bytes: int) -> None:
    """Get a view of the files of its own, with fresh folders in memory and the masks in place."""
    _call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    for folder in IN_MEMORY:
        # What is mounted below is mounted again: the lab itself may lie in /tmp.
        below = {path: os.open(path, os.O_PATH) for path in _mounted_below(folder)}
        options = f"mode=1777,size={scratch_bytes}"
        _mount("none", folder, "tmpfs", MS_NOSUID | MS_NODEV, options)
        for path, descriptor in below.items():
            source = f"/proc/self/fd/{descriptor}"
            if os.path.isdir(source):
                os.makedirs(path)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                Path(path).touch()
            _mount(source, path, "", MS_BIND | MS_REC)
            os.close(descriptor)
    for hidden, mask in masks.items():
        _mount(mask, hidden, "", MS_BIND)
        _mount("none", hidden, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _mounted_below(folder: str) -> list[str]:
    """Return the mount points below a folder, without those below one of them."""
    found: list[str] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        escaped = line.split()[4]  # a space is \\040
        path = escaped.encode().decode("unicode_escape").encode("latin-1").decode()
        if path.startswith(f"{folder}/"):
            found.append(path)
    return [p for p in found if not any(p.startswith(f"{other}/") for other in found)]


def _limit(limits: dict[str, int]) -> None:
    for which, value in (
        (resource.RLIMIT_AS, 2 * limits["memory_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, 512),
    ):
        resource.setrlimit(which, (value, value))


def _give_up_rights(uid: int | None) -> None:
    """Keep no capability and no way to one; as root, become a user that nobody else is."""
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if uid is not None:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        for capability in range(last + 1):
            _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    _call("capset", header, none)
    # A change of user sets both of these back: the first would let it outlive this server, the
    # second keep it from what any process may know of itself in /proc.
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)


def _run_kernel(connection: dict) -> None:
    import numpy
    from ipykernel.kernelapp import launch_new_instance

    numpy.random.seed()  # Python's own generator seeds itself anew after a fork, this one does not
    for given in Path(GIVEN).iterdir():
        copy = shutil.copytree if given.is_dir() else shutil.copy
        copy(given, Path(WORK, given.name))
    os.chdir(WORK)
    descriptor = os.open(CONNECTION, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        json.dump(connection, file)
    gc.unfreeze()
    launch_new_instance(argv=["-f", CONNECTION, *SETTINGS])


if __name__ == "__main__":
    serve()
