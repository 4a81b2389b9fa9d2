"""What a lesson or the README says, to be held against the runs that it speaks of."""

from pathlib import Path

import release

README = release.ROOT / "README.md"


def text_of(path: Path) -> str:
    """Return a text as one line, wherever its lines break, and without the signs of comments."""
    lines = path.read_text("utf-8").splitlines()
    return " ".join(line.removeprefix("# ").strip() for line in lines)


def said(lesson: str, *texts: str) -> None:
    """The lesson says each of these."""
    flat = text_of(release.SOLUTIONS / f"{lesson}.py")
    for text in texts:
        assert text in flat, text
