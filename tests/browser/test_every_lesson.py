"""Every lesson in the browser: its sliders, its progress bar, its figures."""

import shutil

import in_browser
import pytest
import release
from axe_playwright_python.sync_playwright import Axe

LESSONS = sorted(path.stem for path in release.NOTEBOOKS.glob("*.ipynb"))
# How many sliders the explorers have, one where nothing is said, and which cells they need besides
# the imports.
SLIDERS = {
    "01-mathematics": 3,
    "02-from-scratch": 2,
    "03-decomposition": 3,
    "07-rslora-challenge": 2,
}
NEEDED = {"04-head-to-head": ["found = ", "chosen = "], "05-rank-and-magnitude": ["found = "]}
RICH = {"image/png", "text/html", "text/markdown"}  # what a browser shows as more than lines


@pytest.fixture
def student(lesson, folder):
    """A function that opens a student's notebook in the page."""

    def open_in_the_page(name):
        lesson.open(folder / "notebooks" / "dora" / f"{name}.ipynb")
        return lesson

    return open_in_the_page


@pytest.fixture
def solved(folder):
    """A function that puts a solved lesson beside the student's, and returns its path."""

    def put(name):
        copy = folder / "notebooks" / "dora" / f"solved-{name}.ipynb"
        return shutil.copy(release.SOLUTIONS / f"{name}.ipynb", copy)

    return put


def kinds(cell):
    """Return the media types of what stands below a cell."""
    return {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}


@pytest.mark.parametrize("name", LESSONS)
def test_the_sliders_move_the_picture_and_every_output_is_readable(student, solved, name):
    """Fits the page, too. In the dark theme: what is unreadable in the light one is seen sooner."""
    lesson = student(name)
    lesson.use_theme("JupyterLab Dark")
    for text in ("from lab_utils import", *NEEDED.get(name, []), "_explorer("):
        lesson.run(lesson.index(text))
    lesson.assert_fits()
    lesson.picture()
    handles = lesson.active.locator(".noUi-handle").all()
    assert len(handles) == SLIDERS.get(name, 1)
    for handle in handles:
        lesson.move(handle)
    for slider in lesson.active.locator(".widget-slider").all():  # as a screen reader has it
        label, said = (slider.locator(f".widget-{it}").inner_text() for it in ("label", "readout"))
        handle = slider.get_by_role("slider", name=label, exact=True)
        assert label and handle.get_attribute("aria-valuetext") == said
        if slider.locator("[contenteditable=true]").count():
            assert slider.get_by_role("textbox", name=label).inner_text() == said
    for choice in lesson.active.locator("select").all():
        assert "fill='%23ddd'" in choice.evaluate("it => getComputedStyle(it).backgroundImage")
    context, rules = ".jp-mod-active .jp-OutputArea", {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]}
    found = Axe().run(lesson.page, context, rules).response["violations"]
    assert not found, [(it["id"], it["nodes"][0]["html"][:200]) for it in found]
    assert len(lesson.active.locator(".jupyter-widgets img").get_attribute("alt")) > 40
    lesson.assert_fits()
    lesson.assert_readable()

    lesson.open(solved(name))
    pictures = 0
    for index, cell in enumerate(lesson.cells):
        if kinds(cell) & RICH:
            lesson.select(index)
            pictures += lesson.outputs.locator("img").count()
            lesson.assert_fits()
            lesson.assert_readable()
    assert pictures


def test_a_training_shows_how_far_it_is(student):
    lesson = student("03-decomposition")
    lesson.run(lesson.index("from lab_utils import"))
    lesson.start(lesson.index("train_and_evaluate("))
    bar = lesson.active.locator(".progress-bar").first
    bar.wait_for()
    lesson.page.wait_for_function(
        """() => {
            const bar = document.querySelector('.jp-mod-active .progress-bar');
            return bar.clientWidth > bar.parentElement.clientWidth / 10;
        }"""
    )
    label = lesson.active.locator(".jupyter-widgets").first.inner_text()
    assert "full fine-tuning, seed 0" in label.replace("\N{FIGURE SPACE}", " ")
    assert not lesson.outputs.filter(has_text="Error displaying widget").count()


def test_in_a_narrow_window_a_figure_scrolls_rather_than_shrinks(student):
    lesson = student("01-mathematics")
    lesson.page.set_viewport_size({"width": 768, "height": 900})
    lesson.run(lesson.index("from lab_utils import"))
    lesson.run(lesson.index("weight = torch.tensor("))
    for text in ("plots.decomposition(weight)", "widgets.vector_explorer()"):
        lesson.run(lesson.index(text))
        picture = lesson.active.locator("img")
        picture.wait_for()
        shown, room = picture.evaluate(
            """picture => {
                let it = picture.parentElement;
                while (it.scrollWidth <= it.clientWidth) it = it.parentElement;
                return [picture.clientWidth, [it.clientWidth, getComputedStyle(it).overflowX]];
            }"""
        )
        assert shown > 550, "its numbers stay as large as text"
        assert room[0] < shown and room[1] in ("auto", "scroll"), "and one can get to all of it"
    lesson.page.set_viewport_size(in_browser.VIEWPORT)
