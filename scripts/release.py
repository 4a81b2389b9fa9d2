"""Make both notebooks of every lesson from its text.

    solutions/dora/NN-name.py       what people edit
    solutions/dora/NN-name.ipynb    the same, executed, with outputs
    notebooks/dora/NN-name.ipynb    what a student receives: `nbgrader generate_assignment`

and the page that leads to them, notebooks/00-start.ipynb, from solutions/00-start.py.

    python scripts/release.py          execute the lessons whose text has changed
    python scripts/release.py --all    execute every lesson, after a change of what they import

A second call changes nothing. Work that would be overwritten stops it: answers in notebooks/,
or edits in a solution's .ipynb that its .py does not have.
"""

import argparse
import hashlib
import html
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import addresses
import contents
import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from lab_grader.wire.calls import NotATestCell, read_test_cell
from lab_utils.jupyter import Kernel

ROOT = Path(__file__).resolve().parents[1]
ASSIGNMENT = "dora"
SOLUTIONS = ROOT / "solutions" / ASSIGNMENT
NOTEBOOKS = ROOT / "notebooks" / ASSIGNMENT
START = ROOT / "solutions" / "00-start.py"  # not of the assignment: nothing in it is graded
# What JupyterLab writes into a notebook that it opens: with it there, opening changes nothing.
METADATA = {
    "kernelspec": {
        "display_name": "DoRA Lab (Python 3)",  # as scripts/set_up.sh registers it
        "language": "python",
        "name": "python3",
    },
    "language_info": Kernel.language_info,
}
STUBS = {  # what nbgrader puts in place of a solution
    "code": "raise NotImplementedError()",
    "markdown": "YOUR ANSWER HERE",
}
WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


GRADED = (
    "a lesson, test or exercise was added, removed or renamed, and the gradebook has submissions: "
    "nbgrader then keeps the cells that they have. The old release is still there. Undo that "
    "change (texts and points may change); or begin anew: keep a copy of grading/, run "
    f"`nbgrader db assignment remove {ASSIGNMENT} --force`, which deletes all marks, those by hand "
    "too, then make release and make grade."
)


class WorkWouldBeLost(Exception):
    """A file that the release writes holds work that no other file has."""


class UngradableTest(Exception):
    """A test cell is of a form that cannot be run outside the student's process."""


def stable_ids(cells: list[NotebookNode]) -> list[str]:
    """Return an id for each cell from its text, so that an edit changes no other cell's id."""
    digests, ids = [], []
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        ids.append(f"{digest}-{digests.count(digest)}" if digest in digests else digest)
        digests.append(digest)
    return ids


def read_lesson(text: Path) -> NotebookNode:
    """Return the notebook that a lesson's text describes, not executed."""
    notebook = jupytext.read(text)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell, cell_id in zip(notebook.cells, stable_ids(notebook.cells), strict=True):
        cell.id = cell_id
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's note on blank lines
    return notebook


def execute(notebook: NotebookNode, folder: Path = SOLUTIONS) -> None:
    """Run every cell in a new kernel, in a folder, and keep the outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed that is not tagged
            `raises-exception`.
    """
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,  # else the split of a cell's prints differs from run to run
    ).execute()
    notebook.metadata["language_info"] = nbformat.from_dict(METADATA["language_info"])


def is_made(text: Path) -> bool:
    """Return whether a lesson's executed notebook is there and has the cells of its text.

    Losses of a training and times differ from run to run, so what is made already is left alone.
    """
    solution = text.with_suffix(".ipynb")
    if not solution.exists():
        return False
    expected, found = read_lesson(text).cells, nbformat.read(solution, as_version=4).cells
    executed = [cell.execution_count for cell in found if cell.cell_type == "code"]
    return executed == list(range(1, len(executed) + 1)) and all(
        [cell[key] for cell in found] == [cell[key] for cell in expected]
        for key in ("id", "cell_type", "source", "metadata")
    )


def with_stable_widgets(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with numbered instead of random widget ids."""
    state = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    text = json.dumps(notebook)
    for number, model_id in enumerate(state):
        text = text.replace(model_id, f"{number:032x}")
    return nbformat.from_dict(json.loads(text))


def finish_progress_bars(notebook: NotebookNode) -> None:
    """Let the text form of each progress bar say how it ended.

    tqdm writes that text once, when a bar appears and stands at 0%; later it changes only the
    widget. The text is what a page without widgets shows.
    """
    models = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for data in (output.data for output in outputs if VIEW in output.get("data", {})):
        bar = models[data[VIEW]["model_id"]]
        if bar["model_name"] == "HBoxModel":  # the label, the bar itself, the counts
            parts = [models[name.removeprefix("IPY_MODEL_")] for name in bar["state"]["children"]]
            said = [part["state"]["value"] for part in parts if part["model_name"] == "HTMLModel"]
            data["text/plain"] = " ".join(html.unescape(" ".join(said)).split())


def keep_one_form_of_pictures(notebook: NotebookNode) -> None:
    """Drop one of the two forms of each figure, which are the same data: of a cell's output the
    HTML, since GitHub and the reading version show the PNG file; of what a widget holds, which only
    JupyterLab shows, the PNG file."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data.pop("text/html", None)
    models = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    for model in models.values():
        for output in model["state"].get("outputs", []):
            if "text/html" in output.get("data", {}):
                output["data"].pop("image/png", None)


def refuse_lost_edits(text: Path, solution: Path) -> None:
    """Raise `WorkWouldBeLost` if a solution was edited as a notebook and the text was not."""
    if not solution.exists():
        return
    cells = nbformat.read(solution, as_version=4).cells
    edited = [cell.id for cell in cells] != stable_ids(cells)
    in_text = [cell.source for cell in cells] == [cell.source for cell in read_lesson(text).cells]
    if edited and not in_text:
        raise WorkWouldBeLost(
            f"{solution} has edits that {text.name} does not have. To keep them: "
            f"jupytext --to py:percent {solution}. To drop them: delete {solution.name}. "
            "Then run make release again."
        )


def refuse_students_work(*released: Path) -> None:
    """Raise `WorkWouldBeLost` if someone has worked in released notebooks; it names all of them."""
    found = [f"  {path} (cell {cell})" for path in released if (cell := _worked_in(path))]
    if found:
        raise WorkWouldBeLost(
            "make release would overwrite notebooks that hold answers or outputs:\n"
            + "\n".join(found)
            + "\nMove them elsewhere to keep them, or delete them. Then run make release again."
        )


def _worked_in(released: Path) -> str | None:
    """Return the id of the first cell of a released notebook that has been edited."""
    for cell in nbformat.read(released, as_version=4).cells:
        solution = cell.metadata.get("nbgrader", {}).get("solution", False)
        answered = solution and STUBS[cell.cell_type] not in cell.source
        if answered or cell.get("outputs") or cell.get("execution_count"):
            return cell.id
    return None


def refuse_other_tests(text: Path) -> None:
    """Raise `UngradableTest` if a test cell is of a form that `lab_grader` cannot run."""
    for cell in read_lesson(text).cells:
        nbgrader = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code" or not nbgrader.get("grade") or nbgrader.get("solution"):
            continue
        try:
            read_test_cell(cell.source)
        except NotATestCell as error:
            raise UngradableTest(f"{text}, test {nbgrader['grade_id']}: {error}.") from error


def generate_assignment(folder: Path, *options: str) -> list[Path]:
    """Call nbgrader to make the students' notebooks in `folder`; return their paths."""
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", ASSIGNMENT, "--force"]
    command += [f"--CourseDirectory.release_directory={os.path.relpath(folder, ROOT)}", *options]
    try:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        if "there are submissions associated with it" in error.stderr:
            raise WorkWouldBeLost(GRADED) from error
        raise
    return sorted((folder / ASSIGNMENT).glob("*.ipynb"))


def renew_texts(texts: list[Path]) -> None:
    """Renew what lessons and README have from each other: buttons, links, the table."""
    addresses.renew()
    for before, text, after in zip([None, *texts], texts, [*texts[1:], None], strict=False):
        old = text.read_text("utf-8")
        if (new := contents.with_ways(old, before, after)) != old:
            text.write_text(new, "utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    renewed = contents.in_readme(readme, [(text, read_lesson(text)) for text in texts])
    if renewed != readme:
        (ROOT / "README.md").write_text(renewed, "utf-8")


def release(execute_all: bool = False) -> None:
    """Make the notebooks of the course: those whose text has changed, or every one."""
    texts = sorted(SOLUTIONS.glob("*.py"))
    for text in texts:
        refuse_lost_edits(text, text.with_suffix(".ipynb"))
        refuse_other_tests(text)
    refuse_students_work(*sorted(NOTEBOOKS.glob("*.ipynb")))
    renew_texts(texts)
    for text in texts:
        if is_made(text) and not execute_all:
            continue
        print(f"executing {text.relative_to(ROOT)}")
        notebook = read_lesson(text)
        execute(notebook)
        finish_progress_bars(notebook)
        keep_one_form_of_pictures(notebook)
        nbformat.write(with_stable_widgets(notebook), text.with_suffix(".ipynb"))
    print(f"generating {NOTEBOOKS.relative_to(ROOT)} and the gradebook's entries")
    NOTEBOOKS.mkdir(parents=True, exist_ok=True)
    # nbgrader deletes the old release when it starts and leaves nothing when it fails; so it
    # writes beside it, and what it made is moved over when all of it is there.
    with tempfile.TemporaryDirectory(dir=NOTEBOOKS.parent, prefix=".release-") as folder:
        made = generate_assignment(Path(folder))
        for old in NOTEBOOKS.glob("*.ipynb"):
            if old.name not in {new.name for new in made}:
                old.unlink()
        for new in made:
            new.replace(NOTEBOOKS / new.name)
    start = make_start_page(NOTEBOOKS.parent)
    print(
        f"Hand out the folder {NOTEBOOKS.parent.relative_to(ROOT)}: {start.name}, which leads to "
        f"the lessons, and {NOTEBOOKS.name}/ with"
    )
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"  {path.name}")
    print("Never hand out solutions/ or grading/.")


def make_start_page(folder: Path) -> Path:
    """Write the page that leads to the lessons in a folder of it, as they are there; return it."""
    notebook = read_lesson(START)
    execute(notebook, folder)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
    path = folder / f"{START.stem}.ipynb"
    nbformat.write(notebook, path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="execute every lesson")
    try:
        release(parser.parse_args().all)
    except (WorkWouldBeLost, UngradableTest, addresses.NotAnAddress, contents.NotALesson) as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"nbgrader generate_assignment failed:\n{error.stderr}")
