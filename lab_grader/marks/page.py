"""One page for each student: points, what was missing, the answers and what the checks said.

Of a lesson's own cells, a page shows what was released and never what the gradebook or a solution
contains, so mark schemes, hidden tests and solutions cannot get into it. Of the student's cells, it
shows the source and what they printed, both as plain text.
"""

import ast
import json
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from markupsafe import Markup
from nbformat import NotebookNode

from lab_grader.intake.course import Course, role_of
from lab_grader.marks.rendering import code, lesson_text, preformatted, student_text, templates
from lab_grader.marks.standing import Standing, State
from lab_grader.running.cache import Cache, write_atomically
from lab_grader.running.job import FailedTest, Result

PAGE = "index.html"
EMPTY = Markup()
# In what a hidden call of a check differs from a visible one, by the name of the argument.
KINDS = {
    "out_features": "other sizes",
    "in_features": "other sizes",
    "bias": "a layer without bias",
    "dtype": "another precision",
    "seed": "other random numbers",
    "rank": "another rank",
    "ranks": "other ranks",
    "alpha": "another alpha",
    "n_blocks": "a model of another depth",
    "max_norm": "another limit on the gradient",
    "steps": "another number of steps",
    "n_epochs": "another number of epochs",
    "seeds": "another number of seeds",
    "confidence": "another confidence",
    "points": "another number of points",
    "questions": "another number of questions",
    "prefix": "another prefix",
}


@dataclass
class ShownTest:
    """What a page says of one test, or of one answer that a person marks.

    Attributes:
        released: the calls that the student can see.
        said: what they printed, and the error if one failed.
        hidden: the kind of each hidden call, and whether it held; None: it was not reached.
        failed: how it failed, and the known mistake that explains it; None if it did not fail.
    """

    grade_id: str
    points: float | None
    most: float
    released: Markup = EMPTY
    said: Markup = EMPTY
    hidden: list[tuple[str, bool | None]] = field(default_factory=list)
    failed: FailedTest | None = None
    missing: str = ""


@dataclass
class ShownExercise:
    """An exercise on a page, with its tests.

    Attributes:
        answer: the student's cell.
        said: what it printed when it ran.
    """

    name: str
    answer: Markup = EMPTY
    said: Markup = EMPTY
    tests: list[ShownTest] = field(default_factory=list)
    comment: str = ""

    @property
    def most(self) -> float:
        return sum(test.most for test in self.tests)

    @property
    def points(self) -> float | None:
        """The points; None if some wait for a person."""
        points = [test.points for test in self.tests]
        return None if None in points else sum(points)

    @property
    def state(self) -> str:
        """Return `"waits"`, `"passed"`, `"partly"` or `"failed"`."""
        if self.points is None:
            return "waits"
        if self.points >= self.most:
            return "passed"
        return "partly" if self.points > 0 else "failed"

    @property
    def missing(self) -> list[str]:
        """What each failed test missed, each text once."""
        return list(dict.fromkeys(test.missing for test in self.tests if test.missing))


@dataclass
class ShownLesson:
    """A lesson on a page: exercises, and between them what is folded away."""

    name: str
    title: str
    parts: list[ShownExercise | list[Markup]]
    handed_in: bool

    @property
    def exercises(self) -> list[ShownExercise]:
        return [part for part in self.parts if isinstance(part, ShownExercise)]


class PageError(Exception):
    """A page cannot be made; the text says what to do."""


def make_page(
    course: Course,
    standing: Standing,
    comments: dict[tuple[str, str], str],
    as_typed: bool = False,
) -> Path:
    """Write the page of a student who was graded; return its path.

    Args:
        comments: those of the marker, by lesson and `grade_id`.
        as_typed: show the student's text cells as they were typed, because rendering them takes
            forever.

    Raises:
        PageError: what the checks said is no longer cached.
    """
    result = _result(course, standing.student)
    lessons = [
        _lesson(course, name, standing, comments, result, as_typed) for name in course.lessons
    ]
    text = (
        templates()
        .get_template("student.html")
        .render(
            assignment=course.assignment,
            standing=standing,
            most=sum(exercise.most for lesson in lessons for exercise in lesson.exercises),
            lessons=lessons,
            waits=standing.state == State.WAITING,
        )
    )
    folder = course.folder("feedback", standing.student)
    write_atomically(folder / PAGE, text)
    for other in folder.glob("*.html"):  # nbgrader's, and those of older versions of this module
        if other.name != PAGE:
            other.unlink()
    return folder / PAGE


def _result(course: Course, student: str) -> Result:
    """Return the result that the recorded marks come from."""
    note = course.work / "recorded" / course.assignment / f"{student}.json"
    key = json.loads(note.read_text("utf-8"))["key"] if note.exists() else ""
    result = Cache(course.work / "cache").load(key)
    if result is None:
        raise PageError("the output of its checks is no longer cached: run make grade")
    return result


def _lesson(
    course: Course,
    name: str,
    standing: Standing,
    comments: dict[tuple[str, str], str],
    result: Result,
    as_typed: bool,
) -> ShownLesson:
    released = course.lessons[name].cells
    path = course.work / "vetted" / standing.student / course.assignment / f"{name}.ipynb"
    handed_in = path.exists()
    cells = nbformat.read(path, as_version=4).cells if handed_in else released
    outputs = result.outputs.get(name, [])
    failed = {it.cell: it for it in result.failed if it.lesson == name}
    maker = _LessonMaker(course, name, standing, comments, as_typed)
    for index, cell in enumerate(cells):
        found = outputs[index] if index < len(outputs) else None
        maker.add(cell, found, failed.get(index))
    title = next((line.lstrip("# ") for c in released for line in c.source.splitlines()[:1]), name)
    return ShownLesson(name, title, maker.parts, handed_in)


class _LessonMaker:
    """Goes through a notebook and sorts its cells into exercises and the lesson's text."""

    def __init__(
        self,
        course: Course,
        name: str,
        standing: Standing,
        comments: dict[tuple[str, str], str],
        as_typed: bool,
    ) -> None:
        self.lesson, self.name = course.lessons[name], name
        self.standing, self.comments, self.as_typed = standing, comments, as_typed
        self.released = self.lesson.released
        self.own_texts = {cell.source.strip() for cell in self.lesson.cells}
        self.parts: list[ShownExercise | list[Markup]] = []
        self.by_name: dict[str, ShownExercise] = {}

    def add(self, cell: NotebookNode, outputs: list | None, failed: FailedTest | None) -> None:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        role = role_of(cell)
        if role == "exercise":
            exercise = self._exercise(grade_id)
            exercise.answer, exercise.said = code(cell.source), _said(outputs)
            exercise.comment = self.comments.get((self.name, grade_id), "")
        elif role == "manual":
            exercise = self._exercise(self.lesson.exercises[grade_id])
            exercise.answer, exercise.said = self._theirs(cell), _said(outputs)
            exercise.comment = self.comments.get((self.name, grade_id), "")
            exercise.tests.append(self._test(grade_id))
        elif role == "test":
            exercise = self._exercise(self.lesson.exercises[grade_id])
            exercise.tests.append(self._test(grade_id, outputs, failed))
        elif grade_id is not None:
            self._fold(self._ours(cell, self.released[grade_id]))
        elif cell.source.strip() in self.own_texts:
            self._fold(self._ours(cell, cell.source))
        elif cell.source.strip():
            own = Markup('<p class="note">A cell that you added:</p>{}{}')
            self._fold(own.format(self._theirs(cell), _said(outputs)))

    def _exercise(self, name: str) -> ShownExercise:
        if name not in self.by_name:
            self.by_name[name] = ShownExercise(name)
            self.parts.append(self.by_name[name])
        return self.by_name[name]

    def _fold(self, html: Markup) -> None:
        if not self.parts or isinstance(self.parts[-1], ShownExercise):
            self.parts.append([])
        self.parts[-1].append(html)

    def _ours(self, cell: NotebookNode, source: str) -> Markup:
        return lesson_text(source) if cell.cell_type == "markdown" else code(source)

    def _theirs(self, cell: NotebookNode) -> Markup:
        if cell.cell_type == "code":
            return code(cell.source)
        return preformatted(cell.source) if self.as_typed else student_text(cell.source)

    def _test(
        self, grade_id: str, outputs: list | None = None, failed: FailedTest | None = None
    ) -> ShownTest:
        mark = self.standing.marks.get((self.name, grade_id))
        waits = mark is not None and mark.needs_manual_grade
        points = None if waits else mark.score if mark else 0.0
        test = ShownTest(grade_id, points, self.lesson.points(grade_id))
        if role_of(self.lesson.graded[grade_id]) == "manual":
            return test
        visible = _calls(self.released[grade_id])
        hidden = _calls(self.lesson.graded[grade_id].source)[len(visible) :]
        test.released = code(self.released[grade_id])
        test.hidden = _held(hidden, visible, outputs, failed.call if failed else None)
        if outputs is None:
            test.missing = "not handed in" if mark is None else "was not run"
            return test
        test.failed = failed
        test.said = _said(outputs[: len(visible)])
        if failed is None:
            return test
        if failed.call < len(visible):
            test.said = _said(_told_once(outputs))
            test.missing = failed.name or failed.problem
        else:  # its sentence would give the hidden call away
            kind, _ = test.hidden[failed.call - len(visible)]
            test.missing = failed.name or f"fails with {kind}"
        return test


def _held(
    hidden: list[dict[str, str]],
    visible: list[dict[str, str]],
    outputs: list | None,
    failed: int | None,
) -> list[tuple[str, bool | None]]:
    """Return the kind of each hidden call, and whether it passed; None if it was not made.

    A test makes its calls in turn, the hidden ones last, and stops at the first that fails.

    Args:
        outputs: of the test; None if it was not run.
        failed: the number of the call that failed; None if none did.
    """
    if outputs is None:
        return [(_kind(call, visible), None) for call in hidden]
    reached = len(outputs) if failed is None else failed
    return [
        (_kind(call, visible), None if number > reached else number != failed)
        for number, call in enumerate(hidden, len(visible))
    ]


def _calls(source: str) -> list[dict[str, str]]:
    """Return the named arguments of each call in a test cell, as text."""
    calls = [line.value for line in ast.parse(source).body if isinstance(line, ast.Expr)]
    return [
        {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}
        for call in calls
        if isinstance(call, ast.Call)
    ]


def _kind(call: dict[str, str], visible: list[dict[str, str]]) -> str:
    """Return in words what a hidden call tries that no visible one does, without its values."""
    names = [name for name in call if all(call[name] != seen.get(name) for seen in visible)]
    if len(names) > 1:
        names = [name for name in names if name != "seed"]
    kinds = [KINDS.get(name, f"another {name.replace('_', ' ')}") for name in names]
    return ", ".join(dict.fromkeys(kinds)) or "other inputs"


def _told_once(outputs: list[dict]) -> list[dict]:
    """Return outputs without what is told elsewhere on the page.

    A check prints the sentence that it raises, which stands in the error, too; the known mistake
    stands below both.
    """
    kept = []
    raised = [f"  FAIL  {it['evalue']}\n" for it in outputs if it["output_type"] == "error"]
    for output in outputs:
        if output["output_type"] == "stream":
            text = "".join(output["text"])
            for twice in raised:
                text = text.replace(twice, "")
            kept.append(output | {"text": text})
        elif output["output_type"] == "error":
            lines = output["traceback"]
            mistake = (i for i, line in enumerate(lines) if line.startswith("Known mistake: "))
            kept.append(output | {"traceback": lines[: next(mistake, None)]})
        else:
            kept.append(output)
    return kept


def _said(outputs: list | None) -> Markup:
    """Return what a cell printed, and its errors, as text; for a picture only that there is one."""
    texts = []
    for output in outputs or []:
        if output["output_type"] == "stream":
            texts.append(output["text"])
        elif output["output_type"] == "error":
            texts.append("\n".join(output["traceback"]) + "\n")
        else:
            texts.append(f"{output.get('data', {}).get('text/plain', '')}\n")
    text = "".join("".join(part) for part in texts)
    return preformatted(text) if text.strip() else EMPTY
