"""A Jupyter kernel that a student's code cannot leave: a kernel provisioner over bubblewrap.

The kernel sees the system and the lab read-only, and two folders of its own in memory; it has no
network, no environment, and limits on everything that it could exhaust. It talks to the grader
through sockets in one folder. No user is shared: as root each kernel gets a user id of its own,
otherwise a user namespace.
"""

import os
import random
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Dict, Unicode

import lab_grader
import lab_utils

MISSING = (
    "bubblewrap is not installed, so students' code cannot be kept apart from this machine. "
    "On Debian or Ubuntu: sudo apt install bubblewrap. Elsewhere, for submissions of people "
    "whom you trust, grade with --no-sandbox: their code then runs with your rights."
)


class NoSandbox(Exception):
    """A sandbox cannot be made here."""


@dataclass(frozen=True)
class Limits:
    """What one kernel may use. Memory counts all processes of it; a process has `2 x` of it as
    address space, because PyTorch maps more than it touches."""

    cell_seconds: float = 30
    kernel_seconds: int = 600
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


def check_available() -> None:
    """Raise `NoSandbox` if a kernel could not be confined on this machine."""
    if not sys.platform.startswith("linux") or shutil.which("bwrap") is None:
        raise NoSandbox(MISSING)
    command = ["bwrap", *_privileges()[0], "--ro-bind", "/", "/", "true"]
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode != 0:
        raise NoSandbox(
            f"bubblewrap does not work here: {tried.stderr.strip()}. In a container, allow "
            "user namespaces or run it with the capability SYS_ADMIN; or see --no-sandbox."
        )


def _privileges() -> tuple[list[str], list[str], int | None]:
    """Return bwrap's options, the command that gives up rights, and the user id, None if ours.

    Root in a user namespace would still be root for the limit on processes and for the files
    that are visible, so root becomes somebody else instead.
    """
    if os.geteuid() != 0:
        options = ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
        return options, [], None
    uid = random.SystemRandom().randrange(2_000_000_000, 2_100_000_000)
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    return [], [*drop, "--bounding-set=-all", "--no-new-privs"], uid


def _parents(path: str) -> Iterator[str]:
    """Yield options that make the folders above a path, open for everyone to pass through.

    bwrap itself would make them for its own user only.
    """
    for parent in reversed(Path(path).parents):
        if str(parent) != "/":
            yield from ("--perms", "0755", "--dir", str(parent))


def _bind(path: str, source: str | None = None, writable: bool = False) -> list[str]:
    return [*_parents(path), "--bind" if writable else "--ro-bind", source or path, path]


def _memory_folder(path: str, size: int) -> list[str]:
    return ["--perms", "1777", "--size", str(size), "--tmpfs", path]


def _system() -> Iterator[str]:
    """Yield options for the read-only system: /usr, Python, its packages and the lab."""
    for path in ("/bin", "/lib", "/lib64", "/sbin"):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    lab = [os.path.dirname(package.__file__) for package in (lab_utils, lab_grader)]
    needed = {"/usr", sys.base_prefix, sys.prefix, *site.getsitepackages(), *lab}
    for path in sorted(os.path.abspath(path) for path in needed):
        if path == "/usr" or not path.startswith("/usr/"):
            yield from _bind(path)


def _fonts() -> Iterator[str]:
    """Yield options that spare Matplotlib to look through all fonts at every start."""
    for path in Path(matplotlib.get_cachedir()).glob("fontlist*.json"):
        yield from ("--ro-bind", str(path), f"/tmp/{path.name}")


class SandboxProvisioner(LocalProvisioner):
    """Starts a kernel in a sandbox of its own. See the module."""

    files = Unicode(help="a folder whose contents the kernel finds in its working folder")
    masks = Dict(help="what stands in for files and folders that the kernel must not see")
    limits = Dict(help="the fields of Limits")
    folder = None
    stderr = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Return the command that starts the kernel within bubblewrap, and how to start it."""
        options, drop_rights, uid = _privileges()
        limits = Limits(**self.limits)
        self.folder = Path(tempfile.mkdtemp(prefix="lab-"))
        sockets = self.folder / "sockets"
        sockets.mkdir(mode=0o700)
        manager = self.parent
        manager.transport, manager.ip, manager.cache_ports = "ipc", str(sockets / "k"), False
        manager.connection_file = str(self.folder / "connection.json")
        kwargs = await super().pre_launch(**kwargs)
        os.chmod(self.folder, 0o711)
        if uid is not None:
            os.chown(sockets, uid, uid)
            os.chown(manager.connection_file, uid, uid)

        start = 'cp -r /given/. .; exec "$@"'
        kwargs["cmd"] = [
            # both die with the grader, however it ends
            *("setpriv", "--pdeathsig", "KILL", "timeout", "--signal=KILL"),
            *(str(limits.kernel_seconds), "bwrap", *options),
            *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", "--die-with-parent", "--new-session"),
            *("--proc", "/proc", "--dev", "/dev"),
            *_memory_folder("/dev/shm", limits.scratch_bytes),
            *_memory_folder("/tmp", limits.scratch_bytes),
            *_memory_folder("/work-folder", limits.scratch_bytes),
            *_system(),
            *(option for path, mask in self.masks.items() for option in ("--ro-bind", mask, path)),
            *_fonts(),
            *("--ro-bind", self.files, "/given"),
            *_bind(str(sockets), writable=True),
            *_bind(manager.connection_file),
            *("--remount-ro", "/dev", "--remount-ro", "/"),
            *("--chdir", "/work-folder", "--clearenv"),
            *self._environment(),
            *("--", "sh", "-c", start, "sh", "prlimit"),
            *(f"--as={2 * limits.memory_bytes}", f"--cpu={limits.cpu_seconds}", "--core=0"),
            *(f"--nproc={limits.processes}", f"--fsize={limits.file_bytes}", "--nofile=512"),
            *drop_rights,
            *kwargs["cmd"],
        ]
        self.stderr = open(self.folder / "stderr", "wb")  # noqa: SIM115 closed in cleanup
        kwargs["stdout"], kwargs["stderr"] = subprocess.DEVNULL, self.stderr
        return kwargs

    @staticmethod
    def _environment() -> Iterator[str]:
        values = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "USER": "student",
            "LANG": "C.UTF-8",
            "IPYTHONDIR": "/tmp/ipython",
            "MPLCONFIGDIR": "/tmp",
            "OMP_NUM_THREADS": "1",
            "NBGRADER_EXECUTION": "autograde",
        }
        for name, value in values.items():
            yield from ("--setenv", name, value)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the folder of the sockets."""
        if self.stderr is not None:
            self.stderr.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        await super().cleanup(restart=restart)
