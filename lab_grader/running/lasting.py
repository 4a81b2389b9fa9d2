"""A kernel that lasts for a whole notebook: when it ends, a new one takes its place."""

import json
import time
from collections.abc import Callable

from nbformat import NotebookNode

from lab_grader.running.budget import Budget
from lab_grader.running.errors import error_output
from lab_grader.running.job import Cell
from lab_grader.running.kernel import Died, EndedBefore, Kernel
from lab_grader.running.rest import not_reached

MOST_DEATHS = 6  # of the kernel in one notebook; then the rest of it is given up


class _GivenUp(Died):
    """The rest of a notebook is not run: its kernel died too often, or time ran out."""


class Again(Exception):
    """The kernel had ended before it was asked; a new one is ready, and can be asked the same."""


class LastingKernel:
    """The kernel of one notebook.

    It may end at any moment. Then a new one is brought to where the old one was by running again
    what had run (`_go_on_after`). What was under way is tried once more if something before it may
    have ended the kernel. Otherwise it is left out: a cell is not run again, and a question is not
    asked again.

    Args:
        kernel: what runs the cells. It is started when it is needed.
        name, cells: of the notebook; a cell is None if it is not code.
        budget: what the submission may take.
        notes: to which what a person should know is added.
        on_run: called before a cell runs, which may change what the student's objects answer.
    """

    def __init__(
        self,
        kernel: Kernel,
        name: str,
        cells: list[Cell | None],
        budget: Budget,
        notes: list[str],
        on_run: Callable[[], None],
    ) -> None:
        self.hidden = kernel.hidden
        self._kernel, self._name, self._cells = kernel, name, cells
        self._budget, self._notes, self._on_run = budget, notes, on_run
        self._done: list[int] = []  # cells that ran, to be run again if the kernel ends
        self._deaths = 0
        self._unexplained = False  # whether the last one may have ended by what ran earlier
        self._suspected: set[str] = set()  # what was under way when a kernel ended
        if not budget.is_spent():
            kernel.start_afresh()

    def run_cell(self, index: int) -> list[NotebookNode]:
        """Run a cell and return its outputs; if it ends the kernel, go on without it."""
        what = f"cell {index + 1}"
        while True:
            self._on_run()
            try:
                outputs = self._run(self._cells[index])
            except Died as death:
                if self._go_on_after(what, death):
                    continue
                why = f"This cell was stopped, and is left out: {death}."
                return [error_output("DeadKernel", why)]
            self._done.append(index)
            return outputs

    def exchange(self, name: str, question: bytes, printed: Callable[[str], None]) -> bytes:
        """Ask the student's object of a name; see `Kernel.exchange`.

        Raises:
            Again: the kernel had ended before. Ask the same once more.
            Died: it ended because of this question.
            TimedOut, RemoteError: as `Kernel.exchange`.
        """
        try:
            self._give_up_if_hopeless()
            return self._kernel.exchange(question, printed)
        except Died as death:
            if self._go_on_after(name, death):
                raise Again from death
            raise

    def _run(self, cell: Cell) -> list[NotebookNode]:
        self._give_up_if_hopeless()
        outputs = self._kernel.run(cell.source, self._budget.cell_bytes())
        lesson = cell.role == "lesson"
        # It may be what ended the kernel; a lesson's own cell is, if at all, by what it calls.
        if self._unexplained or (self._deaths and not lesson):
            self._kernel.ask_whether_it_runs()
        if lesson:
            return outputs
        return outputs + self._run_rest(cell, outputs)

    def _run_rest(self, cell: Cell, outputs: list[NotebookNode]) -> list[NotebookNode]:
        """Run what a cell did not reach, one statement at a time; return the outputs."""
        found: list[NotebookNode] = []
        room = self._budget.cell_bytes() - len(json.dumps(outputs))
        deadline = time.monotonic() + self._budget.limits.cell_seconds
        for statement in not_reached(cell.source, outputs):
            if time.monotonic() > deadline:
                break
            said = self._kernel.run(statement, max(0, room - len(json.dumps(found))))
            found += [output for output in said if output.output_type != "error"]
        return found

    def _give_up_if_hopeless(self) -> None:
        if self._deaths >= MOST_DEATHS:
            raise _GivenUp(f"the notebook's process had ended {MOST_DEATHS} times before")
        if self._budget.is_spent():
            seconds = self._budget.limits.submission_seconds
            note = f"it took more than {seconds} s, and what was left of it is not run"
            if note not in self._notes:
                self._notes.append(note)
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
        self._notes.append(f"{self._name}: {what}: {death}")
        self._deaths += 1
        first = what not in self._suspected
        self._suspected.add(what)
        self._unexplained = first and isinstance(death, EndedBefore)
        again, self._done = self._done, []
        for index in again:
            self.run_cell(index)
        return first and (isinstance(death, EndedBefore) or self._done != again)
