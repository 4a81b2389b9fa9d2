"""Pages for students: nbgrader's feedback, without what hidden tests say."""

from nbgrader.converters import GenerateFeedback
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearHiddenTests

from lab_grader.intake.course import Course
from lab_grader.marks.record import memory_log


class FeedbackError(Exception):
    """A student's pages could not be made; the text says why."""


def make_feedback(course: Course, student: str) -> None:
    """Write a student's pages into nbgrader's feedback folder.

    A page shows each cell and what it printed, the points of each test, and comments. The
    source of a hidden test is cut out; it is in no output, since tests run outside the notebook.

    Raises:
        FeedbackError: nbgrader refused it.
    """
    config = course.config.copy()
    config.CourseDirectory.student_id = student
    config.CourseDirectory.assignment_id = course.assignment
    log, lines = memory_log()
    converter = GenerateFeedback(
        coursedir=CourseDirectory(config=config), config=config, log=log, force=True
    )
    if ClearHiddenTests not in converter.preprocessors:
        converter.preprocessors = [ClearHiddenTests, *converter.preprocessors]
    try:
        converter.start()
    except NbGraderException as error:
        raise FeedbackError(f"{error}\n{lines.getvalue()[-2000:]}") from error
