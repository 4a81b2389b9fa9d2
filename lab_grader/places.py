"""Files and folders that are not as they have to be: one sentence with the path and what to do."""

import errno
import os
import stat
from pathlib import Path

AGAIN = "and run this again; what was graded is kept"
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def misfit(path: Path, folder: bool) -> str:
    """Return why a path cannot be a folder or a file, and what to do; empty if it can.

    It can where there is nothing yet.

    Args:
        folder: whether it must be a folder; otherwise it must be a file.
    """
    whole = Path(os.path.abspath(path))
    for place in [*reversed(whole.parents), whole]:
        wants_folder = folder or place != whole
        wanted = "a folder" if wants_folder else "a file"
        try:
            mode = os.stat(place).st_mode
        except OSError as error:
            if os.path.islink(place):
                why = f"is a link to {os.readlink(place)}, which cannot be followed"
                return f"{place} {why}: replace it with {wanted}, {AGAIN}."
            if error.errno in REFUSED:
                return f"{place} cannot be opened: {_allow(place.parent, error)}"
            return ""
        if stat.S_ISDIR(mode) != wants_folder or (not wants_folder and not stat.S_ISREG(mode)):
            found = "a folder" if stat.S_ISDIR(mode) else "a file"
            found = found if found != wanted else "a pipe or a device"
            return f"{place} is {found}, and must be {wanted}: move it away, {AGAIN}."
    return ""


def not_writable(path: Path) -> str:
    """Return why nothing can be written to a path, and what to do; empty if it can."""
    place = Path(os.path.abspath(path))
    while not os.path.exists(place):
        place = place.parent
    rights = os.W_OK | (os.X_OK if place.is_dir() else 0)
    if os.access(place, rights):
        return ""
    return f"{place} cannot be written to: make it writable for you, {AGAIN}."


def about_file(error: OSError) -> str:
    """Return a sentence on a file that cannot be read or written, and what to do."""
    named = error.filename2 or error.filename
    if error.errno in FULL:
        where = f" ({named})" if named else ""
        return f"the disk is full{where}. Free some space, {AGAIN}."
    if not isinstance(named, str | bytes | os.PathLike):
        return f"{error.strerror or error}; what was graded is kept."
    path = Path(os.fsdecode(named))
    if why := misfit(path, folder=error.errno in (errno.EEXIST, errno.ENOTDIR)):
        return why
    if error.errno in REFUSED:
        return f"{path} cannot be read or written: {_allow(path, error)}"
    return f"{path}: {error.strerror}; what was graded is kept."


def _allow(path: Path, error: OSError) -> str:
    return f"{error.strerror}. Give yourself the right to read and write {path}, {AGAIN}."
