"""One call that fails, takes too much or kills its worker stops no other; no worker is left."""

import mmap
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest
from joblib import Parallel, delayed
from pebble import ProcessPool

from lab_grader.command_line import parser
from lab_grader.running.workers import WorkerError, Workers

CALLS = {str(n): n for n in range(6)}


def run(function, calls, jobs, **bounds):
    """Yield what so many workers answer, which end with that."""
    with Workers(jobs) as workers:
        yield from workers.run(function, calls, **bounds)


def half(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def survive(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end(number):
    if number == 3:
        os._exit(0)
    return number


def loop(number):
    while number == 3:
        pass
    return number


def loop_deaf(number):
    """Hold the interpreter's lock in C, where no handler of a signal in Python runs."""
    if number == 3:
        re.compile(r"(a|aa)+$").match("a" * 200 + "b")
    return number


def fill_memory(number):
    kept = []
    while number == 3:
        kept.append(bytearray(1 << 24))
    return number, os.getpid()


held = []


def hold_memory(number):
    held.append(mmap.mmap(-1, 1 << 30))
    return len(held[-1])


def take_memory(size):
    return len(bytearray(size))


def fill_disk(number):
    with open("/dev/full", "w") as file:
        file.write(str(number))


def test_a_call_that_fails_is_reported():
    found = dict(run(half, {str(n): n for n in range(4)}, jobs=2))
    assert (found["0"], found["2"]) == (0, 1)
    assert isinstance(found["1"], WorkerError)
    assert str(found["3"]) == "ValueError: 3 is odd"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (survive, "its worker process was killed by SIGKILL"),
        (end, "it took more than 3 s, and was stopped"),
        (loop, "it took more than 3 s, and was stopped"),
        (loop_deaf, "it took more than 3 s, and was stopped"),
    ],
)
def test_a_call_that_does_not_come_back_is_reported_and_the_others_finish(function, why):
    start = time.monotonic()
    answers = list(run(function, CALLS, jobs=2, seconds=3))
    assert time.monotonic() - start < 40
    found = dict(answers)
    assert len(answers) == len(CALLS)
    assert isinstance(found["3"], WorkerError)
    assert str(found.pop("3")) == why
    assert found == {key: n for key, n in CALLS.items() if n != 3}


def test_a_call_that_takes_too_much_memory_is_reported_and_its_process_goes_on():
    found = dict(run(fill_memory, CALLS, jobs=1, memory_bytes=256 << 20))
    assert str(found.pop("3")) == "it took more than 256 MB of memory, and was stopped"
    assert {number for number, _ in found.values()} == {0, 1, 2, 4, 5}
    assert len({process for _, process in found.values()}) == 1


def note_process(number):
    return os.getpid()


def test_the_same_processes_make_the_calls_of_several_functions():
    with Workers(1) as workers:
        found = [dict(workers.run(one, {"0": 0})) for one in (note_process, half, note_process)]
        assert found[0] == found[2]
        assert isinstance(dict(workers.run(end, {"3": 3}, seconds=2))["3"], WorkerError)
        ((_, another),) = workers.run(note_process, {"0": 0})
        assert another != found[0]["0"], "one that was ended is replaced"
        assert psutil.pid_exists(another)
    assert not psutil.pid_exists(another)


def test_each_functions_limit_on_memory_begins_with_what_its_process_has_then():
    """What another function needs, such as PyTorch's addresses, is not taken from it."""
    with Workers(1) as workers:
        ((_, taken),) = workers.run(hold_memory, {"0": 0}, memory_bytes=2 << 30)
        ((_, more),) = workers.run(take_memory, {"0": 64 << 20}, memory_bytes=256 << 20)
        ((_, failed),) = workers.run(take_memory, {"0": 512 << 20}, memory_bytes=256 << 20)
    assert (taken, more) == (1 << 30, 64 << 20)
    assert str(failed) == "it took more than 256 MB of memory, and was stopped"


def test_a_pool_that_breaks_is_replaced(monkeypatch):
    """As when a worker is killed while no call is under way."""
    real, calls = ProcessPool.schedule, []

    def schedule(pool, *arguments, **named):
        calls.append(1)
        if len(calls) == 4:
            pool._pool_manager.handle_broken_pool(BrokenProcessPool("All workers expired"))
        return real(pool, *arguments, **named)

    monkeypatch.setattr(ProcessPool, "schedule", schedule)
    answers = list(run(survive, {str(n): 10 * n for n in range(20)}, jobs=2))
    assert len(answers) == len(dict(answers)) == 20
    failed = [answer for _, answer in answers if isinstance(answer, WorkerError)]
    assert 1 <= len(failed) <= 3
    assert all("was killed" in str(error) for error in failed)


def draw(number):
    import matplotlib

    warnings.warn("is deprecated", DeprecationWarning, stacklevel=1)
    return matplotlib.__name__ + str(number)


@pytest.mark.parametrize(
    ("name", "value"), [("PYTHONWARNINGS", "error"), ("MPLBACKEND", "nonsense")]
)
def test_what_the_environment_tells_libraries_stops_no_call(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert dict(run(draw, {"a": 1}, jobs=1)) == {"a": "matplotlib1"}


def test_a_full_disk_is_said_in_a_sentence():
    found = dict(run(fill_disk, {"0": 0}, jobs=1))
    assert str(found["0"]).startswith("the disk is full")


def test_it_shares_a_process_with_joblib():
    for _ in range(2):
        dict(run(half, CALLS, jobs=2))
        assert Parallel(n_jobs=2)(delayed(half)(n) for n in (0, 2, 4)) == [0, 1, 2]


def test_no_process_is_left_after_a_run_that_is_given_up():
    def processes():
        lines = [" ".join(child.cmdline()) for child in psutil.Process().children()]
        return [line for line in lines if "multiprocessing.spawn" in line]

    before = len(processes())
    with Workers(1) as workers:
        answers = workers.run(loop, {"0": 0} | CALLS, seconds=60)
        next(answers)
        assert len(processes()) == before + 1
        answers.close()
        assert len(processes()) == before
        assert dict(workers.run(loop, {"0": 0})) == {"0": 0}, "others take their place"
        assert len(processes()) == before + 1
    assert len(processes()) == before


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
import test_workers
if __name__ == "__main__":
    print(dict(test_workers.run(getattr(test_workers, sys.argv[2]), {"3": 3}, jobs=1, seconds=4)))
"""


@pytest.mark.parametrize("function", [loop, loop_deaf])
def test_workers_end_with_a_main_process_that_is_killed(tmp_path, function):
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    command = [sys.executable, str(program), str(Path(__file__).parent), function.__name__]
    main = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(children := psutil.Process(main.pid).children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)  # so that the call is under way
    main.kill()
    main.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


@pytest.mark.parametrize("jobs", ["0", "-3", "1.5", "many"])
def test_a_number_of_processes_that_makes_no_call_is_refused(jobs, capsys):
    """It would never end."""
    with pytest.raises(SystemExit):
        parser().parse_args(["grade", "dora", "--jobs", jobs])
    assert jobs in capsys.readouterr().err
    with pytest.raises(ValueError, match="0 processes for"):
        next(Workers(0).run(half, CALLS))
