"""nbgrader's own doors, confined: its command and Formgrader's button do what `make grade` does.

The course's configuration replaces `Execute` with `Confined`, so that nothing which nbgrader
does by itself runs a student's code, and makes `Door` the exporter of its `Autograde`, which makes
its exporter before it opens a submission.
"""

import fnmatch
import os
from pathlib import Path

from filelock import Timeout
from nbconvert.exporters import NotebookExporter
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from sqlalchemy.exc import SQLAlchemyError

from lab_grader.marks.confined import confined
from lab_grader.places import about_file
from lab_grader.plain import plain

__all__ = ["Door", "confined"]  # for the course's configuration


class Door(NotebookExporter):
    """An exporter that, made for nbgrader's `Autograde`, grades in its place."""

    def __init__(self, config=None, parent=None, **named) -> None:
        super().__init__(config=config, parent=parent, **named)
        if isinstance(parent, Autograde):
            _grade_instead_of(parent)


def _grade_instead_of(autograde: Autograde) -> None:
    """Vet, execute in the sandbox and record the students whom nbgrader has to grade.

    Raises:
        NbGraderException: a student could not be graded, or there is no sandbox.
    """
    from lab_grader.grade import describe, grade
    from lab_grader.intake.course import Course, CourseError, about_gradebook
    from lab_grader.sandbox.bubblewrap import NoSandbox, check_available

    directory = autograde.coursedir
    autograde.assignments = {}  # nothing is left to do for nbgrader
    try:
        check_available()
        course = Course(Path(directory.root), directory.assignment_id)
        left_out = directory.student_id_exclude.split(",")
        students = [
            student
            for student in course.students()
            if fnmatch.fnmatchcase(student, directory.student_id) and student not in left_out
        ]
        with course.only_grader():
            jobs = min(os.cpu_count() or 1, max(1, len(students)))
            outcome = grade(course, students, jobs=jobs, feedback=False)
    except Timeout as error:
        _refuse(autograde, f"this course is being graded by another process ({error})")
    except (CourseError, NoSandbox) as error:
        _refuse(autograde, str(error))
    except SQLAlchemyError as error:
        _refuse(autograde, about_gradebook(error))
    except OSError as error:
        _refuse(autograde, about_file(error))
    for line in describe(course, outcome):
        autograde.log.info("%s", plain(line, most=5000))
    if outcome.failed:
        failed = (f"{student} ({why})" for student, why in outcome.failed.items())
        _refuse(autograde, f"could not be graded: {', '.join(failed)}")


def _refuse(autograde: Autograde, sentence: str) -> None:
    autograde.log.error("%s", plain(sentence, most=5000))
    raise NbGraderException(plain(sentence, most=5000)) from None
