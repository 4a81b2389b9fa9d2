"""How far a student is: read from the saved notebooks, in which nothing is executed."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Lesson:
    """The exercises of a lesson whose checks have all run and passed, and the others, by name."""

    name: str
    passed: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


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
    return Overview([_read(path) for path in paths])


def _read(path: Path) -> Lesson:
    """Pair each exercise with the checks that follow it, up to the next exercise."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no notebook that can be read; restore or delete it") from error
    verdicts: dict[str, list[bool]] = {}
    name = None
    for cell in cells:
        nbgrader = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] != "code":
            continue
        if nbgrader.get("solution"):
            written = re.search(r"^(?:def|class) (\w+)", "".join(cell["source"]), re.MULTILINE)
            name = written.group(1) if written else nbgrader["grade_id"]
            verdicts[name] = []
        elif nbgrader.get("grade") and name is not None:
            failed = any(output["output_type"] == "error" for output in cell["outputs"])
            verdicts[name].append(cell["execution_count"] is not None and not failed)
    lesson = Lesson(path.stem)
    for name, passes in verdicts.items():
        (lesson.passed if passes and all(passes) else lesson.open).append(name)
    return lesson
