"""The marks of each student, and whether they are final. Every export gets them from here."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from nbgrader.api import (
    BaseCell,
    Comment,
    Notebook,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)

from lab_grader.intake.course import Course, CourseError
from lab_grader.marks import history
from lab_grader.marks.record import Marks, read_marks
from lab_grader.plain import plain

MOST_DAYS = 3650  # of an extension
Exercise = tuple[str, str]  # lesson and name


class State(enum.StrEnum):
    """The state of a student's marks, in words. Only final marks count."""

    FINAL = "final"
    WAITING = "waits for a mark by hand"
    FAILED = "could not be graded"
    ABSENT = "handed in nothing"


def exercise_columns(course: Course) -> dict[Exercise, float]:
    """Return the exercises of an assignment, by lesson and name, with the points of each."""
    columns: dict[Exercise, float] = {}
    for lesson in course.lessons.values():
        for grade_id, exercise in lesson.exercises.items():
            column = lesson.name, exercise
            columns[column] = columns.get(column, 0) + lesson.points(grade_id)
    return columns


@dataclass(frozen=True)
class Standing:
    """One student's marks.

    Attributes:
        why: the reason that the submission could not be graded; empty if it was graded.
        penalty: points deducted for lateness.
        handed_in: the time, in UTC, if the LMS or the student's folder states it.
        late_seconds: after the due date.
    """

    course: Course
    student: str
    last_name: str
    first_name: str
    email: str
    lms_user_id: str
    state: State
    why: str
    marks: Marks
    penalty: float
    handed_in: datetime | None
    late_seconds: float

    @cached_property
    def points(self) -> dict[Exercise, float | None]:
        """The points of each exercise; None if it waits for a mark or was not graded."""
        if self.state in (State.ABSENT, State.FAILED):
            return dict.fromkeys(exercise_columns(self.course))
        found: dict[Exercise, float | None] = dict.fromkeys(exercise_columns(self.course), 0.0)
        for (lesson, grade_id), mark in self.marks.items():
            exercise = lesson, self.course.lessons[lesson].exercises[grade_id]
            if mark.needs_manual_grade:
                found[exercise] = None
            elif found[exercise] is not None:
                found[exercise] += mark.score
        return found

    @cached_property
    def waiting(self) -> list[tuple[str, str]]:
        """The lesson and `grade_id` of each answer that waits for a person."""
        if self.state != State.WAITING:
            return []
        return sorted(key for key, mark in self.marks.items() if mark.needs_manual_grade)

    @property
    def points_waiting(self) -> float:
        """The most points that a person can still give."""
        return sum(self.course.lessons[lesson].points(cell) for lesson, cell in self.waiting)

    @property
    def score(self) -> float | None:
        """All points so far minus the penalty; None if the work was not graded."""
        if self.state in (State.ABSENT, State.FAILED):
            return None
        return max(0.0, sum(mark.score for mark in self.marks.values()) - self.penalty)

    @property
    def name(self) -> str:
        """First and last name if they are known, otherwise the id."""
        return " ".join(part for part in (self.first_name, self.last_name) if part) or self.student


def read_standings(course: Course, student: str | None = None) -> list[Standing]:
    """Return all students who are registered or handed something in, sorted by id; or one student.

    If the current submission could not be graded, the gradebook may still have the marks of an
    earlier one, or zeros for unreadable work; neither is the mark of the current submission.
    """
    last = history.gradings(course, last=1)
    last_grading = last[0].students if last else {}
    all_marks, handed_in = read_marks(course, student), set(course.students())
    with course.gradebook() as gradebook:
        people = {person.id: person for person in gradebook.students}
        submissions = {
            submission.student_id: submission
            for submission in gradebook.db.query(SubmittedAssignment).filter(
                SubmittedAssignment.assignment.has(name=course.assignment)
            )
        }
        found = []
        for name in [student] if student is not None else sorted(people.keys() | handed_in):
            person, submission = people.get(name) or Student(id=name), submissions.get(name)
            marks = _graded(course, name, all_marks.get(name, {}))
            why = _why_not_graded(name in handed_in, marks, last_grading.get(name))
            found.append(
                Standing(
                    course,
                    name,
                    person.last_name or "",
                    person.first_name or "",
                    person.email or "",
                    person.lms_user_id or "",
                    _state(marks, why),
                    why,
                    marks,
                    float(submission.late_submission_penalty or 0) if submission else 0.0,
                    submission.timestamp if submission else None,
                    submission.total_seconds_late if submission else 0.0,
                )
            )
        return found


def _why_not_graded(handed_in: bool, marks: Marks, last: history.Findings | None) -> str:
    """Return why the current submission was not graded; empty if it was.

    Args:
        last: what the last grading found out about the student.
    """
    if last and last.failed:
        return last.failed
    if handed_in and not marks:
        return "not graded yet"
    if handed_in and last and not last.lessons:
        return "no notebook could be read"
    return ""


def _state(marks: Marks, why_not_graded: str) -> State:
    if why_not_graded:
        return State.FAILED
    if not marks:
        return State.ABSENT
    waits = any(mark.needs_manual_grade for mark in marks.values())
    return State.WAITING if waits else State.FINAL


def read_comments(course: Course, student: str) -> dict[tuple[str, str], str]:
    """Return a person's comments on a student's answers, by notebook and `grade_id`."""
    with course.gradebook() as gradebook:
        rows = (
            gradebook.db.query(Notebook.name, BaseCell.name, Comment.manual_comment)
            .join(SubmittedNotebook, Comment.notebook_id == SubmittedNotebook.id)
            .join(SubmittedAssignment, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
            .join(BaseCell, Comment.cell_id == BaseCell.id)
            .join(Notebook, SubmittedNotebook.notebook_id == Notebook.id)
            .filter(SubmittedAssignment.assignment.has(name=course.assignment))
            .filter(SubmittedAssignment.student_id == student)
        )
        return {(notebook, cell): comment for notebook, cell, comment in rows if comment}


def _graded(course: Course, student: str, marks: Marks) -> Marks:
    """Return the marks; none if nothing was ever graded, since an extension creates empty marks."""
    note = course.work / "recorded" / course.assignment / f"{student}.json"
    marked = any(mark.auto is not None or mark.manual is not None for mark in marks.values())
    return marks if marked or note.exists() else {}


def extend(course: Course, student: str, days: float) -> datetime:
    """Extend the due date for a student by some days; return the new due date, in UTC.

    Args:
        days: 0 takes an extension back.

    Raises:
        CourseError: the assignment has no due date, nobody has this id, or it is not a number of
            days.
    """
    if not 0 <= days <= MOST_DAYS:
        raise CourseError(f"{days:g} days is not a possible extension: give 0 to {MOST_DAYS}.")
    with course.gradebook() as gradebook, gradebook.db.no_autoflush:
        due = gradebook.find_assignment(course.assignment).duedate
        if due is None:
            raise CourseError(
                f"{course.assignment} has no due date: nbgrader db assignment add "
                f'{course.assignment} --duedate="2026-12-01 23:59 UTC"'
            )
        known = {it.id for it in gradebook.students} | set(course.students())
        if student not in known:
            raise CourseError(
                f"{plain(student)} has handed in nothing and is not registered. If the id is "
                "right, run nbgrader db student add with it first."
            )
        gradebook.update_or_create_student(student)
        submission = gradebook.update_or_create_submission(course.assignment, student)
        submission.extension = timedelta(days=days) if days else None
        gradebook.db.commit()
        return due + timedelta(days=days)
