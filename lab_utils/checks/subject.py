"""How a check asks: it declares what it forbids, and never touches a student's object itself.

A check decides; what touches the student's object is a question of `lab_utils.questions`. So the
object can be elsewhere: in a notebook it is here, and when a class is graded it lives in another
process and the check holds a `Remote` that stands for it. Checks and what they print are the same.
"""

import contextlib
import contextvars
import copy
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import lab_utils.decomposition
import lab_utils.layers
from lab_utils.checks import page
from lab_utils.checks.report import CheckFailed
from lab_utils.checks.values import describe, shown
from lab_utils.questions.functions import ask_call
from lab_utils.questions.student_code import StudentCodeFailed, student_code

# Where the code lives that an exercise asks the student to write (PEFT need not be installed).
PEFT = importlib.util.find_spec("peft")
LAB = Path(lab_utils.layers.__file__).parent
REFERENCE_LAYERS = (
    lab_utils.layers.__file__,
    *(str(LAB / f"{name}.py") for name in ("ablations", "fused", "fused_gpu")),  # parts of them
    *map(str, sorted((LAB / "mistakes").glob("*.py"))),  # answers but for a word
    *(PEFT.submodule_search_locations if PEFT else ()),
)
REFERENCE_MATHEMATICS = (lab_utils.decomposition.__file__, *REFERENCE_LAYERS)


class Remote:
    """Stands for a student's object that lives in another process."""

    def ask(
        self, question: Callable, *arguments: Any, step: str, reference: Collection[str]
    ) -> Any:
        """Return what `question(the object, *arguments)` returns in that process; see `probe`."""
        raise NotImplementedError


class Unreadable(CheckFailed):
    """The student's code returned something that the check could not even look at."""


_NOTHING = object()
_last_answer: contextvars.ContextVar[Any] = contextvars.ContextVar("answer", default=_NOTHING)
_last_step: contextvars.ContextVar[str] = contextvars.ContextVar("step", default="")


def check(
    forbids: Collection[str], seeded: bool = False, needs: Collection[str] = ()
) -> Callable[[Callable], Callable]:
    """Declare a check: a function `check_something(student, aspect=None, **settings)`.

    Its first argument is the student's object. What it declares can be read from its attributes
    of the same names. Where it stumbles over what the student's code returned, the student is
    told so in a sentence.

    Args:
        forbids: the files and folders whose code the student may not call.
        seeded: whether it takes a `seed`, from which all of its inputs are drawn.
        needs: `"optimizers"`, `"scipy"` or `"transformers"`, if the student's code uses them: they
            take long to import, which a grader can do once for many students.
    """

    def declare(function: Callable) -> Callable:
        @functools.wraps(function)
        def checked(*arguments: Any, **named: Any) -> Any:
            forget = _last_answer.set(_NOTHING)
            try:
                with page.shown():
                    return function(*arguments, **named)
            except CheckFailed:
                raise
            except Exception as error:
                answer = _last_answer.get()
                if answer is _NOTHING:  # no student's doing
                    raise
                problem = (
                    f"{_last_step.get()} returned {describe(answer)}, which the check cannot "
                    f"compare with what is expected ({type(error).__name__}: {str(error)[:300]})."
                )
                print(f"  FAIL  {problem}")
                raise Unreadable(problem) from error
            finally:
                _last_answer.reset(forget)

        checked.forbids, checked.seeded = frozenset(forbids), seeded
        checked.needs = frozenset(needs)
        return checked

    return declare


def probe(
    question: Callable,
    student: Any,
    *arguments: Any,
    step: str,
    reference: Collection[str],
) -> Any:
    """Ask a question about the student's object: return `question(student, *arguments)`.

    The question gets copies of the arguments, so that no answer can change what the check will
    compare it with.

    Args:
        question: a function of a module of `lab_utils.questions`.
        arguments: numbers, texts, tensors, dtypes, None, and lists, tuples and dicts of these. So
            is what comes back, unless the student's code returned something else.
        step: what the student's code is asked to do, for messages.
        reference: the files and folders whose code the student may not call.

    Raises:
        CheckFailed: the code is not written yet, raised an error, or called the reference.
    """
    _last_answer.set(_NOTHING)
    if isinstance(student, Remote):
        answer = student.ask(question, *arguments, step=step, reference=reference)
    else:
        try:
            with _everything_to_stdout(), student_code(step, reference):
                answer = question(student, *copy.deepcopy(arguments))
        except StudentCodeFailed as failure:
            raise CheckFailed(str(failure), failure.lines) from failure
    _last_answer.set(answer)
    _last_step.set(step)
    return answer


@dataclass(frozen=True)
class Called:
    """What came of calling a student's function.

    Attributes:
        result: what it returned.
        after: its arguments, those with a name last, as they were after the call.
    """

    result: Any
    after: list[Any]


def call(
    function: Callable | Remote,
    *arguments: Any,
    reference: Collection[str] = REFERENCE_MATHEMATICS,
    **named: Any,
) -> Called:
    """Call the student's function with copies of the arguments.

    Args:
        function: the student's.
        arguments, named: what to call it with.
        reference: the files whose code it may not call.

    Raises:
        CheckFailed: as in `probe`.
    """
    step = _as_written(function, arguments, named)
    found = probe(ask_call, function, list(arguments), named, step=step, reference=reference)
    _last_answer.set(found["result"])
    return Called(found["result"], found["after"])


def call_watched(
    question: Callable, function: Callable | Remote, *arguments: Any, told: Sequence[Any] = ()
) -> dict[str, Any]:
    """Call the student's function as `call` does, with nothing forbidden, and watch what it runs.

    Args:
        question: calls the function with a list of arguments; what it gives back has a `result`.
        told: what else the question is told.
    """
    step = _as_written(function, arguments, {})
    found = probe(question, function, list(arguments), *told, step=step, reference=())
    _last_answer.set(found["result"])
    return found


def _as_written(function: Callable | Remote, arguments: Any, named: dict[str, Any]) -> str:
    given = [
        f"a tensor of {tuple(a.shape)}" if isinstance(a, Tensor) else shown(a, 60)
        for a in arguments
    ]
    given += [f"{name}={value!r}" for name, value in named.items()]
    return f"{name_of(function)}({', '.join(given)})"


def call_function(function: Callable | Remote, *arguments: Any, **named: Any) -> Any:
    """Call the student's function as `call` does, and return what it returned."""
    return call(function, *arguments, **named).result


def name_of(student: Any) -> str:
    """Return what the student's function or class is called."""
    return str(getattr(student, "__name__", type(student).__name__))


@contextlib.contextmanager
def _everything_to_stdout() -> Iterator[None]:
    """Send to stdout what is meant for stderr: a test cell that wrote there gets no marks.

    The stream is changed in place, because a log's handler that was made before holds it; and so
    is what C code writes to.
    """
    stream, out = sys.stderr, sys.stdout
    with contextlib.ExitStack() as restore:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            saved = os.dup(2)
            restore.callback(os.close, saved)
            restore.callback(os.dup2, saved, 2)
            os.dup2(1, 2)
        with contextlib.suppress(AttributeError):
            stream.write = out.write
            restore.callback(delattr, stream, "write")
        restore.enter_context(contextlib.redirect_stderr(out))
        yield
