"""How far a student is: read from the saved notebooks, in which nothing is executed."""

import json
import re
from dataclasses import dataclass, field
from datetime import date
from html import escape
from pathlib import Path
from textwrap import fill
from urllib.parse import quote

TITLE = re.compile(r"^# .*Lesson (\d+): (.+)$", re.MULTILINE)
MINUTES = re.compile(r"\*\*About (\d+) minutes")
EXERCISE = re.compile(r"^### Exercise \d+: `(\w+)`", re.MULTILINE)
SPACE = "\N{NO-BREAK SPACE}"
RELEASED = re.compile(r"\d\d-(?!.*-Copy\d+$)")
# Said to those whose checks all pass.
LEARNT = (
    "You can split a weight into magnitude and direction, adapt a model with LoRA and with DoRA, "
    "and compare the two as it should be done: each at a learning rate of its own, seed by seed, "
    "with an interval, and with no claim beyond it."
)


@dataclass
class SavedExercise:
    """What the checks of an exercise said when the notebook was last saved.

    Attributes:
        name: of the function or class.
        cell: the id of the cell with its heading, which a link can lead to; "" if it has none.
        passes: of each check of it: True, False, or None for one that has not run.
        points: of the checks that passed.
    """

    name: str
    cell: str = ""
    passes: list[bool | None] = field(default_factory=list)
    points: float = 0

    @property
    def state(self) -> str:
        """Return "passes", "failed", "begun" or "not tried"."""
        if False in self.passes:
            return "failed"
        if self.passes and all(self.passes):
            return "passes"
        return "begun" if any(self.passes) else "not tried"


@dataclass
class SavedLesson:
    """A lesson, and what its checks said.

    Attributes:
        name: of its file, without the ending.
        path: of its file.
        number: as its title has it, such as "01", or else its file's name.
        title: what it is about.
        minutes: how long it takes, as it says; None where it does not.
        exercises: those that have checks.
        most: points that all checks give.
        by_hand: points that a person gives, for an open question.
    """

    name: str
    path: Path
    number: str = ""
    title: str = ""
    minutes: int | None = None
    exercises: list[SavedExercise] = field(default_factory=list)
    most: float = 0
    by_hand: float = 0

    @property
    def has_its_name(self) -> bool:
        """Return whether the file is named as a lesson is, and not as JupyterLab names a copy."""
        return bool(RELEASED.match(self.name))

    @property
    def points(self) -> float:
        """Return the points of the checks that passed."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def passed(self) -> list[str]:
        """Return the exercises whose checks have all run and passed."""
        return [exercise.name for exercise in self.exercises if exercise.state == "passes"]

    @property
    def open(self) -> list[str]:
        """Return the others."""
        return [exercise.name for exercise in self.exercises if exercise.state != "passes"]


@dataclass(frozen=True)
class Overview:
    """What a notebook shows as a table with links, and a terminal as lines."""

    lessons: list[SavedLesson]

    def __str__(self) -> str:
        passed = sum(len(lesson.passed) for lesson in self.lessons)
        total = passed + sum(len(lesson.open) for lesson in self.lessons)
        points, most = (
            sum(getattr(row, key) for row in self.lessons) for key in ("points", "most")
        )
        if passed < total or not total:
            return f"{passed} of {total} exercises pass: {points:g} of {most:g} points."
        return (
            f"All {total} exercises of {len(self.lessons)} lessons pass: you wrote DoRA yourself, "
            "from the norm of a row to a layer that trains, merges and matches a library's."
        )

    def __repr__(self) -> str:
        rows = (f"{row.name}: {_state(row)}; {_points(row)} points" for row in self.lessons)
        return "\n".join([*rows, str(self)])

    def _repr_markdown_(self) -> str:
        heads = ["| lesson | time | exercises | points |", "| :-- | :-- | :-- | :-- |"]
        rows = (
            f"| [{row.number} · {row.title or row.name}]({_link(row)}) "
            f"| {f'{row.minutes}{SPACE}min' if row.minutes else ''} "
            f"| {', '.join(_linked(row, exercise) for exercise in row.exercises)} "
            f"| {_points(row)}{_by_hand(row.by_hand)} |"
            for row in self.lessons
        )
        minutes = sum(row.minutes or 0 for row in self.lessons)
        points, most = (
            sum(getattr(row, key) for row in self.lessons) for key in ("points", "most")
        )
        by_hand = sum(row.by_hand for row in self.lessons)
        total = f"| all | {minutes}{SPACE}min | | {points:g} of {most:g}{_by_hand(by_hand)} |"
        marks = "✓ passes, ✗ failed, … begun; exercises without a mark have not been tried."
        return "\n".join([*heads, *rows, total, "", f"**{self}** {marks}"])


@dataclass(frozen=True)
class Summary:
    """A page to keep: what was done in each lesson, with points, as HTML and as lines."""

    lessons: list[SavedLesson]
    day: date

    def __str__(self) -> str:
        rows = "\n".join(
            f"  {row.name}: {_points(row)} points; {_state(row)}" for row in self.lessons
        )
        sentences = [fill(sentence, 88, break_on_hyphens=False) for sentence in self._sentences()]
        return "\n\n".join([self._title(), rows, *sentences])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = 'style="text-align: left"'
        line = 'style="text-align: left; white-space: nowrap"'
        heads = "".join(f"<th {left}>{name}</th>" for name in ("lesson", "exercises", "points"))
        rows = "".join(
            f"<tr><td {line}>{escape(row.name)}</td><td {left}>{escape(_state(row))}</td>"
            f"<td {line}>{_points(row)}</td></tr>"
            for row in self.lessons
        )
        return (
            '<div style="max-width: 50em; border: 2px solid; border-radius: 6px; '
            'padding: 1em 2em; break-inside: avoid">'
            f'<p style="font-size: 150%; font-weight: bold">{self._title()}</p>'
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
            + "".join(f"<p>{escape(sentence)}</p>" for sentence in self._sentences())
            + "</div>"
        )

    def _title(self) -> str:
        return f"DoRA Lab · {self.day.day} {self.day:%B %Y}"

    def _sentences(self) -> list[str]:
        points, most, by_hand = (
            sum(getattr(lesson, name) for lesson in self.lessons)
            for name in ("points", "most", "by_hand")
        )
        question = f", and a person marks the open question ({by_hand:g} points)" if by_hand else ""
        still_open = [lesson.name for lesson in self.lessons if lesson.open]
        found = str(Overview(self.lessons))  # with the points, unless all pass
        given = f"The checks that you can see give {points:g} of {most:g} points."
        return [
            found if still_open else f"{found} {given}",
            f"Still open: exercises in {', '.join(still_open)}." if still_open else LEARNT,
            "This is what the checks said when the notebooks were last saved. Only your "
            f"instructor's grading counts: it runs hidden tests as well{question}.",
        ]


def _points(lesson: SavedLesson) -> str:
    return f"{lesson.points:g} of {lesson.most:g}"


def _by_hand(points: float) -> str:
    return f" + {points:g} by hand" if points else ""


def _state(lesson: SavedLesson) -> str:
    states = (f"{exercise.name} ({exercise.state})" for exercise in lesson.exercises)
    still = ", ".join(state for state in states if not state.endswith("(passes)"))
    found = f"{len(lesson.passed)} of {len(lesson.exercises)} pass"
    return found + (f"; open: {still}" if still else "")


def _link(lesson: SavedLesson) -> str:
    return quote(lesson.path.as_posix())


def _linked(lesson: SavedLesson, exercise: SavedExercise) -> str:
    """Return an exercise as a link to its heading, with a mark from which no line parts it."""
    anchor = f"#cell-id={quote(exercise.cell)}" if exercise.cell else ""  # as JupyterLab has it
    name = exercise.name.replace("_", r"\_")
    mark = {"passes": "✓", "failed": "✗", "begun": "…"}.get(exercise.state)
    return (mark + SPACE if mark else "") + f"[{name}]({_link(lesson)}{anchor})"


def overview(folder: str | Path = ".") -> Overview:
    """Return what the checks said when the lessons of a folder were last run and saved.

    Code that was edited after its check ran counts as the check found it; Validate runs all
    afresh. The open question of lesson 07 is not counted: a person marks it.

    A lesson is known by its title, so that a renamed one stays in the list. Of several files with
    the same lesson the one with its own name counts, or else the last that was saved.

    Args:
        folder: where the notebooks are; a lesson's own folder by default.

    Raises:
        ValueError: a file with the name of a lesson is not a notebook.
    """
    read = (_read(path) for path in Path(folder).glob("*.ipynb") if path.name[0] != ".")
    found = [lesson for lesson in read if lesson.number]
    found.sort(key=lambda it: (it.title != "", it.has_its_name, it.path.stat().st_mtime))
    lessons = {lesson.number: lesson for lesson in found}
    return Overview([lessons[number] for number in sorted(lessons)])


def summary(folder: str | Path = ".") -> Summary:
    """Return what `overview` reads, with points and today's date, as a page to print or keep."""
    return Summary(overview(folder).lessons, date.today())


def _read(path: Path) -> SavedLesson:
    """Return what a file says of a lesson: nothing, if it is not a notebook of this course."""
    lesson = SavedLesson(path.stem, path)
    lesson.number = path.stem[:2] if lesson.has_its_name else ""
    try:
        _read_cells(json.loads(path.read_text(encoding="utf-8"))["cells"], lesson)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        if not lesson.has_its_name:
            return SavedLesson(path.stem, path)
        raise ValueError(f"{path} cannot be read as a notebook; restore or delete it") from error
    return lesson


def _read_cells(cells: list[dict], lesson: SavedLesson) -> None:
    """Pair each exercise with the checks that follow it, up to the next exercise."""
    headings: dict[str, str] = {}  # of exercises: the ids of their cells
    for cell in cells:
        nbgrader = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] != "code":
            _read_text(cell, nbgrader, lesson, headings)
        elif nbgrader.get("solution"):
            written = re.search(r"^(?:def|class) (\w+)", "".join(cell["source"]), re.MULTILINE)
            name = written[1] if written else nbgrader["grade_id"]
            lesson.exercises.append(SavedExercise(name, headings.get(name, "")))
        elif nbgrader.get("grade") and lesson.exercises:
            lesson.most += nbgrader["points"]
            _read_check(cell, nbgrader["points"], lesson.exercises[-1])


def _read_text(cell: dict, nbgrader: dict, lesson: SavedLesson, headings: dict[str, str]) -> None:
    """Find a lesson's title and time, points that a person gives, and headings of exercises."""
    source = "".join(cell["source"])
    lesson.by_hand += nbgrader["points"] if nbgrader.get("grade") else 0
    headings |= dict.fromkeys(EXERCISE.findall(source), cell.get("id", ""))
    if lesson.minutes is None and (minutes := MINUTES.search(source)):
        lesson.minutes = int(minutes[1])
    if not lesson.title and (title := TITLE.search(source)):
        lesson.number, lesson.title = title.groups()


def _read_check(cell: dict, points: float, exercise: SavedExercise) -> None:
    failed = any(output["output_type"] == "error" for output in cell["outputs"])
    ran = failed or cell["execution_count"] is not None
    exercise.passes.append(not failed if ran else None)
    exercise.points += points if exercise.passes[-1] else 0
