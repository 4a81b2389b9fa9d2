"""Which mistake is this? Other versions of the exercises, in words: predict what a check says.

The versions themselves are in `lab_utils/mistakes`, one module for each lesson. What a student sees
of one is its docstring. The code comes with the finding once the student's own answers have passed.
"""

import ast
import contextlib
import inspect
import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ipywidgets import HTML, Dropdown, VBox

from lab_utils.checks.report import CheckFailed, passed, unrecorded
from lab_utils.plots.style import IN_THE_DARK

VERSIONS = Path(__file__).parent / "mistakes"
NOTHING = "nothing: every property holds"
PREDICT = "predict…"


@dataclass(frozen=True)
class Question:
    """One version of an exercise, and the check that it is handed to.

    Attributes:
        tells: what the version does, in words.
        call: the check, as a student would call it.
        source: the code of the version.
        finding: what the check says of it, or `NOTHING`.
        answer: the finding in short: the name of the mistake.
    """

    tells: str
    call: str
    source: str
    finding: str
    answer: str


class Quiz(VBox):
    """A list of questions with a choice below each, and the check's finding once one has chosen.

    Where no kernel runs, a page shows each finding after a click.
    """

    def __init__(self, questions: list[Question], after: dict[str, list[str]]) -> None:
        self.questions, self._after = questions, after
        answers = sorted({question.answer for question in questions} - {NOTHING})
        self._options = [*answers, NOTHING]
        super().__init__(
            [part for n, q in enumerate(questions, 1) for part in self._question(n, q)]
        )

    def _question(self, number: int, question: Question) -> list:
        choice = Dropdown(
            options=[PREDICT, *self._options],
            description=f"Question {number}: the check finds",
            layout={"width": "min(40em, 98%)"},
            style={"description_width": "min(14em, 45%)"},
        )
        said = HTML()

        def answer(change: dict) -> None:
            if change["new"] == PREDICT:
                said.value = ""
                return
            right = change["new"] == question.answer
            verdict = "As you predicted." if right else "Not what you predicted."
            said.value = f'<div role="status"><b>{verdict}</b>{self._finding(question)}</div>'

        choice.observe(answer, "value")
        asked = f"{escape(question.tells)} <code>{escape(question.call)}</code>"
        # What belongs together stands together: the gap above a question is the widest.
        style = IN_THE_DARK if number == 1 else ""
        question_html = HTML(f"{style}<b>{number}.</b> {asked}", layout={"margin": "1.2em 0 0 0"})
        return [question_html, choice, said]

    def _finding(self, question: Question) -> str:
        html = _prose(question.finding)
        if all(passed(*exercise) for exercise in self._after.items()):
            html += f"<p>Its code:</p>{_code(question.source)}"
        return html

    def __repr__(self) -> str:
        return "\n\n".join(
            f"{number}. {question.tells}\n   {question.call} finds: {question.answer}"
            for number, question in enumerate(self.questions, 1)
        )

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        data = super()._repr_mimebundle_(**kwargs)
        data["text/plain"] = repr(self)
        data["text/html"] = "".join(
            f"<p><b>{number}.</b> {escape(question.tells)}</p>"
            '<details style="margin: 0.2em 0 1.2em 1.4em"><summary>What does '
            f"<code>{escape(question.call)}</code> find?</summary>"
            f"{_prose(question.finding)}</details>"
            for number, question in enumerate(self.questions, 1)
        )
        return data


def which_mistake(lesson: str) -> Quiz:
    """Return the quiz of a lesson; every check runs once, on code that is not the student's.

    Args:
        lesson: the name of a module in `lab_utils/mistakes`, such as `"mathematics"`.
    """
    path = VERSIONS / f"{lesson}.py"
    source = path.read_text(encoding="utf-8")
    # Not imported: a check lets nobody call a file that is part of a reference, and these are.
    names: dict = {"__name__": f"another version for {lesson}"}
    exec(compile(source, "<another version>", "exec"), names)
    sources = {
        node.name: ast.get_source_segment(source, node)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    questions = [
        Question(
            " ".join(version.__doc__.split()),
            f'checks.{check.__name__}(…, "{aspect}")',
            sources[version.__name__],
            *_ask(check, version, aspect),
        )
        for version, check, aspect in names["QUESTIONS"]
    ]
    return Quiz(questions, names["AFTER"])


def _ask(check: Callable, version: Callable, aspect: str) -> tuple[str, str]:
    """Return what a check finds in a version, in full and in short."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), unrecorded():
            check(version, aspect)
    except CheckFailed as failure:
        named = failure.mistake.name if failure.mistake else str(failure).partition(":")[0]
        return str(failure), named
    return NOTHING, NOTHING


class Code:
    """The source of a function of the lab, which shows once a student's own answer has passed.

    Args:
        function: whose source.
        exercise, aspects: what must have passed, as in `lab_utils.checks.report.passed`.
    """

    def __init__(self, function: Callable, exercise: str, aspects: list[str]) -> None:
        self._function, self._exercise, self._aspects = function, exercise, aspects

    def __repr__(self) -> str:
        if not passed(self._exercise, self._aspects):
            return (
                f"The lab's own code for this shows here once the checks of {self._exercise} have "
                "passed: then run this cell again."
            )
        return textwrap.dedent(inspect.getsource(self._function))

    def _repr_html_(self) -> str:
        if not passed(self._exercise, self._aspects):
            return f"<p>{escape(repr(self))}</p>"
        return _code(repr(self))


def _prose(text: str) -> str:
    """Return sentences as HTML. In a `pre` JupyterLab breaks lines within words."""
    return f'<p style="white-space: pre-line; margin: 0.4em 0">{escape(text)}</p>'


def _code(text: str) -> str:
    """Return code as HTML, whose long lines scroll."""
    return f'<pre style="white-space: pre; overflow-x: auto">{escape(text)}</pre>'
