"""Grade one submission: run its cells in sandboxed kernels, and its tests outside of them.

The result depends on the job alone, and neither a gradebook nor a course's folder is read, so that
this can run on any machine and its result can be cached.
"""

import functools
import multiprocessing.util
from collections import defaultdict

from lab_grader.intake.dependencies import needed
from lab_grader.running.budget import Budget
from lab_grader.running.job import Cell, Job, Result
from lab_grader.running.kernel import Kernel
from lab_grader.running.lasting import LastingKernel
from lab_grader.running.marking import Marking
from lab_grader.running.objects import KeptAnswers, StudentObjects
from lab_grader.sandbox.folders import remove_left_behind
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.place import Sandbox, Unconfined
from lab_grader.wire.calls import NotATestCell, read_test_cell


def execute(job: Job) -> Result:
    """Run a submission.

    Tests that forbid the same files share a kernel; each notebook starts afresh in it.

    Raises:
        NotATestCell, ReferenceInReach: the lesson cannot be graded, whoever handed it in.
        CannotStart: no kernel could be started, which is not the student's fault either.
    """
    result = Result({name: [None] * len(cells) for name, cells in job.notebooks.items()}, [])
    budget = Budget(job.limits)
    groups = _groups(job)
    place = _place(job.sandbox, job.limits)
    with place.holding(job.files, _needs(job)):
        for hidden, chosen in groups.items():
            with Kernel(place, hidden, job.limits) as kernel:
                for name, indices in chosen.items():
                    _run_notebook(kernel, job, name, indices, result, budget)
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


def _needs(job: Job) -> frozenset[str]:
    """Return what the checks say that kernels will import, of what is slow to import."""
    tests = [c for cells in job.notebooks.values() for c in cells if c and c.role == "test"]
    return frozenset().union(*(call.needs for c in tests for call in read_test_cell(c.source)))


def _run_notebook(
    kernel: Kernel, job: Job, name: str, chosen: set[int], result: Result, budget: Budget
) -> None:
    """Make some tests and run some hand-marked cells of a notebook, with the cells that they need.

    Args:
        chosen: the indices of these tests and cells.
        result: which gets the outputs, the notes and the mistakes.
    """
    cells, outputs = job.notebooks[name], result.outputs[name]
    answers = KeptAnswers()
    lasting = LastingKernel(kernel, name, cells, budget, result.notes, answers.forget)
    objects = StudentObjects(lasting, answers, lambda text: result.notes.append(f"{name}: {text}"))
    marking = Marking(name, objects, result, job.seed)
    to_run = _needed(cells, chosen)
    for index, cell in enumerate(cells):
        if index in chosen and cell.role == "test":
            found = marking.mark(index, read_test_cell(cell.source), budget.cell_bytes())
        elif index in to_run:
            found = lasting.run_cell(index)
        else:
            continue
        if not outputs[index]:  # else it has run beside other tests, too
            budget.take(found)
            outputs[index] = found


def _needed(cells: list[Cell | None], chosen: set[int]) -> set[int]:
    """Return the cells to run: those that the tests, the student's own and marked ones need."""
    tests = [cells[i] for i in chosen if cells[i].role == "test"]
    calls = [call for test in tests for call in read_test_cell(test.source)]
    wanted = set().union(*(call.names() for call in calls))
    indices = [i for i, cell in enumerate(cells) if cell and cell.role != "test"]
    always = {k for k, i in enumerate(indices) if i in chosen or cells[i].role == "student"}
    sources = [(cells[i].source, cells[i].released) for i in indices]
    return {indices[k] for k in needed(sources, always, wanted)}
