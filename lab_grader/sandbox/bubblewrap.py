"""The command line of bubblewrap: what a sandbox sees of the machine, and what rights it has.

It sees the system, Python with its packages, and the lab, all read-only, and nothing else. It has
no network, and of the grader's environment not one variable.
"""

import os
import resource
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lab_grader
import lab_utils
from lab_grader.plain import say
from lab_grader.sandbox.cgroup import confining, memory_of_sandbox
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.system_calls import NoFilter, filter_program

NOT_INSTALLED = (
    "bubblewrap is not installed, so students' code cannot be isolated from this machine. "
    "On Debian or Ubuntu: sudo apt install bubblewrap. Elsewhere, for submissions of people "
    "whom you trust, grade with --no-sandbox: their code then runs with your permissions."
)
# How a shell's `ulimit` names a limit; all are in bytes here, and most in kB there.
OPTIONS = {
    "RLIMIT_AS": "-v, bytes of address space",
    "RLIMIT_CPU": "-t, seconds of processor time",
    "RLIMIT_CORE": "-c, bytes of a core dump",
    "RLIMIT_NPROC": "-u, processes",
    "RLIMIT_FSIZE": "-f, bytes of a file",
    "RLIMIT_NOFILE": "-n, open files",
}
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "USER": "student",
    "LANG": "C.UTF-8",
    "IPYTHONDIR": "/tmp/ipython",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # a notebook's
    "MPLCONFIGDIR": "/tmp",
    "OMP_NUM_THREADS": "1",
    "NBGRADER_EXECUTION": "autograde",
    "PIP_NO_INDEX": "1",  # without a network it would try for long
    "PYTHONHASHSEED": "0",  # the order of a set is the same for everybody
}


class NoSandbox(Exception):
    """A sandbox cannot be made here; the text says why, and what to do."""


def check_available() -> None:
    """Raise `NoSandbox` if a kernel could not be confined on this machine; say so on stderr if
    systemd runs, but makes no cgroup."""
    if not sys.platform.startswith("linux") or shutil.which("bwrap") is None:
        raise NoSandbox(NOT_INSTALLED)
    try:
        filter_program()
    except NoFilter as error:
        raise NoSandbox(str(error)) from error
    command = ["bwrap", *_privileges(), "--ro-bind", "/", "/", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if tried.returncode != 0:
        raise NoSandbox(
            f"bubblewrap does not work here: {tried.stderr.strip()}. In a container, allow "
            "user namespaces or run it with the capability SYS_ADMIN; or see --no-sandbox."
        )
    _check_limits(Limits())
    if why_not := confining(memory_of_sandbox(Limits())).why_not:
        note = f"systemd makes no cgroup ({why_not}); memory is watched four times a second instead"
        say([f"lab_grader: {note}"], sys.stderr)


def _check_limits(limits: Limits) -> None:
    """Raise `NoSandbox` if this shell allows less than a kernel: no mark may depend on it."""
    lower = [
        f"{OPTIONS[name]} ({hard} instead of {value})"
        for name, value in limits.of_a_process().items()
        if (hard := resource.getrlimit(getattr(resource, name))[1]) != resource.RLIM_INFINITY
        and hard < value
    ]
    if lower:
        raise NoSandbox(
            f"this shell has limits below those of a student's code: ulimit {', '.join(lower)}. "
            "Raise them, or run this from a shell without them."
        )


def command(read_only: dict[Path, str], writable: dict[Path, str], work: str) -> list[str]:
    """Return the command that runs another one, appended to it, in a new sandbox.

    The sandbox ends with the process that started it.

    Args:
        read_only, writable: folders of this machine, and where they are in the sandbox.
        work: a folder in the sandbox, which is made for it and in which the command runs.
    """
    return [
        *("bwrap", *_privileges(), "--die-with-parent", "--new-session"),
        *("--unshare-pid", "--as-pid-1", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        "--unshare-cgroup-try",
        *("--proc", "/proc", "--dev", "/dev"),
        # /dev/full reads as zeros, too; a mapping of /dev/zero is memory that nobody counts.
        *("--dev-bind", "/dev/full", "/dev/zero"),
        *("--perms", "1777", "--tmpfs", "/dev/shm"),
        *("--perms", "1777", "--tmpfs", "/tmp"),
        *("--perms", "1777", "--dir", work),
        *_system(),
        *_fonts(),
        *(it for here, there in read_only.items() for it in ("--ro-bind", str(here), there)),
        *(it for here, there in writable.items() for it in ("--bind", str(here), there)),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", work, "--clearenv"),
        *(it for name, value in ENVIRONMENT.items() for it in ("--setenv", name, value)),
        "--",
    ]


def _privileges() -> list[str]:
    """Return the options that say who the fork server is, and what it may do.

    Started by root, it stays root without a user namespace: in one, root would still be root for
    the limit on processes and for the files that can be seen. Its kernels become other users.

    Started by anybody else, it gets a user namespace, in which it may mount and enter a kernel's
    view of the files. Its kernels give these rights up.
    """
    if os.geteuid() == 0:
        return []
    options = ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    return [*options, "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SYS_CHROOT"]


def _system() -> Iterator[str]:
    """Yield the options for the read-only system: /usr, Python, its packages and the lab."""
    for path in ("/bin", "/lib", "/lib64", "/sbin"):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    lab = [os.path.dirname(package.__file__) for package in (lab_utils, lab_grader)]
    needed = {"/usr", sys.base_prefix, sys.prefix, *site.getsitepackages(), *lab}
    for path in sorted(os.path.abspath(path) for path in needed):
        if path == "/usr" or not path.startswith("/usr/"):
            yield from (*_parents(path), "--ro-bind", path, path)


def _parents(path: str) -> Iterator[str]:
    """Yield options that make the folders above a path, which everyone may pass through.

    bwrap would make them too, but for its own user only.
    """
    for parent in reversed(Path(path).parents):
        if str(parent) != "/":
            yield from ("--perms", "0755", "--dir", str(parent))


def _fonts() -> Iterator[str]:
    """Yield options for Matplotlib's list of fonts, which takes long to make at every start."""
    import matplotlib  # only who makes a sandbox waits for it

    for path in Path(matplotlib.get_cachedir()).glob("fontlist*.json"):
        yield from ("--ro-bind", str(path), f"/tmp/{path.name}")
