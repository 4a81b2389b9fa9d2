"""The overview reads what the checks said, and executes nothing."""

import json

import nbformat
import pytest
import release
from nbformat.v4 import new_output

from lab_utils import progress


@pytest.fixture
def lesson(tmp_path):
    """A function that writes lesson 01 as saved after the checks of these exercises passed."""

    def write(passing=(), failing=()):
        notebook = nbformat.read(release.NOTEBOOKS / "01-mathematics.ipynb", as_version=4)
        for count, cell in enumerate(notebook.cells):
            kind = cell.metadata.get("nbgrader", {}).get("grade_id", "").split("-")[0]
            if cell.cell_type == "code" and kind in (*passing, *failing):
                cell.execution_count = count
            if cell.cell_type == "code" and kind in failing:
                cell.outputs = [new_output("error", ename="CheckFailed", evalue="", traceback=[])]
        nbformat.write(notebook, tmp_path / "01-mathematics.ipynb")
        return progress.overview(tmp_path)

    return write


def test_a_blank_lesson(lesson):
    found = lesson()
    assert str(found) == "0 of 3 exercises pass."
    assert found.lessons[0].open == ["decompose", "recompose", "count_trainable"]
    assert "0 of 3 pass; open: decompose, recompose, count_trainable" in repr(found)


def test_a_check_that_failed_leaves_its_exercise_open(lesson):
    found = lesson(passing=["recompose", "count"], failing=["decompose"])
    assert str(found) == "2 of 3 exercises pass."
    row = "| 01-mathematics | 2 of 3 pass; open: `decompose` |"
    assert row in found._repr_markdown_().splitlines()


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
    assert progress.overview(tmp_path).lessons[0].open == ["decompose"]


def test_when_all_pass_it_says_so(lesson):
    found = lesson(passing=["decompose", "recompose", "count"])
    assert str(found).startswith("All 3 exercises of 1 lessons pass: you wrote DoRA yourself")


def test_the_solutions_pass():
    found = progress.overview(release.SOLUTIONS)
    assert [row.name for row in found.lessons] == [
        path.stem for path in sorted(release.SOLUTIONS.glob("*.py"))
    ]
    assert not any(row.open for row in found.lessons)
    assert all(row.passed for row in found.lessons)


def test_a_file_that_is_no_notebook(tmp_path):
    (tmp_path / "01-mathematics.ipynb").write_text("<<<<<<< conflict")
    with pytest.raises(ValueError, match=r"01-mathematics\.ipynb is no notebook that can be read"):
        progress.overview(tmp_path)


def test_an_empty_folder(tmp_path):
    assert repr(progress.overview(tmp_path)) == "0 of 0 exercises pass."
