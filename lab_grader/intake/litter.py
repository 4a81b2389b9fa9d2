"""What systems leave beside people's files, and nobody hands in: left out without a word."""

from pathlib import PurePath

NAMES = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX"}


def is_litter(path: PurePath) -> bool:
    """Return whether a system and not a person made a file, by its path in a submission.

    macOS keeps what other file systems do not hold in `._NAME` beside each NAME.
    """
    return not NAMES.isdisjoint(path.parts) or path.name.startswith("._")
