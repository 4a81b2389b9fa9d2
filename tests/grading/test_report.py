"""The report and the tables of a class that was generated: nothing is executed."""

import csv
import re
from pathlib import Path

import pytest
from classroom import database, make_course, run
from generated import generate
from nbgrader.api import Gradebook

from lab_grader.intake.course import Course
from lab_grader.marks import history
from lab_grader.marks.alike import FEWEST_TOKENS, REFERENCE, Answer, alike
from lab_grader.marks.export import Policy, export, left_blank
from lab_grader.marks.report import write_report
from lab_grader.marks.standing import State, read_standings

LESSONS = ("01-mathematics", "07-rslora-challenge")
SIZE, ABSENT = 30, 3


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    root = make_course(tmp_path_factory.mktemp("class") / "course", lessons=LESSONS)
    generate(root, SIZE, absent=ABSENT)
    return Course(root, "dora")


@pytest.fixture(scope="module")
def text(course):
    return write_report(course).read_text()


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_counts_and_ranks(course, text):
    assert f"<strong>{SIZE - ABSENT}</strong> graded" in text
    assert f"<strong>{ABSENT}</strong> handed in nothing" in text
    students = history.gradings(course)[-1].students
    made = {}
    for student, found in students.items():
        for it in found.missed:
            if it.name:
                made.setdefault((it.lesson, it.section, it.name), set()).add(student)
    (lesson, section, name), by = max(made.items(), key=lambda item: len(item[1]))
    table = text[text.index("Named mistakes") : text.index("<h2>Checks")]
    first = table[table.index("<tbody>") : table.index("</tr>", table.index("<tbody>"))]
    assert f">{len(by)}</td>" in first
    ties = [key for key, value in made.items() if len(value) == len(by)]
    assert any(key[2] in first and key[1] in first for key in ties), (lesson, section, name)


def test_pass_rate_and_point_biserial(course, text):
    """Against a plain computation by the definition."""
    students = history.gradings(course)[-1].students
    test, points = "decompose-rows", 2.0
    those = [it for it in read_standings(course) if it.marks]
    own = [it for it in those if LESSONS[0] in students[it.student].lessons]
    score = [it.marks[LESSONS[0], test].score for it in own]
    rest = [sum(m.score for m in it.marks.values()) - s for it, s in zip(own, score, strict=True)]
    passed = [s >= points for s in score]
    p, n = sum(passed) / len(own), len(own)
    mean = sum(rest) / n
    spread = (sum((r - mean) ** 2 for r in rest) / n) ** 0.5
    high = sum(r for r, ok in zip(rest, passed, strict=True) if ok) / sum(passed)
    low = sum(r for r, ok in zip(rest, passed, strict=True) if not ok) / (n - sum(passed))
    expected = (high - low) / spread * (p * (1 - p)) ** 0.5
    row = re.search(rf"{LESSONS[0]}: {test}</th>.*?</tr>", text, re.DOTALL)[0]
    assert f">{100 * p:.0f}%<" in row
    assert f">{expected:.2f}<" in row


def test_anonymous_unless_asked(course, text):
    for it in read_standings(course):
        for word in (it.student, it.last_name, it.email):
            assert word not in text, word
    named = write_report(course, names=True).read_text()
    assert all(it.name in named for it in read_standings(course) if it.state == State.ABSENT)


def test_the_page_needs_no_network_and_runs_nothing(text):
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img|iframe)", text)
    addresses = set(re.findall(r"""https?:[^\s"'<]+""", text))
    assert all("w3.org" in address for address in addresses), addresses  # names of SVG's


def test_the_two_who_wrote_the_same_are_side_by_side(course):
    named = write_report(course, names=True).read_text()
    pairs = named[named.index("Answers that are alike") :]
    assert re.search(r"\(s0000\) and [^<]*\(s0001\)</a></th><td>[^<]*gradient-norms", pairs)
    assert pairs.count('<th scope="row">') <= 3, "and nobody else of thirty"


RELEASED = {("l", "e"): "def f(x):\n    raise NotImplementedError()"}


def answers_of(*texts):
    return [Answer(f"s{i}", "l", "e", text) for i, text in enumerate(texts)]


def long_answer(x="x", total="total", start=0):
    lines = [f"    {total} = {total} + {x}.pow({k}).sum() * {k + start}" for k in range(6)]
    return "\n".join([f"def f({x}):", f"    {total} = 0", *lines, f"    return {total}"])


def test_other_names_and_comments_hide_no_copy():
    other = long_answer("data", "acc").replace("acc = 0", "acc = 0  # mine!")
    (pair,) = alike(answers_of(long_answer(), other), RELEASED)
    assert pair.structure > 0.95 > pair.letters
    assert {pair.first.student, pair.second.student} == {"s0", "s1"}


def test_what_is_written_otherwise_is_not_alike():
    other = "def f(x):\n" + "\n".join(f"    x = [v / {k} for v in x if v > {k}]" for k in range(6))
    assert not alike(answers_of(long_answer(), other), RELEASED)


def test_short_answers_and_what_everybody_writes_say_nothing():
    assert not alike(answers_of(*["def f(x):\n    return x * 2"] * 2), RELEASED)
    assert len(long_answer().split()) > FEWEST_TOKENS
    assert not alike(answers_of(*[long_answer()] * 30), RELEASED)


def test_the_reference_is_one_of_the_texts():
    copied = Answer("s0", "l", "e", long_answer("y"))
    (pair,) = alike([copied, Answer(REFERENCE, "l", "e", long_answer())], RELEASED)
    assert REFERENCE in (pair.first.student, pair.second.student)


@pytest.mark.parametrize("hostile", ["(" * 200_000, "'" * 200_000, "\\" * 200_000, "é\0" * 99_999])
def test_no_text_takes_forever(hostile):
    assert alike(answers_of(hostile[:20_000], long_answer()), RELEASED) == []


def test_an_lms_is_told_only_what_is_final(course):
    export(course)
    standings = {it.student: it for it in read_standings(course)}
    waiting = [s for s, it in standings.items() if it.state == State.WAITING]
    absent = [s for s, it in standings.items() if it.state == State.ABSENT]
    assert waiting and len(absent) == ABSENT

    def exported():
        tables = Path(course.work, "marks")
        canvas = {row["SIS User ID"]: row["dora"] for row in rows(tables / "dora-canvas.csv")}
        moodle = {row["Email address"]: row["dora"] for row in rows(tables / "dora-moodle.csv")}
        assert all(moodle[f"{s}@example.org"] == canvas[s] for s in standings)
        return canvas

    told = exported()
    for student, it in standings.items():
        final = it.state == State.FINAL
        assert told[student] == (str(it.score) if final else ""), student
    lines = left_blank(list(standings.values()))
    assert any(absent[0] in line and "--absent-zero" in line for line in lines)
    assert any(waiting[0] in line and "--allow-unmarked" in line for line in lines)

    export(course, Policy(allow_unmarked=True, absent_zero=True))
    told = exported()
    assert all(float(told[s]) == 0 for s in absent)
    assert all(float(told[s]) == standings[s].score for s in waiting)

    people = {row["student_id"]: row for row in rows(course.work / "marks" / "dora.csv")}
    assert people[absent[0]]["score"] == "" and people[absent[0]]["state"] == "handed in nothing"
    assert people[waiting[0]]["07-rslora-challenge/plan"] == ""


def test_what_could_not_be_graded_is_no_zero(course):
    """Nor is it what an earlier submission earned, which the gradebook still holds."""
    student = next(it.student for it in read_standings(course) if it.state == State.FINAL)
    known = history.gradings(course)[-1].students[student]
    history.keep(course, {student: history.Findings(failed="the disk was full", seed=99)})
    try:
        export(course)
        people = {row["student_id"]: row for row in rows(course.work / "marks" / "dora.csv")}
        assert people[student]["state"] == "could not be graded: the disk was full"
        assert people[student]["score"] == people[student][f"{LESSONS[0]}/decompose"] == ""
        canvas = rows(course.work / "marks" / "dora-canvas.csv")
        assert {row["SIS User ID"]: row["dora"] for row in canvas}[student] == ""
    finally:
        history.keep(course, {student: known})


def test_a_name_is_no_formula(course):
    with Gradebook(database(course.root)) as gradebook:
        gradebook.update_or_create_student("zz", last_name="=1+1", first_name="@x")
        gradebook.db.commit()
    export(course)
    people = {row["student_id"]: row for row in rows(course.work / "marks" / "dora.csv")}
    assert people["zz"]["last_name"] == "'=1+1" and people["zz"]["first_name"] == "'@x"
    with Gradebook(database(course.root)) as gradebook:
        gradebook.remove_student("zz")


def test_the_command_says_where_it_is(course):
    done = run(course.root, "lab_grader", "report", "dora")
    assert done.stdout == f"Open {course.work / 'reports' / 'dora.html'} in a browser.\n"
