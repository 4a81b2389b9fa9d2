"""Marks as tables: one for people, and the two that Canvas and Moodle import.

In what an LMS imports, a mark that is not final is a blank cell, never a zero: an answer that waits
for a person, work that could not be graded, and a student who handed in nothing.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab_grader.intake.course import Course
from lab_grader.marks.history import gradings
from lab_grader.marks.standing import Standing, State, exercise_columns, read_standings
from lab_grader.plain import csv_cell
from lab_grader.running.cache import write_atomically

Table = list[list[object]]  # rows of cells, the header first


@dataclass(frozen=True)
class Policy:
    """What is exported to an LMS for marks that are not final.

    Attributes:
        allow_unmarked: give it what there is so far where answers wait for a person.
        absent_zero: give it 0 for those who handed in nothing.
    """

    allow_unmarked: bool = False
    absent_zero: bool = False

    def score(self, standing: Standing) -> float | None:
        """Return what is exported to an LMS of a student's marks; None for a blank cell."""
        if standing.state == State.ABSENT and self.absent_zero:
            return 0.0
        if standing.state == State.WAITING and not self.allow_unmarked:
            return None
        return standing.score


def write_table(path: Path, rows: Iterable[Iterable[object]], delimiter: str = ",") -> Path:
    """Write a table whose texts no spreadsheet takes for formulas; return its path."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    write_atomically(path, text.getvalue())
    return path


def export(course: Course, policy: Policy | None = None) -> list[Path]:
    """Write the tables into the folder `marks`; return their paths.

    `<assignment>.csv` has a row for each student: `student_id`, names, `email`, a column
    `lesson/exercise` for each exercise (blank: not marked), `penalty` (for lateness), `score` so
    far, `max_score`, `to_mark`, the number of answers that wait for a person, and `state`.

    `<assignment>-canvas.csv` is Canvas' gradebook: `Student`, `ID` (the LMS's own number, as
    entered in nbgrader's `lms_user_id`), `SIS User ID`, `SIS Login ID`, `Section` and the score;
    its second row has the points possible.

    `<assignment>-moodle.csv` is for Moodle's grade import: `ID number` (`lms_user_id` again),
    `Email address` and the score. It has those of whom one of the two is known.

    `<assignment>-mistakes.csv` has a row for each test that an answer failed: `student_id`,
    `lesson`, `exercise`, `test`, `hidden` (whether a hidden call failed), `mistake` (blank where
    none is known), `section` of the lesson that explains it, and `problem`.
    """
    policy, standings = policy or Policy(), read_standings(course)
    tables = {
        "": _for_people(course, standings),
        "-canvas": _for_canvas(course, standings, policy),
        "-mistakes": _mistakes(course),
        "-moodle": _for_moodle(course, standings, policy),
    }
    folder = course.work / "marks"
    return [
        write_table(folder / f"{course.assignment}{suffix}.csv", table)
        for suffix, table in tables.items()
    ]


def _for_people(course: Course, standings: list[Standing]) -> Table:
    columns = exercise_columns(course)
    most = sum(columns.values())
    header = [
        *("student_id", "last_name", "first_name", "email"),
        *(f"{lesson}/{exercise}" for lesson, exercise in columns),
        *("penalty", "score", "max_score", "to_mark", "state"),
    ]
    rows = [
        [
            *(it.student, it.last_name, it.first_name, it.email),
            *it.points.values(),
            *(it.penalty, it.score, most, len(it.waiting)),
            f"{it.state}: {it.why}" if it.why else it.state.value,
        ]
        for it in standings
    ]
    return [header, *rows]


def _for_canvas(course: Course, standings: list[Standing], policy: Policy) -> Table:
    most = sum(exercise_columns(course).values())
    rows: Table = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", course.assignment],
        ["    Points Possible", "", "", "", "", most],
    ]
    for it in standings:
        shown = ", ".join(part for part in (it.last_name, it.first_name) if part) or it.student
        rows.append([shown, it.lms_user_id, it.student, it.student, "", policy.score(it)])
    return rows


def _for_moodle(course: Course, standings: list[Standing], policy: Policy) -> Table:
    rows = [
        [it.lms_user_id, it.email, policy.score(it)]
        for it in standings
        if it.lms_user_id or it.email
    ]
    return [["ID number", "Email address", course.assignment], *rows]


def _mistakes(course: Course) -> Table:
    header = ["student_id", "lesson", "exercise", "test", "hidden"]
    rows: Table = [[*header, "mistake", "section", "problem"]]
    for grading in gradings(course, last=1):
        for student, findings in sorted(grading.students.items()):
            for it in findings.missed:
                exercise = course.lessons[it.lesson].exercises[it.test]
                hidden = "yes" if it.hidden else "no"
                row = [student, it.lesson, exercise, it.test, hidden]
                rows.append([*row, it.name, it.section, it.problem])
    return rows


def left_blank(standings: list[Standing], policy: Policy | None = None) -> list[str]:
    """Say, one line each, whose marks are not exported to an LMS, and how to change that."""
    policy = policy or Policy()
    advice = {
        State.WAITING: "mark them in Formgrader, or export with --allow-unmarked",
        State.FAILED: "see above",
        State.ABSENT: "export with --absent-zero to give them 0",
    }
    lines = []
    for state, what_to_do in advice.items():
        names = [it.student for it in standings if it.state == state and policy.score(it) is None]
        if names:
            lines.append(f"blank for the LMS, {state}: {', '.join(names)} ({what_to_do})")
    nobody = [it.student for it in standings if not (it.lms_user_id or it.email)]
    if nobody:
        lines.append(
            "not in Moodle's table, because neither an ID number nor an address is known: "
            + ", ".join(nobody)
        )
    return lines
