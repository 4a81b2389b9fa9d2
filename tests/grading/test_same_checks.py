"""The tests of the checks hold too when the student's object is in another process.

`pytest -p over_the_wire tests/checks`, with this folder on PYTHONPATH, tries those of all lessons.
"""

import subprocess
import sys
from pathlib import Path

import release


def test_checks_say_the_same_over_the_wire():
    plugins = ("-p", "over_the_wire", "-p", "no:cacheprovider", "-p", "no:xdist")
    modules = [f"tests/checks/test_{name}.py" for name in ("mathematics", "from_scratch")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *modules],
        cwd=release.ROOT,
        env={"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
