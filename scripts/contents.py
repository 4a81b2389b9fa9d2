"""The README's table of lessons and the ways between them, made from what the lessons say.

Titles, times, exercises and points are typed only in the lessons; `make release` puts them into
the table, and the links to the lessons beside it into each lesson's first cell.
A lesson's time follows from `minutes`, and a test holds every lesson to it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

TABLE = re.compile(r"(?<=<!-- lessons -->\n).*?(?=<!-- end of lessons -->)", re.DOTALL)
HEAD = "| lesson | time | you write |\n| --- | --- | --- |\n"
MINUTES = re.compile(r"\*\*About (\d+) minutes")
EXERCISE = re.compile(r"^### Exercise \d+: `(\w+)`", re.MULTILINE)
TITLE = re.compile(r"^# # .*Lesson \d+: (.+)\n", re.MULTILINE)
WAYS = re.compile(r"(?:#\n)?# \[Start\]\(\.\./00-start\.ipynb\).*\n")
FOLDED = re.compile(r"<details>.*?</details>|<!--.*?-->", re.DOTALL)
WORDS_A_MINUTE = 150  # technical text with formulas, read once
MINUTES_A_POINT = 1.5  # an exercise with its checks


class NotALesson(ValueError):
    """A lesson lacks what is said of each; the text names it."""


def minutes(lesson: NotebookNode, computing: float) -> float:
    """Return how long a lesson takes: reading, writing its exercises, and waiting for its cells.

    Folded hints and answers are not counted.

    Args:
        lesson: a solved lesson, with the points of its exercises.
        computing: seconds that all its cells take, as in `benchmarks/lessons.txt`.
    """
    text = "\n\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    words = len(FOLDED.sub("", text).split())
    return words / WORDS_A_MINUTE + MINUTES_A_POINT * points(lesson) + computing / 60


def points(lesson: NotebookNode) -> float:
    """Return the points that the exercises of a lesson give."""
    nbgrader = (cell.metadata.get("nbgrader", {}) for cell in lesson.cells)
    return sum(found["points"] for found in nbgrader if found.get("grade"))


def row(name: str, lesson: NotebookNode) -> str:
    """Return a lesson's row: its file, the minutes it takes, its exercises and their points.

    Raises:
        NotALesson: its first cell says no time, or it has no exercise.
    """
    stated = MINUTES.search(lesson.cells[0].source)
    text = "\n\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    written = [f"`{exercise}`" for exercise in EXERCISE.findall(text)]
    if not stated or not written:
        raise NotALesson(
            f"{name} needs “**About N minutes**” in its first cell, and a heading "
            "“### Exercise N: `name` (N points)” for each exercise."
        )
    graded = [cell for cell in lesson.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    if any(cell.cell_type == "markdown" for cell in graded):
        written.append("an open question")
    return f"| `{name}` | {stated[1]} min | {', '.join(written)} ({points(lesson):g} points) |\n"


def in_readme(text: str, lessons: Iterable[tuple[Path, NotebookNode]]) -> str:
    """Return the README with the table of these lessons."""
    table = HEAD + "".join(row(path.stem, lesson) for path, lesson in lessons)
    return TABLE.sub(lambda _: table, text)


def with_ways(text: str, before: Path | None, after: Path | None) -> str:
    """Return the text of a lesson with links to the start page and the lessons beside it.

    Args:
        text: of the `.py` file.
        before, after: the files of those lessons; None at an end.
    """
    ways = ["[Start](../00-start.ipynb)"]
    if before:
        ways.append(f"[← {before.stem[:2]} · {title(before)}]({before.stem}.ipynb)")
    if after:
        ways.append(f"[{after.stem[:2]} · {title(after)} →]({after.stem}.ipynb)")
    line = f"#\n# {' | '.join(ways)}\n"
    if WAYS.search(text):
        return WAYS.sub(lambda _: line, text, count=1)
    return TITLE.sub(lambda found: found[0] + line, text, count=1)


def title(lesson: Path) -> str:
    """Return what the text of a lesson says that it is about.

    Raises:
        NotALesson: it does not.
    """
    found = TITLE.search(lesson.read_text("utf-8"))
    if not found:
        raise NotALesson(f"{lesson.stem} needs a title “# 3.1.2 DoRA · Lesson N: its subject”.")
    return found[1]
