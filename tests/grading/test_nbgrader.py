"""Stock nbgrader grades real submissions: release, autograde, feedback, export, validate."""

import csv
import shutil
import subprocess

import nbformat
import pytest
import release
from classroom import (
    STOCK,
    cell_of,
    database,
    folder_of,
    grade,
    make_course,
    notebook_with,
    points_of,
    run,
    solutions_of,
    told,
    without_demonstrations,
)
from nbgrader.api import Gradebook
from nbgrader.validator import Validator

LESSONS = ("01-mathematics", "02-from-scratch")

POINTS = points_of(*LESSONS)


def right():
    """The solved exercises of both lessons, by `grade_id`."""
    return solutions_of(LESSONS)


def replaced(grade_id, *pairs):
    """A solution with some text replaced: what a student got wrong."""
    source = right()[grade_id]
    for correct, wrong in pairs:
        assert correct in source, correct
        source = source.replace(correct, wrong)
    return source


def half_right():
    """Rows only, LoRA parameters only; a DoRA layer without axis, detach and dropout."""
    return right() | {
        "decompose": replaced("decompose", ("dim=norm_dim", "dim=1")),
        "count-trainable": replaced("count-trainable", ('method == "dora"', "False")),
        "dora-layer": replaced(
            "dora-layer",
            ("dim=norm_dim", "dim=1"),
            ("dim=self.norm_dim", "dim=1"),
            ("updated.detach()", "updated"),
            ("self.dropout(x), factor", "x, factor"),
        ),
    }


def crashing():
    """A syntax error in one exercise, an error at run time in another, an exit in a third."""
    return right() | {
        "decompose": "def decompose(weight, norm_dim=1, eps=1e-8)\n    return weight, weight",
        "recompose": "def recompose(magnitude, direction):\n    raise SystemExit",
        "dora-layer": replaced("dora-layer", ("factor = self.factor()", "factor = self.norm()")),
    }


# What each student hands in, and the points that are lost.
STUDENTS = {
    "perfect": (right, {}),
    "blank": (dict, POINTS),
    "half-right": (
        half_right,
        {"decompose-columns", "count-dora"} | {"dora-axis", "dora-gradients", "dora-dropout"},
    ),
    "crashing": (
        crashing,
        {"decompose-rows", "decompose-columns", "decompose-zeros", "recompose-test"}
        | {"dora-start", "dora-forward", "dora-axis", "dora-gradients", "dora-dropout"}
        | {"dora-merge"},
    ),
}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder in which the submissions were graded, without the demonstrations."""
    folder = make_course(tmp_path_factory.mktemp("course"), *STOCK, lessons=LESSONS)
    for student, (answers, _) in STUDENTS.items():
        for lesson in LESSONS:
            path = folder_of(folder, student) / f"{lesson}.ipynb"
            nbformat.write(without_demonstrations(notebook_with(answers(), lesson)), path)
    hand_in_with_a_deleted_test(folder)
    run(folder, "nbgrader", "autograde", "dora")
    return folder


def hand_in_with_a_deleted_test(course):
    """One lesson, without the test that it would fail, beside a file that shadows a module."""
    notebook = notebook_with(right() | {"decompose": "decompose = None"})
    notebook.cells.remove(cell_of(notebook, "decompose-rows"))
    folder = folder_of(course, "deleter")
    nbformat.write(without_demonstrations(notebook), folder / "01-mathematics.ipynb")
    (folder / "torch.py").write_text("raise SystemExit")


def test_the_release_holds_notebooks_only(course):
    files = sorted(path.name for path in (course / "notebooks" / "dora").iterdir())
    assert files == [f"{lesson}.ipynb" for lesson in LESSONS]


@pytest.mark.parametrize("student", STUDENTS)
def test_marks_of_each_exercise(course, student):
    lost = STUDENTS[student][1]
    expected = {grade_id: 0 if grade_id in lost else p for grade_id, p in POINTS.items()}
    with Gradebook(database(course)) as gradebook:
        submission = gradebook.find_submission("dora", student)
        grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
        assert {grade.name: grade.max_score for grade in grades} == POINTS
        assert {grade.name: grade.auto_score for grade in grades} == expected
        assert submission.score == sum(expected.values())


def test_feedback_names_the_mistakes(course):
    run(course, "nbgrader", "generate_feedback", "dora")
    page = course / "grading" / "feedback" / "half-right" / "dora" / "02-from-scratch.html"
    assert "Known mistake: norm over the wrong axis." in page.read_text()
    blank = course / "grading" / "feedback" / "blank" / "dora" / "01-mathematics.html"
    assert "is not written yet" in blank.read_text()


def test_export(course):
    run(course, "nbgrader", "export", "--to", "grades.csv")
    with open(course / "grades.csv", newline="") as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    total = sum(POINTS.values())
    assert scores.keys() == {*STUDENTS, "deleter"}
    assert scores["perfect"] == total
    assert scores["blank"] == 0
    assert all(0 < scores[name] < total for name in ("half-right", "crashing"))


def test_nothing_of_a_students_code_or_mark_is_tracked_by_git():
    for name in ("grading/gradebook.db", "grading/submitted/a/dora/01-mathematics.ipynb"):
        done = subprocess.run(["git", "check-ignore", "-q", name], cwd=release.ROOT)
        assert done.returncode == 0, name


def test_validate(tmp_path):
    """What the Validate button does. (The command exits with 0 whatever it finds.)"""
    path = tmp_path / "01-mathematics.ipynb"
    nbformat.write(notebook_with({"recompose": right()["recompose"]}), path)
    result = Validator().validate(str(path))
    others = points_of("01-mathematics").keys() - {"recompose-test"}
    assert len(result["failed"]) == len(others)
    assert "changed" not in result


def test_a_deleted_test_cell_comes_back_and_a_shadowing_file_is_not_graded(course):
    with Gradebook(database(course)) as gradebook:
        found = gradebook.find_submission_notebook("01-mathematics", "dora", "deleter")
        scores = {grade.name: grade.auto_score for grade in found.grades}
    assert scores["decompose-rows"] == 0
    assert scores["recompose-test"] == 2


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")
def test_lab_grader_gives_the_same_marks_and_says_the_same(course):
    """The checks run outside the student's process there, and inside of it here."""
    stock = {student: told(course, student, LESSONS) for student in STUDENTS}
    grade(course, "--no-feedback", "--students", *STUDENTS)
    for student in STUDENTS:
        test_marks_of_each_exercise(course, student)
        assert told(course, student, LESSONS) == stock[student], student
