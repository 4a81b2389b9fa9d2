"""What systems leave beside people's files, and nobody hands in.

It is left out without a word, unless there is nothing else.
"""

from pathlib import PurePath

# Folders that programs make beside those of students.
FOLDERS = {".git", ".idea", ".ipynb_checkpoints", ".vscode", "__MACOSX", "__pycache__"}
NAMES = {".DS_Store", "Thumbs.db", "desktop.ini"}


def is_litter(path: PurePath) -> bool:
    """Return whether a system and not a person made a file, by its path in a submission.

    macOS keeps what other file systems do not hold in `._NAME` beside each NAME; in a zip file, in
    a folder `__MACOSX`.
    """
    return path.name in NAMES or path.name.startswith("._")
