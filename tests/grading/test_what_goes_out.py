"""What goes to a student holds nothing that a release strips, whoever the student is."""

import html
import re
import shutil

import nbformat
import pytest
import release
from classroom import folder_of, grade, hand_in, make_course, run, solutions_of

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

LESSONS = ("01-mathematics", "07-rslora-challenge")
STRIPPED = re.compile(r"BEGIN (SOLUTION|HIDDEN TESTS|MARK SCHEME).*?\n(.*?)[^\n]*END \1", re.DOTALL)
HOSTILE = (
    "My **plan**, and $\\alpha / r$.\n\n<script>alert(1)</script><img src=x onerror=alert(2)>\n\n"
    "[here](javascript:alert(3)) ![a picture](https://example.org/p.png) <b onclick='alert(4)'>"
)


def secrets():
    """The lines that a release strips from the lessons, but those that are too common to tell."""
    released = "".join(
        nbformat.read(release.NOTEBOOKS / f"{lesson}.ipynb", as_version=4).cells.__repr__()
        for lesson in LESSONS
    )
    found = {}
    for lesson in LESSONS:
        for cell in nbformat.read(release.SOLUTIONS / f"{lesson}.ipynb", as_version=4).cells:
            for kind, text in STRIPPED.findall(cell.source):
                lines = {line.strip() for line in text.splitlines()}
                found.setdefault(kind, set()).update(
                    line for line in lines if len(line) > 11 and line not in released
                )
    return found


SECRETS = secrets()


def wrong():
    """Answers that share no line with a solution."""
    return {
        "decompose": "def decompose(weight, norm_dim=1, eps=1e-8):\n    return weight, weight",
        "recompose": "def recompose(magnitude, direction):\n    return magnitude + direction",
        "count-trainable": "def count_trainable(*sizes, **more):\n    print(sizes)\n    return 0",
        "lora-scaling": "def lora_scaling(alpha, rank, rank_stabilized):\n    return alpha / rank",
        "plan": HOSTILE,
    }


def shown(page):
    """All text of a page, without tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", page.read_text()))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    course = make_course(tmp_path_factory.mktemp("out") / "course", lessons=LESSONS)
    for lesson in LESSONS:
        hand_in(course, "wrong", wrong(), lesson)
        hand_in(course, "blank", {}, lesson)
    hand_in(course, "half", solutions_of(LESSONS[:1]))
    (folder_of(course, "broken") / f"{LESSONS[0]}.ipynb").write_text("{}")
    folder_of(course, "empty")
    old = course / "grading" / "feedback" / "wrong" / "dora" / f"{LESSONS[1]}.html"
    old.parent.mkdir(parents=True)
    old.write_text("For the marker (students do not see this)")
    grade(course, check=False)
    return course


def test_there_is_something_to_look_for():
    assert SECRETS.keys() == {"SOLUTION", "HIDDEN TESTS", "MARK SCHEME"}
    assert all(len(lines) > 3 for lines in SECRETS.values())


def assert_tells_nothing(name, text, allowed=()):
    for kind, lines in SECRETS.items():
        if kind not in allowed:
            told = [line for line in lines if line in text]
            assert not told, f"{name} holds what is stripped as {kind}: {told}"
    assert "For the marker" not in text, name


def test_no_page_tells_what_a_release_strips(course):
    pages = sorted((course / "grading" / "feedback").rglob("*"))
    files = [path for path in pages if path.is_file()]
    assert [path.relative_to(course / "grading" / "feedback").as_posix() for path in files] == [
        f"{student}/dora/index.html" for student in ("blank", "broken", "empty", "half", "wrong")
    ]
    for path in files:
        own = {"SOLUTION"} if path.parts[-3] == "half" else ()  # what the student wrote
        assert_tells_nothing(path, shown(path), own)
        assert "seed=11" not in path.read_text(), "nor does an output of a hidden test"
        assert "(9, 4)" not in path.read_text()


def test_an_error_is_shown_once_also_where_the_first_of_several_calls_fails(course):
    """`count-dora` has two calls that students see; the wrong answer is 0 in the first."""
    page = course / "grading" / "feedback" / "wrong" / "dora" / "index.html"
    errors = re.findall("^CheckFailed: .*", shown(page), re.MULTILINE)
    assert sum("found 0." in error for error in errors) == 2  # one for each kind of adapter
    assert len(errors) == len(set(errors))


def test_nor_does_a_page_of_nbgraders_own(course):
    run(course, "nbgrader", "generate_feedback", "dora", "--student", "blank", "--force")
    folder = course / "grading" / "feedback" / "blank" / "dora"
    for path in (folder / f"{lesson}.html" for lesson in LESSONS):
        assert_tells_nothing(path, shown(path))
    run(course, "lab_grader", "feedback", "dora", "--students", "blank")
    assert [path.name for path in folder.iterdir()] == ["index.html"]


def test_a_page_runs_nothing_of_a_students_and_asks_nobody(course):
    page = course / "grading" / "feedback" / "wrong" / "dora" / "index.html"
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|img|iframe|object|link|b onclick)", text)
    assert not re.search(r'(src|href)="(?!#|https://)', text)
    assert "<strong>plan</strong>" in text and "<script>alert(1)</script>" in shown(page)


def test_what_waits_does_not_look_like_a_zero(course):
    page = shown(course / "grading" / "feedback" / "wrong" / "dora" / "index.html")
    assert re.search(r"plan\s+… waits for a mark\s+– of 4", page)
    assert "4 more points wait for a mark" in page and "of 20 points so far" in page


def test_a_hidden_test_tells_its_kind(course):
    page = shown(course / "grading" / "feedback" / "half" / "dora" / "index.html")
    assert "Hidden tests repeat it with\nother sizes (✓ holds)" in page
    assert "another precision (✓ holds)" in page
    assert "This lesson was not handed in" in page


def test_what_could_not_be_read_is_no_zero(course):
    table = (course / "grading" / "marks" / "dora.csv").read_text().splitlines()
    states = {line.split(",")[0]: line for line in table}
    for student in ("broken", "empty"):
        assert states[student].endswith("no notebook could be read")
        assert ",0.0," not in states[student].replace(",0.0,,20.0", "")  # but the penalty
        page = shown(course / "grading" / "feedback" / student / "dora" / "index.html")
        assert "– of 20 points" in page and "could not be graded: no notebook" in page
    canvas = (course / "grading" / "marks" / "dora-canvas.csv").read_text()
    assert "broken,,broken,broken,,\n" in canvas and "blank,,blank,blank,,0.0\n" in canvas
