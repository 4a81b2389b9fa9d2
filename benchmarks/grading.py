"""Time `lab_grader` against stock `nbgrader autograde` on a class that is made up here.

    make bench-grading                           forty submissions, five of them by stock too
    make bench-grading ARGS="--class 10 --stock 5"
    make bench-grading ARGS="--class 200 --dask 1 2 4 --idle 1000 --crowd 8 --shares --some 20"

All grade the same submissions of all lessons, on this machine and in this run. Seconds depend on
the machine and on what else runs on it: read the ratios. What else is asked for:

    --dask      the same by so many workers of a Dask cluster, and what would travel to another host
    --idle      the same with so many idle processes around
    --crowd     the memory of so many workers at a time
    --shares    where the time of a right submission goes, and the memory of one worker
"""

import argparse
import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import files
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lab_grader.grade import job_of
from lab_grader.intake.course import Course
from lab_grader.intake.vet import vet
from lab_grader.running import environment
from lab_grader.running.job import Job
from lab_grader.running.workers import WorkerError, Workers
from lab_grader.sandbox.limits import Limits

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECONDS = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
LINES = 8  # of what takes most of a submission's time


def below(pid: int) -> Iterator[tuple[int, int]]:
    """Yield the processes that a process started and those below them, each with its parent.

    What else runs on the machine is not looked at: measuring must not depend on it either.
    """
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield int(child), pid
                yield from below(int(child))


def is_fork_server(pid: int) -> bool:
    """Return whether a process is one that forks kernels, or such a kernel."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"fork_server" in command and not command.startswith(b"bwrap")


def cpu_seconds(pid: int, with_ended: bool) -> float:
    """Return the CPU seconds of a process, if asked for with those of its children that ended."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(int(n) / TICKS for n in numbers[: 4 if with_ended else 2])


def memory_mb(pid: int) -> float:
    """Return the memory of a process in MB; of what n processes share, the nth part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


@dataclass
class Used:
    """What a command and all that it started used.

    Attributes:
        wall: seconds.
        cpu_of: CPU seconds of each process when it was last seen, `SAMPLE_SECONDS` before its end
            at most. A kernel's become its fork server's when it ends.
        peak_mb: the memory of all processes together at its largest.
    """

    wall: float = 0.0
    cpu_of: dict[int, float] = field(default_factory=dict)
    peak_mb: float = 0.0

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu_of.values())


@contextmanager
def measured(memory: bool = False) -> Iterator[Used]:
    """Measure what the children of this process use meanwhile.

    Args:
        memory: whether to measure it too, which takes time of its own.
    """
    used, done = Used(), threading.Event()
    forked: dict[int, int] = {}  # the fork server of each kernel

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            mb, seen = 0.0, set()
            for pid, parent in below(os.getpid()):
                seen.add(pid)
                with contextlib.suppress(OSError, IndexError):  # it has just ended
                    server = is_fork_server(pid)
                    used.cpu_of[pid] = cpu_seconds(pid, with_ended=server)
                    if server and is_fork_server(parent):
                        forked[pid] = forked.get(parent, parent)
                    mb += memory_mb(pid) if memory else 0
            for kernel in [k for k, s in forked.items() if k not in seen and s in seen]:
                del forked[kernel], used.cpu_of[kernel]
            used.peak_mb = max(mb, used.peak_mb)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        yield used
    finally:
        used.wall = time.perf_counter() - started
        done.set()
        watcher.join()


def call(course: Path, *arguments: str, memory: bool = False) -> Used:
    """Run a module's command line in the course; return what it used."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path}
    command = [sys.executable, "-m", *arguments]
    with measured(memory) as used:
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


def row(what: str, used: Used, count: int, lessons: int) -> None:
    """Print what was used for each of so many submissions, and for each notebook of them."""
    each = [used.wall / count, used.cpu / count]
    values = [*each, *(value / lessons for value in each)]
    print(f"{what:25}" + "".join(f"{value:9.2f}" for value in values), flush=True)


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, Callable[[int], None]]]:
    """Start a Dask scheduler; yield its address, and what brings it to a number of workers."""
    from dask.distributed import Client

    command = [sys.executable, "-m", "dask"]
    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    quiet["env"] = os.environ | {"OMP_NUM_THREADS": "1"}
    options = ["--no-dashboard", "--scheduler-file", str(file)]
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> None:
            process = subprocess.Popen([*command, *arguments, *options], **quiet)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        start("scheduler", "--port", "0", "--host", "127.0.0.1")
        while not file.exists():
            time.sleep(0.1)
        client = stack.enter_context(Client(scheduler_file=str(file)))

        def grow(size: int) -> None:
            more = size - len(client.nthreads())
            start("worker", "--nworkers", str(more), "--nthreads", "1")
            client.wait_for_workers(size, timeout=120)

        yield client.scheduler.address, grow


def by_dask(course: Path, sizes: list[int], students: list[str]) -> None:
    """Grade on clusters of this machine; print seconds and how well more workers help."""
    print(f"\nOn a Dask cluster of this machine, {len(students)} submissions:")
    print("  workers   wall s  CPU s  submissions/s per worker, of that with one")
    alone = None
    with cluster(course.parent) as (address, grow):
        for size in sorted(sizes):
            grow(size)
            command = ("lab_grader", "grade", "dora", "--dask", address, "--again", "--no-feedback")
            used = call(course, *command, "--students", *students)
            alone = alone or used.wall * size
            share = alone / (used.wall * size)
            print(f"  {size:7} {used.wall:8.1f} {used.cpu:6.0f}  {share:.0%}", flush=True)


def travels(jobs: list[Job], results: list[dict]) -> None:
    """Print what a worker on another host needs."""
    sizes = [
        sum(len(pickle.dumps(value)) for value in all_) / len(all_) for all_ in (jobs, results)
    ]
    own = [p for n in ("lab_utils", "lab_grader") for p in (ROOT / n).rglob("*") if p.is_file()]
    lab = sum(p.stat().st_size for p in own if "__pycache__" not in p.parts)
    packages = [name for name in environment.deciding() if "/" not in name]
    installed = 0
    for name in packages:
        with contextlib.suppress(ModuleNotFoundError):  # Python, for one
            paths = [Path(file.locate()) for file in files(name) or ()]
            installed += sum(path.stat().st_size for path in paths if path.is_file())
    print(f"\nTo a worker on another host travel {sizes[0] / 1e6:.2f} MB a submission, and")
    print(
        f"{sizes[1] / 1e6:.2f} MB come back. Installed there before: the lab, {lab / 1e6:.1f} MB,"
    )
    print(f"and the packages that it needs, {installed / 1e6:,.0f} MB, in the same versions.")


def tree_cpu(pid: int) -> float:
    """Return the CPU seconds of what runs below a process, to the microsecond."""
    nanoseconds = 0
    for child, _ in below(pid):
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{child}/task").iterdir():
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def shares(jobs: list[Job]) -> dict:
    """Execute jobs in this process, the last one measured; return what took its time, and memory.

    Returns:
        `seconds`: CPU seconds by what they were spent on, by kernels and grader together.
        `rest_mb`, `peak_mb`: of this process and its sandbox, before a kernel and at most.
        `results`: of the jobs.
    """
    from lab_grader.running import execute
    from lab_grader.running.kernel import Kernel
    from lab_grader.wire.values import unpack
    from lab_utils import checks  # noqa: F401 what a worker has imported once it has graded

    seconds: dict[str, float] = defaultdict(float)
    rest = "checks and what they expect"

    def timed(what: str, method: Callable, *arguments: object) -> object:
        begun, kernels, mine = time.process_time(), tree_cpu(os.getpid()), time.process_time()
        try:
            return method(*arguments)
        finally:
            mine = time.process_time() - mine
            seconds[what] += mine + tree_cpu(os.getpid()) - kernels
            seconds[rest] -= time.process_time() - begun  # what measuring took, too

    class Measured(Kernel):
        def start(self) -> None:
            if self._manager is None:
                timed("start of kernels", super().start)

        def run(self, source: str, room: int) -> list[NotebookNode]:
            self.start()
            return timed("cells", super().run, source, room)

        def exchange(self, question: bytes, printed: Callable) -> bytes:
            self.start()
            return timed(
                f"questions about {unpack(question)[0]}", super().exchange, question, printed
            )

    execute.Kernel = Measured
    place = execute._place(True, jobs[0].limits)
    place.stop_kernel()  # it answers when it has imported all that kernels need
    now = [memory_mb(pid) for pid in (os.getpid(), *(pid for pid, _ in below(os.getpid())))]
    with measured(memory=True) as used:
        results = [execute.execute(job) for job in jobs[:-1]]
    peak = used.peak_mb + memory_mb(os.getpid())
    seconds.clear()
    before = time.process_time()
    results.append(execute.execute(jobs[-1]))
    seconds[rest] += time.process_time() - before
    return {
        "seconds": dict(seconds),
        "rest_mb": sum(now),
        "peak_mb": peak,
        "results": [asdict(result) for result in results],
    }


def print_shares(jobs: list[Job]) -> list[dict]:
    """Print where the time of a right submission goes; return the results of all."""
    with Workers(1) as worker:
        ((_, found),) = worker.run(shares, {"": jobs})
    if isinstance(found, WorkerError):
        sys.exit(f"no shares: {found}")
    total = sum(found["seconds"].values())
    print(f"\nA right submission takes {total:.1f} CPU s once its worker has graded others:")
    for what, seconds in sorted(found["seconds"].items(), key=lambda item: -item[1])[:LINES]:
        print(f"  {seconds:5.2f} s  {seconds / total:4.0%}  {what}")
    print(f"Memory of a worker and its sandbox: {found['rest_mb']:.0f} MB at rest, ", end="")
    print(
        f"{found['peak_mb']:.0f} MB at most (what n processes share counts as an nth).", flush=True
    )
    return found["results"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--class", type=int, default=40, dest="size", help="submissions")
    add("--stock", type=int, default=5, help="how many of them by stock too; 0: none")
    add("--jobs", type=int, default=2, help="submissions at a time, of lab_grader")
    add("--dask", type=int, nargs="*", default=[], help="numbers of workers of a Dask cluster")
    add("--idle", type=int, default=0, help="idle processes around")
    add("--crowd", type=int, default=0, help="workers at a time, to measure their memory")
    add("--shares", action="store_true", help="where the time of a right submission goes")
    add("--some", type=int, default=40, help="submissions for --dask, --idle and --crowd")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        measure(Path(name), chosen)


def measure(folder: Path, chosen: argparse.Namespace) -> None:
    """Make a course in a folder, and measure what was chosen."""
    course = folder / "course"
    course.mkdir()
    lessons = make_course(course, chosen.size)
    everybody = sorted(p.name for p in (course / "grading" / "submitted").iterdir())
    some = everybody[: chosen.some]
    command = ("lab_grader", "grade", "dora", "--jobs", str(chosen.jobs))
    print(f"{chosen.size} submissions of {len(lessons)} lessons: {', '.join(lessons)}")
    print(f"right, half-right, wrong, blank and crashing in turn; {os.cpu_count()} cores, load")
    print(f"{os.getloadavg()[1]:.1f} before; stock on the first {chosen.stock}, one at a time;")
    print(f"lab_grader on all, {chosen.jobs} at a time, each in a sandbox.\n")
    print("                            wall s    CPU s   wall s    CPU s")
    print("                         /submission       /notebook", flush=True)
    if chosen.stock:
        by_stock = stock(course, everybody[: chosen.stock])
        row("stock nbgrader autograde", by_stock, chosen.stock, len(lessons))
        for made in ("autograded", "gradebook.db"):
            subprocess.run(["rm", "-r", str(course / "grading" / made)], check=True)
        call(course, "nbgrader", "generate_assignment", "dora", "--force")
    marked = call(course, *command, "--no-feedback")
    row("lab_grader grade", marked, chosen.size, len(lessons))
    pages = call(course, *command)
    row("  students' pages, after", pages, chosen.size, len(lessons))
    again = call(course, *command)
    row("  again, nothing changed", again, chosen.size, len(lessons))
    print(
        f"\nThe class took {marked.wall / 60:.1f} min; a run with nothing to do {again.wall:.1f} s."
    )
    if chosen.stock:
        ratio = (by_stock.wall / chosen.stock) / (marked.wall / chosen.size)
        cpu = (by_stock.cpu / chosen.stock) / (marked.cpu / chosen.size)
        print(
            f"lab_grader is {ratio:.1f} times as fast by the clock, with {cpu:.1f} times less CPU."
        )

    same = (*command, "--again", "--no-feedback", "--students", *some)
    if chosen.idle:
        print(f"\n{len(some)} of them, without and with {chosen.idle:,} idle processes around:")
        row("lab_grader grade", call(course, *same), len(some), len(lessons))
        idle = [subprocess.Popen(["sleep", "inf"]) for _ in range(chosen.idle)]
        try:
            row("  beside idle processes", call(course, *same), len(some), len(lessons))
        finally:
            for process in idle:
                process.kill()
                process.wait()
    if chosen.crowd:
        crowded = ("--jobs", str(chosen.crowd))
        used = call(course, *same, *crowded, memory=True)
        print(f"\n{chosen.crowd} at a time take {used.peak_mb / 1e3:.1f} GB at most, with the")
        print("process that started them and all their sandboxes.", flush=True)
    if chosen.dask:
        by_dask(course, chosen.dask, some)
    if chosen.shares:
        right_ones = [student for student in everybody if student.endswith("-right")][:2]
        jobs = [job_from(course, student) for student in right_ones]
        travels(jobs, print_shares(jobs))


def job_from(course: Path, student: str) -> Job:
    """Return what a worker gets of a student."""
    opened = Course(course, "dora")
    limits = Limits(cell_seconds=opened.cell_seconds)
    return job_of(opened, vet(opened, student), limits, sandbox=True)


if __name__ == "__main__":
    main()
