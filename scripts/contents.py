"""The README's table of lessons, made from what the lessons say of themselves.

Times, exercises and points stand in the lessons only: `make release` writes them into the table.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

TABLE = re.compile(r"(?<=<!-- lessons -->\n).*?(?=<!-- end of lessons -->)", re.DOTALL)
HEAD = "| lesson | time | you write |\n| --- | --- | --- |\n"
MINUTES = re.compile(r"\*\*About (\d+) minutes")
EXERCISE = re.compile(r"^### Exercise \d+: `(\w+)`", re.MULTILINE)


class NotALesson(ValueError):
    """A lesson lacks what the table says of each; the text names it."""


def row(name: str, lesson: NotebookNode) -> str:
    """Return a lesson's row: its file, the minutes it takes, its exercises and their points.

    Raises:
        NotALesson: its first cell says no time, or it has no exercise.
    """
    minutes = MINUTES.search(lesson.cells[0].source)
    text = "\n\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    written = [f"`{exercise}`" for exercise in EXERCISE.findall(text)]
    if not minutes or not written:
        raise NotALesson(
            f"{name} needs “**About N minutes**” in its first cell, and a heading "
            "“### Exercise N: `name` (N points)” for each exercise."
        )
    graded = [cell for cell in lesson.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    if any(cell.cell_type == "markdown" for cell in graded):
        written.append("an open question")
    points = sum(cell.metadata.nbgrader.points for cell in graded)
    return f"| `{name}` | {minutes[1]} min | {', '.join(written)} ({points:g} points) |\n"


def in_readme(text: str, lessons: Iterable[tuple[Path, NotebookNode]]) -> str:
    """Return the README with the table of these lessons."""
    table = HEAD + "".join(row(path.stem, lesson) for path, lesson in lessons)
    return TABLE.sub(lambda _: table, text)
