"""Read the files in a student's folder, and follow nothing in it: no link, no endless tree.

What is too deep, too large or too many is left out, and a sentence says so.
"""

import errno
import itertools
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from lab_grader.intake.litter import is_litter

MOST_FILES = 500
MOST_NAMES = 20_000  # of files and folders that are looked at
MOST_DEPTH = 20  # folders within each other
# What may hold a notebook: 01.ipynb, 01.IPYNB, 01.ipynb.json, 01.ipynb.txt, 01.json
NOTEBOOK = re.compile(r"\.ipynb[\W_]*\w{0,4}\W*$|\.json$", re.IGNORECASE)


class NotGradable(Exception):
    """A file that cannot be graded; the text says why."""


class NotRead(Exception):
    """This machine does not let a submission be read, which is not the student's fault."""


def files_in(
    folder: Path, lessons: Collection[str], complain: Callable[[str], None]
) -> Iterator[tuple[str, os.DirEntry]]:
    """Yield what a folder and those below it hold apart from folders, by its path in the folder.

    First come notebooks, those named as a lesson before others, and what lies less deep before
    what lies deeper: so that no folder of figures or packages takes the place of an answer. What a
    system made comes last.

    Args:
        lessons: their names.
        complain: called with a sentence for what is left out.

    Raises:
        NotRead: a folder cannot be opened here.
    """
    found = [
        (PurePosixPath(os.path.relpath(entry.path, folder)), entry)
        for entry in _level_by_level(folder, complain)
    ]
    found.sort(
        key=lambda it: (
            is_litter(it[0]),
            it[0].stem not in lessons,
            not NOTEBOOK.search(it[0].name),
        )
    )
    if sum(not is_litter(name) for name, _ in found) > MOST_FILES:
        complain(f"more than {MOST_FILES} files; the rest is left out")
    for name, entry in found[:MOST_FILES]:
        yield str(name), entry


def _level_by_level(folder: Path, complain: Callable[[str], None]) -> Iterator[os.DirEntry]:
    room, level = MOST_NAMES, [os.fspath(folder)]
    for _ in range(MOST_DEPTH):
        below = []
        for current in level:
            try:
                with os.scandir(current) as scanned:
                    entries = sorted(itertools.islice(scanned, room), key=lambda it: it.name)
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    complain("folders with too long a path are left out")
                    continue
                raise NotRead(f"{current} cannot be read: {error.strerror}") from error
            room -= len(entries)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                else:
                    yield entry
        level = below
    if level:
        complain(f"folders more than {MOST_DEPTH} deep are left out")
    if not room:
        complain(f"more than {MOST_NAMES:,} names; the rest is left out")


def read_file(entry: os.DirEntry, most: int) -> bytes:
    """Read a regular file.

    Args:
        most: bytes that it may have.

    Raises:
        NotGradable: it is a link, a pipe or a device, or too large.
        NotRead: it cannot be opened here.
    """
    if entry.is_symlink():
        raise NotGradable("a link; hand in the file itself")
    if not entry.is_file(follow_symlinks=False):
        raise NotGradable("neither a file nor a folder")
    try:
        with open(_opened(entry), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise NotGradable(f"{size >> 20} MB; at most {most >> 20} MB are read")
            return file.read(most)
    except OSError as error:
        raise NotRead(f"{entry.path} cannot be read: {error.strerror}") from error


def beginning_of(entry: os.DirEntry, most: int) -> bytes:
    """Return the first bytes of a regular file; none for anything else.

    Raises:
        NotRead: it cannot be opened here.
    """
    if not entry.is_file(follow_symlinks=False):
        return b""
    with open(_opened(entry), "rb") as file:
        return file.read(most)


def _opened(entry: os.DirEntry) -> int:
    """Open a regular file; return its descriptor, which cannot become another file."""
    try:
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise NotRead(f"{entry.path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotGradable("neither a file nor a folder")
    return descriptor
