"""The tests of the checks hold too when the student's object is in another process.

`pytest -p over_the_wire tests/checks`, with this folder on PYTHONPATH, tries those of all lessons.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import release

CHECKS = "tests/checks"
OF_A_LESSON = [
    f"{CHECKS}/test_{name}.py" for name in ("mathematics", "from_scratch", "decomposition_checks")
]
ANSWERS = [f"{CHECKS}/test_answers_by_cell.py", "-m", "not slow"]  # lessons 01 and 03


@pytest.mark.parametrize("tests", [OF_A_LESSON, ANSWERS], ids=["of a lesson", "answers"])
def test_checks_say_the_same_over_the_wire(tests):
    plugins = ("-p", "over_the_wire", "-p", "no:cacheprovider", "-p", "no:xdist")
    # What is written to stderr there is no output of a test cell, and stays where it is.
    stderr = "test_a_log_that_was_set_up_before_does_not_reach_stderr"
    plugins += ("--deselect", f"{CHECKS}/test_from_scratch.py::{stderr}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *tests],
        cwd=release.ROOT,
        env={"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
