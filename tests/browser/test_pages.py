"""What a student gets back, and the report on the class, in the browser: for everybody to read."""

import shutil

import classroom
import pytest
from axe_playwright_python.sync_playwright import Axe
from generated import generate

from lab_grader.intake.course import Course
from lab_grader.marks.report import write_report

LESSONS = ("01-mathematics", "07-rslora-challenge")
# All that axe knows of the Web Content Accessibility Guidelines 2.2 at level AA, and good practice.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def page_of_a_student(tmp_path_factory):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is missing")
    course = classroom.make_course(tmp_path_factory.mktemp("page") / "course", lessons=LESSONS)
    right = classroom.solutions_of(LESSONS)
    wrong = "def decompose(weight, norm_dim=1, eps=1e-8):\n    return weight.norm(dim=0), weight"
    raises = "def recompose(magnitude, direction):\n    return magnitude.T @ direction.T"
    hostile = (
        "# My plan\n\n$\\alpha$ and <script>document.title = 'taken'</script> [a](b)\n\n| a |\n|-|"
    )
    answers = right | {"decompose": wrong, "recompose": raises, "plan": hostile}
    for lesson in LESSONS:
        classroom.hand_in(course, "ada", answers, lesson)
    classroom.grade(course)
    return course / "grading" / "feedback" / "ada" / "dora" / "index.html"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = classroom.make_course(tmp_path_factory.mktemp("class") / "course", lessons=LESSONS)
    generate(root, 30, absent=2)
    return write_report(Course(root, "dora"))


@pytest.fixture(params=["light", "dark"])
def open_page(chromium, request):
    """A function that opens a file, with everything unfolded. Nothing may be asked of a network."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.emulate_media(color_scheme=request.param)

    def open_it(path):
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
        return page

    yield open_it
    context.close()
    assert len(asked) == 1 and asked[0].startswith("file:")


def assert_everybody_can_read(page):
    found = Axe().run(page, options=RULES).response["violations"]
    assert not found, [(it["id"], it["help"], it["nodes"][0]["html"][:200]) for it in found]
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        names = page.locator("table th[scope=row]").filter(visible=True)
        assert min(names.evaluate_all("all => all.map(it => it.clientWidth)")) > 120, "whole words"


def test_a_students_page(open_page, page_of_a_student):
    page = open_page(page_of_a_student)
    assert page.title() == "dora: ada"
    assert_everybody_can_read(page)
    table = page.locator("table").first.inner_text()
    assert "✗ failed" in table and "✓ passed" in table and "… waits for a mark" in table
    assert page.locator("#\\30 7-rslora-challenge--plan").is_visible()
    raised = page.locator("pre", has_text="in recompose, line 2:").inner_text()
    assert raised.count(" raised ") == 1, "told once"
    assert "in answer" not in raised, "the student's lines, and not those that asked"
    page.set_viewport_size({"width": 390, "height": 900})
    names = page.locator(".scrolls.text code").evaluate_all(
        "all => all.map(it => [it.getClientRects().length, it.innerText])"
    )
    assert names and all(lines == 1 for lines, _ in names), names
    code = page.locator("pre.code", has_text="def count_trainable(")
    assert code.evaluate("it => it.scrollWidth > it.clientWidth"), "it keeps its lines"
    formula = page.locator(".formula svg").last
    assert formula.bounding_box()["height"] > 4


def test_the_report(open_page, report):
    page = open_page(report)
    assert_everybody_can_read(page)
    assert " wait for a mark by hand" in page.locator(".facts").inner_text()
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = false)")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator("figure svg").bounding_box()["width"] > 500, "its numbers can be read"
        tall = page.locator("tbody tr").evaluate_all("all => all.map(it => it.clientHeight)")
        assert max(tall) < 140, "where the rest of a row is out of sight"


def test_what_is_folded_is_not_printed(chromium, page_of_a_student):
    page = chromium.new_page()
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(page_of_a_student.as_uri())
    assert not page.locator("details").first.is_visible()
    assert page.locator("h3").first.is_visible()
    background = page.locator("html").evaluate("it => getComputedStyle(it).backgroundColor")
    assert background == "rgb(255, 255, 255)", "ink on paper, whatever the theme of the screen"
    page.close()
