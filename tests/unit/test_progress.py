"""The overview reads what the checks said, and executes nothing."""

import json
import re
import shutil
from datetime import date

import nbformat
import pytest
import release
from nbformat.v4 import new_output

from lab_utils import progress


@pytest.fixture
def lesson(tmp_path):
    """A function that writes lesson 01 as saved after the checks of these exercises passed.

    It has three exercises of the lesson, however many more the lesson has.
    """

    def kind_of(cell):
        return cell.metadata.get("nbgrader", {}).get("grade_id", "").split("-")[0]

    def write(passing=(), failing=()):
        notebook = nbformat.read(release.NOTEBOOKS / "01-mathematics.ipynb", as_version=4)
        kept = ("", "decompose", "recompose", "count")
        notebook.cells = [cell for cell in notebook.cells if kind_of(cell) in kept]
        for count, cell in enumerate(notebook.cells):
            kind = kind_of(cell)
            if cell.cell_type == "code" and kind in (*passing, *failing):
                cell.execution_count = count
            if cell.cell_type == "code" and kind in failing:
                cell.outputs = [new_output("error", ename="CheckFailed", evalue="", traceback=[])]
        nbformat.write(notebook, tmp_path / "01-mathematics.ipynb")
        return progress.overview(tmp_path)

    return write


def test_a_blank_lesson(lesson):
    found = lesson()
    assert str(found) == "0 of 3 exercises pass: 0 of 10 points."
    assert found.lessons[0].open == ["decompose", "recompose", "count_trainable"]
    still = "decompose (not tried), recompose (not tried), count_trainable (not tried)"
    assert f"0 of 3 pass; open: {still}; 0 of 10 points" in repr(found)


def test_a_copy_is_no_lesson(lesson, tmp_path):
    lesson()
    shutil.copy(tmp_path / "01-mathematics.ipynb", tmp_path / "01-mathematics-Copy1.ipynb")
    assert [found.name for found in progress.overview(tmp_path).lessons] == ["01-mathematics"]


def test_a_renamed_lesson_stays_in_its_place(lesson, tmp_path):
    lesson(passing=["decompose"])
    path = tmp_path / "01-mathematics.ipynb"
    (tmp_path / "02-notes.ipynb").write_text('{"cells": []}')
    (tmp_path / "scratch.ipynb").write_text("no notebook, and nobody's lesson")
    (tmp_path / "of my own.ipynb").write_text('{"cells": []}')
    path.rename(tmp_path / "my homework (1).ipynb")
    first, second = progress.overview(tmp_path).lessons
    assert (first.number, first.passed, second.number) == ("01", ["decompose"], "02")
    page = progress.overview(tmp_path)._repr_markdown_()
    assert "[01 · the mathematics](" in page and "my%20homework%20%281%29.ipynb#cell-id=" in page

    lesson()  # the released one again, beside it: that is the lesson
    for name in ("01-mathematics-Copy1", "01-notes"):
        shutil.copy(tmp_path / "my homework (1).ipynb", tmp_path / f"{name}.ipynb")
    (tmp_path / "01-notes.ipynb").write_text('{"cells": []}')
    first, _ = progress.overview(tmp_path).lessons
    assert first.name == "01-mathematics" and not first.passed


def test_a_check_that_failed_leaves_its_exercise_open(lesson):
    found = lesson(passing=["recompose", "count"], failing=["decompose"])
    assert str(found) == "2 of 3 exercises pass: 5 of 10 points."
    page = found._repr_markdown_()
    row = next(line for line in page.splitlines() if line.startswith("| [01 · the mathematics]"))
    time = f"| {found.lessons[0].minutes}\xa0min |"
    assert time in row and "| 5 of 10 |" in row
    assert "✗\xa0[decompose](" in row
    assert "✓\xa0[recompose](" in row and "✓\xa0[count\\_trainable](" in row
    assert f"| all {time}" in page and "✗ failed" in page.splitlines()[-1]


def test_an_exercise_links_to_its_heading(lesson, tmp_path):
    lesson()
    page = progress.overview(tmp_path)._repr_markdown_()
    link, cell_id = re.search(r"\[decompose\]\((\S+)#cell-id=(\S+)\)", page).groups()
    assert link == f"{tmp_path}/01-mathematics.ipynb"
    cells = nbformat.read(tmp_path / "01-mathematics.ipynb", as_version=4).cells
    (linked,) = (cell for cell in cells if cell.id == cell_id)
    assert "### Exercise 1: `decompose`" in linked.source


def test_all_checks_of_an_exercise_must_have_run(lesson, tmp_path):
    lesson(passing=["decompose", "recompose", "count"])
    path = tmp_path / "01-mathematics.ipynb"
    notebook = json.loads(path.read_text())
    (zeros,) = (
        cell
        for cell in notebook["cells"]
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "decompose-zeros"
    )
    zeros["execution_count"] = None
    path.write_text(json.dumps(notebook))
    (found,) = progress.overview(tmp_path).lessons
    assert found.open == ["decompose"]
    assert found.exercises[0].state == "begun"


def test_when_all_pass_it_says_so(lesson):
    found = lesson(passing=["decompose", "recompose", "count"])
    assert str(found).startswith("All 3 exercises of 1 lessons pass: you wrote DoRA yourself")


def test_a_summary_of_half_a_lesson_says_what_is_open(lesson, tmp_path):
    lesson(passing=["recompose", "count"], failing=["decompose"])
    found = progress.summary(tmp_path)
    for text in (str(found), repr(found), found._repr_html_()):
        plain = " ".join(text.split())
        assert "01-mathematics" in plain
        assert "2 of 3 pass; open: decompose (failed)" in plain
        assert "5 of 10 points" in plain, "a check that failed gives none"
        assert "Still open: exercises in 01-mathematics." in plain
        assert "You can split" not in plain
        assert "hidden tests as well." in plain, "this lesson has no open question"


def test_a_summary_of_the_solutions_says_what_was_learnt_and_what_counts():
    texts = "\n".join(path.read_text() for path in release.SOLUTIONS.glob("*.py"))
    points = re.findall(r"^# ### Exercise \d+: `\w+` \((\d+) points?\)$", texts, re.MULTILINE)
    total = sum(map(int, points))
    before = date.today()
    found = progress.summary(release.SOLUTIONS)
    assert before <= found.day <= date.today()
    for text in (str(found), found._repr_html_()):
        plain = " ".join(text.split())
        assert f"{found.day.day} {found.day:%B %Y}" in plain
        assert f"All {len(points)} exercises of {len(found.lessons)} lessons pass" in plain
        assert f"{total} of {total} points" in plain
        assert "You can split a weight into magnitude and direction" in plain
        assert "Still open" not in plain
        assert "grading counts: it runs hidden tests" in plain
        assert "a person marks the open question (4 points)" in plain


def test_a_summary_is_valid_html_whatever_a_file_is_called(lesson, tmp_path):
    lesson()
    (tmp_path / "01-mathematics.ipynb").rename(tmp_path / "01-<b>.ipynb")
    assert "01-&lt;b&gt;" in progress.summary(tmp_path)._repr_html_()


def test_the_solutions_pass():
    found = progress.overview(release.SOLUTIONS)
    assert [row.name for row in found.lessons] == [
        path.stem for path in sorted(release.SOLUTIONS.glob("*.py"))
    ]
    assert not any(row.open for row in found.lessons)
    assert all(row.passed for row in found.lessons)
    *lessons, total = re.findall(r"^\| .* \|$", found._repr_markdown_(), re.MULTILINE)[2:]
    assert lessons[-1].endswith("+ 4 by hand |") and total.endswith("+ 4 by hand |")


def test_a_file_that_is_no_notebook(tmp_path):
    (tmp_path / "01-mathematics.ipynb").write_text("<<<<<<< conflict")
    with pytest.raises(ValueError, match=r"01-mathematics\.ipynb cannot be read as a notebook"):
        progress.overview(tmp_path)


ODD = ["<<<<<<< conflict", "[]", "{}", '{"cells": 5}', '{"cells": [null]}', "[" * 10**5, "\x00"]
ODD += ['{"cells": [{"cell_type": "code", "source": "x"}]}', '{"cells": [{"metadata": []}]}']


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_what_else_lies_in_the_folder_does_no_harm(lesson, tmp_path, text):
    before = lesson().lessons
    (tmp_path / "scratch.ipynb").write_text(text)
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "gone.ipynb").symlink_to(tmp_path / "nowhere")
    assert len(before) == 1 and progress.overview(tmp_path).lessons == before
    (tmp_path / "02-from-scratch.ipynb").write_text(text)
    with pytest.raises(ValueError, match=r"02-from-scratch\.ipynb cannot be read as a notebook"):
        progress.overview(tmp_path)


def test_lines_of_a_summary_break_no_name():
    found = progress.summary(release.NOTEBOOKS)
    for path in release.NOTEBOOKS.glob("*.ipynb"):
        assert str(found).count(path.stem) == 2, path.stem  # in its row, and as still open


def test_an_empty_folder(tmp_path):
    assert repr(progress.overview(tmp_path)) == "0 of 0 exercises pass: 0 of 0 points."
