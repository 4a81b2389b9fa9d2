"""Grade a class: vet, execute, record, feedback, export."""

import contextlib
import functools
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode
from sqlalchemy.exc import OperationalError

from lab_grader.intake.course import (
    Course,
    CourseError,
    Lesson,
    refusal,
    role_of,
    spelled_alike,
)
from lab_grader.intake.submitted import NotRead
from lab_grader.intake.vet import Submission, vet
from lab_grader.marks.difference import changed, differences
from lab_grader.marks.export import export, left_blank
from lab_grader.marks.history import Findings, Missed, keep, missed, scores_of
from lab_grader.marks.page import PAGE, make_page
from lab_grader.marks.record import Marks, Recorder, RecordError, read_marks
from lab_grader.marks.standing import read_comments, read_standings
from lab_grader.marks.summary import table, to_look_at
from lab_grader.places import FULL, about_file
from lab_grader.plain import say
from lab_grader.running.cache import Cache, key_of
from lab_grader.running.job import Cell, Job, Result
from lab_grader.running.progress import Progress
from lab_grader.running.workers import WorkerError, Workers, run_on_cluster
from lab_grader.sandbox.folders import remove_left_behind
from lab_grader.sandbox.limits import Limits

EXECUTE = "lab_grader.running.execute:execute"  # by its name: only workers import PyTorch
EXECUTE_BYTES = 8 << 30  # of the grader; the student's process has its own limits
ALIKE = "lab_grader.running.environment:deciding"
PAGE_SECONDS, PAGE_BYTES = 60, 2 << 30  # for a student's page
VET_SECONDS, VET_BYTES = 120, 3 << 30  # for reading a submission


@dataclass
class Outcome:
    """The outcome of grading a class.

    Attributes:
        graded: the students whose marks are in the gradebook.
        failed: why a student could not be graded.
        misplaced: what lies among the submissions and is not one.
        problems, mended, notes: what an instructor should know of each student's submission.
        lessons: what each student handed in, in which a `seed` identifies a version.
        missed: the tests that each student failed.
    """

    graded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    misplaced: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    mended: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    lessons: dict[str, list[str]] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    missed: dict[str, list[Missed]] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)

    def add(self, course: Course, submission: Submission, result: Result) -> None:
        """Add the result of executing a submission."""
        student = submission.student
        self.notes[student] = result.notes
        self.lessons[student] = sorted(submission.notebooks)
        self.missed[student] = missed(course, submission, result)

    def findings(self, student: str, marks: Marks) -> Findings:
        """Return what was found of a student, to be kept."""
        return Findings(
            failed=self.failed.get(student, ""),
            lessons=self.lessons.get(student, []),
            scores=scores_of(marks),
            problems=self.problems.get(student, []),
            mended=self.mended.get(student, []),
            notes=self.notes.get(student, []),
            missed=self.missed.get(student, []),
            seed=self.seeds.get(student, 0),
        )


def job_of(course: Course, submission: Submission, limits: Limits, sandbox: bool) -> Job:
    """Return everything that decides the marks of a submission."""
    notebooks = {
        name: [_cell(cell, course.lessons[name]) for cell in notebook.cells]
        for name, notebook in sorted(submission.notebooks.items())
    }
    return Job(notebooks, submission.files, limits, sandbox)


def _cell(cell: NotebookNode, lesson: Lesson) -> Cell | None:
    if cell.cell_type != "code":
        return None
    role = role_of(cell)
    if not role:
        role = "lesson" if cell.source.strip() in lesson.plain_code else "student"
    grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
    return Cell(cell.source, role, lesson.graded[grade_id].source if grade_id else "")


def grade(
    course: Course,
    students: list[str],
    jobs: int = 1,
    dask: str | None = None,
    sandbox: bool = True,
    again: bool = False,
    feedback: bool = True,
) -> Outcome:
    """Grade some students of a course; what is done already is not done again.

    Args:
        jobs: how many submissions run at a time on this machine.
        dask: the address of a Dask scheduler, whose workers run them instead.
        sandbox: without it, students' code runs with the caller's rights.
        again: also execute what was executed before.
        feedback: whether to make students' pages.
    """
    remove_left_behind()
    outcome, recorder, stored = Outcome(), Recorder(course), read_marks(course)
    waiting, recorded = [], []
    with Workers(min(jobs, len(students))) as workers:
        for attempt in attempts_of(course, students, workers, sandbox, outcome, again):
            student = attempt.submission.student
            with _only_theirs(course, student, outcome):
                outcome.seeds[student] = attempt.job.seed
                if attempt.result is not None:
                    outcome.add(course, attempt.submission, attempt.result)
                    marks = stored.get(student, {})
                    if recorder.is_recorded(attempt.submission, attempt.key, marks):
                        outcome.graded.append(student)
                        continue
                waiting.append(attempt)
        for attempt in executed(course, waiting, workers, dask, outcome, "graded"):
            student = attempt.submission.student
            with _only_theirs(course, student, outcome):
                outcome.add(course, attempt.submission, attempt.result)
                recorder.record(attempt.submission, attempt.key, attempt.result)
                outcome.graded.append(student)
                recorded.append(student)
        marks = read_marks(course)
        keep(course, {s: outcome.findings(s, marks.get(s, {})) for s in students})
        if feedback:
            pages = [s for s in outcome.graded if s in recorded or not _has_page(course, s)]
            make_pages(course, pages, workers, outcome)
    remove_left_behind()  # of a worker that was killed, or too slow to end
    outcome.graded.sort()
    outcome.tables = export(course)
    return outcome


def compare(
    course: Course,
    students: list[str],
    jobs: int,
    dask: str | None,
    sandbox: bool,
    outcome: Outcome,
) -> list[str]:
    """Say who would gain and who would lose points if `grade` were called now; record nothing.

    Marks by hand stay, so a test that has one neither gains nor loses. What is executed is kept,
    and `grade` does not execute it again.
    """
    known, waiting = [], []
    with Workers(min(jobs, len(students))) as workers:
        for attempt in attempts_of(course, students, workers, sandbox, outcome):
            (waiting if attempt.result is None else known).append(attempt)
        known += executed(course, waiting, workers, dask, outcome, "executed")
    stored, changes = read_marks(course), {}
    for attempt in known:
        student = attempt.submission.student
        marks = stored.get(student, {})
        changes[student] = changed(course, attempt.submission, attempt.result, marks)
    return differences(changes)


@dataclass
class Attempt:
    """A submission on its way: what is to be executed for it, and the result.

    Attributes:
        key: identifies the job and the code that executes it.
        result: None until it is known.
    """

    submission: Submission
    job: Job
    key: str
    result: Result | None = None


def attempts_of(
    course: Course,
    students: list[str],
    workers: Workers,
    sandbox: bool,
    outcome: Outcome,
    again: bool = False,
) -> Iterator[Attempt]:
    """Yield what each student handed in, vetted, with its cached result if there is one.

    Failures are reported in the outcome.

    Args:
        again: ignore cached results.
    """
    limits, cache = Limits(cell_seconds=course.cell_seconds), Cache(course.work / "cache")
    for student, submission in vet_all(course, students, workers, outcome):
        attempt = None
        with _only_theirs(course, student, outcome):
            job = job_of(course, submission, limits, sandbox)
            key = key_of(job)
            attempt = Attempt(submission, job, key, None if again else cache.load(key))
        if attempt:
            yield attempt


def executed(
    course: Course,
    attempts: list[Attempt],
    workers: Workers,
    dask: str | None,
    outcome: Outcome,
    verb: str,
) -> Iterator[Attempt]:
    """Yield each attempt as soon as it has its result; failures are reported in the outcome.

    Equal submissions, such as those without any answer, are executed once. Results are cached.

    Args:
        verb: what is done with an attempt once it has been yielded, for the progress bar.
    """
    cache, limits = Cache(course.work / "cache"), Limits(cell_seconds=course.cell_seconds)
    alike: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        alike.setdefault(attempt.key, []).append(attempt)
    calls = {key: some[0].job for key, some in alike.items() if some[0].result is None}
    with Progress(len(attempts), verb) as progress:
        for attempt in attempts:
            if attempt.result is not None:
                yield attempt
                progress.step(attempt.submission.student)
        bounds = {"seconds": limits.worker_seconds, "memory_bytes": EXECUTE_BYTES}
        if dask is None:
            answers = workers.run(EXECUTE, calls, **bounds)
        else:
            answers = run_on_cluster(EXECUTE, calls, dask, **bounds, alike=ALIKE)
        for key, answer in answers:
            failed = isinstance(answer, WorkerError)
            if not failed:
                cache.store(key, answer)
            for attempt in alike[key]:
                student = attempt.submission.student
                if failed:
                    outcome.failed[student] = str(answer)
                else:
                    attempt.result = answer
                    yield attempt
                progress.step(student)


def vet_all(
    course: Course, students: list[str], workers: Workers, outcome: Outcome
) -> Iterator[tuple[str, Submission]]:
    """Yield each student's submission, vetted in a worker; failures are reported."""
    calls = {}
    for student in students:
        if why := refusal(student):
            outcome.failed[student] = why
        else:
            calls[student] = student
    function = functools.partial(_vet, str(course.root), course.assignment)
    bounds = {"seconds": VET_SECONDS, "memory_bytes": VET_BYTES}
    for student, answer in workers.run(function, calls, **bounds):
        if isinstance(answer, Submission):
            outcome.problems[student], outcome.mended[student] = answer.problems, answer.mended
            yield student, answer
        else:
            outcome.failed[student] = f"it could not be read: {answer}"


def _vet(root: str, assignment: str, student: str) -> Submission | str:
    try:
        return vet(_course(root, assignment), student)
    except NotRead as error:
        return str(error)


@contextlib.contextmanager
def _only_theirs(course: Course, student: str, outcome: Outcome) -> Iterator[None]:
    """Report any failure of one student's submission, and go on with the class.

    What affects all of them, a full disk or a gradebook that cannot be written, ends the run.
    """
    try:
        yield
    except RecordError as error:
        outcome.failed[student] = str(error)
    except (CourseError, OperationalError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        if isinstance(error, OSError) and error.filename:
            outcome.failed[student] = about_file(error)
            return
        where = keep_traceback(course.work)
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        outcome.failed[student] = f"the grader failed on it ({why}; more in {where})"


def keep_traceback(folder: Path) -> Path:
    """Write the traceback of the current exception to a file for maintainers; return its path."""
    path = folder / "lab_grader-errors.txt"
    with open(path, "a", encoding="utf-8") as file:
        say([f"{datetime.now():%Y-%m-%d %H:%M:%S}", *traceback.format_exc().splitlines()], file)
    return path


def _has_page(course: Course, student: str) -> bool:
    return (course.folder("feedback", student) / PAGE).exists()


def make_pages(course: Course, students: list[str], workers: Workers, outcome: Outcome) -> None:
    """Make the pages of students who were graded, several at a time.

    What a student typed can take arbitrarily long to render, so each page has a limit; where that
    is exceeded, the texts are shown as they were typed.
    """
    pending = dict.fromkeys(students, "")
    for as_typed in (False, True):
        function = functools.partial(_make_page, str(course.root), course.assignment, as_typed)
        calls = {student: student for student in pending}
        pending = {
            student: str(answer)
            for student, answer in workers.run(
                function, calls, seconds=PAGE_SECONDS, memory_bytes=PAGE_BYTES
            )
            if isinstance(answer, WorkerError)
        }
    outcome.failed |= {student: f"no page: {why}" for student, why in pending.items()}


def _make_page(root: str, assignment: str, as_typed: bool, student: str) -> None:
    course = _course(root, assignment)
    (standing,) = read_standings(course, student=student)
    make_page(course, standing, read_comments(course, student), as_typed)


@functools.cache
def _course(root: str, assignment: str) -> Course:
    return Course(Path(root), assignment)


def describe(course: Course, outcome: Outcome) -> list[str]:
    """Return a table of points and a list of what an instructor should look at, as lines."""
    standings = read_standings(course)
    alike = spelled_alike([standing.student for standing in standings])
    remarks = {student: [why] for student, why in alike.items()}
    for student in outcome.graded:
        no_page = [outcome.failed[student]] if student in outcome.failed else []
        seen = [*no_page, *outcome.problems.get(student, []), *outcome.notes.get(student, [])]
        remarks.setdefault(student, []).extend(seen)
    return [
        *table(standings),
        "",
        *to_look_at(standings, remarks, outcome.misplaced, outcome.mended),
        "Tables",
        *(f"  {line}" for line in left_blank(standings)),
        *(f"  {path}" for path in outcome.tables),
    ]
