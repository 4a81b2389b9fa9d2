"""Marks as tables: one for people, and the two that Canvas and Moodle import."""

import csv
import io
from pathlib import Path

from nbgrader.api import Student, SubmittedAssignment

from lab_grader.intake.course import Course
from lab_grader.marks.record import Marks, read_marks
from lab_grader.running.cache import write_atomically


def exercise_columns(course: Course) -> dict[tuple[str, str], float]:
    """Return the exercises of an assignment, by lesson and name, with the points of each."""
    columns: dict[tuple[str, str], float] = {}
    for lesson in course.lessons.values():
        for grade_id, exercise in lesson.exercises.items():
            column = lesson.name, exercise
            columns[column] = columns.get(column, 0) + lesson.points(grade_id)
    return columns


def by_exercise(course: Course, marks: Marks) -> dict[tuple[str, str], float]:
    """Return a student's points of each exercise."""
    found = dict.fromkeys(exercise_columns(course), 0.0)
    for (notebook, grade_id), mark in marks.items():
        found[notebook, course.lessons[notebook].exercises[grade_id]] += mark.score
    return found


def export(course: Course) -> list[Path]:
    """Write the tables into the folder `marks`; return their paths.

    `<assignment>.csv` has a row for each student: `student_id`, names, `email`, a column
    `lesson/exercise` for each exercise, `penalty` (for lateness), `score`, `max_score`, and
    `to_mark`, the number of answers that wait for a person.

    `<assignment>-canvas.csv` is Canvas' gradebook: `Student`, `ID` (the LMS's own number, as
    entered in nbgrader's `lms_user_id`), `SIS User ID`, `SIS Login ID`, `Section` and the score;
    its second row holds the points possible.

    `<assignment>-moodle.csv` is for Moodle's grade import: `ID number`, `Email address` and the
    score. Map the first or the second to the user, and the last to the assignment.
    """
    columns = exercise_columns(course)
    most = sum(columns.values())
    rows, canvas, moodle = [], [], []
    for student, penalty, marks in _students(course):
        points = by_exercise(course, marks)
        score = max(0.0, sum(points.values()) - penalty)
        waiting = sum(mark.needs_manual_grade for mark in marks.values())
        name = [student.last_name or "", student.first_name or ""]
        person = [student.id, *name, student.email or ""]
        rows.append([*person, *points.values(), penalty, score, most, waiting])
        shown = ", ".join(part for part in name if part) or student.id
        canvas.append([shown, student.lms_user_id or "", student.id, student.id, "", score])
        moodle.append([student.id, student.email or "", score])
    person = ["student_id", "last_name", "first_name", "email"]
    exercises = [f"{lesson}/{exercise}" for lesson, exercise in columns]
    tables = {
        "": [[*person, *exercises, "penalty", "score", "max_score", "to_mark"], *rows],
        "-canvas": [
            ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", course.assignment],
            ["    Points Possible", "", "", "", "", most],
            *canvas,
        ],
        "-moodle": [["ID number", "Email address", course.assignment], *moodle],
    }
    folder = course.work / "marks"
    paths = []
    for suffix, table in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        paths.append(folder / f"{course.assignment}{suffix}.csv")
        write_atomically(paths[-1], text.getvalue())
    return paths


def _students(course: Course) -> list[tuple[Student, float, Marks]]:
    """Return everybody in the gradebook, with the penalty for lateness and the marks."""
    marks = read_marks(course)
    with course.gradebook() as gradebook:
        found = []
        for student in sorted(gradebook.students, key=lambda student: student.id):
            submission = (
                gradebook.db.query(SubmittedAssignment)
                .filter(SubmittedAssignment.student_id == student.id)
                .filter(SubmittedAssignment.assignment.has(name=course.assignment))
                .one_or_none()
            )
            penalty = submission.late_submission_penalty if submission else 0.0
            found.append((student, penalty or 0.0, marks.get(student.id, {})))
        gradebook.db.expunge_all()
    return found
