"""What a student reads before an answer: ways on and back, no set-up, no answer."""

import builtins
import itertools
import re
import symtable

import contents
import nbformat
import pytest
import release

TEXTS = sorted(release.SOLUTIONS.glob("*.py"))
SOLUTION = re.compile(r"### BEGIN SOLUTION\n(.*?)### END", re.DOTALL)
TITLE = re.compile(r"^# .*Lesson \d+: (.+)$", re.MULTILINE)
every_lesson = pytest.mark.parametrize("text", TEXTS, ids=[text.stem for text in TEXTS])


def tags(cell):
    return cell.metadata.get("tags", [])


def folded(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


@every_lesson
def test_it_leads_to_the_start_page_and_to_the_lessons_beside_it(text):
    first = release.read_lesson(text).cells[0].source
    at = TEXTS.index(text)
    beside = [*TEXTS[max(at - 1, 0) : at], *TEXTS[at + 1 : at + 2]]
    assert "[Start](../00-start.ipynb)" in first
    for other in beside:
        title = TITLE.search(release.read_lesson(other).cells[0].source)[1]
        assert re.search(rf"\[(?:← )?{other.stem[:2]} · {re.escape(title)}(?: →)?\]", first)
        assert f"]({other.stem}.ipynb)" in first
    assert len(re.findall(r"\]\(\d\d-[\w-]+\.ipynb\)", first)) == len(beside)


def test_a_cell_of_the_start_page_needs_no_other():
    """It asks for its table to be run again, as the first thing on another day."""
    cells = [c.source for c in release.read_lesson(release.START).cells if c.cell_type == "code"]
    assert len(cells) == 2
    for source in cells:
        symbols = symtable.symtable(source, "<cell>", "exec").get_symbols()
        lacking = [s.get_name() for s in symbols if not (s.is_assigned() or s.is_imported())]
        assert not set(lacking) - set(dir(builtins)), source


def test_the_ways_are_made_from_the_titles():
    for before, text, after in zip([None, *TEXTS], TEXTS, [*TEXTS[1:], None], strict=False):
        lesson = text.read_text("utf-8")
        assert contents.with_ways(lesson, before, after) == lesson, "run make release"
        without = re.sub(r"#\n# \[Start\].*\n", "", lesson)
        assert without != lesson
        assert contents.with_ways(without, before, after) == lesson


@every_lesson
def test_set_up_and_what_only_draws_is_folded_and_says_what_it_is(text):
    cells = [cell for cell in release.read_lesson(text).cells if cell.cell_type == "code"]
    assert folded(cells[0]) and "remove-cell" in tags(cells[0])
    for cell in cells:
        assert "NBVAL" not in cell.source
        if folded(cell):
            assert cell.source.startswith("# "), "a folded cell shows its first line"
            assert {"remove-cell", "remove-input"} & set(tags(cell)), cell.source
        assert folded(cell) or "plots.show(" not in cell.source, "a figure has a cell of its own"


@every_lesson
def test_no_line_of_an_answer_stands_in_the_open(text):
    cells = release.read_lesson(text).cells
    answers = {
        line.strip()
        for cell in cells
        if cell.metadata.get("nbgrader", {}).get("solution")
        for region in SOLUTION.findall(cell.source)
        for line in region.splitlines()
    }
    answers = {line for line in answers if len(line) > 30}
    assert answers or text.stem.startswith("07")
    for cell in cells:
        if "nbgrader" not in cell.metadata and not folded(cell):
            found = answers & {line.strip() for line in cell.source.splitlines()}
            assert not found


@every_lesson
def test_no_printed_line_is_wider_than_a_laptops_page(text):
    """JupyterLab would break it within a word. (A check shows its lines as a page, which wraps.)"""
    cells = nbformat.read(text.with_suffix(".ipynb"), as_version=4).cells
    for cell in cells:
        if cell.metadata.get("nbgrader", {}).get("grade") or cell.cell_type != "code":
            continue
        printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
        too_wide = [line for line in printed.splitlines() if len(line) > 100]
        assert not too_wide


@every_lesson
def test_every_column_of_a_table_has_a_name(text):
    """A reader of screens says the name before each cell."""
    for cell in release.read_lesson(text).cells:
        for head, rule in itertools.pairwise(cell.source.splitlines()):
            if re.fullmatch(r"\|(?:[ :]*-+[ :]*\|)+", rule):
                assert all(name.strip() for name in head.strip("|").split("|")), head


@every_lesson
def test_no_line_becomes_a_list_by_accident(text):
    """Markdown takes a number and a dot at the start of a line for an item, in a sentence too."""
    for cell in release.read_lesson(text).cells:
        if cell.cell_type != "markdown":
            continue
        for before, line in itertools.pairwise(["", *cell.source.splitlines()]):
            if re.match(r"1[.)] ", line):
                assert not before or before.endswith(":"), line
