"""A run that is killed at any moment is finished by the same command, with the same marks."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from classroom import (
    EXERCISES,
    LESSON,
    database,
    grade,
    hand_in,
    make_course,
    marks,
    marks_without,
    solutions,
)
from nbgrader.api import Gradebook

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

STUDENTS = {f"without-{exercise}": marks_without(exercise) for exercise in EXERCISES}
STUDENTS["all"] = marks_without()

# Kills its own process at the nth call of a function of the grader, then grades.
KILLED_AT = """
import importlib, os, signal, sys
from unittest import mock
from lab_grader.command_line import main
where, name, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
module, _, name_of_class = where.partition(":")
owner = importlib.import_module(module)
if name_of_class:
    owner = getattr(owner, name_of_class)
real, calls = getattr(owner, name), []
def counted(*arguments, **named):
    calls.append(1)
    if len(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
sys.argv[1:] = ["grade", "dora", "--jobs", "1", "--no-feedback"]
with mock.patch.object(owner, name, counted):
    main()
"""
MOMENTS = [
    ("lab_grader.marks.record:Recorder", "_write_vetted", 2),
    ("nbgrader.converters.autograde:Autograde", "init_assignment", 1),
    ("nbgrader.preprocessors.saveautogrades:SaveAutoGrades", "_add_score", 9),
    ("lab_grader.marks.record", "write_atomically", 2),
]


def submit(folder):
    course = make_course(folder / "course")
    for student, expected in STUDENTS.items():
        lost = [name for name, tests in EXERCISES.items() if expected[tests[0]] == 0]
        answers = solutions() | {name: f"# {student} does not know" for name in lost}
        hand_in(course, student, answers)
    return course


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A course of which everything was executed and nothing recorded."""
    course = submit(tmp_path_factory.mktemp("executed"))
    grading = course / "grading"
    shutil.copy(grading / "gradebook.db", grading / "fresh.db")
    grade(course, "--no-feedback")
    for name in ("autograded", "recorded", "vetted", "marks"):
        shutil.rmtree(grading / name)
    (grading / "fresh.db").replace(grading / "gradebook.db")
    return course


@pytest.mark.parametrize(("where", "name", "call"), MOMENTS)
def test_killed_while_recording(executed, tmp_path, where, name, call):
    course = shutil.copytree(executed, tmp_path / "course")
    config = course / "nbgrader_config.py"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT, where, name, str(call)],
        cwd=course,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert config.exists()
    grade(course, "--no-feedback")
    assert marks(course) == STUDENTS
    with Gradebook(database(course)) as gradebook:
        grades = [
            g
            for s in gradebook.assignment_submissions("dora")
            for n in s.notebooks
            for g in n.grades
        ]
        assert len(grades) == len(STUDENTS) * len(marks_without()), "none is there twice"
        assert not any(g.needs_manual_grade for g in grades)
    assert not list((course / "grading").rglob(".writing-*")) or name == "write_atomically"


def test_killed_while_executing(tmp_path, monkeypatch):
    course = submit(tmp_path)
    temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # a socket's path is short
    monkeypatch.setenv("TMPDIR", str(temporary))
    cache = course / "grading" / "cache"
    command = [sys.executable, "-m", "lab_grader", "grade", "dora", "--jobs", "2"]
    run = subprocess.Popen(command, cwd=course, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(cache.glob("*.json")):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive, "a student's kernel outlived the grader"
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("*.json")}
    assert 0 < len(kept) < len(STUDENTS)
    assert list(temporary.glob("lab-*")), "a killed process cannot remove its folder"

    grade(course, "--no-feedback")
    assert marks(course) == STUDENTS
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items()), "done once"
    assert len(list(cache.glob("*.json"))) == len(STUDENTS)
    assert not list(temporary.glob("lab-*"))
    shutil.rmtree(temporary)


def test_a_kept_result_that_was_cut_short_is_executed_anew(executed, tmp_path):
    course = shutil.copytree(executed, tmp_path / "course")
    cut, *_ = sorted((course / "grading" / "cache").glob("*.json"))
    os.truncate(cut, 100)
    done = grade(course, "--no-feedback")
    assert f"{cut.name} cannot be used" in done.stderr
    assert cut.stat().st_size > 100
    assert marks(course) == STUDENTS


def test_two_graders_at_a_time_are_refused(executed, tmp_path):
    from filelock import FileLock

    with FileLock(executed / "grading" / "grading.lock"):
        done = grade(executed, check=False)
    assert done.returncode != 0
    assert "is being graded by another process" in done.stderr


def test_a_mark_that_something_else_changed_is_recorded_again(executed, tmp_path):
    course = shutil.copytree(executed, tmp_path / "course")
    grade(course, "--no-feedback")
    with Gradebook(database(course)) as gradebook:
        gradebook.find_grade("recompose-test", LESSON, "dora", "all").auto_score = None
        gradebook.db.commit()
    grade(course, "--no-feedback")
    assert marks(course) == STUDENTS
