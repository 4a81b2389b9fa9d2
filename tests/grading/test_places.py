"""Files, folders and links that are not as they have to be: one sentence, and the class goes on."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
import release
from classroom import (
    LESSON,
    database,
    folder_of,
    grade,
    hand_in,
    make_course,
    marks,
    marks_without,
    run,
    solutions,
)
from nbgrader.api import Gradebook

from lab_grader.intake.course import Course, CourseError, spelled_alike
from lab_grader.places import about_file, misfit, not_writable

RELEASED = f"notebooks/dora/{LESSON}.ipynb"
FOLDERS = [
    *("notebooks", "notebooks/dora", "grading", "grading/submitted", "grading/feedback"),
    *("grading/autograded", "grading/cache", "grading/marks", "grading/vetted", "grading/recorded"),
    *("grading/recorded/dora", "grading/history", "grading/history/dora"),
]
FILES = [
    *("nbgrader_config.py", "grading/gradebook.db", "grading/grading.lock", RELEASED),
    *("grading/marks/dora.csv", "grading/marks/dora-moodle.csv"),
]


def clear(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def a_file(path):
    clear(path).write_text("x")


def a_folder(path):
    clear(path).mkdir()


def a_pipe(path):
    os.mkfifo(clear(path))


def a_link_to_nothing(path):
    clear(path).symlink_to("/no/where")


def a_link_to_itself(path):
    clear(path).symlink_to(path.name)


WRONG = [
    *((path, made) for path in FOLDERS for made in (a_file, a_link_to_nothing, a_link_to_itself)),
    *((path, made) for path in FILES for made in (a_folder, a_link_to_nothing, a_link_to_itself)),
    *((path, a_pipe) for path in ("grading/grading.lock", "grading/cache", RELEASED)),
]


@pytest.mark.parametrize(("path", "made"), WRONG, ids=lambda it: getattr(it, "__name__", it))
def test_a_misfit_of_the_course_is_one_sentence_before_anything_runs(tmp_path, path, made):
    course = make_course(tmp_path / "course")
    made(course / path)
    with pytest.raises(CourseError) as told:
        Course(course, "dora")
    said = str(told.value)
    wanted = "a folder" if path in FOLDERS else "a file"
    assert str(course / path) in said and wanted in said and "run this again" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.CourseDirectory.root =", "SyntaxError"),
        ("c.NoSuch.thing = undefined_name", "NameError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("open('/no/such/file')", "/no/such/file: No such file or directory"),
    ],
)
def test_a_configuration_that_fails_is_one_sentence(tmp_path, line, said):
    course = make_course(tmp_path / "course", line)
    number = len((course / "nbgrader_config.py").read_text().splitlines())
    with pytest.raises(CourseError) as told:
        Course(course, "dora")
    assert said in str(told.value)
    assert f"fails on line {number}" in str(told.value) or "No such file" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.CourseDirectory.ignore = 5", "The 'ignore' trait of a CourseDirectory instance"),
        ("c.CourseDirectory.release_directory = None", "The 'release_directory' trait of"),
        *(
            (f"c.ExecutePreprocessor.timeout = {value}", "timeout must be the seconds")
            for value in ("-1", "0", "None")
        ),
        ("c.ExecutePreprocessor.timeout = 'x'", "The 'timeout' trait of"),
    ],
)
def test_a_setting_of_another_kind_is_one_sentence(tmp_path, line, said):
    course = make_course(tmp_path / "course", line)
    with pytest.raises(CourseError) as told:
        Course(course, "dora")
    assert said in str(told.value) and "nbgrader_config.py" in str(told.value)


def test_a_configuration_in_another_encoding_is_one_sentence(tmp_path):
    course = make_course(tmp_path / "course")
    config = course / "nbgrader_config.py"
    config.write_bytes(config.read_text().encode("utf-16"))
    with pytest.raises(CourseError, match=r"nbgrader_config.py fails \(SyntaxError"):
        Course(course, "dora")


@pytest.mark.parametrize(
    "content", [b"", b'{"cells": [', b"[]", b"\0\5", b"<<<<<<< HEAD\n{}", b"\xff"]
)
def test_a_release_that_is_no_notebook_is_one_sentence(tmp_path, content):
    course = make_course(tmp_path / "course")
    (course / RELEASED).write_bytes(content)
    with pytest.raises(CourseError, match=r"is not a readable notebook .*: run make release again"):
        Course(course, "dora")


def test_a_database_that_needs_another_package_is_one_sentence(tmp_path):
    course = make_course(tmp_path / "course", "c.CourseDirectory.db_url = 'mysql://x/y'")
    with pytest.raises(CourseError, match=r"No module named 'MySQLdb'\): install it, or mend"):
        Course(course, "dora")


def test_what_a_system_left_is_no_lesson(tmp_path):
    course = make_course(tmp_path / "course")
    (course / "notebooks" / "dora" / f"._{LESSON}.ipynb").write_bytes(b"\0\5\x16\7")
    assert list(Course(course, "dora").lessons) == [LESSON]


@pytest.mark.parametrize("name", ["", ".", "..", "dora/", "./dora", "../dora", "/dora"])
def test_what_is_no_name_of_an_assignment_is_one_sentence(tmp_path, name):
    course = make_course(tmp_path / "course")
    with pytest.raises(CourseError, match="is not the name of an assignment: give one like dora"):
        Course(course, name)


def test_an_assignment_that_is_not_released_is_told_with_those_that_are(tmp_path):
    course = make_course(tmp_path / "course")
    with pytest.raises(CourseError, match=r"run make release first, or name .* released: dora\."):
        Course(course, "Dora")


def test_ids_that_people_take_for_the_same_are_told():
    written_twice = ["jos\u00e9", "jose\u0301"]
    told = spelled_alike(["ada", "Ada", "\uff21da", "bob", *written_twice])
    assert told.keys() == {"ada", "Ada", "\uff21da", *written_twice}
    assert told["ada"] == "spelled almost as 'Ada', '\\uff21da': is this one student or two?"
    assert "'jose\\u0301'" in told[written_twice[0]]
    assert spelled_alike(["ada", "adam", "bob"]) == {}


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")
def test_a_misfit_of_one_student_is_told_and_the_others_are_graded(tmp_path):
    """Modules beside the course and in `PYTHONPATH` replace none of the same name, meanwhile."""
    course = make_course(tmp_path / "course")
    kept = {
        "autograded": "grading/autograded/autograded",
        "vetted": "grading/vetted/vetted/dora",
        "page": "grading/feedback/page/dora",
    }
    for student in ("honest", "Honest", *kept):
        hand_in(course, student, solutions())
    for path in kept.values():
        a_file(course / path)
    a_link_to_nothing(course / "grading" / "submitted" / "nothing")
    a_link_to_itself(course / "grading" / "submitted" / "circle")
    a_link_to_itself(folder_of(course, "within"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("random", "typing", "json", "numpy", "torch", "nbformat"):
        (elsewhere / f"{name}.py").write_text("raise RuntimeError('mine')")
    shutil.copy(elsewhere / "torch.py", course)

    done = run(
        *(course, "lab_grader", "grade", "dora", "--jobs", "1"),
        environment={"PYTHONPATH": str(elsewhere)},
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Error" not in done.stdout, done.stdout
    for student, path in kept.items():
        assert f"  {student}: " in done.stdout
        assert f"{course / path} is a file, and must be a folder" in done.stdout
    assert "page: no page: " in done.stdout
    for student in ("nothing", "circle"):
        assert f"  {student}: is a link that leads to no folder" in done.stdout
    assert "  within: has no folder dora; there is only dora, a link" in done.stdout
    assert "  Honest: spelled almost as 'honest'" in done.stdout
    found = marks(course)
    assert found["honest"] == found["page"] == marks_without()

    for path in kept.values():
        (course / path).unlink()
    done = grade(course, check=False)
    assert {s: marks(course)[s] for s in kept} == dict.fromkeys(kept, marks_without())
    assert (course / "grading" / "feedback" / "page" / "dora" / "index.html").is_file()


def about(number, *names):
    return about_file(OSError(number, os.strerror(number), *names))


def test_what_is_said_of_an_error_names_the_path_that_is_to_blame(tmp_path, monkeypatch):
    file, folder = tmp_path / "file", tmp_path / "folder"
    a_file(file)
    a_folder(folder)
    a_link_to_nothing(tmp_path / "link")
    must_be_a_folder = f"{file} is a file, and must be a folder: move it away"
    assert must_be_a_folder in about(errno.EEXIST, str(file))
    assert must_be_a_folder in about(errno.ENOTDIR, str(file / "a" / "b"))
    assert must_be_a_folder in about(errno.ENOTDIR, os.fsencode(file / "a"))
    must_be_a_file = f"{folder} is a folder, and must be a file: move it away"
    assert must_be_a_file in about(errno.EISDIR, str(folder))
    assert must_be_a_file in about(errno.EISDIR, str(tmp_path / ".writing-x"), None, str(folder))
    assert f"{tmp_path / 'link'} is a link to /no/where" in about(
        errno.ENOENT, str(tmp_path / "link" / "a")
    )
    for number in (errno.EACCES, errno.EPERM, errno.EROFS):
        for path in (file, folder, tmp_path / "new"):  # root may do anything: the folder refuses
            said = about(number, str(path))
            assert said.startswith(f"{tmp_path} cannot be read or written: give yourself the right")
        monkeypatch.setattr(os, "access", lambda path, rights: path != file)
        assert about(number, str(file)).startswith(f"{file} cannot be read or written")
        monkeypatch.undo()
    assert about(errno.EIO, str(folder)).startswith(f"{folder}: Input/output error")
    assert about(errno.ENOSPC).startswith("the disk is full. Free some space")
    assert about(errno.EIO, str(file)).startswith(f"{file}: Input/output error")
    assert about_file(OSError("only this")) == "only this; what was graded is kept."
    assert about(errno.EBADF, 5).startswith("Bad file descriptor")


def test_what_is_right_or_not_there_yet_is_no_misfit(tmp_path):
    a_folder(tmp_path / "folder")
    a_file(tmp_path / "file")
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "to-file").symlink_to("file")
    for path in ("folder", "to-folder", "new", "folder/new/new"):
        assert misfit(tmp_path / path, folder=True) == ""
        assert not_writable(tmp_path / path) == ""
    for path in ("file", "to-file", "new", "to-folder/new"):
        assert misfit(tmp_path / path, folder=False) == ""


@pytest.mark.parametrize(
    ("path", "right"),
    [
        *((path, os.R_OK) for path in ("grading/submitted", "notebooks/dora", "grading/marks")),
        *((path, os.W_OK) for path in ("grading", "grading/marks", "grading/autograded")),
    ],
)
def test_a_folder_without_permission_is_told_before_anything_runs(
    tmp_path, monkeypatch, path, right
):
    course = make_course(tmp_path / "course")
    closed = course / path
    closed.mkdir(exist_ok=True)
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda p, asked: access(p, asked) and not (Path(p) == closed and asked & right),
    )
    with pytest.raises(CourseError, match=f"{closed} cannot be read or written: give yourself"):
        Course(course, "dora").only_grader()


def test_a_lesson_that_comes_after_submissions_is_refused_with_what_to_do(tmp_path, monkeypatch):
    course = make_course(tmp_path / "course")
    with Gradebook(database(course)) as gradebook:
        gradebook.update_or_create_student("ada")
        gradebook.update_or_create_submission("dora", "ada")
    for suffix in (".py", ".ipynb"):
        shutil.copy(release.SOLUTIONS / f"03-decomposition{suffix}", course / "solutions" / "dora")
    monkeypatch.setattr(release, "ROOT", course)
    (course / "new").mkdir()
    with pytest.raises(release.WorkWouldBeLost, match="a lesson, test or exercise was added") as it:
        release.generate_assignment(course / "new")
    command = re.search(r"`nbgrader (db assignment remove dora --force)`", str(it.value))[1]
    run(course, "nbgrader", *command.split())
    made = release.generate_assignment(course / "new")
    assert [path.stem for path in made] == [LESSON, "03-decomposition"]
