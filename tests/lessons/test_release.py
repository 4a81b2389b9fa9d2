"""The way of a lesson: text, executed solution and student's notebook say the same."""

import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import release
from nbclient import NotebookClient

from lab_grader.intake.dependencies import names_of

TEXTS = sorted(release.SOLUTIONS.glob("*.py"))
every_lesson = pytest.mark.parametrize("text", TEXTS, ids=[text.stem for text in TEXTS])


def solution_of(text):
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def released_of(text):
    return nbformat.read(release.NOTEBOOKS / f"{text.stem}.ipynb", as_version=4)


def role(cell):
    """Return "solution", "test", or "" for a cell that is neither; of an open question, which a
    person marks, "question" and "answer"."""
    nbgrader = cell.metadata.get("nbgrader", {})
    if cell.cell_type == "markdown":
        return "answer" if nbgrader.get("grade") else "question" if nbgrader else ""
    return "test" if nbgrader.get("grade") else "solution" if nbgrader.get("solution") else ""


def test_there_are_lessons():
    assert [text.stem for text in TEXTS][:2] == ["01-mathematics", "02-from-scratch"]
    for folder in (release.SOLUTIONS, release.NOTEBOOKS):
        found = sorted(path.stem for path in folder.glob("*.ipynb"))
        assert found == [text.stem for text in TEXTS]


@every_lesson
def test_the_solution_is_what_its_text_gives(text):
    expected, found = release.read_lesson(text), solution_of(text)
    for key in ("id", "cell_type", "source", "metadata"):
        assert [cell[key] for cell in found.cells] == [cell[key] for cell in expected.cells], key


@every_lesson
def test_the_solution_was_executed_from_top_to_bottom_without_an_error(text):
    cells = [cell for cell in solution_of(text).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert "stderr" not in {output.get("name") for output in outputs}


@every_lesson
def test_a_second_release_executes_nothing_and_an_edited_lesson_again(text, tmp_path):
    assert release.is_made(text)
    edited = tmp_path / text.name
    edited.write_text(text.read_text().replace("import torch", "import torch  # edited", 1))
    assert not release.is_made(edited), "there is no notebook"
    shutil.copy(text.with_suffix(".ipynb"), tmp_path)
    assert not release.is_made(edited)
    shutil.copy(text, edited)
    assert release.is_made(edited)


@pytest.fixture(scope="module")
def made_again(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    return {path.stem: path for path in release.generate_assignment(folder, "--no-db")}


@every_lesson
def test_the_students_notebook_is_what_nbgrader_makes_of_the_solution(text, made_again):
    found = (release.NOTEBOOKS / f"{text.stem}.ipynb").read_text()
    assert found == made_again[text.stem].read_text()


@every_lesson
def test_nothing_of_a_solution_a_hidden_test_or_an_output_is_released(text):
    released = {cell.id: cell for cell in released_of(text).cells}
    for cell in released.values():
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert "SOLUTION" not in cell.source
        assert "HIDDEN" not in cell.source
        assert "MARK SCHEME" not in cell.source
    assert released_of(text).metadata.keys() == {"kernelspec", "language_info"}

    secrets = 0
    for cell in solution_of(text).cells:
        regions = re.findall(
            r"BEGIN (?:SOLUTION|HIDDEN TESTS|MARK SCHEME)[^\n]*\n(.*?)(?:### |<!-- )END",
            cell.source,
            re.DOTALL,
        )
        for line in "".join(regions).splitlines():
            if line.strip() and line.strip() not in cell.source.split(" BEGIN ")[0]:
                secrets += 1
                assert line.strip() not in released[cell.id].source
    assert secrets > 10, "the test looked at nothing"


def test_only_notebooks_are_released():
    listed = subprocess.run(
        ["git", "ls-files", "notebooks"],
        cwd=release.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = listed.stdout.split()
    assert all(Path(name).suffix == ".ipynb" for name in files)
    present = [
        path for path in release.NOTEBOOKS.rglob("*") if ".ipynb_checkpoints" not in path.parts
    ]
    assert all(path.suffix == ".ipynb" for path in present)


@every_lesson
def test_exercises_are_well_formed(text):
    cells = [cell for cell in solution_of(text).cells if role(cell)]
    for cell in cells:
        assert cell.metadata.nbgrader.locked == (role(cell) in ("test", "question"))
        if role(cell) in ("solution", "answer"):
            assert "BEGIN SOLUTION" in cell.source
        elif role(cell) == "question":
            assert "BEGIN MARK SCHEME" in cell.source
        else:
            assert cell.metadata.nbgrader.points > 0
            assert cell.source.startswith("checks.check_"), "a test cell is one call of a check"
            assert "### BEGIN HIDDEN TESTS" in cell.source


@every_lesson
def test_a_lesson_goes_on_without_the_answers(text):
    """Only test cells use what an exercise defines, so every other cell of a blank notebook runs
    as it does in the solution."""
    cells = [cell for cell in released_of(text).cells if cell.cell_type == "code"]
    names = {cell.id: names_of(cell.source) for cell in cells}
    defined = [names[cell.id].binds for cell in cells if role(cell) == "solution"]
    assert defined and all(defined)
    for cell in cells:
        used = names[cell.id].uses & frozenset.union(*defined)
        assert bool(used) == (role(cell) == "test"), cell.source


def test_a_blank_notebook_fails_in_exercise_and_test_cells_only(monkeypatch):
    """The first lesson, executed; of the others one knows it from the names in their cells."""
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")  # demonstrations train briefly
    notebook = released_of(TEXTS[0])
    NotebookClient(
        notebook,
        timeout=60,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(release.NOTEBOOKS)}},
    ).execute()
    tests = [cell for cell in notebook.cells if role(cell) == "test"]
    assert tests
    for cell in notebook.cells:
        errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
        if not role(cell):
            assert not errors, cell.source
    for cell in tests:
        (error,) = (o for o in cell.outputs if o.output_type == "error")
        assert error.ename == "CheckFailed"
        assert "is not written yet" in error.evalue
        assert all("lab_utils" not in line for line in error.traceback), "the stack is not shown"


def test_an_edit_changes_the_id_of_no_other_cell():
    cells = release.read_lesson(TEXTS[0]).cells
    before = release.stable_ids(cells)
    assert len(set(before)) == len(before)
    edited = [nbformat.v4.new_markdown_cell("a new first cell"), *cells]
    assert release.stable_ids(edited)[1:] == before
    cells[3].source += "\n# a remark"
    after = release.stable_ids(cells)
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert changed == [3]
    twins = [nbformat.v4.new_code_cell("x = 1") for _ in range(3)]
    assert len(set(release.stable_ids(twins))) == 3


def test_widget_ids_are_numbered():
    notebook = nbformat.v4.new_notebook()
    state = {"f" * 32: {"children": "IPY_MODEL_" + "e" * 32}, "e" * 32: {}}
    notebook.metadata["widgets"] = {release.WIDGETS: {"state": state}}
    stable = release.with_stable_widgets(notebook).metadata["widgets"][release.WIDGETS]["state"]
    assert stable == {"0" * 32: {"children": "IPY_MODEL_" + "0" * 31 + "1"}, "0" * 31 + "1": {}}


@every_lesson
def test_what_a_page_without_widgets_shows(text):
    outputs = [out for cell in solution_of(text).cells for out in cell.get("outputs", [])]
    widgets = [out.data for out in outputs if release.VIEW in out.get("data", {})]
    models = solution_of(text).metadata.widgets[release.WIDGETS]["state"]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    assert all(out.metadata["image/png"]["alt"] for out in pictures)
    assert not any("text/html" in out.data for out in pictures), "the same picture again"
    explorers = 0
    for data in widgets:
        if models[data[release.VIEW]["model_id"]]["model_name"] == "VBoxModel":
            if "image/png" in data:
                explorers += 1
                assert "In JupyterLab it follows these controls:" in data["text/plain"]
            else:  # the quiz on mistakes, which is text
                assert re.search(r"checks\.check_\w+\(", data["text/plain"])
        else:
            bar = re.search(r"(\d+)(?: of |/)(\d+)", data["text/plain"])
            assert bar and bar[1] == bar[2], data["text/plain"]
    assert explorers


def test_edits_in_a_solutions_notebook_are_not_lost(tmp_path):
    text, solution = tmp_path / TEXTS[0].name, tmp_path / f"{TEXTS[0].stem}.ipynb"
    shutil.copy(TEXTS[0], text)
    shutil.copy(TEXTS[0].with_suffix(".ipynb"), solution)
    release.refuse_lost_edits(text, solution)
    text.write_text(text.read_text() + "\n# %%\nprint('new in the text')\n")
    release.refuse_lost_edits(text, solution)

    notebook = nbformat.read(solution, as_version=4)
    notebook.cells[1].source += "\nprint('edited in the notebook')"
    nbformat.write(notebook, solution)
    with pytest.raises(
        release.WorkWouldBeLost, match=r"has edits that 01-mathematics\.py does not"
    ):
        release.refuse_lost_edits(text, solution)


@pytest.mark.parametrize("work", ["answer", "output", "open answer"])
def test_a_students_work_is_not_overwritten(tmp_path, work):
    name = "07-rslora-challenge" if work == "open answer" else "01-mathematics"
    path = tmp_path / f"{name}.ipynb"
    shutil.copy(release.NOTEBOOKS / path.name, path)
    release.refuse_students_work(path)
    notebook = nbformat.read(path, as_version=4)
    if work == "open answer":
        cell = next(cell for cell in notebook.cells if role(cell) == "answer")
        cell.source = "The scaling fell eightfold."
    elif work == "answer":
        cell = next(cell for cell in notebook.cells if role(cell) == "solution")
        cell.source = "def decompose(weight, norm_dim=1, eps=1e-8):\n    return weight, weight"
    else:
        cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
        cell.outputs = [nbformat.v4.new_output("stream", text="hello")]
    nbformat.write(notebook, path)
    other = tmp_path / "other.ipynb"
    shutil.copy(path, other)
    untouched = release.NOTEBOOKS / path.name
    with pytest.raises(release.WorkWouldBeLost, match="hold answers or outputs") as refused:
        release.refuse_students_work(path, untouched, other)
    told = str(refused.value)
    assert str(path) in told and str(other) in told and str(untouched) not in told


def test_a_test_cell_that_cannot_be_graded_is_refused(tmp_path):
    text = tmp_path / TEXTS[0].name
    right = 'checks.check_decompose(decompose, "zeros")'
    assert right in TEXTS[0].read_text()
    text.write_text(TEXTS[0].read_text().replace(right, "assert decompose is not None"))
    release.refuse_other_tests(TEXTS[0])
    with pytest.raises(release.UngradableTest, match=r"test decompose-zeros: line 1, 'assert"):
        release.refuse_other_tests(text)
