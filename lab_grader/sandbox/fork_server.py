"""The first process in a sandbox: it imports what every kernel needs, and forks kernels on request.

Starting a kernel from scratch takes two seconds of CPU, mostly to import PyTorch; a fork takes a
fraction of that. The kernels of one student follow those of another, and nothing carries over:
- this process runs none of their code and reads none of their data, so it stays as it was after
  its imports, and two kernels share nothing else;
- each kernel has its own view of the files, with empty folders in memory; its own network, host
  name and shared memory (namespaces); its own random numbers and stderr; no right to change any of
  this; and only the system calls that the filter allows (`system_calls`);
- before the next kernel is forked, every process except this one is killed.

It reads a JSON line for each order from standard input, and writes a line for each reply:

    {"start": {"needs", "connection", "masks", "scratch_bytes", "limits", "uid",
               "filter"}}
                                                            ready
    (the kernel has ended by itself)                        ended, and how
    {"seal": true}, once the kernel has made its sockets    sealed: it can make no others
    {"stop": true}                                          stopped: no process is left

No module of the lab is imported before the fork, since some are hidden from a kernel. The child
drops its rights before it reads anything that a student wrote.
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

GIVEN, MASKS, SAID, SOCKETS, WORK = "/given", "/masks", "/said", "/sockets", "/work-folder"
CONNECTION = "/tmp/connection.json"
# Folders in memory that each kernel finds empty, and the share of its limit that each may use.
IN_MEMORY = {"/dev/shm": 0.25, "/tmp": 0.25, WORK: 0.5}
MOST_FILES = 10_000  # in each of them
REAP_SECONDS = 1.0
SETTINGS = (  # of every kernel
    "--HistoryManager.enabled=False",
    # the folder comes last: a torch.py beside the notebook is not imported in place of torch
    "--IPKernelApp.exec_lines=import sys, os; sys.path.append(os.getcwd()); del sys, os",
)

# From the Linux headers sched.h, mount.h, prctl.h and capability.h.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 1 << 17, 1 << 26, 1 << 27, 1 << 30
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, BYTES_OF_AN_INSTRUCTION = 22, 2, 8
CAPABILITY_VERSION = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: object) -> None:
    """Call a function of the C library; raise `OSError` if it fails."""
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    texts = (text.encode() for text in (source, target, kind))
    _call("mount", *texts, ctypes.c_ulong(flags), options.encode())


def serve() -> None:
    """Carry out orders until standard input ends. Runs nowhere but in a sandbox."""
    if os.getpid() != 1:
        sys.exit("fork_server ends every process that it sees: it starts as the first of a sandbox")
    # A kernel may have the same user as this process, from which nothing is hidden.
    _call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Without Python's handler a kernel of the same user cannot end this process: the first process
    # of a sandbox receives only signals that it handles.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _import_what_every_kernel_needs()
    imported: set[str] = set()
    pid, kernel = 0, None
    while True:
        waiting = [0] if kernel is None else [0, kernel]
        ready, _, _ = select.select(waiting, [], [], REAP_SECONDS)
        if kernel in ready:
            how = _how_it_ended(pid)
            os.close(kernel)
            kernel = None
            os.write(1, f"ended {how}\n".encode())
            continue
        _reap(but=pid if kernel is not None else 0)
        if not ready:
            continue
        line = sys.stdin.buffer.raw.readline()
        if not line:
            return
        order = json.loads(line)
        if "start" in order:
            for need in set(order["start"]["needs"]) - imported:
                NEEDS[need]()
                gc.freeze()
                imported.add(need)
            pid = os.fork()
            if pid == 0:
                _become_a_kernel(order["start"])
            kernel = os.pidfd_open(pid)
            os.write(1, b"ready\n")
        elif "seal" in order:
            os.write(1, b"sealed\n" if _seal(kernel) else b"failed\n")
        else:
            _end_all_others()
            if kernel is not None:
                os.close(kernel)
                kernel = None
            os.write(1, b"stopped\n")


def _import_what_every_kernel_needs() -> None:
    """Import what is slow to import, but no lab and no PEFT, which may be hidden from a kernel.

    Some of it is what Jupyter imports when it shows the first error or the first progress bar.
    """
    import ipykernel.debugger
    import ipykernel.ipkernel
    import ipykernel.kernelapp  # noqa: F401
    import IPython.core.completerlib
    import IPython.core.pylabtools
    import IPython.extensions.storemagic  # noqa: F401
    import joblib  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pygments.formatters.terminal256  # noqa: F401
    import stack_data  # noqa: F401
    import torch  # noqa: F401
    import tqdm.auto  # noqa: F401

    # Otherwise a garbage collection in a kernel (IPython makes one for each notebook) would visit
    # all of these objects, and so copy their memory.
    gc.freeze()


def _import_optimizers() -> None:
    """Make the first step of the first optimizer, which imports torch._dynamo: a second."""
    import torch

    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.0).step()


def _import_scipy() -> None:
    """Import SciPy's statistics."""
    import scipy.stats  # noqa: F401


def _import_transformers() -> None:
    """Import transformers with what PEFT imports of it."""
    import accelerate  # noqa: F401
    import huggingface_hub.hf_file_system  # noqa: F401
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        AutoTokenizer,
        BloomPreTrainedModel,
        EncoderDecoderModel,
    )


# What some kernels need, and a check names; it takes seconds, for which the others do not wait.
NEEDS = {
    "optimizers": _import_optimizers,
    "scipy": _import_scipy,
    "transformers": _import_transformers,
}


def _end_all_others() -> None:
    """Kill every process of the sandbox except this one, including those forked meanwhile."""
    with contextlib.suppress(ProcessLookupError):  # no other process is left
        while True:
            os.kill(-1, signal.SIGKILL)
            _reap()
            time.sleep(0.001)


def _how_it_ended(pid: int) -> str:
    """Reap a kernel; return its exit code, or the signal that ended it as a negative number.

    The seconds of processor time that it took follow.
    """
    _, status, used = os.wait4(pid, 0)
    return f"{os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime:.0f}"


def _reap(but: int = 0) -> None:
    """Reap the processes that have ended: the first process inherits all orphans.

    Args:
        but: a process that is left for `_how_it_ended`, even if it has just ended.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == but:
                return
            os.waitpid(ended.si_pid, 0)


def _seal(kernel: int | None) -> bool:
    """Make the folder of a kernel's sockets read-only for it, so that they stay as they are.

    Args:
        kernel: descriptor of its process, None if it has ended.
    """
    if kernel is None:
        return False
    pid = os.fork()
    if pid == 0:  # a process that enters the kernel's view of the files cannot leave it
        status = 1
        try:
            _call("setns", kernel, CLONE_NEWNS)
            _make_read_only(SOCKETS)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _become_a_kernel(order: dict) -> None:
    """Confine this process and run a kernel in it. Never returns."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        # The grader reads this file.
        said = os.open(f"{SAID}/kernel", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        os.dup2(said, 2)
        os.closerange(3, 1024)
        _hide(order["masks"], order["scratch_bytes"])
        _limit(order["limits"])
        _give_up_rights(order["uid"])
        _filter_system_calls(bytes.fromhex(order["filter"]))
        _run_kernel(order["connection"])
        status = 0
    finally:
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def _hide(masks: dict[str, str], scratch_bytes: int) -> None:
    """Get a private view of the files, with new folders in memory and the masks in place."""
    _call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    # It covers the stderr of other kernels, and cannot be removed.
    _mount("none", SAID, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4096")
    for folder, part in IN_MEMORY.items():
        # Mount points below are mounted again: the lab itself may be in /tmp.
        below = {path: os.open(path, os.O_PATH) for path in _mounted_below(folder)}
        options = f"mode=1777,size={int(part * scratch_bytes)},nr_inodes={MOST_FILES}"
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
        _make_read_only(hidden)


def _make_read_only(path: str) -> None:
    kept = MS_NOEXEC if os.statvfs(path).f_flag & os.ST_NOEXEC else 0  # a user cannot remove it
    flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | kept
    _mount("none", path, "", flags)


def _mounted_below(folder: str) -> list[str]:
    """Return the mount points below a folder, without those below one of them."""
    found: list[str] = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        escaped = line.split()[4]  # a space is \\040
        path = escaped.encode().decode("unicode_escape").encode("latin-1").decode()
        if path.startswith(f"{folder}/"):
            found.append(path)
    return [p for p in found if not any(p.startswith(f"{other}/") for other in found)]


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def _give_up_rights(uid: int | None) -> None:
    """Drop all capabilities and ways to get one; as root, become a user of no other kernel."""
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if uid is not None:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text("utf-8"))
        for capability in range(last + 1):
            _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    _call("capset", header, none)
    # A change of user resets both of these. Without the first, the kernel could outlive this
    # server; without the second, it could not read about itself in /proc.
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    # If the machine runs out of memory before a kernel reaches its limits, Linux ends a kernel.
    Path("/proc/self/oom_score_adj").write_text("1000", "utf-8")


class _Program(ctypes.Structure):
    """`struct sock_fprog` of the Linux header filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter_system_calls(instructions: bytes) -> None:
    program = _Program(len(instructions) // BYTES_OF_AN_INSTRUCTION, instructions)
    _call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)


def _run_kernel(connection: dict) -> None:
    import numpy
    from ipykernel.kernelapp import launch_new_instance

    signal.signal(signal.SIGINT, signal.default_int_handler)
    numpy.random.seed()  # after a fork Python's own generator seeds itself again, NumPy's does not
    for given in Path(GIVEN).iterdir():
        copy = shutil.copytree if given.is_dir() else shutil.copy
        copy(given, Path(WORK, given.name))
    os.chdir(WORK)
    descriptor = os.open(CONNECTION, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(connection, file)
    launch_new_instance(argv=["-f", CONNECTION, *SETTINGS])


if __name__ == "__main__":
    serve()
