"""Time `lab_grader` against stock `nbgrader autograde` on a class that is made up here.

    make bench-grading                           forty submissions, ten of them by stock too
    make bench-grading ARGS="--class 10 --stock 5"

Both grade the same submissions of all lessons, on this machine and in this run. Seconds depend
on the machine and on what else runs on it: read the ratios.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECONDS = 0.1


@dataclass
class Used:
    """What a command and all that it started used.

    CPU is what each process had used when it was last seen, `SAMPLE_SECONDS` before its end at
    most; memory is the resident memory of the largest process of a kind.
    """

    wall: float = 0.0
    cpu_of: dict[int, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu_of.values())


def kind_of(command: list[str]) -> str:
    """Return what a process is: a kernel, a worker, or something else."""
    text = " ".join(command)
    if "bwrap" in command[:8]:
        return "other"
    kernel = "ipykernel" in text or "fork_server" in text  # the second forks the first
    return "kernel" if kernel else "worker" if "loky" in text else "other"


@contextmanager
def measured() -> Iterator[Used]:
    """Measure what the children of this process use meanwhile."""
    used, done = Used(), threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(SAMPLE_SECONDS):
            for process in me.children(recursive=True):
                try:
                    times, kind = process.cpu_times(), kind_of(process.cmdline())
                    resident = process.memory_info().rss / 1e6
                except psutil.Error:
                    continue  # it has just ended
                used.cpu_of[process.pid] = times.user + times.system
                used.peak_mb[kind] = max(resident, used.peak_mb.get(kind, 0.0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        yield used
    finally:
        used.wall = time.perf_counter() - started
        done.set()
        watcher.join()


def call(course: Path, *arguments: str) -> Used:
    """Run a module's command line in the course; return what it used."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path}
    command = [sys.executable, "-m", *arguments]
    with measured() as used:
        done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return used


def answer_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells in which a student writes code."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]


def right(number: int, source: str) -> str:
    """Return a solved exercise."""
    return source


def half_right(number: int, source: str) -> str:
    """Return every other exercise solved."""
    return blank(number, source) if number % 2 else source


def wrong(number: int, source: str) -> str:
    """Return a solution that computes something else."""
    return source.replace("dim=1", "dim=0").replace("norm_dim == 1", "norm_dim == 2")


def blank(number: int, source: str) -> str:
    """Return an exercise that nobody tried."""
    return "raise NotImplementedError()"


def crashing(number: int, source: str) -> str:
    """Return solutions of which the first ends the process."""
    return f"{source}\nimport os\nos._exit(1)" if number == 0 else source


KINDS: tuple[Callable[[int, str], str], ...] = (right, half_right, wrong, blank, crashing)


def make_course(folder: Path, size: int) -> list[str]:
    """Make a course and a class that handed in; return the lessons."""
    (folder / "nbgrader_config.py").write_text((ROOT / "nbgrader_config.py").read_text())
    source = folder / "solutions" / "dora"
    source.mkdir(parents=True)
    solved = {}
    for path in sorted((ROOT / "solutions" / "dora").glob("*.ipynb")):
        (source / path.name).write_bytes(path.read_bytes())
        solved[path.stem] = [c.source for c in answer_cells(nbformat.read(path, as_version=4))]
    call(folder, "nbgrader", "generate_assignment", "dora")
    for student in range(size):
        kind = KINDS[student % len(KINDS)]
        handed_in = folder / "grading" / "submitted" / f"{student:03}-{kind.__name__}" / "dora"
        handed_in.mkdir(parents=True)
        for lesson, sources in solved.items():
            released = folder / "notebooks" / "dora" / f"{lesson}.ipynb"
            notebook = nbformat.read(released, as_version=4)
            for number, cell in enumerate(answer_cells(notebook)):
                # no two the same, so that no result is used twice
                cell.source = f"{kind(number, sources[number])}\n# student {student}"
            nbformat.write(notebook, handed_in / f"{lesson}.ipynb")
    return list(solved)


# Under these settings `nbgrader autograde` is nbgrader's own, without a sandbox.
STOCK = """\
from nbconvert.exporters import NotebookExporter
c.Autograde.exporter_class = NotebookExporter
c.Autograde.autograde_preprocessors = Autograde.autograde_preprocessors.default()
"""


def stock(course: Path, students: list[str]) -> Used:
    """Grade some students by `nbgrader autograde`, one after the other.

    Students whose code ends the kernel make it fail; the time counts all the same.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path}
    config = course / "nbgrader_config.py"
    confined = config.read_text()
    config.write_text(f"{confined}\n{STOCK}")
    with measured() as used:
        for student in students:
            command = [sys.executable, "-m", "nbgrader", "autograde", "dora", "--student", student]
            subprocess.run(command, cwd=course, env=environment, capture_output=True)
    config.write_text(confined)
    return used


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--class", type=int, default=40, dest="size", help="submissions")
    parser.add_argument("--stock", type=int, default=10, help="how many of them by stock too")
    parser.add_argument("--jobs", type=int, default=2, help="submissions at a time, of lab_grader")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        course = Path(name)
        lessons = make_course(course, chosen.size)
        everybody = sorted(p.name for p in (course / "grading" / "submitted").iterdir())
        by_stock = stock(course, everybody[: chosen.stock])
        for made in ("autograded", "gradebook.db"):
            subprocess.run(["rm", "-r", str(course / "grading" / made)], check=True)
        call(course, "nbgrader", "generate_assignment", "dora", "--force")
        command = ("lab_grader", "grade", "dora", "--jobs", str(chosen.jobs))
        marked = call(course, *command, "--no-feedback")
        pages = call(course, *command)
        again = call(course, *command)

    print(f"{chosen.size} submissions of {len(lessons)} lessons: {', '.join(lessons)}")
    print(f"right, half-right, wrong, blank and crashing in turn; {os.cpu_count()} cores, load")
    print(f"{os.getloadavg()[1]:.1f}; stock on the first {chosen.stock} of them, one at a time;")
    print(f"lab_grader on all, {chosen.jobs} at a time, each in a sandbox.\n")
    print("                            wall s    CPU s   wall s    CPU s   largest kernel, worker")
    print("                         /submission       /notebook                            MB")

    def row(what: str, used: Used, count: int) -> None:
        each = [used.wall / count, used.cpu / count]
        each += [value / len(lessons) for value in each]
        memory = [used.peak_mb.get(kind, 0.0) for kind in ("kernel", "worker")]
        print(
            f"{what:25}"
            + "".join(f"{v:9.2f}" for v in each)
            + "".join(f"{m:10.0f}" for m in memory)
        )

    row("stock nbgrader autograde", by_stock, chosen.stock)
    row("lab_grader grade", marked, chosen.size)
    row("  students' pages, after", pages, chosen.size)
    row("  again, nothing changed", again, chosen.size)
    ratio = (by_stock.wall / chosen.stock) / (marked.wall / chosen.size)
    cpu = (by_stock.cpu / chosen.stock) / (marked.cpu / chosen.size)
    print(f"\nlab_grader is {ratio:.1f} times as fast by the clock, with {cpu:.1f} times less CPU.")
    print(f"A run with nothing to do takes {again.wall:.1f} s, its start included.")


if __name__ == "__main__":
    main()
