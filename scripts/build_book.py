"""Make the reading version: the solved lessons as a static site that needs no network.

    python scripts/build_book.py            build/book/index.html
    python scripts/build_book.py --links    ask every other site that the pages link to, instead

It shows what the stored solutions hold. Solutions are folded; hidden tests, what checks printed,
set-up and progress are left out; an explorer moves among pictures that are drawn here beforehand.
"""

import argparse
import base64
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import yaml
from book_parts import EXPLORER, draw_frames, explorer_of, write_search
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme
from release import ROOT, SOLUTIONS, START, VIEW, WIDGETS
from sphinx.cmd.build import build_main

from lab_utils import progress

BOOK = ROOT / "book"
SITE = ROOT / "build" / "book"
FRAMES = "_frames"  # the pictures of explorers
CACHE = ROOT / "build" / "frames"
SOLUTION_MARK = re.compile(r"^ *(?:### |<!-- )(?:BEGIN|END) SOLUTION.*\n?", re.MULTILINE)


# To MyST a line that starts with % is a comment: of "95\n% interval" the second line is lost.
COMMENT = re.compile(r"^( *)%", re.MULTILINE)


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


def without_comments(text: str) -> str:
    """Return Markdown in which no line is a comment to MyST."""
    return COMMENT.sub(r"\1\\%", text)


def show_pictures(cell: NotebookNode, name: str, folder: Path) -> None:
    """Put each picture into a file, and an image with its alternative text in its place.

    A finished progress bar, which would stand where the bar began, is left out.
    """
    kept = []
    for number, output in enumerate(cell.get("outputs", [])):
        data = output.get("data", {})
        widget = data.pop(VIEW, None)
        if widget and not {"image/png", "text/html"} & data.keys():
            continue
        kept.append(output)
        if "image/png" in data:
            picture = folder / f"{name}-{cell.id}-{number}.png"
            picture.write_bytes(base64.b64decode(data.pop("image/png")))
            alt = re.sub(r"([!-/:-@[-`{-~])", r"\\\1", output.metadata["image/png"]["alt"])
            data["text/markdown"] = f"![{alt}]({picture.name})"
    if "outputs" in cell:
        cell.outputs = kept


def page(solution: NotebookNode, name: str, folder: Path) -> NotebookNode:
    """Return a solved lesson as a reader sees it; its pictures go to `folder`."""
    tests = {c.id for c in solution.cells if c.metadata.get("nbgrader", {}).get("grade")}
    shown, _ = ClearHiddenTests().preprocess(solution, {})
    shown, _ = ClearMarkScheme(enforce_metadata=False).preprocess(shown, {})
    cells = list(shown.cells)
    for index, cell in enumerate(cells):
        cell.source = cell.source.replace(f"../{START.stem}.ipynb", "index.md")
        if cell.cell_type == "markdown":
            cell.source = without_comments(cell.source)
        if cell.metadata.get("nbgrader", {}).get("solution"):
            fold(cell)
        elif cell.id in tests and cell.cell_type == "code":
            cell.outputs = []
        show_pictures(cell, name, folder)
        if cell.cell_type == "code" and EXPLORER.search(cell.source):
            explorer = explorer_of(cells, index)
            moving = draw_frames(explorer, f"{name}-{cell.id}", folder / FRAMES, CACHE)
            cell.outputs = [new_output("display_data", {"text/html": moving})]
            cell.metadata["tags"] = ["remove-input"]
    shown.cells = [c for c in cells if "remove-cell" not in c.metadata.get("tags", [])]
    shown.metadata.get("widgets", {}).pop(WIDGETS, None)
    return shown


def write_sources(folder: Path) -> None:
    """Write what Sphinx reads: the front page, what it includes, and a page for each lesson."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(without_comments(readme), encoding="utf-8")
    shutil.copytree(ROOT / "docs", folder / "docs")
    lessons = progress.overview(SOLUTIONS).lessons
    rows = ["| lesson | time | you write | points |", "| --- | --- | --- | --- |"]
    for lesson in lessons:
        names = ", ".join(f"`{exercise.name}`" for exercise in lesson.exercises)
        rows.append(
            f"| [{lesson.number} · {lesson.title}]({lesson.name}.ipynb) "
            f"| {lesson.minutes}&nbsp;min | {names} | {lesson.most + lesson.by_hand:g} |"
        )
    pages = [f"{lesson.number} · {lesson.title} <{lesson.name}>" for lesson in lessons]
    front = (BOOK / "index.md").read_text(encoding="utf-8")
    for mark, text in (
        ("@LESSONS@", "\n".join(rows)),
        ("@PAGES@", "\n".join(pages)),
        ("@CITE@", citation()),
    ):
        front = front.replace(mark, text)
    (folder / "index.md").write_text(front, encoding="utf-8")
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        lesson = page(nbformat.read(path, as_version=4), path.stem, folder)
        nbformat.write(lesson, folder / path.name)


def citation() -> str:
    """Return how to cite the lab and the paper, from CITATION.cff, as a list."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = cited["references"]
    authors = ", ".join(f"{a['given-names']} {a['family-names']}" for a in paper["authors"])
    return (
        f"- {cited['authors'][0]['name']}: *{cited['title']}*, version {cited['version']}, "
        f"{cited['date-released'].year}.\n"
        f"- {authors}: [{paper['title']}]({paper['url']}). {paper['collection-title']}, "
        f"{paper['year']}."
    )


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
            raise BookNotMade("The messages above say what is wrong; the old site is unchanged.")
        if builder == "html":
            (sources / FRAMES).rename(made / FRAMES)
            write_search(made)
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
