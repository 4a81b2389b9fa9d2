"""Grade one submission: run its cells in sandboxed kernels, and its tests outside of them.

The result depends on the job alone, and neither a gradebook nor a course's folder is read, so that
this can run on any machine and its result can be cached.
"""

import ast
import contextlib
import functools
import io
import json
import multiprocessing.util
import re
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator

from nbformat import NotebookNode
from nbformat.v4 import new_output

from lab_grader.intake.dependencies import as_python, needed
from lab_grader.running.job import Job, Mistake, Result
from lab_grader.running.kernel import CannotStart, Died, EndedBefore, Kernel, RemoteError, TimedOut
from lab_grader.sandbox.folders import remove_left_behind
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.masks import stopped_by_what_is_missing
from lab_grader.sandbox.place import Sandbox, Unconfined
from lab_grader.wire.calls import Call, NotATestCell, read_test_cell
from lab_grader.wire.remote import ReferenceInReach, RemoteObject
from lab_utils.checks.report import CheckFailed
from lab_utils.checks.report import Mistake as Known
from lab_utils.checks.subject import Unreadable

LONGEST_ERROR = 10_000  # characters
LONGEST_KEPT = 256 << 10  # bytes of an answer that is kept for other checks
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CELL_LINE = re.compile(r"Cell In ?\[[0-9]+\], line ([0-9]{1,7})")  # of IPython's traceback
MOST_DEATHS = 6  # of the kernel in one notebook; then the rest of it is given up


def execute(job: Job) -> Result:
    """Run a submission.

    Tests that forbid the same files share a kernel; each notebook starts afresh in it.

    Raises:
        NotATestCell, ReferenceInReach: the lesson cannot be graded, whoever handed it in.
        CannotStart: no kernel could be started, which is not the student's fault either.
    """
    result = Result({name: [None] * len(cells) for name, cells in job.notebooks.items()}, [])
    budget = _Budget(job.limits)
    groups = _groups(job)
    place = _place(job.sandbox, job.limits)
    with place.holding(job.files):
        for hidden, chosen in groups.items():
            with Kernel(place, hidden, job.limits) as kernel:
                for name, indices in chosen.items():
                    _NotebookRun(kernel, job, name, indices, result, budget).run()
    return result


@functools.cache
def _place(sandbox: bool, limits: Limits) -> Sandbox | Unconfined:
    """Return where this process runs the kernels of every submission that it is given."""
    remove_left_behind()
    place = Sandbox(limits) if sandbox else Unconfined()
    # Not by `atexit`, whose functions are not called when a worker process ends.
    multiprocessing.util.Finalize(None, place.close, exitpriority=10)
    return place


def _groups(job: Job) -> dict[frozenset[str], dict[str, set[int]]]:
    """Return the tests and hand-marked cells of each notebook, by the files that they hide.

    Returns:
        For each set of hidden files, which shares a kernel: the indices of cells by notebook.
    """
    groups: dict[frozenset[str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for name, cells in job.notebooks.items():
        for index, cell in enumerate(cells):
            if cell and cell.role == "test":
                try:
                    calls = read_test_cell(cell.source)
                    hidden = frozenset().union(*(call.forbids for call in calls))
                except NotATestCell as error:
                    raise NotATestCell(f"{name}, cell {index + 1}: {error}") from error
                groups[hidden][name].add(index)
            elif cell and cell.role == "manual":
                groups[frozenset()][name].add(index)
    return groups


class _GivenUp(Died):
    """The rest of a notebook is not run: its kernel died too often, or time ran out."""


class _Again(Exception):
    """The kernel ended while a test was made, which has to be made again."""


class _Budget:
    """What is left of the time and the output of a submission."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._deadline = time.monotonic() + limits.submission_seconds
        self._output_bytes = limits.submission_output_bytes

    def is_spent(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() > self._deadline

    def cell_bytes(self) -> int:
        """Return how much output of the next cell is kept."""
        return min(self.limits.output_bytes, self._output_bytes)

    def take(self, outputs: list[NotebookNode]) -> None:
        """Count the outputs of a cell."""
        self._output_bytes = max(0, self._output_bytes - len(json.dumps(outputs)))


class _Answers:
    """What the student's code answered and printed since the last cell ran.

    Several checks ask the same question, such as one training of the student's. The answer to the
    first is kept for the others. A check that asks twice gets two answers, though: what it wants to
    know may be whether they differ.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, bytes], list[tuple[str, bytes]]] = defaultdict(list)
        self._asked: Counter[tuple[str, bytes]] = Counter()  # by the check that is under way

    def forget(self) -> None:
        """A cell runs, which may change what the next answer is."""
        self._kept.clear()

    def next_check(self) -> None:
        """Another check begins to ask."""
        self._asked.clear()

    def find(self, name: str, question: bytes) -> tuple[str, bytes] | None:
        """Return what was printed and answered when an earlier check asked this; None if none did.

        A check's second time to ask is answered by what another check got the second time.
        """
        times = self._asked[name, question]
        self._asked[name, question] += 1
        kept = self._kept[name, question]
        return kept[times] if times < len(kept) else None

    def keep(self, name: str, question: bytes, printed: str, answer: bytes) -> None:
        """Keep an answer for other checks, unless it is large."""
        if len(answer) <= LONGEST_KEPT:
            self._kept[name, question].append((printed, answer))


class _NotebookRun:
    """Some tests and hand-marked cells of one notebook, with the cells that they need.

    The kernel may end at any moment. Then a new one is brought to where the old one was by running
    again what had run (`_go_on_after`). What was under way is tried once more if something before
    it may have ended the kernel. Otherwise it is left out: a cell is not run again, and the object
    that was asked is not asked again.
    """

    def __init__(
        self,
        kernel: Kernel,
        job: Job,
        name: str,
        chosen: set[int],
        result: Result,
        budget: _Budget,
    ) -> None:
        self.kernel, self.hidden, self.seed = kernel, kernel.hidden, job.seed
        self.name, self.chosen = name, chosen
        self.notes, self.mistakes = result.notes, result.mistakes
        self.cells, self.outputs = job.notebooks[name], result.outputs[name]
        self.budget = budget
        self._done: list[int] = []  # cells that ran, to be run again if the kernel ends
        self._deaths = 0
        self._suspected: set[str] = set()  # what was under way when a kernel ended
        self._broken: dict[str, str] = {}  # names whose code ended the kernel or looped, and how
        self._answers = _Answers()
        self._room = 0  # bytes for what the student's code prints while a test is made

    def run(self) -> None:
        """Go through the notebook from top to bottom."""
        if not self.budget.is_spent():
            self.kernel.start_afresh()
        to_run = self._needed()
        for index, cell in enumerate(self.cells):
            if index in self.chosen and cell.role == "test":
                outputs = self._mark(index, read_test_cell(cell.source))
            elif index in to_run:
                outputs = self._run_cell(index)
            else:
                continue
            if not self.outputs[index]:  # else it has run beside other tests, too
                self.budget.take(outputs)
                self.outputs[index] = outputs

    def _needed(self) -> set[int]:
        """Return the cells to run: those that the tests, the student's own and marked ones need."""
        tests = [self.cells[i] for i in self.chosen if self.cells[i].role == "test"]
        calls = [call for test in tests for call in read_test_cell(test.source)]
        wanted = set().union(*(call.names() for call in calls))
        indices = [i for i, cell in enumerate(self.cells) if cell and cell.role != "test"]
        always = {
            k for k, i in enumerate(indices) if i in self.chosen or self.cells[i].role == "student"
        }
        sources = [(self.cells[i].source, self.cells[i].released) for i in indices]
        return {indices[k] for k in needed(sources, always, wanted)}

    def _run_cell(self, index: int) -> list[NotebookNode]:
        """Run a cell; if it ends the kernel, go on without it."""
        what = f"cell {index + 1}"
        while True:
            self._answers.forget()
            try:
                self._give_up_if_hopeless()
                outputs = self.kernel.run(self.cells[index].source, self.budget.cell_bytes())
                if self._deaths and self.cells[index].role != "lesson":  # it may be what ended it
                    self.kernel.ask_whether_it_runs()
                if self.cells[index].role != "lesson" and stopped_by_what_is_missing(outputs):
                    outputs += self._run_rest(index, outputs)
            except Died as death:
                if self._go_on_after(what, death):
                    continue
                return [_error("DeadKernel", f"This cell was stopped, and is left out: {death}.")]
            self._done.append(index)
            return outputs

    def _run_rest(self, index: int, outputs: list[NotebookNode]) -> list[NotebookNode]:
        """Run what a cell did not reach, one statement at a time; return the outputs.

        Before its answer a cell may call the reference, which is hidden while its exercise is
        graded, or use what was there where the notebook was written: Colab's modules, a drive.
        """
        found: list[NotebookNode] = []
        room = self.budget.cell_bytes() - len(json.dumps(outputs))
        deadline = time.monotonic() + self.budget.limits.cell_seconds
        for statement in _statements_after(self.cells[index].source, outputs[-1]):
            if time.monotonic() > deadline:
                break
            said = self.kernel.run(statement, max(0, room - len(json.dumps(found))))
            found += [output for output in said if output.output_type != "error"]
        return found

    def _give_up_if_hopeless(self) -> None:
        if self._deaths >= MOST_DEATHS:
            raise _GivenUp(f"the notebook's process had ended {MOST_DEATHS} times before")
        if self.budget.is_spent():
            seconds = self.budget.limits.submission_seconds
            note = f"it took more than {seconds} s, and what was left of it is not run"
            if note not in self.notes:
                self.notes.append(note)
            raise _GivenUp(f"the submission had taken more than {seconds} s before")

    def _go_on_after(self, what: str, death: Died) -> bool:
        """Bring a new kernel to where the old one was, without what was under way.

        A cell that runs again may end this kernel too; then it calls this in turn. `MOST_DEATHS`
        bounds that.

        Returns:
            Whether to try the same again, once: it may be innocent if the kernel had ended before
            it was asked, or if a cell that ran earlier has now turned out to end the kernel.
        """
        if isinstance(death, _GivenUp):
            return False
        self.notes.append(f"{self.name}: {what}: {death}")
        self._deaths += 1
        again, self._done = self._done, []
        for index in again:
            self._run_cell(index)
        first = what not in self._suspected
        self._suspected.add(what)
        return first and (isinstance(death, EndedBefore) or self._done != again)

    def deliver(self, name: str, question: bytes) -> bytes:
        """Ask the student's object of a name; see `remote.Holder`.

        Raises:
            CheckFailed: its code ended the kernel or looped, now or before.
            _Again: the kernel had ended before: the test is to be made again.
        """
        kept = self._answers.find(name, question)
        if name in self._broken:
            raise CheckFailed(f"{name} is not run again: {self._broken[name]}.")
        if kept:
            printed, answer = kept
            self._print(printed)
            return answer
        shown = io.StringIO()

        def show(text: str) -> None:
            shown.write(text[: max(0, self._room)])
            self._print(text)

        try:
            self._give_up_if_hopeless()
            answer = self.kernel.exchange(question, show)
        except TimedOut as error:
            self._broken[name] = str(error)
            self.notes.append(f"{self.name}: {name}: {error}")
            raise CheckFailed(f"{name} was stopped: {error}.") from error
        except Died as death:
            if self._go_on_after(name, death):
                raise _Again from death
            self._broken[name] = str(death)
            raise CheckFailed(f"{name} was stopped: {death}.") from death
        self._answers.keep(name, question, shown.getvalue(), answer)
        return answer

    def _print(self, text: str) -> None:
        """Print what the student's code printed, as far as there is room for it."""
        if self._room > 0:
            sys.stdout.write(text[: self._room])
            self._room -= len(text)
            if self._room <= 0:
                sys.stdout.write("\n(more output; cut here)\n")

    def _mark(self, index: int, calls: tuple[Call, ...]) -> list[NotebookNode]:
        """Make the calls of a test cell, in a new kernel where the old one had ended.

        Returns:
            What the cell shows: a stream for each call, and the error if one failed.
        """
        while True:
            with contextlib.suppress(_Again):
                return self._make_all(index, calls)

    def _make_all(self, index: int, calls: tuple[Call, ...]) -> list[NotebookNode]:
        stand_in = functools.partial(RemoteObject, self)
        self._room = self.budget.cell_bytes()
        outputs = []
        for number, call in enumerate(calls):
            printed = io.StringIO()
            with _quiet(printed):
                failure = self._failure(index, number, call, stand_in)
            outputs.append(new_output("stream", name="stdout", text=printed.getvalue()))
            if failure:
                return [*outputs, failure]
        self._try_fresh_inputs(index, calls[0], stand_in)
        return outputs

    def _failure(self, index: int, number: int, call: Call, stand_in) -> NotebookNode | None:
        """Make one call of a test cell; return its error, or None if it passed."""
        self._answers.next_check()
        try:
            call.make(stand_in)
        except CheckFailed as failure:
            self._keep_mistake(index, number, str(failure), failure.mistake)
            if isinstance(failure, Unreadable):  # worth a look: the check itself may be at fault
                self.notes.append(f"{self.name}, cell {index + 1}: {failure}")
            return _error(type(failure).__name__, str(failure), failure.student_lines)
        except (NameError, RemoteError) as error:
            self._keep_mistake(index, number, str(error))
            return _error(getattr(error, "remote_name", type(error).__name__), str(error))
        except (CannotStart, ReferenceInReach, _Again):
            raise
        except Exception as error:  # the student's answer made the check itself fail
            self._keep_mistake(index, number, str(error))
            self.notes.append(
                f"{self.name}, cell {index + 1}: the check stopped with {type(error).__name__}: "
                f"{_cut(str(error))}"
            )
            return _error(type(error).__name__, str(error))
        return None

    def _keep_mistake(self, index: int, call: int, text: str, known: Known | None = None) -> None:
        problem = _cut(text.partition("\n")[0])
        named = (known.name, known.why, known.section) if known else ()
        self.mistakes.append(Mistake(self.name, index, call, problem, *named))

    def _try_fresh_inputs(self, index: int, call: Call, stand_in) -> None:
        """Write a note if what passed fails with inputs that could not be foreseen.

        It costs no marks: the lesson's seeds were tried by its authors, this one was not.
        """
        if not call.seeded:
            return
        self._answers.next_check()
        with _quiet(io.StringIO()):
            try:
                call.make(stand_in, seed=self.seed)
            except _Again:
                return
            except CannotStart:
                raise
            except Exception as error:
                why = _cut((str(error) or repr(error)).splitlines()[0])
                self.notes.append(
                    f"{self.name}, cell {index + 1}: passes with the lesson's inputs, and fails "
                    f"with other ones (seed {self.seed}): {why}"
                )


@contextlib.contextmanager
def _quiet(printed: io.StringIO) -> Iterator[None]:
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _statements_after(source: str, error: NotebookNode) -> list[str]:
    """Return the statements of a cell after the one that raised an error, each as text; none if
    the cell cannot be read."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    python = as_python(source)
    try:
        tree = compile(python, "cell", "exec", flags)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    raised = CELL_LINE.search(COLOUR.sub("", "\n".join(error.traceback)))
    reached = int(raised[1]) if raised else 0
    lines = io.StringIO(python, newline=None).readlines()
    return [
        "".join(lines[_first_line(statement) - 1 : statement.end_lineno])
        for statement in tree.body
        if _first_line(statement) > reached
    ]


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", ())
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _error(name: str, text: str, student_lines: list[str] | None = None) -> NotebookNode:
    text = _cut(text)
    traceback = [*(student_lines or []), *f"{name}: {text}".splitlines()]
    return new_output("error", ename=name, evalue=text, traceback=traceback)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]} (cut here)"
