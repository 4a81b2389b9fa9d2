"""One call that fails, or kills its worker, stops no other."""

import os
import signal

from lab_grader.running.workers import WorkerError, run


def half(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def survive(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_call_that_fails_is_reported():
    found = dict(run(half, {str(n): n for n in range(4)}, jobs=2))
    assert (found["0"], found["2"]) == (0, 1)
    assert isinstance(found["1"], WorkerError)
    assert str(found["3"]) == "ValueError: 3 is odd"


def test_a_worker_that_is_killed_is_reported_and_the_others_finish():
    answers = list(run(survive, {str(n): n for n in range(6)}, jobs=1))
    found = dict(answers)
    assert found.keys() == {str(n) for n in range(6)}
    assert len(answers) == len(found)
    assert isinstance(found["3"], WorkerError)
    assert "killed" in str(found["3"])
