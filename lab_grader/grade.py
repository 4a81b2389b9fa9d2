"""Grade a class: vet, execute, record, feedback, export."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode
from tqdm import tqdm

from lab_grader.intake.course import Course, Lesson, role_of
from lab_grader.intake.vet import Submission, vet
from lab_grader.marks.export import by_exercise, exercise_columns, export
from lab_grader.marks.feedback import make_feedback
from lab_grader.marks.record import Marks, Recorder, RecordError, read_marks
from lab_grader.plain import plain
from lab_grader.running import workers
from lab_grader.running.cache import Cache, key_of
from lab_grader.running.job import Cell, Job, Result
from lab_grader.sandbox.limits import Limits

EXECUTE = "lab_grader.running.execute:execute"  # by its name: only workers import PyTorch
NOT_IN_A_NAME = set("*?[]")  # nbgrader takes a student's id for a pattern of file names


@dataclass
class Outcome:
    """What came of grading a class.

    Attributes:
        graded: the students whose marks are in the gradebook.
        failed: why a student could not be graded.
        problems, mended, notes: what an instructor should know of each student's submission.
    """

    graded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    mended: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)


def job_of(course: Course, submission: Submission, limits: Limits, sandbox: bool) -> Job:
    """Return all that decides the marks of a submission."""
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
        again: execute also what was executed before.
        feedback: whether to make students' pages.
    """
    outcome, recorder, cache = Outcome(), Recorder(course), Cache(course.work / "cache")
    limits = Limits(cell_seconds=course.cell_seconds)
    stored = read_marks(course)
    waiting: dict[str, tuple[Submission, str]] = {}
    calls: dict[str, Job] = {}
    for student in students:
        if NOT_IN_A_NAME & set(student):
            outcome.failed[student] = f"rename the folder: {''.join(NOT_IN_A_NAME)} are patterns"
            continue
        submission = vet(course, student)
        outcome.problems[student], outcome.mended[student] = submission.problems, submission.mended
        job = job_of(course, submission, limits, sandbox)
        key = key_of(job)
        result = None if again else cache.load(key)
        if result is not None:
            outcome.notes[student] = result.notes
        if result is not None and recorder.is_recorded(student, key, stored.get(student, {})):
            outcome.graded.append(student)
            continue
        waiting[student] = submission, key
        if result is None:
            calls[student] = job

    recorded = []
    with tqdm(total=len(students), initial=len(outcome.graded), unit=" students") as progress:
        for student in waiting.keys() - calls.keys():
            submission, key = waiting[student]
            _record(recorder, submission, key, cache.load(key), outcome, recorded)
            progress.update()
        for student, answer in workers.run(
            EXECUTE, calls, jobs, dask, seconds=limits.worker_seconds
        ):
            submission, key = waiting[student]
            if isinstance(answer, workers.WorkerError):
                outcome.failed[student] = str(answer)
            else:
                cache.store(key, answer)
                outcome.notes[student] = answer.notes
                _record(recorder, submission, key, answer, outcome, recorded)
            progress.update()

    if feedback:
        pages = [s for s in outcome.graded if s in recorded or not _has_pages(course, s)]
        make_pages(course, pages, jobs, outcome)
    outcome.graded.sort()
    outcome.tables = export(course)
    return outcome


def _record(
    recorder: Recorder,
    submission: Submission,
    key: str,
    result: Result,
    outcome: Outcome,
    recorded: list[str],
) -> None:
    student = submission.student
    try:
        recorder.record(submission, key, result)
    except RecordError as error:
        outcome.failed[student] = str(error)
    else:
        outcome.graded.append(student)
        recorded.append(student)


def _has_pages(course: Course, student: str) -> bool:
    """Whether there is a page for each notebook that was graded."""
    made = {path.stem for path in course.folder("feedback", student).glob("*.html")}
    return {path.stem for path in course.folder("autograded", student).glob("*.ipynb")} <= made


def make_pages(course: Course, students: list[str], jobs: int, outcome: Outcome) -> None:
    """Make the feedback of some students, several at a time."""
    with_notebooks = [s for s in students if any(course.folder("autograded", s).glob("*.ipynb"))]
    calls = {student: student for student in with_notebooks}
    function = functools.partial(_make_pages, str(course.root), course.assignment)
    for student, answer in workers.run(function, calls, jobs):
        if isinstance(answer, workers.WorkerError):
            outcome.failed[student] = f"no feedback: {answer}"


def _make_pages(root: str, assignment: str, student: str) -> None:
    make_feedback(_course(root, assignment), student)


@functools.cache
def _course(root: str, assignment: str) -> Course:
    return Course(Path(root), assignment)


def describe(course: Course, outcome: Outcome) -> list[str]:
    """Return a table of points and a list of what an instructor should look at, as lines."""
    columns = exercise_columns(course)
    lines = ["Exercises"]
    for number, ((lesson, exercise), points) in enumerate(columns.items(), 1):
        lines.append(f"  {number:2}  {lesson}/{exercise} ({points:g})")
    marks = read_marks(course)
    width = max([len(student) for student in outcome.graded], default=7)
    header = "".join(f"{number:>6}" for number in range(1, len(columns) + 1))
    lines += ["", f"{'':{width}}{header}   total of {sum(columns.values()):g}"]
    for student in outcome.graded:
        points = by_exercise(course, marks[student])
        cells = "".join(f"{value:>6g}" for value in points.values())
        lines.append(f"{student:{width}}{cells}   {sum(points.values()):g}")
    return [*lines, "", *_to_look_at(outcome, marks)]


def _to_look_at(outcome: Outcome, marks: dict[str, Marks]) -> list[str]:
    waiting = {
        student: sorted(f"{n}: {cell}" for (n, cell), m in found.items() if m.needs_manual_grade)
        for student, found in marks.items()
        if student in outcome.graded
    }
    sections = {
        "Could not be graded": {student: [why] for student, why in outcome.failed.items()},
        "Needs attention": outcome.problems,
        "Happened while it ran": outcome.notes,
        "Waits for a person's mark, in Formgrader": waiting,
        "Was mended": outcome.mended,
    }
    lines = []
    for title, entries in sections.items():
        entries = {student: found for student, found in sorted(entries.items()) if found}
        if entries:
            lines.append(title)
            lines += [f"  {s}: {plain(text)}" for s, texts in entries.items() for text in texts]
    return lines or ["Nothing to look at."]
