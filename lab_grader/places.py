"""Files and folders that are not as they have to be: one sentence with the path and what to do."""

import errno
import os
import stat
from pathlib import Path

AGAIN = "and run this again; what was graded is kept"
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# Errors that come from a file in the place of a folder, or from a folder or a broken link in the
# place of a file: whether a folder was wanted.
MISFIT = {
    errno.EEXIST: True,
    errno.ENOTDIR: True,
    errno.EISDIR: False,
    errno.ENOENT: False,
    errno.ELOOP: False,
}


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
                return _not_allowed(place.parent)
            return ""
        if stat.S_ISDIR(mode) != wants_folder or (not wants_folder and not stat.S_ISREG(mode)):
            found = "a folder" if stat.S_ISDIR(mode) else "a file"
            found = found if found != wanted else "a pipe or a device"
            return f"{place} is {found}, and must be {wanted}: move it away, {AGAIN}."
    return ""


def not_readable(folder: Path) -> str:
    """Return why the names in a folder cannot be read, and what to do; empty if they can.

    They can where there is no folder yet.
    """
    there = os.path.exists(folder) and not os.access(folder, os.R_OK | os.X_OK)
    return _not_allowed(folder) if there else ""


def not_writable(path: Path) -> str:
    """Return why nothing can be written to a path, and what to do; empty if it can."""
    place = Path(os.path.abspath(path))
    while not os.path.exists(place):
        place = place.parent
    rights = os.R_OK | os.W_OK | (os.X_OK if os.path.isdir(place) else 0)
    return "" if os.access(place, rights) else _not_allowed(place)


def about_file(error: OSError) -> str:
    """Return a sentence on a file that cannot be read or written, and what to do."""
    named = error.filename2 or error.filename
    if error.errno in FULL:
        where = f" ({named})" if named else ""
        return f"the disk is full{where}. Free some space, {AGAIN}."
    if not isinstance(named, str | bytes | os.PathLike):
        return f"{error.strerror or error}; what was graded is kept."
    path = Path(os.fsdecode(named))
    if error.errno in REFUSED:  # by the file, or else by its folder
        whole = Path(os.path.abspath(path))
        itself = os.path.exists(whole) and not os.access(whole, os.R_OK | os.W_OK)
        return _not_allowed(whole if itself else whole.parent)
    if error.errno in MISFIT and (why := misfit(path, folder=MISFIT[error.errno])):
        return why
    return f"{path}: {error.strerror}; what was graded is kept."


def _not_allowed(path: Path) -> str:
    return f"{path} cannot be read or written: give yourself the right to do so, {AGAIN}."
