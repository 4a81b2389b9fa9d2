"""The tests of a notebook: make the calls of a test cell, and write down what they find."""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator

from nbformat import NotebookNode
from nbformat.v4 import new_output

from lab_grader.running.errors import cut, error_output
from lab_grader.running.job import FailedTest, Result
from lab_grader.running.kernel import CannotStart, RemoteError
from lab_grader.running.lasting import Again
from lab_grader.running.objects import StudentObjects
from lab_grader.wire.calls import Call
from lab_grader.wire.remote import ReferenceInReach, RemoteObject
from lab_utils.checks.report import CheckFailed, Mistake
from lab_utils.checks.subject import Unreadable


class Marking:
    """Makes the tests of one notebook.

    Args:
        notebook: its name.
        objects: what the checks ask.
        result: whose notes and mistakes it adds to.
        seed: of fresh inputs.
    """

    def __init__(self, notebook: str, objects: StudentObjects, result: Result, seed: int) -> None:
        self._notebook, self._objects, self._seed = notebook, objects, seed
        self._result = result
        self._stand_in = functools.partial(RemoteObject, objects)

    def mark(self, index: int, calls: tuple[Call, ...], room: int) -> list[NotebookNode]:
        """Make the calls of a test cell, again from the first if the kernel had ended before one.

        Args:
            index: of the cell.
            room: how many characters the student's code may print meanwhile.

        Returns:
            What the cell shows: a stream for each call, and the error if one failed.
        """
        while True:
            with contextlib.suppress(Again):
                return self._make_all(index, calls, room)

    def _make_all(self, index: int, calls: tuple[Call, ...], room: int) -> list[NotebookNode]:
        self._objects.allow(room)
        outputs = []
        for number, call in enumerate(calls):
            printed = io.StringIO()
            with _quiet(printed):
                failure = self._failure(index, number, call)
            outputs.append(new_output("stream", name="stdout", text=printed.getvalue()))
            if failure:
                return [*outputs, failure]
        self._try_fresh_inputs(index, calls[0])
        return outputs

    def _failure(self, index: int, number: int, call: Call) -> NotebookNode | None:
        """Make one call of a test cell; return its error, or None if it passed."""
        self._objects.next_check()
        try:
            call.make(self._stand_in)
        except CheckFailed as failure:
            self._keep_failure(index, number, str(failure), failure.mistake)
            if isinstance(failure, Unreadable):  # worth a look: the check itself may be at fault
                self._note(index, str(failure))
            return error_output(type(failure).__name__, str(failure), failure.student_lines)
        except (NameError, RemoteError) as error:
            self._keep_failure(index, number, str(error))
            return error_output(getattr(error, "remote_name", type(error).__name__), str(error))
        except (CannotStart, ReferenceInReach, Again):
            raise
        except Exception as error:  # the student's answer made the check itself fail
            self._keep_failure(index, number, str(error))
            kind = type(error).__name__
            self._note(index, f"the check stopped with {kind}: {cut(str(error))}")
            return error_output(kind, str(error))
        return None

    def _try_fresh_inputs(self, index: int, call: Call) -> None:
        """Write a note if what passed fails with inputs that could not be foreseen.

        It costs no marks: the lesson's seeds were tried by its authors, this one was not.
        """
        if not call.seeded:
            return
        self._objects.next_check()
        with _quiet(io.StringIO()):
            try:
                call.make(self._stand_in, seed=self._seed)
            except Again:
                return
            except CannotStart:
                raise
            except Exception as error:
                why = cut((str(error) or repr(error)).splitlines()[0])
                self._note(
                    index,
                    "passes with the lesson's inputs, and fails with other ones "
                    f"(seed {self._seed}): {why}",
                )

    def _keep_failure(
        self, index: int, call: int, text: str, mistake: Mistake | None = None
    ) -> None:
        problem = cut(text.partition("\n")[0])
        why = (mistake.name, mistake.why, mistake.section) if mistake else ()
        self._result.failed.append(FailedTest(self._notebook, index, call, problem, *why))

    def _note(self, index: int, text: str) -> None:
        self._result.notes.append(f"{self._notebook}, cell {index + 1}: {text}")


@contextlib.contextmanager
def _quiet(printed: io.StringIO) -> Iterator[None]:
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
