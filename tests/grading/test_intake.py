"""Submissions as tools, habits and accidents make them: what is taken, and what is said."""

import copy
import gzip
import io
import itertools
import json
import lzma
import os
import random
import shutil
import stat
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import jupytext
import nbformat
import pytest
from classroom import (
    EXERCISES,
    LESSON,
    database,
    folder_of,
    grade,
    hand_in,
    make_course,
    marks,
    marks_without,
    notebook_with,
    released_course,
    run,
    solutions,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nbgrader.api import Gradebook

from lab_grader.grade import job_of
from lab_grader.intake import archives, submitted
from lab_grader.intake import vet as vetting
from lab_grader.intake.cells import read_cells
from lab_grader.intake.collect import collect
from lab_grader.intake.course import Course, refusal
from lab_grader.intake.dependencies import names_of
from lab_grader.intake.matching import known_cells
from lab_grader.intake.mending import mend
from lab_grader.intake.moment import NoMoment, read_moment
from lab_grader.intake.notebook import cells_of
from lab_grader.intake.vet import vet
from lab_grader.intake.whose import whose
from lab_grader.marks.record import Recorder
from lab_grader.running.cache import key_of
from lab_grader.running.job import Result
from lab_grader.sandbox.limits import Limits

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")


@pytest.fixture
def folder(tmp_path):
    return make_course(tmp_path / "course")


@pytest.fixture
def course(folder):
    return Course(folder, "dora")


@pytest.fixture(scope="module")
def lesson():
    return Course(released_course(LESSON), "dora").lessons[LESSON]


@pytest.fixture(autouse=True)
def one_lesson():
    released_course(LESSON)  # made once, before the first copy of it


# When something was handed in.
MOMENTS = {
    b"2026-11-25 12:00:00 UTC": (12, 0),
    b"2026-11-25 12:00:00.123456 UTC": (12, 0),
    b"2026-11-25T12:00:00Z": (12, 0),
    b"2026-11-25T12:00:00+01:00": (11, 0),
    b"2026-11-25 12:00:00 -0330": (15, 30),
    b"2026-11-25 12:00 Europe/Berlin\n": (11, 0),
    b"\xef\xbb\xbf2026-11-25 12:00:00 Asia/Kolkata": (6, 30),
    "2026-11-25 12:00:00 UTC\r\n".encode("utf-16"): (12, 0),  # as PowerShell writes it
    b"\xfe\xff" + "2026-11-25 12:00:00 UTC".encode("utf-16-be"): (12, 0),
}


@pytest.mark.parametrize("text", MOMENTS)
def test_a_time_with_its_zone_is_read(text):
    moment, note = read_moment(text)
    assert (moment.hour, moment.minute) == MOMENTS[text]
    assert moment.tzinfo is UTC and not note


def test_a_time_without_a_zone_is_mentioned():
    moment, note = read_moment(b"2026-11-25 12:00:00")
    assert moment == datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert "no time zone" in note


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"when I was done",
        b"10",
        b"tomorrow",
        b"2026-13-45 12:00:00 UTC",
        b"2026-11-25 12:00:00 CEST",
        b"2026-11-25 12:00:00 Mars/Olympus",
        b"2026-11-25 12:00:00 ../../../etc/passwd",
        b"2026-11-25 12:00:00 /etc/localtime",
        b"2026-11-25 12:00:00 +99:00",
        b"0001-01-01 00:00:00 +14:00",
        b"25/11/2026 12:00",
        "２０２６-11-25 12:00:00 UTC".encode(),
        b"\xff\xfe\x00",
        b"2026-11-25 12:00:00 UTC and more",
        b"9" * 10**6,
    ],
)
def test_what_is_no_time_is_no_time(text):
    with pytest.raises(NoMoment):
        read_moment(text)


# Names of students.
@pytest.mark.parametrize(
    "name",
    [
        "17",
        "ada",
        "Ada Lovelace",
        "o'neil",
        "ada@uni.example",
        "王小明",
        "Łukasz",
        "a-b_c.d",
        "_1",
        "नमस्ते",
    ],
)
def test_an_id_that_can_be_used(name):
    assert refusal(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        "a*b",
        "[a]",
        "a?",
        "ada ",
        " ada",
        ".ada",
        "-a",
        "a{0}",
        "a<b>",
        "a\nb",
        "a\x1b[2J",
        "a\u202eb",
        os.fsdecode(b"\xe9"),
        'a"b',
        "a&b",
        "a;b",
        "a`b`",
        "$(id)",
        "a\\b",
        "a|b",
        "=1+1",
        "a,b",
    ],
)
def test_an_id_that_would_be_something_else(name):
    assert "rename the folder" in refusal(name)
    assert refusal(name).isprintable()


# Whose a file of a download is.
LMS = {
    "Ada Lovelace_17_assignsubmission_file_/01-mathematics.ipynb": ("17", "01-mathematics.ipynb"),
    "Ada Lovelace_17_assignsubmission_file/01-mathematics.ipynb": ("17", "01-mathematics.ipynb"),
    "Ada Lovelace_17_assignsubmission_file_01-mathematics.ipynb": ("17", "01-mathematics.ipynb"),
    "Ada_B_Lovelace_17_assignsubmission_file_/a_b.ipynb": ("17", "a_b.ipynb"),
    "Anne-Marie O'Neil_17_assignsubmission_file_/x.ipynb": ("17", "x.ipynb"),
    "王小明_17_assignsubmission_file_/x.ipynb": ("17", "x.ipynb"),
    "Группа 1-Иван_17_assignsubmission_file_/x.ipynb": ("17", "x.ipynb"),
    "Participant_17_assignsubmission_file_/x.ipynb": ("17", "x.ipynb"),
    "5_17_assignsubmission_file_/x.ipynb": ("17", "x.ipynb"),
    "Ada_17_assignsubmission_file_/sub/folder/x.ipynb": ("17", "sub/folder/x.ipynb"),
    "Course-Dora-4711/Ada_17_assignsubmission_file_/x.ipynb": ("17", "x.ipynb"),
    "Ada_17_assignsubmission_file_/.ipynb_checkpoints/x.ipynb": (
        "17",
        ".ipynb_checkpoints/x.ipynb",
    ),
    "Ada_17_assignsubmission_file_/work.zip": ("17", "work.zip"),
    "lovelaceada_123_4567_01-mathematics.ipynb": ("123", "01-mathematics.ipynb"),
    "lovelaceada_LATE_123_4567_01-mathematics.ipynb": ("123", "01-mathematics.ipynb"),
    "lovelaceada_123_4567_01-mathematics-1.ipynb": ("123", "01-mathematics.ipynb"),
    "lovelaceada_123_4567_01-mathematics-12.ipynb": ("123", "01-mathematics.ipynb"),
    "lovelaceada_123_4567_my_home-work-2.ipynb": ("123", "my_home-work-2.ipynb"),
    "lovelace_ada_123_4567_x.ipynb": ("123", "x.ipynb"),
    "studenttest_LATE_99_4567_x.ipynb": ("99", "x.ipynb"),
    "anon_Ab3dE_4567_x.ipynb": ("Ab3dE", "x.ipynb"),
    "anon_LATE_Ab3dE_4567_x.ipynb": ("Ab3dE", "x.ipynb"),
    "submissions/lovelaceada_123_4567_x.ipynb": ("123", "x.ipynb"),
    "123-4567 - Ada Lovelace - Nov 2, 2026 1015 AM/x.ipynb": ("123", "x.ipynb"),
    "123-4567 - Mary-Ann O'Neil - Sep 24, 2026 926 PM/a - b/x.ipynb": ("123", "a - b/x.ipynb"),
    "123-4567 - Ada Lovelace - Nov 20, 2026 1015 AM - my - work.ipynb": ("123", "my - work.ipynb"),
    "all/123-4567 - 王小明 - Dec 20, 2026 1215 AM - a_1_2_x.ipynb": ("123", "a_1_2_x.ipynb"),
}


@pytest.mark.parametrize("path", LMS)
def test_whose_a_file_is(path):
    found = whose(PurePosixPath(path), {LESSON}, {})
    assert isinstance(found, list), found
    assert [(it.student, str(it.path)) for it in found] == [LMS[path]]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("Ada_17_assignsubmission_onlinetext_/onlinetext.html", "text that Ada typed"),
        ("Ada_17_assignsubmission_onlinetext/onlinetext.html", "text that Ada typed"),
        ("Ada_17_assignsubmission_onlinetext_x.html", "text that Ada typed"),
        ("lovelaceada123_question_456_789_x.ipynb", "not named as Moodle, Canvas"),
        ("Ada_17_assignsubmission_comments_/x.html", "not a file of a submission"),
        ("123-4567 - Ada - Nov 20, 2026 1015 AM", "not named as Moodle, Canvas, Brightspace"),
        ("123-4567 - Ada - Nix 20, 2026 1015 AM/x.ipynb", "not named as Moodle, Canvas"),
        ("Ada_17_assignsubmission_file_", "a file where Moodle has a folder"),
        ("01-mathematics.ipynb", "not named as Moodle, Canvas"),
        ("Ada Lovelace/01-mathematics.ipynb", "not named as Moodle, Canvas, Brightspace, "),
        (
            "Lab_3_20_ada_attempt_2026-11-20-10-15-00_x.ipynb",
            "Blackboard's text file, Lab_3_20_ada",
        ),
        ("export/submission_7/x.ipynb", "submission_metadata.yml, which Gradescope writes"),
    ],
)
def test_why_a_file_is_nobodys(path, why):
    assert why in whose(PurePosixPath(path), {LESSON}, {})


BLACKBOARD = "Lab_3_{}_attempt_2026-11-{}-10-15-00"


def test_a_download_of_blackboard_is_sorted_by_its_text_files(tmp_path):
    (archive := tmp_path / "archive").mkdir()
    ada_l, lou, again = (BLACKBOARD.format(*it) for it in (("ada_l", 20), ("l", 21), ("ada_l", 22)))
    forged = f"{lou}_x_attempt_2026-11-23-10-15-00"  # a student's own files, named so
    with zipfile.ZipFile(archive / "gradebook.zip", "w") as file:
        for attempt, name in ((again, "Ada (L) Lovelace (ada_l)"), (lou, "Lou (l)")):
            file.writestr(f"{attempt}.txt", f"Name: {name}\r\nAssignment: Lab 3\r\n")
            file.writestr(f"{attempt}_{LESSON}.ipynb", attempt)
        file.writestr(
            f"{ada_l}.txt", "\ufeffName: Ada (L) Lovelace (ada_l)\nComments:\nName: X (l)\n"
        )
        file.writestr(f"{ada_l}_{LESSON}.ipynb", "older")
        file.writestr(f"{ada_l}_notes.txt", "mine")
        file.writestr(f"{forged}.txt", "Name: Lou (ada_l)\n")
        file.writestr(f"{forged}_{LESSON}.ipynb", "forged")
    alone = BLACKBOARD.format("eve", 20)
    (archive / f"{alone}_work.zip").write_bytes(zip_of({}))
    (archive / f"{alone}.txt").write_text("Assignment: Lab 3\n")
    done = collect(archive, tmp_path / "target", {LESSON})
    assert {student: sorted(files) for student, files in done.files.items()} == {
        "ada_l": [f"{LESSON}.ipynb", "Blackboard.txt", "notes.txt"],
        "l": [
            f"{LESSON}.ipynb",
            "Blackboard.txt",
            *sorted(f"{forged[len(lou) + 1 :]}{end}" for end in (".txt", f"_{LESSON}.ipynb")),
        ],
    }
    assert (tmp_path / "target" / "ada_l" / f"{LESSON}.ipynb").read_text() == again
    assert done.people == {"ada_l": "Ada (L) Lovelace", "l": "Lou"}
    assert set(done.left) == {f"{alone}_work.zip", f"{alone}.txt"}
    assert all("does not begin with “Name: " in why for why in done.left.values())


def test_a_download_of_brightspace_is_sorted_and_the_later_file_counts(tmp_path):
    (archive := tmp_path / "archive").mkdir()
    with zipfile.ZipFile(archive / "Lab 3 Download Nov 21, 2026 100 PM.zip", "w") as file:
        file.writestr("index.html", "<html>")
        for moment in ("Nov 9, 2026 1159 AM", "Nov 9, 2026 126 PM", "Nov 9, 2026 1205 AM"):
            file.writestr(f"12-4567 - Ada Lovelace - {moment}/{LESSON}.ipynb", moment)
        file.writestr("13-4567 - Lou - Nov 9, 2026 926 PM - work.zip", zip_of({}))
        # What a student calls so is the student's own, and makes no number another's.
        file.writestr("13-4567 - Lou - Nov 9, 2026 926 PM/12-4567 - X - Nov 9, 2026 926 PM/a", "a")
        for name in ("Eve", "Mallory"):
            file.writestr(f"14-4567 - {name} - Nov 9, 2026 926 PM/x.ipynb", name)
        file.writestr("elsewhere/index.html", "<html>")
    done = collect(archive, tmp_path / "target", {LESSON})
    assert {student: sorted(files) for student, files in done.files.items()} == {
        "12": [f"{LESSON}.ipynb"],
        "13": ["12-4567 - X - Nov 9, 2026 926 PM/a", "work.zip"],
    }
    assert (tmp_path / "target" / "12" / f"{LESSON}.ipynb").read_text() == "Nov 9, 2026 126 PM"
    assert done.people == {"12": "Ada Lovelace", "13": "Lou"}
    why = dict(sorted(done.left.items()))
    assert len(why) == 3 and "elsewhere/index.html" in why
    assert sum("the number 14 is that of Eve and Mallory" in text for text in why.values()) == 2


GRADESCOPE = """
submission_7:
  :submitters:
  - :name: Ada Lovelace
    :sid: '0017'
    :email: ada@example.edu
  - :name: Bob
    :sid:
    :email: bob@example.edu
  :created_at: 2026-11-20 10:15:00.000000000 Z
  :history: []
submission_8:
  :submitters: []
submission_9:
  :submitters:
  - :sid: ../../x
submission_10:
  :submitters:
  - :sid: 19
"""


def test_a_download_of_gradescope_is_sorted_by_its_table(tmp_path):
    (archive := tmp_path / "archive").mkdir()
    with zipfile.ZipFile(archive / "export.zip", "w") as file:
        file.writestr("assignment_1_export/submission_metadata.yml", GRADESCOPE)
        for number in (7, 8, 9, 10, 11):
            file.writestr(f"assignment_1_export/submission_{number}/sub/{LESSON}.ipynb", "x")
        # A student's own table names nobody, not even the student.
        forged = (
            ".:\n  :submitters:\n  - :sid: '0017'\nsubmission_7:\n  :submitters:\n  - :sid: 19\n"
        )
        file.writestr("assignment_1_export/submission_10/submission_metadata.yml", forged)
    done = collect(archive, tmp_path / "target", {LESSON})
    assert {student: sorted(files) for student, files in done.files.items()} == {
        "0017": [f"sub/{LESSON}.ipynb"],
        "bob@example.edu": [f"sub/{LESSON}.ipynb"],
        "19": ["sub/01-mathematics.ipynb", "submission_metadata.yml"],
    }
    why = {path.split("/")[1]: text for path, text in done.left.items()}
    assert "does not say who handed it in" in why["submission_8"]
    assert "'../../x'" in why["submission_9"]
    assert "does not name it" in why["submission_11"]
    assert len(done.left) == 3


@pytest.mark.parametrize(
    "table", ["a: [", "[1, 2]", "", "submission_7: 3", "x: !!python/name:os.system"]
)
def test_a_table_of_gradescope_that_says_nothing_is_named(tmp_path, table):
    (archive := tmp_path / "archive").mkdir()
    (archive / "submission_7").mkdir()
    (archive / "submission_7" / "x.ipynb").write_text("x")
    (archive / "submission_metadata.yml").write_text(table)
    done = collect(archive, tmp_path / "target", {LESSON})
    assert not done.files and set(done.left) == {"submission_7/x.ipynb"}
    assert "submission_metadata.yml" in done.left["submission_7/x.ipynb"]


def test_a_download_that_is_no_zip_file_is_named_with_what_to_do(tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("all.tar.gz", "all.7z", "all.rar", "Ada_17_assignsubmission_file_work.7z"):
        (archive / name).write_bytes(b"x")
    with zipfile.ZipFile(archive / "outer.zip", "w") as file:
        file.writestr("inner.zip", zip_of({}))
    done = collect(archive, tmp_path / "target", {LESSON})
    assert set(done.left) == {"all.tar.gz", "all.7z", "all.rar", "inner.zip"}
    assert all("unpack it, and put what it contains in its place" in s for s in done.left.values())
    assert done.files == {"17": {"work.7z": "Ada_17_assignsubmission_file_work.7z"}}


def test_nothing_to_collect_is_said(folder):
    done = run(folder, "lab_grader", "collect", "dora", check=False)
    assert done.returncode == 1
    place = folder / "grading" / "downloaded" / "dora" / "archive"
    assert f"nothing to collect: put the LMS's download into {place}" in done.stderr


def test_collecting_says_where_everything_went(folder):
    archive = folder / "grading" / "downloaded" / "dora" / "archive"
    archive.mkdir(parents=True)
    text = nbformat.writes(notebook_with(solutions()))
    with zipfile.ZipFile(archive / "moodle.zip", "w") as file:
        file.writestr(f"Ada_17_assignsubmission_file_/{LESSON}.ipynb", text)
        file.writestr("Ada_17_assignsubmission_onlinetext_/onlinetext.html", "<p>x</p>")
        file.writestr(f"Bob B_18_assignsubmission_file/sub/{LESSON}.ipynb", text)
        file.writestr(f"Bob B_18_assignsubmission_file/.ipynb_checkpoints/{LESSON}.ipynb", text)
        file.writestr("Eve_19_assignsubmission_file_/../../../../evil.ipynb", text)
        file.writestr("__MACOSX/Ada_17_assignsubmission_file_/._x", "")
        link = zipfile.ZipInfo("Eve_19_assignsubmission_file_/link.ipynb")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    (archive / "unpacked" / f"Cy_20_assignsubmission_file_{LESSON}.ipynb").parent.mkdir()
    (archive / "unpacked" / f"Cy_20_assignsubmission_file_{LESSON}.ipynb").write_text(text)
    (archive / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    (archive / "\x1b[2Jnotes.txt").write_text("x")

    done = run(folder, "lab_grader", "collect", "dora", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    submitted = folder / "grading" / "submitted"
    there = {str(p.relative_to(submitted)) for p in submitted.rglob("*") if p.is_file()}
    assert there == {
        f"17/dora/{LESSON}.ipynb",
        f"18/dora/sub/{LESSON}.ipynb",
        f"18/dora/.ipynb_checkpoints/{LESSON}.ipynb",
        f"20/dora/{LESSON}.ipynb",
    }
    for said in (
        f"17 (Ada): {LESSON}.ipynb, from",
        "text that Ada typed into Moodle",
        "evil.ipynb: a path that leads out of the archive (of Eve)",
        "link.ipynb: a link (of Eve)",
        "broken.zip: not a readable archive",
        "\\x1b[2Jnotes.txt: not named",
        "3 students, 5 files not collected",
    ):
        assert said in done.stdout, said
    assert not list(folder.parent.rglob("evil.ipynb"))

    by_nbgrader = run(folder, "nbgrader", "zip_collect", "dora", "--force", check=False)
    assert by_nbgrader.returncode == 1 and "Traceback" not in by_nbgrader.stderr
    assert "3 students, 5 files not collected" in by_nbgrader.stderr
    assert {str(p.relative_to(submitted)) for p in submitted.rglob("*.ipynb")} == there

    for path in archive.iterdir():
        if path.name != "unpacked":
            path.unlink()
    done = run(folder, "lab_grader", "collect", "dora")
    assert "1 students, 0 files not collected" in done.stdout
    assert len(list((folder / "grading" / "replaced" / "20").iterdir())) == 1, "nothing is lost"
    shutil.rmtree(archive / "unpacked")
    assert run(folder, "lab_grader", "collect", "dora", check=False).returncode == 1


# Which cell is which.
def handed_in(notebook):
    problems = []
    return read_cells(json.loads(nbformat.writes(notebook))["cells"], problems.append)


def mended(notebook, lesson):
    notes = []
    return mend(handed_in(notebook), lesson, notes.append), notes


def answer_in(made, grade_id):
    (cell,) = [c for c in made.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id]
    return cell.source


def lose(notebook, ids=False, metadata=False):
    for number, cell in enumerate(notebook.cells):
        if ids:
            cell.id = f"new-{number}"
        if metadata:
            cell.metadata = nbformat.from_dict({})
    return notebook


@pytest.mark.parametrize(
    ("lost", "how"),
    [({"metadata": True}, "id"), ({"ids": True}, None), ({"ids": True, "metadata": True}, "text")],
)
def test_a_cell_is_known_by_what_is_left(lesson, lost, how):
    made, notes = mended(lose(notebook_with(solutions()), **lost), lesson)
    for grade_id, text in solutions().items():
        assert answer_in(made, grade_id) == text
    names = [c.metadata.get("nbgrader", {}).get("grade_id") for c in made.cells]
    assert [n for n in names if n] == list(lesson.graded), "tests come after answers"
    assert not any("put back" in note for note in notes)
    if how:
        assert any(f"known by their {how}" in note and "recompose" in note for note in notes)


def test_answers_without_the_names_are_known_by_their_place(lesson):
    notebook = lose(notebook_with({"recompose": "recompos = 1  # a slip"}), True, True)
    found = known_cells(handed_in(notebook), lesson)
    assert found["recompose"][1] == "place"


def test_a_test_by_place_is_no_cell_of_the_students(lesson):
    notebook = lose(notebook_with(solutions()), True, True)
    tests = [i for i, c in enumerate(notebook.cells) if "check_recompose" in c.source]
    notebook.cells[tests[0]].source = "mine = 1"
    made, notes = mended(notebook, lesson)
    assert "mine = 1" in [cell.source for cell in made.cells]
    assert any("recompose-test was deleted, and is put back" in note for note in notes)


def test_a_stub_never_takes_the_place_of_what_the_student_defined(lesson):
    """Two answers in one cell, the other cell deleted; or left as it was, below the answers."""
    right = solutions()
    together = right["decompose"] + "\n" + right["recompose"]
    for delete in (True, False):
        notebook = notebook_with({"decompose": together})
        if delete:
            notebook.cells = [
                c
                for c in notebook.cells
                if c.metadata.get("nbgrader", {}).get("grade_id") != "recompose"
            ]
        made, notes = mended(notebook, lesson)
        assert "NotImplementedError" not in answer_in(made, "recompose")
        assert any("is defined in another cell" in note for note in notes)


def test_tests_that_are_put_back_come_after_the_answers(lesson):
    notebook = notebook_with({})
    notebook.cells = [c for c in notebook.cells if "nbgrader" not in c.metadata]
    for text in solutions().values():
        notebook.cells.append(nbformat.v4.new_code_cell(text))
    made, _ = mended(notebook, lesson)
    names = [c.metadata.get("nbgrader", {}).get("grade_id") for c in made.cells]
    for exercise, tests in EXERCISES.items():
        assert all(names.index(exercise) < names.index(test) for test in tests)
        assert answer_in(made, exercise) == solutions()[exercise]


@pytest.mark.parametrize("where", ["at the end", "in a new cell at the end", "reversed"])
def test_tests_that_stand_before_the_answers_are_made_after_them(lesson, where):
    notebook, right = notebook_with(solutions()), solutions()["recompose"]
    (answer,) = [c for c in notebook.cells if c.source == right]
    if where == "at the end":
        notebook.cells.remove(answer)
        notebook.cells.append(answer)
    elif where == "reversed":
        notebook.cells.reverse()
    else:
        answer.source = lesson.released["recompose"]
        notebook.cells.append(nbformat.v4.new_code_cell(right))
    made, notes = mended(notebook, lesson)
    names = [c.metadata.get("nbgrader", {}).get("grade_id") for c in made.cells]
    texts = [c.source for c in made.cells]
    assert texts.index(right) < names.index("recompose-test")
    assert any("test recompose-test came before what it asks for" in note for note in notes)


def test_an_answer_in_a_test_cell_is_kept_before_the_test(lesson):
    right = {name: text for name, text in solutions().items() if name != "recompose"}
    notebook = notebook_with(right)
    cell = next(c for c in notebook.cells if "check_recompose" in c.source)
    cell.source = f"{solutions()['recompose']}\n{cell.source}"
    made, notes = mended(notebook, lesson)
    index = next(i for i, c in enumerate(made.cells) if c.source == cell.source)
    assert made.cells[index + 1].metadata.nbgrader.grade_id == "recompose-test"
    assert "NotImplementedError" not in answer_in(made, "recompose")
    assert any("the answer in the test recompose-test" in note for note in notes)


def test_many_magics_take_no_time():
    text = "\n".join(f"%time x{n} = {n}" for n in range(5000))
    assert names_of(text).binds


# Where the work is.
def put(course, student, name, notebook):
    path = folder_of(course, student) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def work():
    return notebook_with(solutions())


def blank():
    return notebook_with({})


def older(notebook):
    """The same from a release with other texts, in each cell that is not an answer."""
    for cell in notebook.cells:
        if "raise NotImplementedError" in cell.source:
            cell.source = f"# In a few lines.\n{cell.source}"
        elif cell.cell_type == "markdown" or "checks." in cell.source:
            cell.source += "\n# As it was."
    return notebook


def zipped(course, student, name, notebook):
    (folder_of(course, student) / name).write_bytes(as_zip(notebook))


def as_zip(notebook):
    return zip_of({f"homework/{LESSON}.ipynb": nbformat.writes(notebook)})


def zip_of(members, method=zipfile.ZIP_DEFLATED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return made.getvalue()


def tar_of(members, mode="w"):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return made.getvalue()


PLACES = {
    "upper-case": (lambda c, s: put(c, s, f"{LESSON}.IPYNB", work()), "is graded as"),
    "json": (lambda c, s: put(c, s, f"{LESSON}.json", work()), "is graded as"),
    "txt": (lambda c, s: put(c, s, f"{LESSON}.ipynb.txt", work()), "is graded as"),
    "downloaded-twice": (lambda c, s: put(c, s, f"{LESSON} (1).ipynb", work()), "is graded as"),
    "subfolder": (lambda c, s: put(c, s, f"a/b/{LESSON}.ipynb", work()), "is graded as"),
    "zip": (lambda c, s: zipped(c, s, "work.zip", work()), "is graded as"),
    "checkpoint": (
        lambda c, s: put(c, s, f".ipynb_checkpoints/{LESSON}-checkpoint.ipynb", work()),
        "is graded as",
    ),
    "copy-beside-the-untouched": (
        lambda c, s: (put(c, s, f"{LESSON}.ipynb", blank()), put(c, s, "Copy1.ipynb", work())),
        f"Copy1.ipynb is graded as {LESSON}.ipynb: {LESSON}.ipynb has no finished exercise",
    ),
    "copy-beside-the-untouched-of-an-older-release": (
        lambda c, s: (put(c, s, f"{LESSON}.ipynb", older(blank())), put(c, s, "c.ipynb", work())),
        f"c.ipynb is graded as {LESSON}.ipynb: {LESSON}.ipynb has no finished exercise",
    ),
    "copies-of-two-releases-one-with-work": (
        lambda c, s: (put(c, s, "a.ipynb", older(blank())), put(c, s, "b.ipynb", older(work()))),
        f"b.ipynb is graded as {LESSON}.ipynb",
    ),
    "same-copy-twice": (
        lambda c, s: (put(c, s, "a.ipynb", work()), put(c, s, "b.ipynb", work())),
        "is graded as",
    ),
    "damaged-beside-a-copy": (
        lambda c, s: (
            (folder_of(c, s) / f"{LESSON}.ipynb").write_text('{"cells'),
            put(c, s, "copy.ipynb", work()),
        ),
        "is graded as",
    ),
}


@pytest.mark.parametrize("kind", PLACES)
def test_work_is_found_where_it_lies(folder, course, kind):
    make, said = PLACES[kind]
    make(folder, "ada")
    submission = vet(course, "ada")
    for grade_id, text in solutions().items():
        assert answer_in(submission.notebooks[LESSON], grade_id) == text
    assert any(said in text for text in submission.mended)


def test_two_that_differ_are_not_chosen_from(folder, course):
    put(folder, "ada", "a.ipynb", work())
    put(folder, "ada", "b.ipynb", notebook_with({"recompose": "# another"}))
    submission = vet(course, "ada")
    assert not submission.notebooks
    assert any("may be any of a.ipynb, b.ipynb" in text for text in submission.problems)


def test_what_is_there_instead_is_named(folder, course):
    (folder_of(folder, "ada") / "homework.txt").write_bytes(b"x")
    assert f"{LESSON}.ipynb is missing; there is homework.txt" in vet(course, "ada").problems


def test_a_wrong_level_is_graded_or_said(folder):
    submitted = folder / "grading" / "submitted"
    for student, place in {"loose": ".", "upper": "Dora", "blank": "dora "}.items():
        (submitted / student / place).mkdir(parents=True)
        nbformat.write(work(), submitted / student / place / f"{LESSON}.ipynb")
    (submitted / "other" / "homework").mkdir(parents=True)
    (submitted / "nothing").mkdir()
    (submitted / "file").mkdir()
    (submitted / "file" / "dora").touch()
    (submitted / "17").touch()
    (submitted / "dora" / "ada").mkdir(parents=True)
    nbformat.write(work(), submitted / "dora" / "ada" / f"{LESSON}.ipynb")
    nbformat.write(work(), submitted / f"{LESSON}.ipynb")
    course = Course(folder, "dora")
    assert course.students() == ["blank", "loose", "upper"]
    for student in course.students():
        submission = vet(course, student)
        assert submission.notebooks and "handed in as" in submission.mended[0]
    for name in (".git", ".ipynb_checkpoints", "__MACOSX"):  # which programs made
        (folder / "grading" / "submitted" / name / "ada").mkdir(parents=True)
    misplaced = course.misplaced()
    assert misplaced.keys() == {"other", "nothing", "file", "dora", f"{LESSON}.ipynb", "17"}
    assert "only homework" in misplaced["other"] and "swapped" in misplaced["dora"]
    assert "only dora, a file" in misplaced["file"] and "lies outside" in misplaced["17"]


def test_what_lies_beside_a_submission_is_named(folder, course):
    put(folder, "ada", f"{LESSON}.ipynb", blank())
    for name in (f"../{LESSON}.ipynb", "../Dora/other.ipynb"):
        put(folder, "ada", name, work())
    (folder_of(folder, "ada").parent / ".DS_Store").touch()
    for name in ("dora (1)", "other", ".ipynb_checkpoints"):
        (folder_of(folder, "ada").parent / name).mkdir()
    said = [text for text in vet(course, "ada").problems if "lies beside the folder dora" in text]
    assert [text.partition(" lies")[0] for text in said] == [f"{LESSON}.ipynb", "Dora", "dora (1)"]


# A right answer in a file that is damaged, or that another tool wrote.
def saved(change):
    """A notebook whose JSON was changed before it was saved."""

    def write(path):
        tree = json.loads(nbformat.writes(work()))
        path.write_bytes(json.dumps(change(tree) or tree).encode())

    return write


def of_bytes(change):
    """A notebook whose bytes were changed."""
    return lambda path: path.write_bytes(change(nbformat.writes(work()).encode()))


def every(**fields):
    return saved(lambda tree: [cell.update(fields) for cell in tree["cells"]] and None)


def without(*names):
    def change(tree):
        for part in (tree, *tree["cells"]):
            for name in names:
                part.pop(name, None)

    return saved(change)


def fence(tree):
    for cell in tree["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            cell |= {"cell_type": "markdown", "source": ["```python\n", *cell["source"], "\n```\n"]}


def texts_under(*keys):
    """The text of each cell under another key than `source`, these in turn."""

    def change(tree):
        for cell, key in zip(tree["cells"], itertools.cycle(keys)):
            cell[key] = cell.pop("source")

    return change


def kinds(change_kind):
    def change(tree):
        for cell in tree["cells"]:
            cell["cell_type"] = change_kind(cell["cell_type"])

    return change


def as_in_vs_code(tree):
    """What its interface for notebooks gives an extension, which may save it as it is."""
    languages = {"code": (2, "python"), "markdown": (1, "markdown")}
    tree["cells"] = [
        {"kind": kind, "language": language, "value": "".join(cell["source"])}
        for cell in tree["cells"]
        for kind, language in [languages[cell["cell_type"]]]
    ]


READABLE = {
    "BOM": of_bytes(lambda text: b"\xef\xbb\xbf" + text),
    "UTF-16": of_bytes(lambda text: text.decode().encode("utf-16")),
    "UTF-32": of_bytes(lambda text: text.decode().encode("utf-32")),
    "another encoding": of_bytes(
        lambda text: json.dumps(json.loads(text), ensure_ascii=False).encode("cp1252", "replace")
    ),
    "CRLF": of_bytes(lambda text: text.replace(b"\n", b"\r\n")),
    "zeros after its end": of_bytes(lambda text: text + bytes(512)),
    "what was longer before": of_bytes(lambda text: text + b'"x"]}\n  ]\n}'),
    "blanks before": of_bytes(lambda text: b"\n\n  " + text),
    "long numbers": of_bytes(
        lambda text: text.replace(b'"execution_count": null', b'"execution_count": ' + b"9" * 5000)
    ),
    "format as a text": saved(lambda tree: tree | {"nbformat": "4"}),
    "format as a fraction": saved(lambda tree: tree | {"nbformat": 4.0}),
    "no format": without("nbformat", "nbformat_minor"),
    "no kinds": without("cell_type"),
    "no metadata": without("metadata"),
    "no ids": without("id"),
    "no outputs": without("outputs", "execution_count"),
    "one id": every(id="same"),
    "metadata of another kind": every(metadata=None),
    "outputs of another kind": every(outputs=[None, {"output_type": []}]),
    "attachments of another kind": every(attachments=[1]),
    "cells that are none": saved(lambda tree: tree["cells"].extend([None, 1, "x", []])),
    "cells of other kinds": saved(
        lambda tree: tree["cells"].extend(
            [{"cell_type": kind, "source": "1"} for kind in (None, 1, [], {}, "sql", "")]
        )
    ),
    "numbers that are none": saved(lambda tree: tree["metadata"].update(x=float("nan"))),
    "a newer minor format": saved(lambda tree: tree | {"nbformat_minor": 10**30}),
    "lines without their ends": saved(
        lambda tree: (
            [c.update(source="".join(c["source"]).splitlines()) for c in tree["cells"]] and None
        )
    ),
    "kinds of another program": saved(
        lambda tree: [c.update(cell_type=f"the {c['cell_type']}") for c in tree["cells"]] and None
    ),
    "worksheets in a notebook of format 4": saved(
        lambda tree: (
            json.loads(nbformat.v3.writes_json(nbformat.convert(work(), 3)))
            | {"nbformat": 4, "nbformat_minor": 5}
        )
    ),
    "worksheets with cells of format 4": saved(lambda tree: {"worksheets": [tree]}),
    "cells under another name of their texts": saved(texts_under("value", "text", "code", "input")),
    "kinds in capitals": saved(kinds(str.upper)),
    "kinds with a blank": saved(kinds("{} ".format)),
    "cells as VS Code describes them": saved(as_in_vs_code),
    "lines within lists": saved(
        lambda tree: [c.update(source=[[[c["source"]]]]) for c in tree["cells"]] and None
    ),
    "cells by their number": saved(
        lambda tree: tree | {"cells": {str(i): c for i, c in enumerate(tree["cells"])}}
    ),
    "a list of cells": saved(lambda tree: tree["cells"]),
    "a list with one notebook": saved(lambda tree: [tree]),
    "a notebook as a text": saved(json.dumps),
    "what a Jupyter server answers": saved(lambda tree: {"type": "notebook", "content": tree}),
    "what it answers about a file": saved(lambda tree: {"content": json.dumps(tree), "size": 1}),
    "answers in fences in text cells": saved(fence),
}


@pytest.mark.parametrize("damage", READABLE)
def test_right_answers_are_read_whatever_is_beside_them(folder, course, damage):
    READABLE[damage](folder_of(folder, "ada") / f"{LESSON}.ipynb")
    submission = vet(course, "ada")
    for grade_id, text in solutions().items():
        assert answer_in(submission.notebooks[LESSON], grade_id) == text


# Archives of each kind, within each other, and under a notebook's name.
INSIDE = {f"work/{LESSON}.ipynb": nbformat.writes(work()).encode(), "work/notes.txt": b"x"}
ARCHIVES = {
    "a.zip": zip_of(INSIDE),
    "bzip2.ZIP": zip_of(INSIDE, zipfile.ZIP_BZIP2),
    "lzma.zip": zip_of(INSIDE, zipfile.ZIP_LZMA),
    "a.tar": tar_of(INSIDE),
    "a.tar.gz": tar_of(INSIDE, "w:gz"),
    "a.tgz": tar_of(INSIDE, "w:gz"),
    "a.tar.bz2": tar_of(INSIDE, "w:bz2"),
    "a.tar.xz": tar_of(INSIDE, "w:xz"),
    "zip-in.zip": zip_of({"a.zip": zip_of(INSIDE)}),
    "tar-in.zip": zip_of({"a.tar.gz": tar_of(INSIDE, "w:gz")}),
    "zip-in.tar": tar_of({"a.zip": zip_of(INSIDE)}),
    f"{LESSON}.ipynb.gz": gzip.compress(INSIDE[f"work/{LESSON}.ipynb"]),
    f"{LESSON}.ipynb": gzip.compress(INSIDE[f"work/{LESSON}.ipynb"]),
    "Untitled.ipynb": zip_of(INSIDE),
    "behind-a-program.zip": b"MZ" + bytes(300) + zip_of(INSIDE),
    "after-many-files.zip": zip_of({f"{n}.txt": b"" for n in range(25_000)} | INSIDE),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_opened_by_what_it_holds(folder, course, name):
    (folder_of(folder, "ada") / name).write_bytes(ARCHIVES[name])
    submission = vet(course, "ada")
    assert answer_in(submission.notebooks[LESSON], "recompose") == solutions()["recompose"]
    assert not submission.problems
    (said,) = submission.mended
    assert said.startswith(f"{name}/") and said.endswith(f" is graded as {LESSON}.ipynb")


def encrypted(content):
    """A zip whose only file says that it is encrypted."""
    made = bytearray(zip_of({f"{LESSON}.ipynb": content}))
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        made[made.index(header) + flags] |= 1
    return bytes(made)


def nested(depth):
    made = zip_of(INSIDE)
    for _ in range(depth):
        made = zip_of({"a.zip": made})
    return made


def linked():
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo(f"{LESSON}.ipynb")
            member.type, member.linkname = kind, "../../right/dora/01-mathematics.ipynb"
            file.addfile(member)
    return made.getvalue()


def linked_zip():
    member = zipfile.ZipInfo(f"{LESSON}.ipynb")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zip_of({member: "../../right/dora/01-mathematics.ipynb"})


NOT_OPENED = {
    "encrypted": ("a.zip", encrypted(b"{}"), "encrypted; hand it in without a password"),
    "cut": ("a.zip", ARCHIVES["a.zip"][:-100], "not a readable archive"),
    "cut tar": ("a.tar.gz", ARCHIVES["a.tar.gz"][:-200], "not a readable archive"),
    "links": ("a.tar", linked(), f"a.tar/{LESSON}.ipynb: a link; hand in the file itself"),
    "links in a zip": ("a.zip", linked_zip(), "a link; hand in the file itself"),
    "many files": (
        "a.tar",
        tar_of({f"{n}.txt": b"" for n in range(archives.MOST_MEMBERS)} | INSIDE),
        "more than 20,000 files; the rest is not looked at",
    ),
    "no archive": ("a.tgz", b"x", "not a readable archive"),
    "deep": ("a.zip", nested(5), "archives more than 4 deep are not opened"),
    "large": ("a.tar.xz", lzma.compress(bytes(3 << 20)), "more than 1 MB in archives"),
    "large within": (
        "a.zip",
        zip_of({"b.gz": gzip.compress(bytes(3 << 20))}),
        "more than 1 MB in arch",
    ),
    "rar": ("a.rar", b"Rar!", "a.rar (an archive that cannot be opened here; hand in the .ipynb"),
}


@pytest.mark.parametrize("kind", NOT_OPENED)
def test_an_archive_that_is_not_opened_is_named(folder, course, monkeypatch, kind):
    monkeypatch.setattr(archives, "MOST_UNPACKED_BYTES", 1 << 20)
    name, content, why = NOT_OPENED[kind]
    (folder_of(folder, "ada") / name).write_bytes(content)
    submission = vet(course, "ada")
    assert not submission.notebooks
    assert any(name in text and why in text for text in submission.problems), submission.problems


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (f"{LESSON}.py", "a text that does not hold the lesson's cells; hand in the .ipynb"),
        (f"{LESSON}.html", "a picture of a notebook, which cannot be run; hand in the .ipynb"),
        ("dora.gdoc", "a link to a file; hand in the file itself"),
        ("dora.tar.lz4", "an archive that cannot be opened here; hand in the .ipynb, or a .zip"),
        ("Fwd dora.eml", "an email; hand in the .ipynb that is attached to it"),
    ],
)
def test_what_is_handed_in_instead_is_named_with_what_to_do(folder, course, name, advice):
    (folder_of(folder, "ada") / name).write_text("x")
    (said,) = vet(course, "ada").problems
    assert said.startswith(f"{LESSON}.ipynb is missing; there is {name} (") and advice in said


# A right answer in a notebook that was saved as text, and by what it is known.
HEADER = "# ---\n# jupyter:\n#   jupytext:\n#     text_representation:\n#       {}\n# ---\n"
CODE = [cell.source for cell in work().cells if cell.cell_type == "code"]
MARIMO = "extension: .py\n#       format_name: marimo"
TEXTS = {
    f"{LESSON}.py": jupytext.writes(work(), "py:percent"),
    "paragraphs.py": jupytext.writes(work(), "py:light"),
    "exported by VS Code.py": "\n\n".join(f"# %%\n{text}" for text in CODE),
    "exported by Jupyter.py": "#!/usr/bin/env python\n# coding: utf-8\n\n"
    + "\n\n".join(f"# In[ ]:\n\n\n{text}" for text in CODE),
    "names a format that calls a program.py": HEADER.format(MARIMO)
    + "\n\n".join(f"# %%\n{text}" for text in CODE),
    "CRLF.PY": jupytext.writes(work(), "py:percent").replace("\n", "\r\n"),
    f"{LESSON}.md": jupytext.writes(work(), "md"),
    f"{LESSON}.Rmd": jupytext.writes(work(), "Rmd"),
    "quarto.qmd": "---\ntitle: x\n---\n"
    + "\n\n".join(f"```{{python}}\n{text}\n```" for text in CODE),
    f"no tests/{LESSON}.py": (
        ANSWERS := "import torch\n\n\n" + "\n\n\n".join(solutions().values())
    ),
    "copy_of_01_Mathematics (1).py": ANSWERS,  # as Colab names it
    f"{LESSON}.ipynb.py": ANSWERS,
    "０１ mathematics.md": "\n\n".join(f"```python\n{it}\n```" for it in solutions().values()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_notebook_that_was_saved_as_text_is_read(folder, course, name):
    path = folder_of(folder, "ada") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(TEXTS[name], newline="")
    submission = vet(course, "ada")
    code = "\n".join(cell.source for cell in submission.notebooks[LESSON].cells)
    assert all(text.rstrip() in code for text in solutions().values())
    assert f"{name} is graded as {LESSON}.ipynb" in submission.mended
    assert not submission.problems and name not in submission.files


def test_a_text_does_not_take_the_place_of_a_notebook(folder, course):
    path = hand_in(folder, "ada", {"recompose": solutions()["recompose"]})
    (path.parent / f"{LESSON}.py").write_text(TEXTS[f"{LESSON}.py"])
    (path.parent / "notes.md").write_text("# Notes\n")
    submission = vet(course, "ada")
    assert "NotImplementedError" in answer_in(submission.notebooks[LESSON], "decompose")
    assert f"{LESSON}.py is left out: not graded" in submission.mended
    assert "notes.md" in submission.files


def test_a_module_beside_a_notebook_that_imports_it_is_named(folder, course):
    imported = {"recompose": "from helper import recompose"}
    path = hand_in(folder, "ada", solutions() | imported)
    (path.parent / "helper.py").write_text(solutions()["recompose"])
    assert any("imports helper.py, which is left out" in it for it in vet(course, "ada").problems)


# What is in a notebook's place, and the one sentence about it.
NO_NOTEBOOK = {
    b"": "an empty file",
    bytes(100): "a file with nothing but blanks",
    b"null": "not a readable notebook (JSON without cells)",
    b'{"name": "lab", "version": 1}': "not a readable notebook (JSON without cells)",
    b'[{"a": "{\\"cell\\": 1}"}, "x", [[[[[[[[{"cells": [1]}]]]]]]]]]': (
        "not a readable notebook (JSON without cells)"
    ),
    b"no notebook": (
        "not a readable notebook (not JSON: Expecting value: line 1 column 1 (char 0))"
    ),
    b"<!DOCTYPE html>": "a web page under a notebook's name; download the notebook itself",
    b"%PDF-1.4": "a PDF under a notebook's name; hand in the notebook itself",
    b"\x1f\x9d\x90 of compress": (
        "what another program wrote under a notebook's name; hand in the notebook itself"
    ),
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": (
        "a pointer of Git LFS, not the file; run `git lfs pull`, and hand in the notebook"
    ),
    b'{\n<<<<<<< HEAD\n "cells": [],\n=======\n "cells": [1],\n>>>>>>> other\n}': (
        "it holds both sides of a conflict in Git; resolve it, and hand in the notebook"
    ),
    b'{"cells": [{"cell_type": "code"': "not a readable notebook (its end is missing)",
    b'{"cells": [{"cell_type": "co': "not a readable notebook (its end is missing)",
    b'{"a":' * 10**5: "not a readable notebook (nested too deeply)",
    b'{"nbformat": 4, "cells": []}': "a notebook without cells",
    b'{"nbformat": 4, "cells": {}}': "its cells are not a list of cells",
    b'{"nbformat": [], "cells": 1}': "its cells are not a list of cells",
    b'{"nbformat": 5, "cells": [1]}': "a notebook of the format 5; save it as format 4",
}


@pytest.mark.parametrize("content", NO_NOTEBOOK, ids=NO_NOTEBOOK.values())
def test_what_is_no_notebook_is_said_in_one_sentence(folder, course, content):
    (folder_of(folder, "ada") / f"{LESSON}.ipynb").write_bytes(content)
    submission = vet(course, "ada")
    assert not submission.notebooks
    assert submission.problems == [f"{LESSON}.ipynb: {NO_NOTEBOOK[content]}"]


@pytest.mark.parametrize("name", [f"._{LESSON}.ipynb", f"__MACOSX/dora/._{LESSON}.ipynb"])
def test_what_a_system_left_is_named_where_there_is_nothing_else(folder, course, name):
    path = folder_of(folder, "ada") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\5\x16\7")
    assert vet(course, "ada").problems == [f"{LESSON}.ipynb is missing; there is {name}"]


def test_a_notebook_among_what_a_system_left_is_graded(folder, course):
    put(folder, "ada", f"__MACOSX/{LESSON}.ipynb", work())
    answers = vet(course, "ada").notebooks[LESSON]
    assert answer_in(answers, "recompose") == solutions()["recompose"]


def test_nothing_beside_an_answer_takes_its_place(folder, course):
    """Folders of figures, of packages and of git hold more files than are looked at."""
    place = folder_of(folder, "ada")
    put(folder, "ada", f"work/{LESSON}.ipynb", work())
    (place / "work" / f"._{LESSON}.ipynb").write_bytes(b"\0\5\x16\7")  # of macOS
    (place / "__MACOSX" / "work").mkdir(parents=True)
    (place / "__MACOSX" / "work" / f"._{LESSON}.ipynb").write_bytes(b"\0\5\x16\7")
    deep = place / "venv" / "/".join("abcdefghijklmnopqrstuvwxyz")
    deep.mkdir(parents=True)
    for number in range(submitted.MOST_FILES):
        (place / f"00-figure-{number}.png").write_bytes(b"x")
        (place / "venv" / f"{number}.json").write_text("{}")
    submission = vet(course, "ada")
    assert answer_in(submission.notebooks[LESSON], "recompose") == solutions()["recompose"]
    assert submission.problems == [
        f"folders more than {submitted.MOST_DEPTH} deep are left out",
        f"more than {submitted.MOST_FILES} files; the rest is left out",
    ]


def test_nothing_beside_an_answer_takes_its_place_in_an_archive(folder, course):
    place = folder_of(folder, "ada")
    with zipfile.ZipFile(place / "Archive.zip", "w") as file:
        for number in range(submitted.MOST_FILES):
            file.writestr(f"dora/venv/lib/{number}.json", "{}")
        file.writestr(f"__MACOSX/dora/._{LESSON}.ipynb", b"\0\5\x16\7")
        file.writestr(f"dora\\{LESSON}.ipynb", nbformat.writes(work()))  # as Windows packs it
    submission = vet(course, "ada")
    assert answer_in(submission.notebooks[LESSON], "recompose") == solutions()["recompose"]
    assert not submission.problems


def test_folders_without_an_end_cost_no_answer(folder, course, monkeypatch):
    place = hand_in(folder, "ada", solutions()).parent
    monkeypatch.chdir(place)
    for _ in range(50):
        os.mkdir("d" * 255)
        os.chdir("d" * 255)
    submission = vet(course, "ada")
    assert answer_in(submission.notebooks[LESSON], "recompose") == solutions()["recompose"]
    assert any("too long a path" in text for text in submission.problems)


@pytest.mark.parametrize("name", [LESSON, f"{LESSON}.ipynb.crdownload", "homework", "a.download"])
def test_a_notebook_is_known_by_what_it_holds(folder, course, name):
    put(folder, "ada", name, work())
    submission = vet(course, "ada")
    assert answer_in(submission.notebooks[LESSON], "recompose") == solutions()["recompose"]
    assert f"{name} is graded as {LESSON}.ipynb" in submission.mended


def test_a_link_in_the_place_of_a_submission_is_named(folder, course):
    hand_in(folder, "ada", solutions())
    (folder / "grading" / "submitted" / "eve").mkdir()
    os.symlink(folder_of(folder, "ada"), folder / "grading" / "submitted" / "eve" / "dora")
    assert course.students() == ["ada"]
    assert course.misplaced()["eve"] == "has no folder dora; there is only dora, a link"


# What a submission can make long or large.
def test_many_large_notebooks_have_a_total(folder, course, monkeypatch):
    for number in range(30):
        with open(folder_of(folder, "eve") / f"{number}.ipynb", "wb") as file:
            file.truncate(20 << 20)  # sparse
    monkeypatch.setattr(vetting, "MOST_NOTEBOOKS_BYTES", 40 << 20)
    submission = vet(course, "eve")
    assert not submission.notebooks
    assert sum("more than 40 MB of notebooks" in text for text in submission.problems) == 28


@needs_bwrap
def test_bombs_end_in_a_sentence_beside_an_honest_student(folder):
    hand_in(folder, "ada", solutions())
    (folder_of(folder, "bomb") / f"{LESSON}.ipynb").write_bytes(b"[" + b"[],[]," * (25 << 20))
    (folder_of(folder, "deep") / f"{LESSON}.ipynb").write_bytes(b'{"a":' * 10**6)
    with zipfile.ZipFile(folder_of(folder, "zip") / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{LESSON}.ipynb", b" " * (300 << 20))
    done = grade(folder, "--no-feedback", check=False)
    found = marks(folder)
    assert found["ada"] == marks_without()
    assert all(not any(found[name].values()) for name in ("bomb", "deep", "zip"))
    assert "Traceback" not in done.stdout + done.stderr


# Damage of any kind.
def damaged(notebook, seed):
    """Change a notebook's JSON at random: values of other types, lost and doubled parts."""
    rng = random.Random(seed)
    odd = [None, True, -1, 1e308, "", "\ud83d", "\0", [], {}, [[]], {"a": None}, "x" * 1000, 2**70]
    tree = copy.deepcopy(notebook)
    for _ in range(rng.randint(0, 8)):  # what a cell is read by
        key = rng.choice(["source", "cell_type", "attachments", "metadata", "id", "outputs"])
        rng.choice(tree["cells"])[key] = copy.deepcopy(rng.choice(odd))
    for _ in range(rng.randint(1, 4)):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = rng.choice(list(keys))
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
                node = node[key]
                continue
            change = rng.random()
            if change < 0.5:
                node[key] = copy.deepcopy(rng.choice(odd))  # or it could come to be within itself
            elif change < 0.75:
                del node[key]
            elif isinstance(node, list):
                node.insert(key, copy.deepcopy(node[key]))
            break
    text = json.dumps(tree).encode()
    if rng.random() < 0.2:
        at = rng.randrange(len(text))
        text = (
            text[:at] + bytes(rng.randrange(256) for _ in range(3)) + text[at + rng.randrange(9) :]
        )
    return text


FEW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FEW
@example(29, [b"caf\xe9", b"a.b"])  # half of a character in a text cell
@given(st.integers(0, 2**32), st.lists(st.binary(min_size=1, max_size=12), max_size=4))
def test_no_notebook_and_no_name_makes_vetting_fail(folder, course, seed, names):
    place = folder_of(folder, "eve")
    shutil.rmtree(place)
    place.mkdir()
    (place / f"{LESSON}.ipynb").write_bytes(damaged(json.loads(nbformat.writes(work())), seed))
    for name in names:
        name = name.replace(b"/", b"_").replace(b"\0", b"_")
        if name not in (b".", b".."):
            Path(os.fsdecode(os.fsencode(place) + b"/" + name + b".py")).write_bytes(b"")
    submission = vet(course, "eve")
    key_of(job_of(course, submission, Limits(), sandbox=True))
    for notebook in submission.notebooks.values():
        nbformat.validate(notebook)
        nbformat.writes(notebook).encode()


@settings(FEW, max_examples=12)
@given(st.integers(0, 2**32))
def test_what_was_vetted_is_recorded(folder, course, seed):
    path = folder_of(folder, "eve") / f"{LESSON}.ipynb"
    path.write_bytes(damaged(json.loads(nbformat.writes(work())), seed))
    submission = vet(course, "eve")
    outputs = {name: [[] for _ in n.cells] for name, n in submission.notebooks.items()}
    Recorder(course).record(submission, "key", Result(outputs, []))


@needs_bwrap
def test_what_decides_a_penalty_decides_whether_it_is_recorded_anew(folder):
    hand_in(folder, "late", solutions())
    (folder_of(folder, "late") / "timestamp.txt").write_text("2026-11-25 12:00:00 UTC")

    def penalty():
        grade(folder, "--no-feedback")
        with Gradebook(database(folder)) as gradebook:
            return gradebook.find_submission("dora", "late").late_submission_penalty

    def due(when):
        with Gradebook(database(folder)) as gradebook:
            gradebook.find_assignment("dora").duedate = when
            gradebook.db.commit()

    assert not penalty()
    config = folder / "nbgrader_config.py"
    before = config.read_text()
    config.write_text(f"{before}\nc.LateSubmissionPlugin.penalty_method = 'zero'\n")
    assert not penalty()
    due(datetime(2026, 11, 25, 11))
    assert penalty() == 10
    due(datetime(2026, 11, 25, 13))
    assert not penalty()
    due(datetime(2026, 11, 25, 11))
    assert penalty() == 10
    config.write_text(before)
    assert not penalty()
    (folder_of(folder, "late") / "timestamp.txt").write_text("2026-11-25 10:00:00 UTC")
    config.write_text(f"{before}\nc.LateSubmissionPlugin.penalty_method = 'zero'\n")
    assert not penalty()

    note = folder / "grading" / "recorded" / "dora" / "late.json"
    for text in ("", "{", "null", '{"key": 1}', "[" * 100_000):
        note.write_text(text)
        assert marks(folder)["late"] == marks_without()
    note.write_bytes(b"\xff\xfe")
    done = grade(folder, "--no-feedback")
    assert "were damaged; recorded again" in done.stdout


def test_cells_under_a_number_of_any_length_are_read():
    """Python refuses to read a whole number of more than 4,300 digits."""
    cells = {
        key: {"cell_type": "code", "source": f"x{len(key)}"} for key in ("10", "9", "1" * 5000)
    }
    found = cells_of(json.dumps({"cells": cells}).encode(), [].append)
    assert [cell["source"] for cell in found] == ["x5000", "x1", "x2"]
