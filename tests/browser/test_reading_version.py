"""The book in the browser, from the disk and without a network: light and dark."""

import pytest
import release

LESSONS = sorted(path.stem for path in release.SOLUTIONS.glob("*.ipynb"))
VIEWPORT = {"width": 1280, "height": 900}  # a laptop's page
# Formulas that end a line although the next one starts with a comma or the like.
ALONE_IN_A_LINE = """() => [...document.querySelectorAll('.formula:not(.alone)')].filter(it => {
    const after = it.nextSibling;
    if (!it.getClientRects().length || !/^[.,;:)]/.test(after?.data)) return false;
    const mark = document.createRange();
    mark.setStart(after, 0);
    mark.setEnd(after, 1);
    return mark.getBoundingClientRect().top > it.getBoundingClientRect().bottom;
}).map(it => it.textContent)"""
# Formulas much smaller than the text around them, and figures whose numbers, of 11 points at 110
# dots per inch, are smaller than 10 pixels.
SHRUNK = """() => [...document.querySelectorAll('article .formula svg, article img')].filter(it => {
    const now = it.getBoundingClientRect().width;
    if (!now) return false;
    if (it.naturalWidth) return now < 0.594 * it.naturalWidth;
    const em = parseFloat(getComputedStyle(it.parentElement).fontSize);
    return now < 0.8 * em * parseFloat(it.getAttribute('width'));
}).map(it => it.alt ?? it.textContent)"""
# Whether one can tab to all that scrolls sideways.
SCROLL_WITH_KEYS = """() => [...document.querySelectorAll('article, article *')].every(it => {
    const scrolls = ['auto', 'scroll'].includes(getComputedStyle(it).overflowX);
    return !scrolls || it.scrollWidth <= it.clientWidth || it.tabIndex === 0;
})"""


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


@pytest.mark.parametrize("name", ["index", *LESSONS])
def test_a_page_fits_a_phone_and_a_tablet(open_page, name):
    page = open_page(name)
    for width in (390, 768):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not page.evaluate(ALONE_IN_A_LINE), "a comma stays beside its formula"
        assert not page.evaluate(SHRUNK), "text in formulas and figures stays readable"
        values = page.locator(".explorer output")
        heights = values.evaluate_all("all => all.map(it => it.offsetHeight)")
        assert all(height < 32 for height in heights)
        page.wait_for_function(SCROLL_WITH_KEYS)


@pytest.mark.parametrize("name", LESSONS)
def test_a_solution_opens_by_a_click_and_an_explorer_moves(open_page, name):
    page = open_page(name)
    fold = page.locator("details", has_text="Show the solution").first
    code = fold.locator("pre")
    assert not code.is_visible()
    fold.locator("summary").click()
    assert code.is_visible()
    assert code.inner_text().startswith(("def ", "class "))

    explorer = page.locator(".explorer")
    picture = explorer.locator("img")
    for slider in explorer.locator("input").all():
        before, said = picture.get_attribute("src"), slider.locator("+ output").inner_text()
        now, most = int(slider.input_value()), int(slider.get_attribute("max"))
        slider.focus()
        page.keyboard.press("ArrowRight" if now < most else "ArrowLeft")
        assert picture.get_attribute("src") != before
        assert slider.locator("+ output").inner_text() != said
        assert picture.evaluate("it => it.decode().then(() => it.naturalWidth)") > 100
        assert picture.get_attribute("alt")


def test_a_figure_lets_the_dark_ground_through(open_page):
    page = open_page("01-mathematics", "dark")
    styles = page.locator(".cell_output img").evaluate_all(
        "all => all.map(it => [getComputedStyle(it).mixBlendMode, getComputedStyle(it).filter])"
    )
    assert styles
    assert all(blend == "screen" and "invert(1)" in turned for blend, turned in styles)
    grounds = page.locator(".cell_output .text_html").evaluate_all(
        "all => all.map(it => getComputedStyle(it).backgroundColor)"
    )
    assert set(grounds) == {"rgba(0, 0, 0, 0)"}


def test_the_search_finds_sections_with_excerpts(open_page):
    page = open_page("index")
    page.keyboard.press("Control+K")
    page.get_by_placeholder("Search").last.fill("axis trap")
    page.keyboard.press("Enter")
    found = page.locator("#sections-found li")
    found.first.wait_for()
    assert "axis" in found.first.inner_text().lower()
    assert found.first.locator("mark").count()
    text = page.evaluate("SECTIONS.map(it => it.text).join(' ')").split()
    for excerpt in found.locator("p").all_inner_texts():
        assert not set(excerpt.strip("… ").split()) - set(text), "an excerpt has whole words"
    found.first.locator("a").click()
    page.wait_for_url("**/*.html#*")


def test_names_in_the_navigation_are_short(open_page):
    names = open_page("index").locator(".bd-sidebar-primary nav a").all_inner_texts()
    assert any(name.startswith("01 · ") for name in names)
    assert not any("3.1.2" in name for name in names)


def test_on_a_phone_names_stay_whole_and_figures_readable(open_page):
    """A table and a figure scroll in the place that they have."""
    page = open_page("01-mathematics")
    page.set_viewport_size({"width": 390, "height": 900})
    names = page.locator("article td code")
    assert names.count()
    for name in names.all():
        assert name.evaluate("it => it.getClientRects().length") == 1, name.inner_text()
    for picture in page.locator("article :is(.cell_output, .explorer) img").all():
        shown, drawn = picture.evaluate("it => [it.clientWidth, it.naturalWidth]")
        assert shown == pytest.approx(0.6 * drawn, abs=1), "its numbers have 10 pixels, not more"


def test_the_dark_book_prints_on_white_and_whole(open_page):
    """A page that is printed is light meanwhile, and dark again after it. Paper cannot scroll."""
    page = open_page("06-peft-and-commonsense", "dark")
    page.evaluate(
        """() => {
            window.addEventListener('beforeprint', () => {
                window.printed = document.documentElement.dataset.theme;
            });
        }"""
    )
    page.pdf()
    assert page.evaluate("window.printed") == "light"
    assert page.locator("html").get_attribute("data-theme") == "dark"

    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 900})  # A4 between its margins
    folded = page.get_by_text("Show the solution")
    assert folded.count() and not folded.filter(visible=True).count()
    for name in ("06-peft-and-commonsense", "index"):
        page = open_page(name)
        parts = page.locator("article :is(pre, table, img)").filter(visible=True)
        room = page.locator("article").bounding_box()["width"]
        for wide, html in parts.evaluate_all(
            "all => all.map(it => [it.scrollWidth, it.outerHTML])"
        ):
            assert wide <= room, html[:200]


def test_a_reader_of_screens_hears_what_a_slider_says(open_page):
    for slider in open_page("05-rank-and-magnitude").locator(".explorer input").all():
        assert slider.get_attribute("aria-valuetext") == slider.locator("+ output").inner_text()
        assert "e-" not in slider.get_attribute("data-values")
