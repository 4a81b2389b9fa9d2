"""Back into Moodle and Canvas: worksheets and pages; and what a new grading would change."""

import csv
import zipfile

import pytest
from classroom import database, make_course, most_points, run
from generated import generate
from nbgrader.api import Gradebook

from lab_grader.intake.course import Course
from lab_grader.marks.difference import changed, differences
from lab_grader.marks.export import Policy
from lab_grader.marks.lms import WorksheetError, fill_worksheet, zip_pages
from lab_grader.marks.record import Mark
from lab_grader.marks.standing import State, read_standings
from lab_grader.running.job import Result

LESSONS = ("01-mathematics", "07-rslora-challenge")
MOST = most_points(*LESSONS)
HEADER = [
    *("Identifier", "Full name", "ID number", "Email address", "Status", "Grade", "Maximum Grade"),
    *("Grade can be changed", "Last modified (submission)", "Last modified (grade)"),
    "Feedback comments",
]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    root = make_course(tmp_path_factory.mktemp("class") / "course", lessons=LESSONS)
    generate(root, 12, absent=1)
    return Course(root, "dora")


@pytest.fixture
def standings(course):
    return read_standings(course)


def row_of(it, identifier="Participant 990", maximum=f"{MOST:.2f}", **other):
    known = {
        "Identifier": identifier,
        "Full name": it.name,
        "Maximum Grade": maximum,
        "Grade can be changed": "Yes",
    }
    return [(known | other).get(name, "") for name in HEADER]


def write(path, rows, delimiter=",", header=HEADER):
    with open(path, "w", newline="", encoding="utf-8-sig") as file:  # as Moodle writes it
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def read(path, delimiter=","):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def marked(standings):
    return [it for it in standings if it.state == State.FINAL]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_worksheet_gets_marks_and_comments(course, standings, tmp_path, delimiter):
    first, second, third = marked(standings)[:3]
    with Gradebook(database(course.root)) as gradebook:
        comment = gradebook.find_comment("plan", LESSONS[1], "dora", first.student)
        comment.manual_comment = "Why <this>?\n=1+1"
        gradebook.db.commit()
    absent = next(it for it in standings if it.state == State.ABSENT)
    rows = [
        row_of(first, **{"Email address": first.email.upper()}),
        row_of(second, **{"ID number": second.lms_user_id}),
        row_of(third, f"Participant {third.student}"),
        row_of(absent, **{"Email address": absent.email, "Grade": "7.00"}),
        row_of(third, "Participant 1234", **{"Full name": "=cmd", "Grade": "3.00"}),
    ]
    sheet = write(tmp_path / "Grades.csv", rows, delimiter)
    filled = fill_worksheet(course, sheet)
    found = read(filled.path, delimiter)
    expected = [f"{it.score:.2f}" for it in (first, second, third)]
    assert [row["Grade"] for row in found] == [*expected, "7.00", "3.00"]
    assert found[0]["Feedback comments"] == ("07-rslora-challenge, plan: Why &lt;this&gt;?<br>=1+1")
    assert found[4]["Full name"] == "'=cmd"
    assert [row["Identifier"] for row in found] == [row[0] for row in rows]
    assert filled.said[0] == "3 of 5 rows have a mark now."
    assert filled.said[-1].startswith("not in the worksheet: ")
    zero = read(fill_worksheet(course, sheet, Policy(absent_zero=True)).path, delimiter)
    assert zero[3]["Grade"] == "0.00"


def test_what_waits_stays_as_it_is(course, standings, tmp_path):
    waiting = next(it for it in standings if it.state == State.WAITING)
    sheet = write(tmp_path / "w.csv", [row_of(waiting, **{"Email address": waiting.email})])
    assert read(fill_worksheet(course, sheet).path)[0]["Grade"] == ""
    told = read(fill_worksheet(course, sheet, Policy(allow_unmarked=True)).path)
    assert float(told[0]["Grade"]) == waiting.score


def test_another_maximum_scales_and_says_so(course, standings, tmp_path):
    it = marked(standings)[0]
    maximum = f"{5 * MOST:.2f}".replace(".", ",")
    sheet = write(tmp_path / "w.csv", [row_of(it, maximum=maximum, **{"Email address": it.email})])
    filled = fill_worksheet(course, sheet)
    assert float(read(filled.path)[0]["Grade"]) == 5 * it.score
    assert "marks were multiplied by 5" in filled.said[1]


def test_a_worksheet_in_another_language_and_none_at_all(course, standings, tmp_path):
    it = marked(standings)[0]
    header = ["Bewertung" if name == "Grade" else name for name in HEADER]
    rows = [row_of(it, f"Teilnehmer/in {it.student}")]
    sheet = write(tmp_path / "w.csv", rows, header=header)
    with pytest.raises(WorksheetError, match=r"no column 'Grade'; it has .*Bewertung"):
        fill_worksheet(course, sheet)
    found = read(fill_worksheet(course, sheet, grade_column="Bewertung").path)
    assert float(found[0]["Bewertung"]) == it.score
    for content in (b"\xff\xfe\x00", b"\0", b"PK\3\4", "Identifier,Grade".encode("utf-16")):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(WorksheetError, match=r"save it as CSV \(UTF-8\), and run this again"):
            fill_worksheet(course, tmp_path / "x.csv")
    for content in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(WorksheetError, match="is empty: download the grading worksheet again"):
            fill_worksheet(course, tmp_path / "x.csv")
    with pytest.raises(WorksheetError, match="is a folder, and must be a file: move it away"):
        fill_worksheet(course, tmp_path)
    done = run(course.root, "lab_grader", "export", "dora", "--worksheet", "none.csv", check=False)
    assert done.returncode == 1 and "lab_grader: none.csv: No such file" in done.stderr


def test_pages_go_back_under_the_names_that_files_came_with(tmp_path):
    root = make_course(tmp_path / "course", lessons=LESSONS)
    students = generate(root, 5, form="10{}")
    course = Course(root, "dora")
    names = [
        "Ada de_Vries_100_assignsubmission_file_/01-mathematics.ipynb",
        "Bob_101_assignsubmission_file_01-mathematics.ipynb",
        "Eve_102_assignsubmission_file/sub/01-mathematics.ipynb",
        "lovelaceada_LATE_103_4567_01-mathematics-1.ipynb",
    ]
    archive = course.work / "downloaded" / "dora" / "archive"
    archive.mkdir(parents=True)
    with zipfile.ZipFile(archive / "a.zip", "w") as file:
        for name in names:
            file.writestr(name, "{}")
    for student in students:
        page = course.folder("feedback", student) / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(student)
    returned = zip_pages(course)
    names = {
        lms: {n: zipfile.ZipFile(path).read(n).decode() for n in zipfile.ZipFile(path).namelist()}
        for lms, path in returned.archives.items()
    }
    assert names == {
        "moodle": {
            "Ada de_Vries_100_assignsubmission_file_/index.html": "100",
            "Bob_101_assignsubmission_file_index.html": "101",
            "Eve_102_assignsubmission_file/index.html": "102",
        },
        "canvas": {"lovelaceada_LATE_103_4567_index.html": "103"},
    }
    assert returned.left == ["104"]


class Submitted:
    """As much of a submission as is compared."""

    def __init__(self, notebooks):
        self.notebooks = notebooks


def test_who_gains_and_who_loses(course):
    lesson = course.lessons[LESSONS[0]]
    submission = Submitted({lesson.name: type("N", (), {"cells": lesson.cells})})
    error = [{"output_type": "error"}]
    tests = [g for g, c in lesson.graded.items() if c.metadata.nbgrader.grade]
    failing = {"count-lora", "decompose-rows"}
    outputs = [
        error if cell.metadata.get("nbgrader", {}).get("grade_id") in failing else []
        for cell in lesson.cells
    ]
    result = Result({lesson.name: outputs}, [])
    marks = {
        (lesson.name, test): Mark(lesson.points(test), None, lesson.points(test), False)
        for test in tests
    }
    marks[lesson.name, "recompose-test"] = Mark(0, None, 0, False)
    marks[lesson.name, "decompose-rows"] = Mark(2, 1.5, 1.5, False)
    found = changed(course, submission, result, marks)
    assert found == {(lesson.name, "recompose-test"): 2, (lesson.name, "count-lora"): -1}
    lines = differences({"ada": found, "bob": {("l", "t"): -1.0}, "eve": {}})
    assert lines == [
        "bob: -1 (l: t -1)",
        "ada: +1 (01-mathematics: count-lora -1; 01-mathematics: recompose-test +2)",
        "1 would gain, 1 would lose, 1 keep their points. Nothing was recorded.",
    ]
