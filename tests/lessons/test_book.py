"""The reading version: complete by itself, solutions folded, hidden tests left out."""

import math
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import addresses
import book_parts
import build_book
import nbformat
import pytest
import release
from book_parts import EXPLORER
from matplotlib import pyplot as plt

LESSONS = sorted(path.stem for path in release.SOLUTIONS.glob("*.ipynb"))
every_lesson = pytest.mark.parametrize("name", LESSONS)

SECRET = re.compile(r"BEGIN (?:HIDDEN TESTS|MARK SCHEME)[^\n]*\n(.*?)(?:### |<!-- )END", re.DOTALL)
SOLUTION = re.compile(r"BEGIN SOLUTION[^\n]*\n(.*?)(?:### |<!-- )END", re.DOTALL)


class Page(HTMLParser):
    """What a page shows, with and without what is folded, and where it points to."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.ids, self.links, self.loaded, self.images = set(), [], [], []
        self.open_text, self.folded_text = [], []
        self.folds, self.unseen = 0, 0  # how many elements of that kind we are in
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if tag in ("img", "script") and "src" in attributes:
            self.loaded.append(attributes["src"])
        if tag == "link" and attributes["rel"] in ("stylesheet", "preload", "icon"):
            self.loaded.append(attributes["href"])
        if tag == "details":
            assert "open" not in attributes
        self.folds += tag == "details"
        self.unseen += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.folds -= tag == "details"
        self.unseen -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.unseen:
            (self.folded_text if self.folds else self.open_text).append(data)


def words(text):
    """Return a text without marks, which Markdown and Sphinx's typography change."""
    found = re.findall(r"[^\W_]+", "".join(text))
    return f" {' '.join(found)} "


def lines_of(pattern, cell):
    """Return the lines of a cell's marked regions, as words, that stand nowhere else in it."""
    inside = "".join(pattern.findall(cell.source)).splitlines()
    outside = words(pattern.sub("", cell.source))
    return [words(line) for line in inside if len(words(line)) > 12 and words(line) not in outside]


@pytest.fixture(scope="module")
def pages(site):
    return {path.stem: Page(path) for path in site.glob("*.html")}


@pytest.fixture
def lesson(name):
    return nbformat.read(release.SOLUTIONS / f"{name}.ipynb", as_version=4)


def test_there_is_a_page_for_each_lesson_and_the_front_page_links_to_it(pages):
    assert {"index", *LESSONS} <= pages.keys()
    assert {f"{name}.html" for name in LESSONS} <= set(pages["index"].links)


def test_every_link_and_image_of_the_site_is_there(site, pages):
    followed = 0
    for page in pages.values():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (page.path.parent / unquote(parts.path)) if parts.path else page.path
            assert target.is_file(), f"{page.path.name}: {link}"
            if parts.fragment and target.suffix == ".html":
                assert parts.fragment in pages[target.stem].ids, f"{page.path.name}: {link}"
            followed += 1
    assert followed > 100, "the test looked at nothing"


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loaded = [link for page in pages.values() for link in page.loaded]
    assert any("_static" in link for link in loaded)
    assert not [link for link in loaded if urlsplit(link).netloc]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet


@every_lesson
def test_no_hidden_test_and_no_mark_scheme_is_shown(lesson, pages, name):
    shown = words(pages[name].open_text + pages[name].folded_text)
    secrets = 0
    for cell in lesson.cells:
        for line in lines_of(SECRET, cell):
            secrets += 1
            assert line not in shown
        if "BEGIN HIDDEN TESTS" in cell.source:
            assert words(cell.source.splitlines()[0]) in shown, "the test must find what is shown"
    assert secrets >= 4, "the test looked at nothing"


@every_lesson
def test_it_is_no_printed_notebook(lesson, pages, name):
    """No set-up, no lists of what checks found, no progress of somebody who solved everything."""
    html, shown = pages[name].path.read_text(), "".join(pages[name].open_text)
    assert any("remove-cell" in cell.metadata.get("tags", []) for cell in lesson.cells)
    for text in (
        "Save the notebook",
        "find_spec",
        "  ok    ",
        "progress.overview",
        "exercises pass",
    ):
        assert text not in shown, text
    assert "it/s" not in html and "s/it" not in html


@every_lesson
def test_every_solution_is_folded(lesson, pages, name):
    folded, open_text = words(pages[name].folded_text), words(pages[name].open_text)
    cells = [c for c in lesson.cells if c.metadata.get("nbgrader", {}).get("solution")]
    assert len(cells) >= 2
    for cell in cells:
        for line in lines_of(SOLUTION, cell):
            assert line in folded
        if cell.cell_type == "code":
            assert words(cell.source.splitlines()[0]) in folded
            assert words(cell.source.splitlines()[0]) not in open_text
    assert "BEGIN SOLUTION" not in open_text + folded


@every_lesson
def test_an_explorer_has_a_picture_for_all_values_of_its_controls(site, name):
    html = (site / f"{name}.html").read_text()
    (folder,) = re.findall(r'data-frames="(\S+?)"', html)
    most = [int(number) + 1 for number in re.findall(r'type="range" min="0" max="(\d+)"', html)]
    frames = {path.name for path in (site / folder).glob("*.png")}
    assert frames == {f"{number}.png" for number in range(math.prod(most))}


@every_lesson
def test_every_value_that_the_book_shows_can_be_drawn(lesson):
    explorers = [i for i, cell in enumerate(lesson.cells) if EXPLORER.search(cell.source)]
    for explorer in (book_parts.explorer_of(lesson.cells, index) for index in explorers):
        shown = {name: control.value for name, control in explorer.controls.items()}
        choices = explorer.choices(book_parts.MOST[len(shown)])
        for name, value in ((n, value) for n, values in choices.items() for value in values):
            figure, alt = explorer._draw(**shown | {name: value})
            plt.close(figure)
            assert len(alt) > 20
    assert explorers


def test_the_front_page_says_what_was_found_how_to_run_it_to_cite_it_and_the_licence(pages):
    shown = "".join(pages["index"].open_text)
    for text in ("below LoRA", "make lab", "Liu", "Apache License 2.0", "CC BY 4.0"):
        assert text in shown


def test_every_picture_has_an_alternative_text(pages):
    pictures = [image for page in pages.values() for image in page.images]
    assert len(pictures) > len(LESSONS)
    assert all(image.get("alt") and image["alt"] not in image["src"] for image in pictures)


@every_lesson
def test_formulas_are_drawn(pages, name):
    """TeX is left in the titles of the drawings alone, for those who cannot see them."""
    html = pages[name].path.read_text()
    drawn = re.findall(r'<span class="formula[^>]*>\W*<svg.*?</svg>', html, re.DOTALL)
    assert drawn and all("<path" in formula for formula in drawn)
    for formula in drawn:
        html = html.replace(formula, "")
    prose = re.sub(r"<(pre|code|script)\b.*?</\1>", "", html, flags=re.DOTALL)
    assert not re.search(r"\$\$|\\(?:frac|lVert|Delta|alpha|nabla)", prose)


def test_a_warning_leaves_the_old_site_alone(tmp_path, monkeypatch):
    def with_a_dead_link(folder):
        (folder / "index.md").write_text("# A page\n\n[nowhere](gone.md)\n")

    monkeypatch.setattr(build_book, "write_sources", with_a_dead_link)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("the old one")
    with pytest.raises(build_book.BookNotMade):
        build_book.build(site)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (site / "index.html").read_text() == "the old one"


def test_a_line_that_starts_with_per_cent_is_no_comment(tmp_path):
    text = "an interval of 95\n% holds\n\n- 50\n  % do not"
    cell = nbformat.v4.new_markdown_cell(text)
    shown = build_book.page(nbformat.v4.new_notebook(cells=[cell]), "lesson", tmp_path)
    assert shown.cells[0].source == "an interval of 95\n\\% holds\n\n- 50\n  \\% do not"


PUBLISHED = "https://github.com/a-school/dora-lab"  # where the lab might be


def test_pages_have_buttons_that_open_the_students_notebook(monkeypatch, tmp_path):
    lessons = sorted(path.stem for path in addresses.ROOT.glob("solutions/dora/*.py"))
    assert lessons

    def empty_lessons(folder):
        """Write a site with the names of the lessons, which takes a moment and not a minute."""
        contents = "\n".join(["```{toctree}", *lessons, "```"])
        (folder / "index.md").write_text(f"# The lab\n\n{contents}\n")
        (folder / build_book.FRAMES).mkdir()
        for lesson in lessons:
            page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {lesson}")])
            nbformat.write(page, folder / f"{lesson}.ipynb")

    monkeypatch.setattr(addresses, "read_repository", lambda: PUBLISHED)
    monkeypatch.setattr(build_book, "write_sources", empty_lessons)
    build_book.build(tmp_path / "site")
    for lesson in lessons:
        page = (tmp_path / "site" / f"{lesson}.html").read_text()
        for link in re.findall(r"\((.*?)\)", addresses.buttons(PUBLISHED, lesson)):
            assert f'href="{link}"' in page
