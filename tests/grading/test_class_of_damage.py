"""A class of sixty, of which every fifth submission is damaged in another way; odd places to run.

Each honest student gets the marks that they get alone.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile

import nbformat
import pytest
from classroom import (
    LESSON,
    folder_of,
    grade,
    hand_in,
    make_course,
    marks,
    marks_without,
    notebook_with,
    run,
    solutions,
)
from sqlalchemy.exc import OperationalError

from lab_grader.intake.course import about_gradebook

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

HONEST = {
    "all": (solutions, marks_without()),
    "no-recompose": (
        lambda: solutions() | {"recompose": "# not done"},
        marks_without("recompose"),
    ),
    "blank": (dict, marks_without("decompose", "recompose", "count-trainable")),
}


def changed(change):
    """Hand in a right notebook of which the JSON was changed."""

    def hand_it_in(folder):
        tree = json.loads(nbformat.writes(notebook_with(solutions())))
        change(tree)
        (folder / f"{LESSON}.ipynb").write_text(json.dumps(tree))

    return hand_it_in


def written(content, name=f"{LESSON}.ipynb"):
    return lambda folder: (folder / name).write_bytes(content)


def with_file(name, content=b""):
    def hand_it_in(folder):
        changed(lambda tree: None)(folder)
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)

    return hand_it_in


def first_text(**values):
    return changed(lambda tree: tree["cells"][0].update(values))


DAMAGE = {
    "attachment": first_text(attachments={"a.png": None}),
    "attachments": first_text(attachments=[1]),
    "half-an-emoji": first_text(source="\ud83d"),
    "bytes": written(b"\xff\xfe\x00" * 1000),
    "bomb": written(b"[" + b"[],[]," * 10**6),
    "no-cells": changed(lambda tree: tree.pop("cells")),
    "cells-of-none": changed(lambda tree: tree.update(cells=[None] * 5)),
    "dots": with_file(b"my.notes.v2.py"),
    "not-utf-8": with_file(b"caf\xe9.py"),
    "newline": with_file(b"a\nall   10   10\x1b[2J.txt"),
    "deep-folders": with_file(b"/".join([b"x"] * 100) + b"/y.txt"),
    "archive": with_file(b"x.zip", b"PK\x03\x04 no more"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_course(tmp_path_factory.mktemp("damage") / "course")


def test_honest_students_get_what_they_get_alone(folder):
    expected = {}
    for number in range(60):
        if number % 5 == 4:
            name, damage = list(DAMAGE.items())[number // 5]
            damage(folder_of(folder, f"{number:02}-{name}"))
        else:
            name = list(HONEST)[number % 3]
            answers, expected[f"{number:02}"] = HONEST[name]
            hand_in(folder, f"{number:02}", answers())
    done = grade(folder, "--no-feedback", "--jobs", "2", check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in (0, 1)
    assert "\x1b" not in done.stdout
    found = marks(folder)
    assert {student: found[student] for student in expected} == expected
    for student in set(found) - set(expected):
        assert student in done.stdout, f"of {student} nothing is said"


@pytest.fixture
def small(tmp_path):
    course = make_course(tmp_path / "course")
    hand_in(course, "ada", solutions())
    (folder_of(course, "eve ") / f"{LESSON}.ipynb").write_text("{}")
    return course


def test_umask_long_tmpdir_and_a_blank_at_the_end_of_an_id(small, tmp_path):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    before = os.umask(0o077)
    try:
        done = run(
            small,
            "lab_grader",
            "grade",
            "dora",
            "--jobs",
            "1",
            "--no-feedback",
            check=False,
            environment={"TMPDIR": str(long)},
        )
    finally:
        os.umask(before)
    assert marks(small) == {"ada": marks_without()}, done.stdout + done.stderr
    assert done.returncode == 1
    assert "rename the folder 'eve '" in done.stdout and "Traceback" not in done.stderr


def test_closed_streams_ignored_signals_and_a_locale_without_utf_8(small):
    """As some services start a program."""
    start = "exec env --ignore-signal=CHLD --block-signal=TERM"
    command = f"{start} {sys.executable} -m lab_grader grade dora --jobs 1 <&- >&- 2>&-"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["sh", "-c", command], cwd=small, env=os.environ | locale, timeout=600)
    assert done.returncode == 1  # eve's notebook cannot be read
    assert marks(small) == {"ada": marks_without()}
    assert "\nada," in (small / "grading" / "marks" / "dora.csv").read_text("utf-8")
    assert (small / "grading" / "feedback" / "ada" / "dora" / "index.html").exists()


def test_a_locked_gradebook_is_one_sentence(small):
    config = small / "nbgrader_config.py"
    config.write_text(config.read_text() + "\nc.CourseDirectory.db_url += '?timeout=1'\n")
    gradebook = sqlite3.connect(small / "grading" / "gradebook.db")
    gradebook.execute("BEGIN EXCLUSIVE")
    done = grade(small, check=False)
    gradebook.close()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "database is locked" in done.stderr, done.stderr
    assert "Close what else uses it" in done.stderr


def test_a_gradebook_that_is_none_is_one_sentence(small):
    path = small / "grading" / "gradebook.db"
    for content in (b"x" * 5000, path.read_bytes()[:5000]):
        path.write_bytes(content)
        done = grade(small, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        assert "gradebook cannot be used" in done.stderr and "may be damaged" in done.stderr


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        ("database is locked", "Close what else uses it"),
        ("no such column: student.lms_user_id", "run `nbgrader db upgrade`"),
        ("table grade has no column named extra_credit", "run `nbgrader db upgrade`"),
        ("column student.lms_user_id does not exist\nLINE 1: SELECT", "run `nbgrader db upgrade`"),
        ("attempt to write a readonly database", "Make it and its folder writable"),
        ("unable to open database file", "Make it and its folder writable"),
        ("disk I/O error", "Make it and its folder writable"),
        ("database disk image is malformed", "replace it with a copy"),
        ("file is not a database", "replace it with a copy"),
        ("Could not parse SQLAlchemy URL from given URL string", "Mend c.CourseDirectory.db_url"),
        ("Can't load plugin: sqlalchemy.dialects:x", "Mend c.CourseDirectory.db_url"),
    ],
)
def test_what_is_wrong_with_a_gradebook_decides_the_advice(what, advice):
    said = about_gradebook(OperationalError("SELECT", {}, sqlite3.OperationalError(what)))
    assert what.splitlines()[0] in said and advice in said and "\n" not in said


@pytest.mark.parametrize(
    "door", [("lab_grader", "grade", "dora", "--no-feedback"), ("nbgrader", "autograde", "dora")]
)
def test_a_gradebook_of_another_version_is_one_sentence_at_each_door(small, door):
    with sqlite3.connect(small / "grading" / "gradebook.db") as gradebook:
        gradebook.execute("ALTER TABLE student DROP COLUMN lms_user_id")
    done = run(small, *door, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no such column" in done.stderr and "run `nbgrader db upgrade`" in done.stderr


def test_what_nobody_foresaw_is_one_students(small, monkeypatch):
    """A fault of the grader's own is told for whom it happens, with where to look."""
    hand_in(small, "bob", solutions() | {"recompose": "# later"})
    config = small / "nbgrader_config.py"
    config.write_text(
        config.read_text() + "\nfrom lab_grader import grade as _grade\n_real = _grade.job_of\n"
        "def _fails(course, submission, *rest):\n"
        "    if submission.student == 'bob':\n        raise KeyError('unforeseen')\n"
        "    return _real(course, submission, *rest)\n"
        "_grade.job_of = _fails\n"
    )
    done = grade(small, "--no-feedback", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "bob" in done.stdout and "the grader failed on it (KeyError" in done.stdout
    assert "unforeseen" in (small / "grading" / "lab_grader-errors.txt").read_text()
    assert marks(small)["ada"] == marks_without()


def test_zip_collect_says_what_it_leaves_and_fails_on_nothing(small):
    archive = small / "grading" / "downloaded" / "dora" / "archive"
    archive.mkdir(parents=True)
    with zipfile.ZipFile(archive / "all.zip", "w") as file:
        file.writestr("notes.txt", "x")
    done = run(small, "nbgrader", "zip_collect", "dora", check=False)
    assert done.returncode == 1
    assert "not collected: notes.txt" in done.stderr
