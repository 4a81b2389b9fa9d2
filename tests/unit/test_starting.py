"""What starts fast stays fast: no command waits for a library that it does not use."""

import subprocess
import sys

import pytest


def imported_by(code, *names):
    """Which of these modules a new process has after it has run some code."""
    code = f"import sys\n{code}\nprint([name for name in {names} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    return done.stdout


@pytest.mark.parametrize("module", ["lab_grader.command_line", "lab_grader.sandbox.fork_server"])
def test_the_grader_starts_without_what_only_some_of_it_needs(module):
    assert imported_by(f"import {module}", "torch", "peft", "scipy.stats") == "[]\n"


def test_an_interrupt_before_the_command_line_is_there_is_one_sentence():
    code = """
import runpy, sys
class Interrupted:
    @staticmethod
    def find_spec(name, *_):
        if name == "lab_grader.grade": raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted)
runpy.run_module("lab_grader", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (1, "lab_grader: stopped; run it again.\n")


def test_whatever_the_umask_the_grader_can_use_the_files_that_it_makes():
    code = """
import os, sys
os.umask(0o777)
from lab_grader import command_line
sys.argv[1:] = ["grade", "dora", "--help"]
try: command_line.main()
finally: print(oct(os.umask(0)))
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.endswith("0o77\n"), done.stderr


def test_a_layer_is_adapted_and_merged_without_sympy():
    """PyTorch imports it for what few need, such as tensors that are only shapes: for seconds."""
    code = "from lab_utils.layers import DoRALayer, nn\nDoRALayer(nn.Linear(4, 4), 2).merge()"
    assert imported_by(code, "sympy") == "[]\n"


def test_every_check_is_found_by_its_name_alone():
    from pathlib import Path

    from lab_grader.sandbox.masks import CHECKS, _names
    from lab_utils import checks

    names = [name for name in checks.__all__ if name.startswith("check_")]
    assert "check_decompose" in names
    assert sorted(_names(sorted(Path(CHECKS).glob("*.py")), "check_")) == names
    assert all(callable(getattr(checks, name)) for name in names)
