"""What every lesson keeps to: the points that it types, and the sections that its checks name."""

import re

import contents
import pytest
import release
from known_mistakes import mistakes_of

TEXTS = sorted(release.SOLUTIONS.glob("[0-9][1-9]-*.py"))
README = (release.ROOT / "README.md").read_text("utf-8")
BENCH = (release.ROOT / "benchmarks" / "lessons.txt").read_text("utf-8")
EXERCISE = re.compile(r"^### Exercise \d+: `(\w+)` \((\d+) points?\)$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
every_lesson = pytest.mark.parametrize("text", TEXTS, ids=[text.stem for text in TEXTS])


def points(cell):
    nbgrader = cell.metadata.get("nbgrader", {})
    return nbgrader["points"] if nbgrader.get("grade") else 0


def exercises(lesson):
    """Return, of each exercise, its name, the points in its heading, those in the texts below it,
    and those that its cells give."""
    found = []
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            heading = EXERCISE.search(cell.source)
            if heading:
                found.append([heading[1], int(heading[2]), 0, 0])
            elif found and not HEADING.search(cell.source):
                typed = re.findall(r"\((\d+) points?\)", cell.source)
                found[-1][2] += sum(map(int, typed))
        if found and cell.cell_type == "code":
            found[-1][3] += points(cell)
    return found


@every_lesson
def test_the_points_that_are_typed_are_those_that_are_given(text):
    for name, in_heading, below, given in exercises(release.read_lesson(text)):
        assert in_heading == given, name
        assert below in (0, given), f"{name}: the texts above its tests add up to {below}"


def test_the_table_in_the_readme_is_made_from_the_lessons():
    lessons = [(text, release.read_lesson(text)) for text in TEXTS]
    assert contents.in_readme(README, lessons) == README, "run make release"
    for text, lesson in lessons:
        row = next(line for line in README.splitlines() if line.startswith(f"| `{text.stem}` |"))
        for name, *_ in exercises(lesson):
            assert f"`{name}`" in row
        assert f"({sum(map(points, lesson.cells))} points)" in row


def computing(name):
    """The seconds that a lesson's cells take, as measured by `make bench`."""
    found = re.search(rf"^{name} +([\d.]+) s", BENCH, re.MULTILINE)
    assert found, f"{name} is not in benchmarks/lessons.txt: run make bench"
    return float(found[1])


@every_lesson
def test_the_time_that_a_lesson_states_follows_from_its_text_points_and_cells(text):
    lesson, seconds = release.read_lesson(text), computing(text.stem)
    first = lesson.cells[0].source
    stated = int(contents.MINUTES.search(first)[1])
    expected = contents.minutes(lesson, seconds)
    assert stated % 5 == 0
    # The nearest five minutes, and nearly half a minute more: a slower machine must not change it.
    assert abs(stated - expected) < 3, f"it takes about {expected:.0f} minutes: cut, or say so"
    says_so = "less than one of them computing" in first
    assert says_so or seconds <= 15, "a student waits, and the lesson does not say so"
    assert not says_so or seconds >= 5, "there is hardly anything to wait for"
    assert seconds < 60


def test_the_readme_adds_up_the_times_of_the_lessons():
    stated = [
        int(contents.MINUTES.search(release.read_lesson(text).cells[0].source)[1]) for text in TEXTS
    ]
    assert 120 < sum(stated[:4]) <= 135, "a little over two hours"
    assert abs(sum(stated[4:]) - 100) <= 5, "an hour and forty minutes"
    assert "a lab of a little over two hours" in " ".join(README.split())
    assert "take another hour and forty minutes." in " ".join(README.split())


def test_a_longer_text_takes_longer():
    lesson = release.read_lesson(TEXTS[0])
    before = contents.minutes(lesson, 0)
    lesson.cells[1].source += " word" * 300 + "\n<details>" + " hidden" * 300 + "</details>"
    lesson.cells[1].cell_type = "markdown"
    assert contents.minutes(lesson, 60) > before + 2.9


def test_a_lesson_without_a_time_or_exercises_has_no_row():
    lesson = release.read_lesson(TEXTS[0])
    lesson.cells[0].source = "# A lesson"
    with pytest.raises(contents.NotALesson, match="08-new needs"):
        contents.row("08-new", lesson)


# What a reader sees of each link to arXiv: the authors, the title, or what the paper is about.
PAPERS = {
    "1602.07868": "Salimans|Weight Normalization",
    "2106.09685": "LoRA",
    "2304.01933": "LLM-Adapters|another paper",
    "2310.05914": "Jain",
    "2312.03732": "rsLoRA|Rank Stabilization",
    "2402.09353": "DoRA|table 1 of the paper",
    "2405.09673": "Biderman|Forgets Less",
    "2410.21228": "Shuttleworth",
    "2502.02737": "SmolLM2",
    "2602.04998": "Lee|Learning Rate Matters|its own learning rate",
    "2602.06204": "Chen|Learning Rate Scaling",
    "2603.22276": "Zelenin|Scaling DoRA",
}


@pytest.mark.parametrize("path", [release.ROOT / "README.md", *TEXTS], ids=lambda path: path.stem)
def test_every_link_to_arxiv_leads_to_the_paper_that_its_text_names(path):
    flat = " ".join(path.read_text("utf-8").replace("\n# ", "\n").split())
    links = re.findall(r"\[([^\[\]]+)\]\(https://arxiv\.org/abs/([\d.]+)\)", flat)
    assert len(links) == flat.count("arxiv.org/")
    for shown, number in links:
        assert re.search(PAPERS[number], shown), f"{number}: {shown}"


@every_lesson
def test_every_section_that_a_mistake_names_is_a_heading(text):
    lesson = release.read_lesson(text)
    headings = {
        heading
        for cell in lesson.cells
        if cell.cell_type == "markdown"
        for heading in HEADING.findall(cell.source)
    }
    called = set(re.findall(r"checks\.(check_\w+)\(", "\n".join(c.source for c in lesson.cells)))
    assert called, "a lesson has checks"
    for check in called:
        named = {mistake.section for mistake in mistakes_of(check)}
        assert named, check
        assert named <= headings, named - headings


@every_lesson
def test_a_number_keeps_its_per_cent_sign(text):
    """After a space the sign may begin the next line."""
    assert not re.search(r"[\d}] %(?=[\s.,:;)*])", text.read_text("utf-8"))
    assert not re.search(r"\d %", README)
