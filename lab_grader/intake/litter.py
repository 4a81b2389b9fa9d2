"""What systems leave beside people's files, and nobody hands in: left out without a word."""

from pathlib import PurePosixPath

NAMES = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX"}


def is_litter(path: PurePosixPath) -> bool:
    """Whether a file, by its path in a submission or a download, is none of a person's.

    macOS keeps what other file systems do not hold in `._NAME` beside each NAME.
    """
    return not NAMES.isdisjoint(path.parts) or path.name.startswith("._")
