"""The book in the browser, from the disk and without a network: light and dark."""

import pytest
import release

LESSONS = sorted(path.stem for path in release.SOLUTIONS.glob("*.ipynb"))
VIEWPORT = {"width": 1280, "height": 900}  # a laptop's page


@pytest.fixture
def open_page(chromium, site):
    """A function that opens a page of the book. At the end nothing may have gone wrong in it."""
    context = chromium.new_context(viewport=VIEWPORT, offline=True)
    page = context.new_page()
    complaints = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda asked: complaints.append(asked.url))

    def open_it(name, theme="light"):
        page.emulate_media(color_scheme=theme)
        page.goto((site / f"{name}.html").as_uri())
        assert page.locator("html").get_attribute("data-theme") == theme
        return page

    yield open_it
    context.close()
    assert not complaints


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", *LESSONS])
def test_a_page_can_be_read(open_page, name, theme):
    page = open_page(name, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWPORT["width"]
    pictures = page.locator("article img").all()
    assert pictures
    for picture in pictures:
        width, shown, room = picture.evaluate(
            "it => [it.naturalWidth, it.clientWidth, it.closest('article').clientWidth]"
        )
        assert width and 0 < shown <= room

    formulas = page.locator("article .formula:visible").evaluate_all(
        """all => all.map(it => {
            const box = it.querySelector('svg').getBoundingClientRect();
            return [getComputedStyle(it.querySelector('path')).fill,
                    getComputedStyle(it.parentElement).color, box.width, box.height];
        })"""
    )
    assert formulas or name == "index"
    for ink, text, width, height in formulas:
        assert ink == text, "a formula has the colour of its text"
        assert width > 4 and height > 4


@pytest.mark.parametrize("name", LESSONS)
def test_a_solution_opens_by_a_click_and_an_explorer_is_a_picture(open_page, name):
    page = open_page(name)
    fold = page.locator("details", has_text="Show the solution").first
    code = fold.locator("pre")
    assert not code.is_visible()
    fold.locator("summary").click()
    assert code.is_visible()
    assert code.inner_text().startswith(("def ", "class "))

    note = page.get_by_text("In JupyterLab it follows these controls:")
    assert note.is_visible()
    picture = note.locator("xpath=ancestor::div[contains(@class, 'cell_output')]").locator("img")
    picture.scroll_into_view_if_needed()
    assert picture.is_visible()
    assert picture.get_attribute("alt")


def test_the_search_works(open_page):
    page = open_page("index")
    page.keyboard.press("Control+K")
    page.get_by_placeholder("Search").last.fill("magnitude")
    page.keyboard.press("Enter")
    page.locator("#search-results li").first.wait_for()
