"""Make the reading version: the solved lessons as a static site that needs no network.

    python scripts/build_book.py            build/book/index.html
    python scripts/build_book.py --links    ask every other site that the pages link to, instead

It shows what the stored solutions hold and executes nothing. Solutions are folded, hidden tests
and what they printed are left out, and an explorer is a picture.
"""

import argparse
import base64
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme
from release import ROOT, SOLUTIONS, VIEW, WIDGETS
from sphinx.cmd.build import build_main

BOOK = ROOT / "book"
SITE = ROOT / "build" / "book"
SOLUTION_MARK = re.compile(r"^ *(?:### |<!-- )(?:BEGIN|END) SOLUTION.*\n?", re.MULTILINE)
CHECK = re.compile(r"^checks\.check_", re.MULTILINE)
REPORT = re.compile(r"^(?=\S)", re.MULTILINE)  # a check's first line; the others are indented


class BookNotMade(Exception):
    """A lesson cannot be shown as it should be, or Sphinx found something wrong."""


def fold(cell: NotebookNode) -> None:
    """Let a solution show after a click."""
    cell.source = SOLUTION_MARK.sub("", cell.source).rstrip()
    if cell.cell_type == "code":
        cell.metadata["tags"] = ["hide-input"]
    else:
        summary = "<details><summary>Show an answer</summary>"
        cell.source = f"{summary}\n\n{cell.source}\n\n</details>"


def keep_visible_reports(cell: NotebookNode, calls: int) -> None:
    """Leave out of a test cell's output what its hidden calls printed, which come last.

    Args:
        cell: without its hidden tests.
        calls: how many checks it called with them; each prints as many reports as the others.
    """
    shown = len(CHECK.findall(cell.source))
    for output in cell.outputs:
        reports = [report for report in REPORT.split(output.text) if report]
        if len(reports) % calls:
            raise BookNotMade(f"{len(reports)} reports of {calls} checks, of which:\n{cell.source}")
        output.text = "".join(reports[: len(reports) // calls * shown])


def show_pictures(cell: NotebookNode, name: str, folder: Path) -> None:
    """Put each picture into a file, and an image with its alternative text in its place."""
    for number, output in enumerate(cell.get("outputs", [])):
        data = output.get("data", {})
        explorer = data.pop(VIEW, None)
        if "image/png" in data:
            picture = folder / f"{name}-{cell.id}-{number}.png"
            picture.write_bytes(base64.b64decode(data.pop("image/png")))
            alt = re.sub(r"([!-/:-@[-`{-~])", r"\\\1", output.metadata["image/png"]["alt"])
            data["text/markdown"] = f"![{alt}]({picture.name})"
            if explorer:
                data["text/markdown"] += f"\n\n*{data['text/plain'].splitlines()[-1]}*"


def page(solution: NotebookNode, name: str, folder: Path) -> NotebookNode:
    """Return a solved lesson as a reader sees it; its pictures go to `folder`."""
    tests = [cell for cell in solution.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    calls = {cell.id: len(CHECK.findall(cell.source)) for cell in tests}
    shown, _ = ClearHiddenTests().preprocess(solution, {})
    shown, _ = ClearMarkScheme(enforce_metadata=False).preprocess(shown, {})
    for cell in shown.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            fold(cell)
        elif cell.id in calls:
            keep_visible_reports(cell, calls[cell.id])
        show_pictures(cell, name, folder)
    shown.metadata.get("widgets", {}).pop(WIDGETS, None)
    return shown


def write_sources(folder: Path) -> None:
    """Write what Sphinx reads: the front page, what it includes, and a page for each lesson."""
    readme = (ROOT / "README.md").read_text()
    linked = re.sub(r"^\| `(\d\d-[\w-]+)`", r"| [\1](\1.ipynb)", readme, flags=re.MULTILINE)
    (folder / "README.md").write_text(linked)
    shutil.copy(BOOK / "index.md", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        lesson = page(nbformat.read(path, as_version=4), path.stem, folder)
        nbformat.write(lesson, folder / path.name)


def build(site: Path = SITE, builder: str = "html") -> None:
    """Build the site, which replaces an older one when all of it is there.

    Args:
        site: the folder of the site.
        builder: Sphinx's name of what to make: `html`, or `linkcheck`, which leaves `site` alone.

    Raises:
        BookNotMade: a lesson is not as expected, or Sphinx warned or failed; it said why.
    """
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=".book-") as folder:
        sources, made = Path(folder) / "sources", Path(folder) / "made"
        sources.mkdir()
        write_sources(sources)
        options = ["-q", "-W", "--keep-going", "-d", f"{folder}/read", "-c", str(BOOK)]
        if build_main([*options, "-b", builder, str(sources), str(made)]):
            raise BookNotMade("The messages above say what is wrong; the old site was left alone.")
        if builder == "html":
            shutil.rmtree(site, ignore_errors=True)
            made.rename(site)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--links", action="store_true", help="ask other sites; needs a network")
    links = parser.parse_args().links
    try:
        build(builder="linkcheck" if links else "html")
    except BookNotMade as error:
        sys.exit(str(error))
    print("every link answers" if links else f"open {SITE.relative_to(ROOT)}/index.html")
