"""What every lesson keeps to: the points that it types, and the sections that its checks name."""

import inspect
import re
import sys

import pytest
import release

from lab_utils import checks
from lab_utils.checks.report import Mistake

TEXTS = sorted(release.SOLUTIONS.glob("[0-9][1-9]-*.py"))
README = (release.ROOT / "README.md").read_text("utf-8")
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


@every_lesson
def test_the_readme_names_the_exercises_and_the_points_of_a_lesson(text):
    lesson = release.read_lesson(text)
    row = next(line for line in README.splitlines() if line.startswith(f"| `{text.stem}` |"))
    named = re.findall(r"`(\w+)`", row.split("|")[3])
    assert named == [name for name, *_ in exercises(lesson)]
    assert f"({sum(map(points, lesson.cells))} points)" in row
    minutes = re.search(r"\*\*About (\d+) minutes", lesson.cells[0].source)[1]
    assert row.split("|")[2].strip() == f"{minutes} min"


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
    modules = {inspect.unwrap(getattr(checks, name)).__module__ for name in called}
    assert modules, "a lesson has checks"
    for module in modules:
        values = list(vars(sys.modules[module]).values())
        values += [v for value in values if isinstance(value, dict) for v in value.values()]
        named = {value.section for value in values if isinstance(value, Mistake)}
        assert named, module
        assert named <= headings, named - headings
