"""Write a graded submission into nbgrader's gradebook and its autograded folder.

nbgrader's own `Autograde` does everything except execute: the outputs come from the result. So
checksums, comments, late penalties and marks given by hand are treated as nbgrader treats them.
"""

import functools
import hashlib
import inspect
import json
import logging
import shutil
import sys
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unittest import mock

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader import api
from nbgrader.api import (
    BaseCell,
    Grade,
    Notebook,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties, Execute
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError, SAWarning

from lab_grader.intake.course import Course
from lab_grader.intake.vet import TIMESTAMP, Submission
from lab_grader.marks.confined import Confined
from lab_grader.places import about_file
from lab_grader.running.cache import write_atomically
from lab_grader.running.job import Result

PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp"}


class RecordError(Exception):
    """A submission was executed, but could not be recorded."""


@dataclass(frozen=True)
class Mark:
    """The gradebook's entry for one test or answer of one student."""

    auto: float | None
    manual: float | None
    score: float
    needs_manual_grade: bool


Marks = dict[tuple[str, str], Mark]  # by notebook and grade_id


def read_marks(course: Course, student: str | None = None) -> dict[str, Marks]:
    """Return the marks of all students, or of one, with a single query of the gradebook."""
    found: dict[str, Marks] = defaultdict(dict)
    with course.gradebook() as gradebook:
        rows = (
            gradebook.db.query(
                Student.id,
                Notebook.name,
                BaseCell.name,
                Grade.auto_score,
                Grade.manual_score,
                Grade.score,
                Grade.needs_manual_grade,
            )
            .join(SubmittedNotebook, Grade.notebook_id == SubmittedNotebook.id)
            .join(SubmittedAssignment, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
            .join(Student, SubmittedAssignment.student_id == Student.id)
            .join(BaseCell, Grade.cell_id == BaseCell.id)
            .join(Notebook, SubmittedNotebook.notebook_id == Notebook.id)
            .filter(SubmittedAssignment.assignment.has(name=course.assignment))
        )
        if student is not None:
            rows = rows.filter(Student.id == student)
        for student, notebook, cell, auto, manual, score, needs in rows:
            found[student][notebook, cell] = Mark(auto, manual, score, needs)
    return found


def _goes_with_pages(name: str) -> bool:
    """Whether a file goes into the folders that Formgrader serves and that students get back.

    Pictures do, since texts may show them. The scripts in a student's HTML or SVG file would run
    there with the rights of whoever opens it. Files that only the code needs are not kept.
    """
    path = PurePosixPath(name)
    folders = [folder.name for folder in path.parents]
    return path.suffix.lower() in PICTURES and not any(f.endswith(".ipynb") for f in folders)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Recorder:
    """The only writer of the gradebook. It remembers what it wrote.

    A note beside the cache says which result was recorded, and the marks that it led to. It is
    written last and removed first, so that interrupted work is done again, and it is valid only
    while the gradebook still has these marks.
    """

    def __init__(self, course: Course) -> None:
        self.course = course
        self.vetted = course.work / "vetted"
        self.notes = course.work / "recorded" / course.assignment
        # nbgrader opens the gradebook ten times a submission, and makes an engine each time, which
        # compiles each query again.
        self._one_engine = functools.cache(create_engine)

    def is_recorded(self, submission: Submission, key: str, marks: Marks) -> bool:
        """Whether a result has been recorded in the gradebook, which has `marks` now.

        A note that cannot be read is treated as missing, and this is reported.
        """
        note = self._note(submission.student)
        if not marks or not note.exists():
            return False
        try:
            return json.loads(note.read_text("utf-8")) == self._described(submission, key, marks)
        except (OSError, ValueError, RecursionError):
            submission.mended.append("the notes of an earlier run were damaged; recorded again")
            return False

    def record(self, submission: Submission, key: str, result: Result) -> None:
        """Enter the marks of a submission, and put its notebooks into the autograded folder.

        Raises:
            RecordError: nbgrader rejected the submission; the text says why.
            CourseError: the gradebook cannot be written.
        """
        student = submission.student
        _remove(self._note(student))
        self._write_vetted(submission)
        with (
            warnings.catch_warnings(),
            mock.patch.object(api, "create_engine", self._one_engine),
        ):
            warnings.simplefilter("ignore", SAWarning)  # of nbgrader's own queries
            if submission.notebooks:
                self._autograde(student, result)
            else:
                self._record_nothing(student)
            marks = read_marks(self.course, student)[student]
        note = self._described(submission, key, marks)
        write_atomically(self._note(student), json.dumps(note))

    def _described(self, submission: Submission, key: str, marks: Marks) -> dict:
        """Return the content of a note: the result, the marks, and what else affects them."""
        moment = submission.moment.isoformat() if submission.moment else None
        extension = self._extensions.get(submission.student)
        lateness = [moment, extension, *self._lateness]
        decided = hashlib.sha256(repr(lateness).encode()).hexdigest()
        return {"key": key, "marks": _auto(marks), "lateness": decided}

    @functools.cached_property
    def _extensions(self) -> dict[str, str]:
        """The extensions of the due date that some students have."""
        with self.course.gradebook() as gradebook:
            submissions = gradebook.db.query(SubmittedAssignment).filter(
                SubmittedAssignment.assignment.has(name=self.course.assignment),
                SubmittedAssignment.extension.isnot(None),
            )
            return {found.student_id: str(found.extension) for found in submissions}

    @functools.cached_property
    def _lateness(self) -> list[str]:
        """What determines a penalty, apart from the time: due date, settings, the plugin's code."""
        with self.course.gradebook() as gradebook:
            due = gradebook.find_assignment(self.course.assignment).duedate
        config = self.course.config
        plugin = AssignLatePenalties(config=config).plugin_class
        names = {c.__name__ for c in (*plugin.__mro__, *AssignLatePenalties.__mro__)}
        settings = sorted((name, repr(config[name])) for name in names if name in config)
        source = inspect.getsourcefile(plugin)
        code = Path(source).read_text("utf-8") if source else repr(plugin)
        points = [
            (lesson.name, grade_id, lesson.points(grade_id))
            for lesson in self.course.lessons.values()
            for grade_id in lesson.exercises
        ]
        return [str(due), repr(settings), code, repr(points)]

    def _note(self, student: str) -> Path:
        return self.notes / f"{student}.json"

    def _write_vetted(self, submission: Submission) -> None:
        folder = self.vetted / submission.student / self.course.assignment
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, notebook in submission.notebooks.items():
            nbformat.write(notebook, folder / f"{name}.ipynb")
        for name, content in submission.files.items():
            if _goes_with_pages(name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        if submission.moment:
            (folder / TIMESTAMP).write_text(
                f"{submission.moment:%Y-%m-%d %H:%M:%S.%f} UTC", "utf-8"
            )

    def _autograde(self, student: str, result: Result) -> None:
        config = self.course.config.copy()
        config.CourseDirectory.submitted_directory = str(self.vetted.relative_to(self.course.root))
        config.CourseDirectory.student_id = student
        config.CourseDirectory.assignment_id = self.course.assignment
        config.Autograde.exporter_class = NotebookExporter
        log, last = quiet_log()
        autograde = Autograde(
            coursedir=CourseDirectory(config=config), config=config, log=log, force=True
        )
        autograde.autograde_preprocessors = [
            _InsertOutputs(result) if step in (Confined, Execute) else step
            for step in autograde.autograde_preprocessors
        ]
        try:
            autograde.start()
        except (NbGraderException, SystemExit) as error:
            if isinstance(last.error, OperationalError):
                raise last.error from error
            cause = last.error or error
            if isinstance(cause, OSError) and cause.filename:
                raise RecordError(about_file(cause)) from cause
            raise RecordError(
                f"nbgrader could not record it ({type(cause).__name__}: {cause})"
            ) from cause

    def _record_nothing(self, student: str) -> None:
        """Give no points to a student who handed in nothing that can be read.

        nbgrader would leave the student out of the gradebook.
        """
        shutil.rmtree(self.course.folder("autograded", student), ignore_errors=True)
        with self.course.gradebook() as gradebook:
            gradebook.update_or_create_student(student)
            submission = gradebook.update_or_create_submission(self.course.assignment, student)
            for notebook in submission.notebooks:
                for grade in notebook.grades:
                    grade.auto_score, grade.needs_manual_grade = 0, False
            gradebook.db.commit()


class _InsertOutputs:
    """Takes the place of nbgrader's step that executes a notebook, and inserts the outputs."""

    def __init__(self, result: Result) -> None:
        self.result = result

    def __call__(self, notebook: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        outputs = self.result.outputs[resources["nbgrader"]["notebook"]]
        for cell, found in zip(notebook.cells, outputs, strict=True):
            if cell.cell_type == "code":
                cell.outputs = [nbformat.from_dict(output) for output in found or []]
            if found is None and cell.metadata.get("nbgrader", {}).get("grade"):
                _expect_no_test(cell)
        return notebook, resources


def _expect_no_test(cell: NotebookNode) -> None:
    """Refuse a test that was not run: nbgrader gives a test without output full marks."""
    if cell.cell_type == "code" and not cell.metadata.nbgrader.solution:
        raise RecordError(f"the test {cell.metadata.nbgrader.grade_id} was not run")


def _auto(marks: Marks) -> dict[str, float | None]:
    return {f"{notebook}/{cell}": mark.auto for (notebook, cell), mark in sorted(marks.items())}


class _LastError(logging.Handler):
    """Keeps the last exception that was logged: nbgrader logs the cause, and raises another one,
    which does not name it."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.error = sys.exc_info()[1] or self.error


def quiet_log() -> tuple[logging.Logger, _LastError]:
    """Return a log that prints nothing, and the handler that keeps its last exception."""
    log, last = logging.Logger("nbgrader", logging.WARNING), _LastError()
    log.addHandler(last)
    return log, last
