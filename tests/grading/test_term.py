"""The term of the README, with twelve students: release, collect what Moodle and Canvas hand out,
grade, look, mark by hand, report, give back, export, more time for one, regrade.

Of the twelve two are absent, one is late and one handed in at a wrong place.
"""

import csv
import re
import shutil
import zipfile

import nbformat
import pytest
import release
from classroom import (
    LESSON,
    POINTS,
    database,
    grade,
    marks,
    marks_without,
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


WRONG_AXIS = (
    "def decompose(weight, norm_dim=1, eps=1e-8):\n"
    "    magnitude = weight.norm(dim=1 - norm_dim, keepdim=True)\n"
    "    return magnitude, weight / magnitude.clamp_min(eps)\n"
)
ADDS = "def recompose(magnitude, direction):\n    return magnitude + direction\n"
ROSTER = """id,first_name,last_name,email,lms_user_id
17,Ada,Lovelace,ada@example.org,s100
18,Bob,Lazy,bob@example.org,s101
41,Carl,Absent,carl@example.org,s102
42,Dora,Absent,dora@example.org,s103
"""


def written(course, answers):
    """The notebook as it was handed out, with answers."""
    notebook = nbformat.read(course / "notebooks" / "dora" / f"{LESSON}.ipynb", as_version=4)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    return nbformat.writes(notebook)


def hand_in_by_lms(course):
    """Put into the archive what Moodle (folders and flat names) and Canvas hand out."""
    experiment = "from lab_utils import layers\nprint(layers.DoRALayer.__name__, 6 * 7)"
    busy = solutions() | {"plan": "Measure, then decide.", "experiment": experiment}
    files = {
        "moodle": {
            "Ada Lovelace_17_assignsubmission_file_/01-mathematics.ipynb": busy,
            "Bob Lazy_18_assignsubmission_file/01-mathematics.ipynb": {},
            "Eve Axis_19_assignsubmission_file_01-mathematics.ipynb": {"decompose": WRONG_AXIS},
            "Finn O'Hara_20_assignsubmission_file_/work/01-mathematics.ipynb": {"recompose": ADDS},
            "Gina Late_21_assignsubmission_file_/01-mathematics.ipynb": {},
        },
        "canvas": {
            "heinzhugo_31_9001_01-mathematics.ipynb": {},
            "ivyiris_LATE_32_9002_01-mathematics-1.ipynb": {"decompose": WRONG_AXIS},
            "jonesjo_33_9003_01-mathematics.ipynb": {"recompose": ADDS},
            "kingkim_34_9004_01-mathematics.ipynb": {},
        },
    }
    archive = course / "grading" / "downloaded" / "dora" / "archive"
    archive.mkdir(parents=True)
    for lms, names in files.items():
        with zipfile.ZipFile(archive / f"{lms}.zip", "w") as file:
            for name, answers in names.items():
                lazy = "_18_" in name
                text = written(course, answers if lazy else solutions() | answers)
                file.writestr(name, text)


@pytest.fixture(scope="module")
def term(tmp_path_factory):
    """A course after collecting and grading, and what grading printed."""
    penalty = 'c.LateSubmissionPlugin.penalty_method = "zero"'
    course = write_course(tmp_path_factory.mktemp("term") / "course", penalty)
    with_answers_for_people(course / "solutions" / "dora" / f"{LESSON}.ipynb")
    run(course, "nbgrader", "generate_assignment", "dora")
    due = '--duedate="2026-12-01 12:00 UTC"'.replace('"', "")
    run(course, "nbgrader", "db", "assignment", "add", "dora", due)
    (course / "students.csv").write_text(ROSTER)
    run(course, "nbgrader", "db", "student", "import", "students.csv")
    hand_in_by_lms(course)
    said = run(course, "lab_grader", "collect", "dora").stdout
    assert "9 students, 0 files not collected" in said
    submitted = course / "grading" / "submitted"
    (submitted / "21" / "dora" / "timestamp.txt").write_text("2026-12-02 08:00:00 UTC")
    (submitted / "otto").mkdir()
    (submitted / "otto" / f"{LESSON}.ipynb").write_text(written(course, solutions()))
    return course, grade(course, check=False)


def mark_by_hand(course):
    with Gradebook(database(course)) as gradebook:
        for name, points in (("plan", 3.5), ("experiment", 3)):
            found = gradebook.find_grade(name, LESSON, "dora", "17")
            found.manual_score, found.needs_manual_grade = points, False
        found = gradebook.find_grade("decompose-rows", LESSON, "dora", "17")
        found.manual_score, found.extra_credit = 1.5, 0.5
        gradebook.find_comment("plan", LESSON, "dora", "17").manual_comment = "Why this one?"
        gradebook.db.commit()


@pytest.fixture(scope="module")
def marked(term, tmp_path_factory):
    """A copy of the course in which 17 was marked by hand, with pages and tables of after that."""
    course = shutil.copytree(term[0], tmp_path_factory.mktemp("marked") / "course")
    mark_by_hand(course)
    run(course, "lab_grader", "feedback", "dora")
    run(course, "lab_grader", "export", "dora")
    return course


@pytest.fixture
def later(marked, tmp_path):
    """A copy of that, for a test to change."""
    return shutil.copytree(marked, tmp_path / "course")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


AUTO = marks_without() | {"plan": None, "experiment": None}
EARNED = {
    "17": AUTO,
    "19": AUTO | dict.fromkeys(("decompose-rows", "decompose-columns"), 0),
    "20": AUTO | {"recompose-test": 0},
    "32": AUTO | dict.fromkeys(("decompose-rows", "decompose-columns"), 0),
    "33": AUTO | {"recompose-test": 0},
}


def test_what_was_collected_is_graded(term):
    found = marks(term[0])
    for student, earned in EARNED.items():
        tests = {name: points for name, points in found[student].items() if name in POINTS}
        assert tests == {n: p for n, p in earned.items() if n in POINTS}, student
    assert set(found) == {*EARNED, "18", "21", "31", "34", "otto"}
    assert set(found["18"].values()) == {0}, "what was left as it was earns nothing"


def test_whom_to_look_at(term):
    course, done = term
    lines = done.stdout.splitlines()
    assert "Traceback" not in done.stderr
    start = lines.index("Handed in nothing")
    assert [line.strip() for line in lines[start + 1 : start + 3]] == ["41", "42"]
    assert any(line.startswith("  otto: handed in as otto") for line in lines), "a wrong place"
    assert f"  17: {LESSON}: experiment; {LESSON}: plan" in lines, "waits for a person"
    assert not any(line.startswith(f"  18: {LESSON}: experiment") for line in lines)
    table = lines[: lines.index("")]
    assert any(line.split()[:3] == ["Ada", "Lovelace", "(17)"] for line in table)
    assert max(map(len, table)) <= 80
    assert "DoRALayer 42" in text_of(outputs(course, "17")["experiment"])


def test_a_student_who_handed_in_nothing_is_named(term):
    done = grade(term[0], "--students", "17", "nobody", check=False)
    assert done.returncode == 1
    assert "nothing was handed in by nobody" in done.stderr


def test_what_is_not_final_is_blank_for_an_lms(term):
    tables = term[0] / "grading" / "marks"
    canvas = {row["SIS User ID"]: row["dora"] for row in rows(tables / "dora-canvas.csv")}
    assert canvas["17"] == canvas["41"] == canvas["42"] == ""
    assert canvas["18"] == "0.0"


def test_marks_by_hand_pages_and_export(marked):
    page = marked / "grading" / "feedback" / "17" / "dora" / "index.html"
    assert "Why this one?" in page.read_text() and "wait for a mark" not in page.read_text()

    tables = marked / "grading" / "marks"
    ada = next(row for row in rows(tables / "dora.csv") if row["student_id"] == "17")
    assert ada["last_name"] == "Lovelace"
    assert [ada[f"{LESSON}/{e}"] for e in ("decompose", "recompose", "count-trainable")] == [
        "5.0",
        "2.0",
        "3.0",
    ]
    assert (ada[f"{LESSON}/plan"], ada[f"{LESSON}/experiment"]) == ("3.5", "3.0")
    assert (float(ada["score"]), float(ada["max_score"]), ada["to_mark"]) == (16.5, MOST, "0")
    assert ada["state"] == "final"

    possible, *canvas = rows(tables / "dora-canvas.csv")
    assert possible["Student"].strip() == "Points Possible"
    assert float(possible["dora"]) == MOST
    ada = next(row for row in canvas if row["SIS User ID"] == "17")
    assert (ada["Student"], ada["ID"], float(ada["dora"])) == ("Lovelace, Ada", "s100", 16.5)
    moodle = {row["ID number"]: row for row in rows(tables / "dora-moodle.csv")}
    assert moodle["s100"] == {
        "ID number": "s100",
        "Email address": "ada@example.org",
        "dora": "16.5",
    }, "and not 17, the participant's number"


def test_moodles_worksheet_comes_back_with_marks_and_comments(marked):
    header = "Identifier,Full name,Email address,Grade,Maximum Grade,Feedback comments\n"
    (marked / "Grades.csv").write_text(
        f"{header}Participant 17,Ada Lovelace,,,{MOST:g}.00,\nParticipant 41,Carl,,,{MOST:g}.00,\n"
    )
    run(marked, "lab_grader", "export", "dora", "--worksheet", "Grades.csv")
    ada, carl = rows(marked / "grading" / "marks" / "Grades.csv")
    assert (ada["Grade"], carl["Grade"]) == ("16.50", "")
    assert ada["Feedback comments"] == f"{LESSON}, plan: Why this one?"


def test_pages_go_back(marked):
    said = run(marked, "lab_grader", "return", "dora").stdout
    with zipfile.ZipFile(marked / "grading" / "returns" / "dora-moodle.zip") as file:
        assert "Ada Lovelace_17_assignsubmission_file_/index.html" in file.namelist()
        assert len(file.namelist()) == 5
    with zipfile.ZipFile(marked / "grading" / "returns" / "dora-canvas.zip") as file:
        assert "ivyiris_LATE_32_9002_index.html" in file.namelist()
        assert len(file.namelist()) == 4
    assert "so not in an archive: otto" in said


def test_the_report_names_the_mistake(marked):
    run(marked, "lab_grader", "report", "dora")
    page = (marked / "grading" / "reports" / "dora.html").read_text()
    shown = re.sub("<[^>]*>", "", page)
    assert "norm over the wrong axis" in shown and "weight.norm(dim=1 - norm_dim" in shown
    assert "<strong>2</strong> handed in nothing" in page
    assert "Lovelace" not in page
    found = rows(marked / "grading" / "marks" / "dora-mistakes.csv")
    axis = {row["student_id"] for row in found if row["mistake"] == "norm over the wrong axis"}
    assert axis == {"19", "32"}


def penalty(course, student):
    with Gradebook(database(course)) as gradebook:
        return gradebook.find_submission("dora", student).late_submission_penalty or 0


def test_more_time_for_one(later):
    assert penalty(later, "21") > 0
    said = run(later, "lab_grader", "extend", "dora", "21", "--days", "1").stdout
    assert said.startswith("21: due 2026-12-02 12:00 UTC")
    done = run(later, "lab_grader", "extend", "dora", "42", "--days", "1")
    assert done.stderr == ""
    for student, days, why in (
        ("12", "1", "12 has handed in nothing and is not registered"),
        ("*", "1", "* has handed in nothing and is not registered"),
        ("21", "-1", "-1 days is not a possible extension: give 0 to 3650"),
        ("21", "1e11", "1e+11 days is not a possible extension"),
        ("21", "nan", "nan days is not a possible extension"),
    ):
        done = run(later, "lab_grader", "extend", "dora", student, "--days", days, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"lab_grader: {why}")
    done = grade(later, check=False)
    assert penalty(later, "21") == 0
    lines = done.stdout.splitlines()
    start = lines.index("Handed in nothing")
    assert [line.strip() for line in lines[start + 1 : start + 3]] == ["41", "42"], "still absent"


def test_a_regrade_says_first_who_gains(later):
    """The points of a check were changed, which needs a new release and no new execution."""
    path = later / "solutions" / "dora" / f"{LESSON}.ipynb"
    before, notebook = marks(later), nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "recompose-test":
            cell.metadata.nbgrader.points = 5
    nbformat.write(notebook, path)
    run(later, "nbgrader", "generate_assignment", "dora", "--force")
    done = grade(later, "--dry-run")
    assert f"17: +3 ({LESSON}: recompose-test +3)" in done.stdout
    assert "7 would gain, 0 would lose, 3 keep their points." in done.stdout
    assert marks(later) == before, "and nothing is recorded"


def test_marks_by_hand_stay_in_a_regrade_by_either(later):
    """By `make grade`, and by nbgrader itself, as Formgrader's button does it."""
    before = marks(later)
    grade(later, "--again", "--students", "17")
    run(later, "nbgrader", "autograde", "dora", "--student", "17", "--force")
    with Gradebook(database(later)) as gradebook:
        scores = [
            gradebook.find_grade(n, LESSON, "dora", "17").score for n in ("plan", "experiment")
        ]
        assert scores == [3.5, 3]
        found = gradebook.find_grade("decompose-rows", LESSON, "dora", "17")
        assert (found.auto_score, found.manual_score, found.score) == (2, 1.5, 2.0)
        comment = gradebook.find_comment("plan", LESSON, "dora", "17").comment
        assert comment == "Why this one?"
    assert marks(later) == before
    assert release.NOTEBOOKS.exists()
