"""How far a student is: read from the saved notebooks, in which nothing is executed."""

import json
import re
from dataclasses import dataclass, field
from datetime import date
from html import escape
from pathlib import Path
from textwrap import fill

COPY = re.compile(r"-Copy\d+$")  # as JupyterLab names what it duplicates
# Said to those whose checks all pass.
LEARNT = (
    "You can split a weight into magnitude and direction, adapt a model with LoRA and with DoRA, "
    "and compare the two as it should be done: each at a learning rate of its own, seed by seed, "
    "with an interval, and with no claim beyond it."
)


@dataclass
class Lesson:
    """What the checks of a lesson said.

    Attributes:
        name: of its file.
        passed: the exercises whose checks have all run and passed.
        open: the others.
        points: of the checks that passed.
        most: points that all checks give.
        by_hand: points that a person gives, for an open question.
    """

    name: str
    passed: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    points: float = 0
    most: float = 0
    by_hand: float = 0


@dataclass(frozen=True)
class Overview:
    """What a notebook shows as a table, and a terminal as lines."""

    lessons: list[Lesson]

    def __str__(self) -> str:
        passed = sum(len(lesson.passed) for lesson in self.lessons)
        total = passed + sum(len(lesson.open) for lesson in self.lessons)
        if passed < total or not total:
            return f"{passed} of {total} exercises pass."
        return (
            f"All {total} exercises of {len(self.lessons)} lessons pass: you wrote DoRA yourself, "
            "from the norm of a row to a layer that trains, merges and matches a library's."
        )

    def __repr__(self) -> str:
        rows = (f"{row.name}: {_state(row)}" for row in self.lessons)
        return "\n".join([*rows, str(self)])

    def _repr_markdown_(self) -> str:
        rows = (f"| {row.name} | {_state(row, code='`')} |" for row in self.lessons)
        return "\n".join(["| lesson | exercises |", "| --- | --- |", *rows, "", f"**{self}**"])


@dataclass(frozen=True)
class Summary:
    """A page to keep: what was done in each lesson, with points, as HTML and as lines."""

    lessons: list[Lesson]
    day: date

    def __str__(self) -> str:
        rows = "\n".join(
            f"  {row.name}: {_points(row)} points; {_state(row)}" for row in self.lessons
        )
        sentences = [fill(sentence, 88) for sentence in self._sentences()]
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
        return [
            f"{Overview(self.lessons)} The checks that you can see give {points:g} of {most:g} "
            "points.",
            f"Still open: exercises in {', '.join(still_open)}." if still_open else LEARNT,
            "This is what the checks said when the notebooks were last saved. Only your "
            f"instructor's grading counts: it runs hidden tests as well{question}.",
        ]


def _points(lesson: Lesson) -> str:
    return f"{lesson.points:g} of {lesson.most:g}"


def _state(lesson: Lesson, code: str = "") -> str:
    total = len(lesson.passed) + len(lesson.open)
    still = ", ".join(f"{code}{name}{code}" for name in lesson.open)
    return f"{len(lesson.passed)} of {total} pass" + (f"; open: {still}" if still else "")


def overview(folder: str | Path = ".") -> Overview:
    """Return what the checks said when the lessons of a folder were last run and saved.

    Code that was edited after its check ran counts as the check found it; Validate runs all
    afresh. The open question of lesson 07 is not counted: a person marks it.

    Args:
        folder: where the notebooks are; a lesson's own folder by default.

    Raises:
        ValueError: a file is no notebook.
    """
    paths = sorted(Path(folder).glob("[0-9][0-9]-*.ipynb"))
    return Overview([_read(path) for path in paths if not COPY.search(path.stem)])


def summary(folder: str | Path = ".") -> Summary:
    """Return what `overview` reads, with points and today's date, as a page to print or keep."""
    return Summary(overview(folder).lessons, date.today())


def _read(path: Path) -> Lesson:
    """Pair each exercise with the checks that follow it, up to the next exercise."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no notebook that can be read; restore or delete it") from error
    lesson = Lesson(path.stem)
    verdicts: dict[str, list[bool]] = {}
    name = None
    for cell in cells:
        nbgrader = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] != "code":
            lesson.by_hand += nbgrader["points"] if nbgrader.get("grade") else 0
        elif nbgrader.get("solution"):
            written = re.search(r"^(?:def|class) (\w+)", "".join(cell["source"]), re.MULTILINE)
            name = written.group(1) if written else nbgrader["grade_id"]
            verdicts[name] = []
        elif nbgrader.get("grade") and name is not None:
            failed = any(output["output_type"] == "error" for output in cell["outputs"])
            passes = cell["execution_count"] is not None and not failed
            verdicts[name].append(passes)
            lesson.most += nbgrader["points"]
            lesson.points += nbgrader["points"] if passes else 0
    for name, passes in verdicts.items():
        (lesson.passed if passes and all(passes) else lesson.open).append(name)
    return lesson
