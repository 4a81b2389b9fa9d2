"""Parts of the reading version that a stored lesson does not hold: frames of explorers, a search.

An explorer needs a kernel. The book draws it for some values of each control beforehand and shows
the picture of the values that a reader chooses (`book/_static/book.js`).
"""

import contextlib
import hashlib
import html
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

from lab_grader.intake.dependencies import names_of
from lab_utils import widgets

# What a picture may depend on: the lab's own modules, and what was recorded.
LAB = Path(widgets.__file__).parent
DRAWN_BY = sorted([*LAB.glob("*.py"), *LAB.glob("plots/*.py"), *LAB.glob("results/**/*.*")])
MOST = {1: 8, 2: 7, 3: 5}  # values of a control, by how many controls there are
EXPLORER = re.compile(r"^widgets\.\w+_explorer\(", re.MULTILINE)


def needed(cells: list[NotebookNode], index: int) -> list[NotebookNode]:
    """Return the code cells that a cell needs, in their order, and itself.

    A name comes from the nearest cell above that binds it; one that a cell binds, such as a loop's,
    is its own.
    """
    own = names_of(cells[index].source)
    chosen, uses = [index], set(own.uses - own.binds)
    for at in range(index - 1, -1, -1):
        cell = cells[at]
        if cell.cell_type != "code" or "nbgrader" in cell.metadata:
            continue
        names = names_of(cell.source)
        if names.binds & uses:
            uses = (uses - names.binds) | (names.uses - names.binds)
            chosen.append(at)
    return [cells[at] for at in sorted(chosen)]


def explorer_of(cells: list[NotebookNode], index: int) -> widgets.Explorer:
    """Make the explorer that a cell ends with, by running what it needs."""
    names: dict = {}
    *before, last = needed(cells, index)
    statements, _, expression = last.source.rpartition("\nwidgets.")
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in before:
            exec(cell.source, names)
        exec(statements, names)
        return eval("widgets." + expression.removeprefix("widgets."), names)


def draw_frames(explorer: widgets.Explorer, key: str, folder: Path, cache: Path) -> str:
    """Draw an explorer for all combinations of some values; return the page's HTML for it.

    Args:
        key: names the explorer; its pictures go to `folder/key`.
        cache: where pictures are kept from one build to the next.
    """
    choices = explorer.choices(MOST[len(explorer.controls)])
    made_from = [path.read_bytes() for path in DRAWN_BY]
    made_from += [key.encode(), repr(choices).encode()]
    kept = cache / hashlib.sha256(b"".join(made_from)).hexdigest()[:16]
    alts = kept / "alts.json"
    if not alts.exists():
        kept.mkdir(parents=True, exist_ok=True)
        texts = []
        for number, values in enumerate(itertools.product(*choices.values())):
            png, alt = explorer.drawn(**dict(zip(choices, values, strict=True)))
            image = Image.open(io.BytesIO(png)).convert("RGB").quantize(64)
            image.save(kept / f"{number}.png", optimize=True)
            texts.append(alt)
        alts.write_text(json.dumps(texts))
    here = folder / key
    here.mkdir(parents=True)
    for picture in kept.glob("*.png"):
        shutil.copy(picture, here)  # which may be on another disk
    return _page(explorer, choices, key, json.loads(alts.read_text()))


def _page(explorer: widgets.Explorer, choices: dict, key: str, alts: list[str]) -> str:
    start, rows = 0, []
    for name, control in explorer.controls.items():
        values = choices[name]
        at = values.index(control.value)
        start = start * len(values) + at
        label = html.escape(control.description)
        said = [explorer.said(name, value) for value in values]
        shown = html.escape(json.dumps(said))
        rows.append(
            f'<label><span>{label}</span><input type="range" min="0" max="{len(values) - 1}" '
            f'value="{at}" aria-valuetext="{html.escape(said[at])}" data-values="{shown}">'
            f"<output>{html.escape(said[at])}</output></label>"
        )
    data = html.escape(json.dumps(alts))
    return (
        f'<div class="explorer" data-frames="_frames/{key}/" data-alts="{data}">{"".join(rows)}'
        f'<img src="_frames/{key}/{start}.png" alt="{html.escape(alts[start])}"></div>'
    )


class _Sections(HTMLParser):
    """The sections of a page: the id, heading and text of each, without what is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict] = []
        self._open: list[dict | None] = []
        self._skipped, self._heading = 0, False

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag == "section":
            self._open.append({"id": dict(attributes).get("id"), "title": "", "text": []})
            self.found.append(self._open[-1])
        self._heading = self._heading or bool(re.fullmatch("h[1-6]", tag))
        self._skipped += tag in ("script", "style", "details", "svg")

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._open.pop()
        if re.fullmatch("h[1-6]", tag):
            self._heading = False
        self._skipped -= tag in ("script", "style", "details", "svg")

    def handle_data(self, data: str) -> None:
        if not self._open or self._skipped:
            return
        if self._heading:
            self._open[-1]["title"] += data
        else:
            self._open[-1]["text"].append(data)


def sections(site: Path) -> Iterator[dict]:
    """Yield the sections of all pages of a site, with the page that each is on."""
    for path in sorted(site.glob("*.html")):
        parser = _Sections()
        parser.feed(path.read_text(encoding="utf-8"))
        for section in parser.found:
            text = " ".join("".join(section["text"]).split())
            title = section["title"].strip().removesuffix("#")
            yield {"page": path.name, "id": section["id"], "title": title, "text": text}


def write_search(site: Path) -> None:
    """Write what the search page looks through; a script, which a page on the disk may load."""
    found = json.dumps(list(sections(site)), ensure_ascii=False)
    (site / "_static" / "sections.js").write_text(f"window.SECTIONS = {found};\n", encoding="utf-8")
