"""What each grading found, as data: for the report, and for comparing one grading with the next.

A file for each grading that found something new lies in `history/<assignment>`; the last one holds
what is known of every student.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from lab_grader.intake.course import Course
from lab_grader.intake.vet import Submission
from lab_grader.marks.record import Marks
from lab_grader.running.cache import write_atomically
from lab_grader.running.job import Result

KEPT = 50  # gradings; older ones are deleted


@dataclass(frozen=True)
class Missed:
    """A test that a student's answer failed.

    Attributes:
        test: its `grade_id`.
        hidden: whether it was one of the hidden calls.
        problem: what was expected and found.
        name, why, section: of the known mistake; empty where none explains it.
    """

    lesson: str
    test: str
    hidden: bool
    problem: str
    name: str
    why: str
    section: str


@dataclass
class Findings:
    """What is known about a student's submission, apart from the marks.

    Attributes:
        failed: why it could not be graded.
        lessons: those that were handed in.
        scores: of each test and answer, by `lesson/grade_id`; None for one that waits.
        seed: identifies a submission.
        attempts: how many different submissions of this student were graded.
    """

    failed: str = ""
    lessons: list[str] = field(default_factory=list)
    scores: dict[str, float | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    seed: int = 0
    attempts: int = 0


@dataclass
class Grading:
    """One grading: when it ended, in UTC, and what was known after it."""

    when: str
    students: dict[str, Findings]


def scores_of(marks: Marks) -> dict[str, float | None]:
    """Return marks as they are kept."""
    return {
        f"{lesson}/{grade_id}": None if mark.needs_manual_grade else mark.score
        for (lesson, grade_id), mark in sorted(marks.items())
    }


def missed(course: Course, submission: Submission, result: Result) -> list[Missed]:
    """Return the failed tests of a submission, by their names."""
    found = []
    for it in result.failed:
        cell = submission.notebooks[it.lesson].cells[it.cell]
        test = cell.metadata.nbgrader.grade_id
        hidden = it.call >= course.lessons[it.lesson].visible_calls(test)
        found.append(Missed(it.lesson, test, hidden, it.problem, it.name, it.why, it.section))
    return found


def gradings(course: Course, last: int = 2) -> list[Grading]:
    """Return the last gradings that are kept, the oldest first; not those of another version."""
    found: list[Grading] = []
    for path in sorted((course.work / "history" / course.assignment).glob("*.json"), reverse=True):
        if len(found) == last:
            break
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found.insert(0, _read(path.read_text("utf-8")))
    return found


def keep(course: Course, found: Mapping[str, Findings]) -> None:
    """Add what a grading found to what was known; it counts its own `attempts`."""
    before = gradings(course, last=1)
    students = dict(before[0].students) if before else {}
    for student, it in found.items():
        known = students.get(student, Findings())
        it.attempts = known.attempts + (it.seed != known.seed)
        students[student] = it
    if before and before[0].students == students:
        return
    when = datetime.now(UTC)
    text = json.dumps(asdict(Grading(when.isoformat(timespec="seconds"), students)))
    folder = course.work / "history" / course.assignment
    write_atomically(folder / f"{when:%Y-%m-%dT%H-%M-%S.%f}.json", text)
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink()


def _read(text: str) -> Grading:
    kept = json.loads(text)
    students = {
        student: Findings(**it | {"missed": [Missed(**one) for one in it["missed"]]})
        for student, it in kept["students"].items()
    }
    return Grading(kept["when"], students)
