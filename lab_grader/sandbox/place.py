"""Where a student's kernels run, one after the other: a `Sandbox`, or `Unconfined` without one.

A kernel in a sandbox sees the system and the lab read-only, and has empty folders in memory; it has
no network, no environment, and a limit on everything that it could exhaust. It talks to the grader
through sockets in one folder. It shares its user with nobody: if root grades, each submission has a
user id that is used for nothing else, otherwise the sandbox has a user namespace.

Each process of the grader has one sandbox, for the kernels of one submission and then those of the
next. Each is forked by the `fork_server`, which says why nothing passes from one to another.
"""

import contextlib
import os
import random
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from traitlets import Instance

from lab_grader.plain import say
from lab_grader.sandbox import bubblewrap, fork_server
from lab_grader.sandbox.cgroup import confining, memory_of_sandbox
from lab_grader.sandbox.folders import Folder, readable_by_all, remove
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.masks import write_masks
from lab_grader.sandbox.server import START_SECONDS, Server, ServerEnded
from lab_grader.sandbox.system_calls import filter_program
from lab_grader.sandbox.usage import killed_for_memory, memory_of, processes_below

LONGEST_LAST_WORDS = 500  # bytes


class Sandbox:
    """Where kernels run, one at a time, until it is closed.

    Args:
        limits: what a kernel may use.

    Attributes:
        folder: everything that the grader and the sandbox exchange; the others are in it.
        given: what the student handed in; each kernel starts with a copy of it.
        masks: what stands in for the files that a kernel must not see.
        said: the kernel's stderr.
        sockets: the kernel's sockets, to which the grader connects.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._uid: int | None = None  # of the present submission's kernels
        self._needs: list[str] = []  # what they find imported, besides what all do
        self._runs = False  # whether a kernel does, as far as is known
        self._ended = ""  # what the fork server said when it had ended
        self._killed_before = 0  # processes that Linux had killed when it started
        self._filter = filter_program().hex()
        self._temporary = Folder()
        self.folder = self._temporary.path
        self.folder.chmod(0o711)
        self.given, self.masks = self._new("given", 0o755), self._new("masks", 0o755)
        self.said, self.sockets = self._new("said", 0o700), self._new("sockets", 0o700)
        self._server: Server | None = None
        self._confined = confining(memory_of_sandbox(limits)).command
        self._start_server()  # it imports while the grader goes on

    def _new(self, name: str, mode: int) -> Path:
        folder = self.folder / name
        folder.mkdir()
        folder.chmod(mode)  # regardless of the umask
        return folder

    def close(self) -> None:
        """End everything that runs, and remove all files."""
        self._end_server()
        self._temporary.close()

    @contextlib.contextmanager
    def holding(
        self, files: dict[str, bytes], needs: frozenset[str] = frozenset()
    ) -> Iterator[None]:
        """Run the kernels of a submission, which find nothing of the one before.

        Args:
            files: what the student handed in apart from notebooks, by its path.
            needs: keys of `fork_server.NEEDS`: what its kernels will import, of which it is no
                secret that others did.
        """
        self._uid, self._needs = _new_user(), sorted(needs)
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
        """Return the manager of a kernel that is not started yet.

        Args:
            hidden: files and folders of the lab that the kernel must not see.
        """
        config = {"sandbox": self, "hidden": hidden}
        # The entry point of `SandboxProvisioner`, which calls `start_kernel` and `stop_kernel`.
        provisioner = {"provisioner_name": "lab-sandbox", "config": config}
        metadata = {"kernel_provisioner": provisioner}
        spec = KernelSpec(argv=[], language="python", interrupt_mode="message", metadata=metadata)
        return _manager(spec, settings)

    def start_kernel(self, connection: dict[str, Any], hidden: frozenset[str]) -> None:
        """Start a kernel, and let it make no socket but those that Jupyter needs.

        Args:
            connection: what its connection file says, with this machine's path of the sockets.
            hidden: files and folders of the lab that it must not see.

        Raises:
            RuntimeError: it could not be started.
        """
        self.stop_kernel()  # one that ended by itself may have left something
        prefix = Path(connection["ip"]).name
        sockets = {f"{prefix}-{connection[port]}" for port in connection if port.endswith("_port")}
        self._ended, self._killed_before = "", killed_for_memory()
        self._order_to_start(
            {
                "needs": self._needs,
                "connection": connection | {"ip": f"{fork_server.SOCKETS}/{prefix}"},
                "masks": self._masks_of(hidden),
                "uid": self._uid,
                "scratch_bytes": self.limits.scratch_bytes,
                "limits": self.limits.of_a_process(),
                "filter": self._filter,
            }
        )
        self._runs = True
        self._wait_for(sockets)
        # None of the student's code has run yet. From now on the kernel cannot put a link, a pipe
        # or a file where the grader connects.
        self._order({"seal": True}, "sealed")
        for path in self.sockets.iterdir():
            if path.name not in sockets or not stat.S_ISSOCK(path.lstat().st_mode):
                raise RuntimeError(f"{path.name} is not one of the kernel's sockets")

    def _masks_of(self, hidden: frozenset[str]) -> dict[str, str]:
        """Return what stands in for hidden files and folders, as the kernel sees it."""
        with readable_by_all():
            masks = write_masks(hidden, self.masks)
        return {
            original: f"{fork_server.MASKS}/{Path(mask).name}" for original, mask in masks.items()
        }

    def _order_to_start(self, start: dict[str, Any]) -> None:
        """Start a kernel, without a cgroup if it fails in one."""
        if self._server is None:
            self._start_server()
        try:
            self._order({"start": start}, "ready")
        except RuntimeError as error:
            if not self._confined:
                raise
            # systemd made a cgroup when it was tried, and now it makes none, or took it away.
            note = f"a sandbox goes on without a cgroup ({error}); its memory is still watched"
            say([f"lab_grader: {note}"], sys.stderr)
            self._confined = ()
            self._start_server()
            self._order({"start": start}, "ready")

    def _wait_for(self, sockets: set[str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not sockets <= set(os.listdir(self.sockets)):
            if not self.kernel_runs():
                raise RuntimeError(f"{self.how_it_ended()}, when it started: {self.last_words()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"it made no sockets within {START_SECONDS} s")
            time.sleep(0.01)

    def line(self) -> tuple[Path, str]:
        """Return the path of the socket for questions, as the grader and as the kernel see it."""
        return self.sockets / "questions", f"{fork_server.SOCKETS}/questions"

    def kernel_runs(self) -> bool:
        """Return whether the kernel has not ended."""
        if self._runs and (said := self._server.says_that_the_kernel_ended()):
            self._runs, self._ended = False, said
        return self._runs

    def how_it_ended(self) -> str:
        """Return how a kernel that has ended did so, in words: "its process ended", and why."""
        match self._ended.split():
            case ["ended", code, seconds]:
                memory = killed_for_memory() > self._killed_before
                return ending(int(code), int(seconds), memory, self.limits)
            case _:  # with its sandbox
                return "its process ended"

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

        Memory that several of them share counts once, and each socket counts for what can wait at
        it. Files, although they are in memory, do not count: `scratch_bytes` limits them.
        """
        kernel = self._processes()
        return len(kernel), memory_of(kernel, enough=self.limits.memory_bytes)

    def kill_kernel(self) -> None:
        """Kill the kernel and everything that it started; `kernel_runs` says when it is gone.

        This may be called while another thread uses the sandbox.
        """
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> list[int]:
        """Return the processes of the kernel, its first one first."""
        server = self._server
        if server is None:
            return []
        return list(processes_below(server.pid))[1:]  # the first is the fork server

    def last_words(self) -> str:
        """Return the last line on the kernel's stderr, or without one on the fork server's."""
        for path in (self.said / "kernel", self.folder / "stderr"):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LONGEST_LAST_WORDS))
                text = file.read(LONGEST_LAST_WORDS).decode(errors="replace").strip()
                return text.splitlines()[-1] if text else ""
        return ""

    def _order(self, order: dict[str, Any], answer: str) -> None:
        """Tell the fork server what to do, and wait until it says that it has done so.

        Raises:
            RuntimeError: it could not, or has ended.
        """
        try:
            self._server.order(order, answer)
        except ServerEnded as error:
            self._end_server()
            raise RuntimeError(f"{error}: {self.last_words()}") from error

    def _start_server(self) -> None:
        sandboxed = bubblewrap.command(
            read_only={self.given: fork_server.GIVEN, self.masks: fork_server.MASKS},
            writable={self.said: fork_server.SAID, self.sockets: fork_server.SOCKETS},
            work=fork_server.WORK,
        )
        self._server = Server([*self._confined, *sandboxed], self.folder / "stderr")

    def _end_server(self) -> None:
        self._runs = False
        if self._server is not None:
            self._server.end()
            self._server = None


class Unconfined:
    """What replaces a `Sandbox` where there is none: its kernels have the caller's permissions.

    Nothing is hidden from them, and only those limits apply that the grader itself enforces.
    """

    ARGV = (sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}")

    def __init__(self) -> None:
        self._manager: KernelManager | None = None

    def close(self) -> None:
        """Do nothing: what there was ended with each submission."""

    @contextlib.contextmanager
    def holding(
        self, files: dict[str, bytes], needs: frozenset[str] = frozenset()
    ) -> Iterator[None]:
        """Run the kernels of a submission; see `Sandbox`. Each imports by itself what it needs."""
        with contextlib.closing(Folder()) as folder:
            self.given = folder.path / "given"
            self.given.mkdir()
            _write_files(files, self.given)
            yield

    def manager(self, hidden: frozenset[str], **settings: Any) -> KernelManager:
        """Return the manager of a kernel that is not started yet."""
        argv = [*self.ARGV, *fork_server.SETTINGS]
        spec = KernelSpec(argv=argv, language="python", interrupt_mode="message")
        self._manager = _manager(spec, settings)
        return self._manager

    def line(self) -> tuple[Path, str]:
        """Return the path of the socket for questions, as the grader and as the kernel see it."""
        here = self.given.parent / "questions"
        return here, str(here)

    def kernel_runs(self) -> bool:
        """Return whether the kernel has not ended."""
        return self._manager.is_alive()

    def how_it_ended(self) -> str:
        """Return how a kernel that has ended did so, in words; see `Sandbox`."""
        return "its process ended"

    def stop_kernel(self) -> None:
        """End the kernel."""
        self._manager.shutdown_kernel(now=True)

    def usage(self) -> tuple[int, int]:
        """Return how many processes the kernel is, and their resident memory in bytes."""
        sizes = []
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss)
        return len(sizes), sum(sizes)

    def kill_kernel(self) -> None:
        """Kill the kernel and everything that it started; see `Sandbox`."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        pid = getattr(self._manager.provisioner, "pid", None)  # None until it was started
        try:
            kernel = psutil.Process(pid) if pid is not None else None
            return [kernel, *kernel.children(recursive=True)] if kernel else []
        except psutil.NoSuchProcess:
            return []

    def last_words(self) -> str:
        """Return nothing: stderr is the caller's."""
        return ""


def ending(code: int, seconds: int, memory: bool, limits: Limits) -> str:
    """Return how a kernel ended, in words.

    Args:
        code: its exit code, or the signal that ended it as a negative number.
        seconds: of processor time that it took.
        memory: whether Linux has killed a process meanwhile because memory ran out.
    """
    why = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            why = signal.Signals(-code).name
    if code == -signal.SIGKILL and memory:
        why = "Linux killed it, because the machine or the sandbox had no memory left"
    elif code == -signal.SIGKILL and seconds >= limits.cpu_seconds:
        why = f"it took more than {limits.cpu_seconds} s of processor time"
    return f"its process ended: {why}"


def _new_user() -> int | None:
    """Return the user id that a submission's kernels get; None for that of the sandbox."""
    if os.geteuid() != 0:
        return None
    return random.SystemRandom().randrange(2_000_000_000, 2_100_000_000)


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
