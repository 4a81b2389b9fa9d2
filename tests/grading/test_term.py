"""A term: release, collect the LMS's zip, grade, mark by hand, feedback, export, regrade."""

import csv
import shutil
import zipfile

import nbformat
import pytest
import release
from classroom import (
    LESSON,
    database,
    grade,
    marks,
    marks_without,
    notebook_with,
    outputs,
    run,
    solutions,
    text_of,
    write_course,
)
from nbgrader.api import Gradebook

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

MOST = sum(marks_without().values()) + 4 + 3


def manual(cell, grade_id, points):
    cell.id = grade_id
    cell.metadata["nbgrader"] = {
        "grade": True,
        "grade_id": grade_id,
        "locked": False,
        "points": points,
        "schema_version": 3,
        "solution": True,
        "task": False,
    }
    return cell


def with_answers_for_people(path):
    """Add a text and some code to a lesson that a person marks."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [
        manual(nbformat.v4.new_markdown_cell("Your plan here."), "plan", 4),
        manual(nbformat.v4.new_code_cell("# your experiment here"), "experiment", 3),
    ]
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def term(tmp_path_factory):
    """A course after collecting and grading; the zip is as Moodle makes it."""
    course = write_course(tmp_path_factory.mktemp("term") / "course")
    with_answers_for_people(course / "solutions" / "dora" / f"{LESSON}.ipynb")
    run(course, "nbgrader", "generate_assignment", "dora")

    busy = nbformat.read(course / "notebooks" / "dora" / f"{LESSON}.ipynb", as_version=4)
    for cell in busy.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = solutions().get(grade_id, cell.source)
    busy.cells[-2].source = "Measure, then decide."
    busy.cells[-1].source = "from lab_utils import layers\nprint(layers.DoRALayer.__name__, 6 * 7)"
    lazy = notebook_with({})
    archive = course / "grading" / "downloaded" / "dora" / "archive"
    archive.mkdir(parents=True)
    with zipfile.ZipFile(archive / "submissions.zip", "w") as file:
        for name, notebook in (("Ada Lovelace_17", busy), ("Bob Lazy_18", lazy)):
            path = f"{name}_assignsubmission_file/{LESSON}.ipynb"
            file.writestr(path, nbformat.writes(notebook))
    run(course, "nbgrader", "zip_collect", "dora", "--force")
    run(
        course,
        "nbgrader",
        "db",
        "student",
        "add",
        "17",
        "--last-name=Lovelace",
        "--email=ada@example.org",
    )
    return course, grade(course).stdout


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_was_collected_is_graded(term):
    course, _ = term
    found = marks(course)
    assert found["17"] == marks_without() | {"plan": None, "experiment": None}
    lost = dict.fromkeys(found["18"], 0)
    assert found["18"] == lost, "what was left as it was earns nothing, without a person"


def test_answers_for_people_are_run_and_listed(term):
    course, printed = term
    assert "DoRALayer 42" in text_of(outputs(course, "17")["experiment"])
    line = f"  17: {LESSON}: experiment; {LESSON}: plan\n"
    assert f"Waits for a person's mark, in Formgrader\n{line}" in printed
    assert f"18: {LESSON}: experiment" not in printed


def test_a_student_who_handed_in_nothing_is_named(term):
    done = grade(term[0], "--students", "17", "nobody", check=False)
    assert done.returncode == 1
    assert "nothing was handed in by nobody" in done.stderr


def test_marks_by_hand_feedback_and_export(term):
    course, _ = term
    with Gradebook(database(course)) as gradebook:
        for name, points in (("plan", 3.5), ("experiment", 3)):
            found = gradebook.find_grade(name, LESSON, "dora", "17")
            found.manual_score, found.needs_manual_grade = points, False
        found = gradebook.find_grade("decompose-rows", LESSON, "dora", "17")
        found.manual_score, found.extra_credit = 1.5, 0.5
        gradebook.find_comment("plan", LESSON, "dora", "17").manual_comment = "Why this one?"
        gradebook.db.commit()
    run(course, "lab_grader", "feedback", "dora")
    page = course / "grading" / "feedback" / "17" / "dora" / "index.html"
    assert "Why this one?" in page.read_text()

    run(course, "lab_grader", "export", "dora")
    tables = course / "grading" / "marks"
    ada, bob = rows(tables / "dora.csv")
    assert ada["student_id"] == "17"
    assert ada["last_name"] == "Lovelace"
    assert [ada[f"{LESSON}/{e}"] for e in ("decompose", "recompose", "count-trainable")] == [
        "5.0",
        "2.0",
        "3.0",
    ]
    assert (ada[f"{LESSON}/plan"], ada[f"{LESSON}/experiment"]) == ("3.5", "3.0")
    assert (float(ada["score"]), float(ada["max_score"]), ada["to_mark"]) == (16.5, MOST, "0")
    assert float(bob["score"]) == 0

    possible, ada, _ = rows(tables / "dora-canvas.csv")
    assert possible["Student"].strip() == "Points Possible"
    assert float(possible["dora"]) == MOST
    assert (ada["Student"], ada["SIS User ID"], float(ada["dora"])) == ("Lovelace", "17", 16.5)
    assert rows(tables / "dora-moodle.csv") == [
        {"ID number": "", "Email address": "ada@example.org", "dora": "16.5"}
    ], "17 is the participant's number, which Moodle does not know as an ID number"


def test_marks_by_hand_stay_in_a_regrade_by_either(term):
    """By `make grade`, and by nbgrader itself, as Formgrader's button does it."""
    course, _ = term
    before = marks(course)
    grade(course, "--again")
    run(course, "nbgrader", "autograde", "dora", "--student", "17", "--force")
    with Gradebook(database(course)) as gradebook:
        scores = [
            gradebook.find_grade(n, LESSON, "dora", "17").score for n in ("plan", "experiment")
        ]
        assert scores == [3.5, 3]
        found = gradebook.find_grade("decompose-rows", LESSON, "dora", "17")
        assert (found.auto_score, found.manual_score, found.score) == (2, 1.5, 2.0)
        comment = gradebook.find_comment("plan", LESSON, "dora", "17").comment
        assert comment == "Why this one?"
    assert marks(course) == before
    assert release.NOTEBOOKS.exists()
