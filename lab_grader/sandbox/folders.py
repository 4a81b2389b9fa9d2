"""Folders for the time of a run; one whose process was killed is removed by the next run."""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "lab-"
MOST_BYTES = 55  # of the path of temporary folders: a socket's whole path may have 107
IN_USE = ".in-use"  # a file that is locked as long as the folder's process lives


def temporary() -> str:
    """Return the system's folder of temporary files, or `/tmp` where its path is too long."""
    chosen = tempfile.gettempdir()
    return chosen if len(os.fsencode(chosen)) <= MOST_BYTES else "/tmp"


@contextlib.contextmanager
def readable_by_all() -> Iterator[None]:
    """Let others read what is written meanwhile, with any umask: kernels are other users."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


class Folder:
    """A new folder among the system's temporary ones, until it is closed."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=temporary()))
        unnamed = self.path / f"{IN_USE}-new"  # until it is locked, nobody may find it
        self._lock = os.open(unnamed, os.O_CREAT | os.O_RDONLY, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / IN_USE)

    def close(self) -> None:
        """Remove it."""
        _remove_all_of(self.path)
        os.close(self._lock)


def remove(folder: Path) -> None:
    """Remove a folder and everything in it, unreadable and deep folders too."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except (OSError, RecursionError):  # which these programs do not know
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], **quiet)
        subprocess.run(["rm", "-rf", "--", str(folder)], **quiet)


def _remove_all_of(folder: Path) -> None:
    """Remove a folder, what shows that it is ours last: a removal may be cut short, too."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            remove(path)
        elif path.name != IN_USE:
            path.unlink()
    remove(folder)


def remove_left_behind() -> None:
    """Remove this user's folders whose processes are gone."""
    for folder in Path(temporary()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # not a folder of ours, in use, or gone already
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                lock = os.open(folder / IN_USE, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove_all_of(folder)
                finally:
                    os.close(lock)
