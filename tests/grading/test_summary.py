"""What make grade prints: how far it is, a table of 80 columns, and whom to look at first."""

import io
import re
import time

import pytest
from classroom import make_course, most_points
from generated import generate

from lab_grader.intake.course import Course
from lab_grader.marks.standing import State, read_standings
from lab_grader.marks.summary import WIDTH, table, to_look_at
from lab_grader.running.progress import Progress, duration

LESSONS = ("01-mathematics", "07-rslora-challenge")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_where_nobody_watches_a_line_comes_now_and_then():
    log = io.StringIO()
    with Progress(3, "graded", log, every=0.05) as progress:
        time.sleep(0.12)
        quiet = log.getvalue().count("\n")
        progress.step("ada")
        progress.step("b\x1b[2Job")
    lines = log.getvalue().splitlines()
    assert quiet >= 2, "also while nobody is done"
    assert lines[0].startswith("graded: 0 of 3")
    assert re.fullmatch(
        r"graded: 2 of 3, the last was b\\x1b\[2Job, \d+ s each, \d+ s gone, about \d+ s left",
        lines[-1],
    )


def test_a_bar_for_who_watches_goes_on_while_nothing_ends():
    terminal = Terminal()
    with Progress(2, "graded", terminal) as progress:
        drawn = terminal.getvalue().count("\r")
        time.sleep(2.2)
        assert terminal.getvalue().count("\r") > drawn
        progress.step("ada")
    assert "1/2" in terminal.getvalue() and "ada" in terminal.getvalue()


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (89, "89 s"), (720, "12 min"), (3900, "1 h 05 min")]
)
def test_a_time_as_people_say_it(seconds, text):
    assert duration(seconds) == text


@pytest.fixture(scope="module")
def standings(tmp_path_factory):
    root = make_course(tmp_path_factory.mktemp("class") / "course", lessons=LESSONS)
    generate(root, 12, absent=2)
    return read_standings(Course(root, "dora"))


def test_the_table_fits_and_adds_up(standings):
    lines = table(standings)
    assert all(len(line) <= WIDTH for line in lines)
    most = [most_points(lesson) for lesson in LESSONS]
    assert lines[0].split() == ["01", "07", "total"]
    assert lines[1].split() == ["of", *(f"{points:g}" for points in (*most, sum(most)))]
    for it, line in zip(standings, lines[2:], strict=False):
        *_, first, second, total = line.replace("…", "").split()
        assert it.student in line
        if it.state == State.ABSENT:
            assert (first, second, total) == ("–", "–", "–")
        else:
            assert float(first) + float(second) == float(total) == it.score
            assert ("…" in line) == (it.state == State.WAITING)


def test_a_line_a_student_and_the_dearest_first(standings):
    marked = sorted((it for it in standings if it.score is not None), key=lambda it: it.score)
    worst, best = marked[0].student, marked[-1].student
    remarks = {best: ["a", "b", "c", "d", "e"], worst: ["\x1b[31mx"], "else": []}
    lines = to_look_at(standings, remarks, {"loose.ipynb": "lies outside"}, {})
    start = lines.index("Needs attention")
    assert lines[start + 1 : start + 3] == [
        f"  {worst}: \\x1b[31mx",
        f"  {best}: a; b; c; and 2 more",
    ]
    absent = [it.student for it in standings if it.state == State.ABSENT]
    assert lines[lines.index("Handed in nothing") + 1] == f"  {absent[0]}"
    assert lines[lines.index("Not a submission") + 1] == "  loose.ipynb: lies outside"


def test_nothing_to_look_at():
    assert to_look_at([], {}, {}, {}) == ["Nothing needs your attention."]
