"""A Jupyter kernel that a student's code cannot leave: a kernel provisioner over bubblewrap.

The kernel sees the system and the lab read-only, and two folders of its own in memory; it has no
network, no environment, and limits on everything that it could exhaust. It talks to the grader
through sockets in one folder. Its user is nobody else: as root each submission gets a user id of
its own, otherwise a sandbox has a user namespace.

Each process of the grader has a sandbox, in which kernels run one after the other, those of one
submission and then those of the next. Each is forked by a `fork_server`, which says why nothing
of one reaches another.
"""

import asyncio
import contextlib
import functools
import json
import os
import random
import resource
import select
import shutil
import site
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import KernelProvisionerBase
from traitlets import Any as Anything
from traitlets import Instance

import lab_grader
import lab_utils
from lab_grader.sandbox import fork_server
from lab_grader.sandbox.cgroup import SERVER_BYTES, confining
from lab_grader.sandbox.folders import Folder, readable_by_all, remove
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.masks import write_masks
from lab_grader.sandbox.system_calls import NoFilter, filter_program

LONGEST_LAST_WORDS = 500  # bytes
START_SECONDS = 120  # a busy machine takes its time to import PyTorch

MISSING = (
    "bubblewrap is not installed, so students' code cannot be isolated from this machine. "
    "On Debian or Ubuntu: sudo apt install bubblewrap. Elsewhere, for submissions of people "
    "whom you trust, grade with --no-sandbox: their code then runs with your permissions."
)


class NoSandbox(Exception):
    """A sandbox cannot be made here."""


def check_available() -> None:
    """Raise `NoSandbox` if a kernel could not be confined on this machine."""
    if not sys.platform.startswith("linux") or shutil.which("bwrap") is None:
        raise NoSandbox(MISSING)
    try:
        filter_program()
    except NoFilter as error:
        raise NoSandbox(str(error)) from error
    command = ["bwrap", *_privileges(), "--ro-bind", "/", "/", "true"]
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode != 0:
        raise NoSandbox(
            f"bubblewrap does not work here: {tried.stderr.strip()}. In a container, allow "
            "user namespaces or run it with the capability SYS_ADMIN; or see --no-sandbox."
        )


def _privileges() -> list[str]:
    """Return bwrap's options.

    Root in a user namespace would still be root for the limit on processes and for the files
    that are visible, so root becomes somebody else instead. In a user namespace the fork server
    may mount and enter a kernel's view of the files, in the namespace; a kernel gives that up.
    """
    if os.geteuid() == 0:
        return []
    options = ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    return [*options, "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SYS_CHROOT"]


def _new_user() -> int | None:
    """Return the user id that a submission's kernels take, None for that of the sandbox."""
    if os.geteuid() != 0:
        return None
    return random.SystemRandom().randrange(2_000_000_000, 2_100_000_000)


def _parents(path: str) -> Iterator[str]:
    """Yield options that make the folders above a path, open for everyone to pass through.

    bwrap itself would make them for its own user only.
    """
    for parent in reversed(Path(path).parents):
        if str(parent) != "/":
            yield from ("--perms", "0755", "--dir", str(parent))


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
            yield from (*_parents(path), "--ro-bind", path, path)


def _fonts() -> Iterator[str]:
    """Yield options that spare Matplotlib to look through all fonts at every start."""
    for path in Path(matplotlib.get_cachedir()).glob("fontlist*.json"):
        yield from ("--ro-bind", str(path), f"/tmp/{path.name}")


def _write_files(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(content)


def _empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            remove(Path(entry.path))
        else:
            os.unlink(entry.path)


class _OneKernelSpec(KernelSpecManager):
    spec = Instance(KernelSpec)

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return self.spec


def _manager(spec: KernelSpec, settings: dict[str, Any]) -> KernelManager:
    return KernelManager(
        kernel_name="student", kernel_spec_manager=_OneKernelSpec(spec=spec), **settings
    )


def _below(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and those below them.

    What else runs on the machine is not looked at, and costs nothing.
    """
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield int(child)
                yield from _below(int(child))


def _resident_bytes(pid: int) -> int:
    """Return the memory of a process, what it shares with others too; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def _proportional_bytes(pid: int) -> int:
    """Return the memory of a process, of what n processes share the nth part.

    Linux counts through all pages for it. Where it does not say, resident memory is returned.
    """
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return _resident_bytes(pid)


def _sockets(pid: int) -> int:
    """Return how many sockets there are in a process's network, whoever holds them still."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/net/unix").read_bytes().count(b"\n") - 1
    return 0


@functools.cache
def _socket_bytes() -> int:
    """Return how many bytes can wait at a socket whose buffers are as Linux makes them."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/net/core/wmem_default").read_text())
    return 1 << 18


class Unconfined:
    """The replacement for a `Sandbox` where there is none: kernels with the caller's permissions.

    Nothing is hidden from them. Of their limits only those hold that the grader watches.
    """

    ARGV = (sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}")

    def __init__(self) -> None:
        self._manager: KernelManager | None = None

    def close(self) -> None:
        """There is nothing that could be left."""

    @contextlib.contextmanager
    def holding(self, files: dict[str, bytes]) -> Iterator[None]:
        """Run the kernels of a submission.

        Args:
            files: what the student handed in apart from notebooks, by its path.
        """
        with contextlib.closing(Folder()) as folder:
            self.given = folder.path / "given"
            self.given.mkdir()
            _write_files(files, self.given)
            yield

    def manager(self, hidden: frozenset[str], **settings: Any) -> KernelManager:
        """Return the manager of a kernel, not started."""
        argv = [*self.ARGV, *fork_server.SETTINGS]
        spec = KernelSpec(argv=argv, language="python", interrupt_mode="message")
        self._manager = _manager(spec, settings)
        return self._manager

    def line(self) -> tuple[Path, str]:
        """Return where a socket for questions is to be, for the grader and for the kernel."""
        here = self.given.parent / "questions"
        return here, str(here)

    def kernel_runs(self) -> bool:
        """Return whether the kernel has not ended."""
        return self._manager.is_alive()

    def stop_kernel(self) -> None:
        """End the kernel."""
        self._manager.shutdown_kernel(now=True)

    def usage(self) -> tuple[int, int]:
        """Return how many processes the kernel is, and their resident memory in bytes."""
        sizes = []
        with contextlib.suppress(psutil.NoSuchProcess):
            kernel = psutil.Process(self._manager.provisioner.pid)
            for process in (kernel, *kernel.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    sizes.append(process.memory_info().rss)
        return len(sizes), sum(sizes)

    def last_words(self) -> str:
        """Return nothing: stderr is the caller's."""
        return ""


class Sandbox:
    """Where kernels run, one at a time, until it is closed.

    Args:
        limits: what a kernel may use.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._runs = False  # a kernel, as far as it is known
        self._filter = filter_program().hex()
        self._folder = Folder()
        self.folder = self._folder.path
        self.folder.chmod(0o711)
        self.given, self.masks, self.said, self.sockets = (
            self.folder / name for name in ("given", "masks", "said", "sockets")
        )
        for folder, mode in (
            (self.given, 0o755),
            (self.masks, 0o755),
            (self.said, 0o700),
            (self.sockets, 0o700),
        ):
            folder.mkdir()
            folder.chmod(mode)
        self._start_server()  # it imports while the grader goes on

    def close(self) -> None:
        """End everything that runs, and leave no file."""
        self._end_server()
        self._folder.close()

    @contextlib.contextmanager
    def holding(self, files: dict[str, bytes]) -> Iterator[None]:
        """Run the kernels of a submission, which find nothing of the one before.

        Args:
            files: what the student handed in apart from notebooks, by its path.
        """
        self._uid = _new_user()
        if self._uid is not None:
            os.chown(self.sockets, self._uid, self._uid)
        with readable_by_all():
            _write_files(files, self.given)
        try:
            yield
        finally:
            self.stop_kernel()
            _empty(self.given)

    def manager(self, hidden: frozenset[str], **settings: Any) -> KernelManager:
        """Return the manager of a kernel, not started, which does not see some of the files."""
        config = {"sandbox": self, "hidden": hidden}
        provisioner = {"provisioner_name": "lab-sandbox", "config": config}
        metadata = {"kernel_provisioner": provisioner}
        spec = KernelSpec(argv=[], language="python", interrupt_mode="message", metadata=metadata)
        return _manager(spec, settings)

    def start_kernel(self, connection: dict[str, Any], hidden: frozenset[str]) -> None:
        """Start a kernel.

        Args:
            connection: what its connection file says, with the sockets' folder as it is here.
            hidden: files and folders of the lab that it must not see.

        Raises:
            RuntimeError: it could not be started.
        """
        self.stop_kernel()  # one that ended by itself may have left something
        if self._server is None:
            self._start_server()
        with readable_by_all():
            masks = {
                original: f"{fork_server.MASKS}/{Path(mask).name}"
                for original, mask in write_masks(hidden, self.masks).items()
            }
        prefix = Path(connection["ip"]).name
        sockets = {f"{prefix}-{connection[port]}" for port in connection if port.endswith("_port")}
        start = {
            "connection": connection | {"ip": f"{fork_server.SOCKETS}/{prefix}"},
            "masks": masks,
            "uid": self._uid,
            "limits": self.limits.describe(),
            "filter": self._filter,
        }
        self._order({"start": start}, "ready")
        self._runs = True
        self._wait_for(sockets)
        # Nothing of the student's has run yet; from now on the kernel cannot put a link, a pipe
        # or a file where the grader connects.
        self._order({"seal": True}, "sealed")
        for path in self.sockets.iterdir():
            if path.name not in sockets or not stat.S_ISSOCK(path.lstat().st_mode):
                raise RuntimeError(f"{path.name} is not one of the kernel's sockets")

    def _wait_for(self, sockets: set[str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not sockets <= set(os.listdir(self.sockets)):
            if not self.kernel_runs():
                raise RuntimeError(f"it ended when it started: {self.last_words()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"it made no sockets within {START_SECONDS} s")
            time.sleep(0.01)

    def line(self) -> tuple[Path, str]:
        """Return where a socket for questions is to be, for the grader and for the kernel."""
        return self.sockets / "questions", f"{fork_server.SOCKETS}/questions"

    def kernel_runs(self) -> bool:
        """Return whether the kernel has not ended."""
        if self._runs and (self._server.poll() is not None or self._said("", 0)):
            self._runs = False
        return self._runs

    def stop_kernel(self) -> None:
        """End the kernel and everything that it started, and remove its sockets and its log."""
        self._runs = False
        if self._server is not None:
            try:
                self._order({"stop": True}, "stopped")
            except RuntimeError:
                self._end_server()
        _empty(self.sockets)
        _empty(self.said)

    def usage(self) -> tuple[int, int]:
        """Return how many processes the kernel is, and their memory in bytes.

        What several of them share counts once, and each socket counts for what can wait at it.
        Their files, which are in memory too, do not: they have a limit besides (`scratch_bytes`).
        """
        if self._server is None:
            return 0, 0
        kernel = list(_below(self._server.pid))[1:]  # of bwrap: the first is the fork server
        waiting = _sockets(kernel[0]) * _socket_bytes() if kernel else 0
        resident = sum(map(_resident_bytes, kernel)) + waiting
        if resident <= self.limits.memory_bytes:
            return len(kernel), resident  # at most that, and it is much faster to tell
        return len(kernel), sum(map(_proportional_bytes, kernel)) + waiting

    def last_words(self) -> str:
        """Return the last line that the kernel wrote to stderr; where there is none, the server."""
        for path in (self.said / "kernel", self.folder / "stderr"):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LONGEST_LAST_WORDS))
                text = file.read(LONGEST_LAST_WORDS).decode(errors="replace").strip()
                return text.splitlines()[-1] if text else ""
        return ""

    def _order(self, order: dict[str, Any], answer: str) -> None:
        try:
            self._server.stdin.write(json.dumps(order).encode() + b"\n")
            self._server.stdin.flush()
        except BrokenPipeError as error:
            self._end_server()
            raise RuntimeError(f"the sandbox had ended: {self.last_words()}") from error
        if not self._said(answer, START_SECONDS):  # it may be importing still
            self._end_server()
            raise RuntimeError(f"the sandbox gave no answer: {self.last_words()}")

    def _said(self, answer: str, seconds: float) -> bool:
        """Return whether the server says a word in time; the empty word stands for any."""
        deadline = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select(
                [self._server.stdout], [], [], max(0, deadline - time.monotonic())
            )
            line = self._server.stdout.readline().decode().strip() if ready else ""
            if line in ("", "failed"):
                return False
            if line == answer or not answer:
                return True

    def _start_server(self) -> None:
        command = [
            # both die with the grader, however it ends
            *("setpriv", "--pdeathsig", "KILL", *self._confining(), "bwrap", *_privileges()),
            *("--unshare-pid", "--as-pid-1", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", "--die-with-parent", "--new-session"),
            *("--proc", "/proc", "--dev", "/dev"),
            # It reads as zeros, too, and is no door to shared memory that nobody counts.
            *("--dev-bind", "/dev/full", "/dev/zero"),
            *("--perms", "1777", "--tmpfs", "/dev/shm"),
            *("--perms", "1777", "--tmpfs", "/tmp"),
            *("--perms", "1777", "--dir", fork_server.WORK),
            *_system(),
            *_fonts(),
            *("--ro-bind", str(self.given), fork_server.GIVEN),
            *("--ro-bind", str(self.masks), fork_server.MASKS),
            *("--bind", str(self.said), fork_server.SAID),
            *("--bind", str(self.sockets), fork_server.SOCKETS),
            *("--remount-ro", "/dev", "--remount-ro", "/"),
            *("--chdir", fork_server.WORK, "--clearenv"),
            *_environment(),
            # -P: not from the folder that it runs in
            *("--", sys.executable, "-P", "-m", "lab_grader.sandbox.fork_server"),
        ]
        with open(self.folder / "stderr", "ab") as stderr:  # which may be cut meanwhile
            self._server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
            )

    def _confining(self) -> tuple[str, ...]:
        return confining(self.limits.memory_bytes + self.limits.scratch_bytes + SERVER_BYTES)

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server.stdin.close()
            self._server.stdout.close()
            self._server = None


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
        "PYTHONHASHSEED": "0",  # the order of a set is the same for everybody
    }
    for name, value in values.items():
        yield from ("--setenv", name, value)


class SandboxProvisioner(KernelProvisionerBase):
    """Starts a kernel in a `Sandbox`."""

    sandbox = Instance(Sandbox)
    hidden = Anything(help="the files that the kernel must not see")

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel."""
        return self.sandbox.kernel_runs()

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Choose where the kernel's sockets are."""
        manager = self.parent
        manager.transport, manager.ip = "ipc", str(self.sandbox.sockets / "k")
        manager.cache_ports = False
        manager.connection_file = str(self.sandbox.folder / "connection.json")
        manager.write_connection_file()
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        """Start the kernel."""
        written = Path(self.parent.connection_file).read_text()
        self.sandbox.start_kernel(json.loads(written), self.hidden)
        return self.parent.get_connection_info()

    async def poll(self) -> int | None:
        """Return None while the kernel runs."""
        return None if self.sandbox.kernel_runs() else 1

    async def wait(self) -> int | None:
        """Return once the kernel has ended."""
        while self.sandbox.kernel_runs():
            await asyncio.sleep(0.05)
        return 1

    async def send_signal(self, signum: int) -> None:
        """End the kernel at any signal: it is interrupted by a message, not by a signal."""
        self.sandbox.stop_kernel()

    async def kill(self, restart: bool = False) -> None:
        """End the kernel."""
        self.sandbox.stop_kernel()

    async def terminate(self, restart: bool = False) -> None:
        """End the kernel."""
        self.sandbox.stop_kernel()

    async def cleanup(self, restart: bool = False) -> None:
        """There is nothing to remove that the sandbox does not remove."""
