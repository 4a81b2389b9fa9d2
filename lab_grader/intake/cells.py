"""The cells of a notebook as they were handed in, read from JSON that may contain anything."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MOST_CELL_CHARACTERS = 1 << 20
MOST_CHARACTERS = 8 << 20  # of all cells of a notebook
KINDS = ("code", "markdown", "raw")
# Where the text of a cell is: in a notebook of today, in one of format 1 to 3, and in what editors
# and services save in their own formats.
TEXT_KEYS = ("source", "input", "code", "value", "text", "content")
VSCODES_CODE = 2  # of its kinds of cells; 1 is text
PICTURE = re.compile(r"image/(png|jpeg|gif|webp)")
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
HALVES = re.compile("[\ud800-\udfff]")  # of characters that JSON writes as two


@dataclass(frozen=True)
class HandedIn:
    """A cell as it was handed in; every invalid field is None or empty."""

    kind: str
    source: str
    id: str | None = None
    grade_id: str | None = None
    pictures: dict[str, dict[str, str]] = field(default_factory=dict)


def read_cells(cells: list[Any], complain: Callable[[str], None]) -> list[HandedIn]:
    """Return the cells of a notebook's JSON; one that cannot be read becomes an empty text.

    Args:
        complain: called with a sentence for what cannot be read.
    """
    found, room = [], MOST_CHARACTERS
    for number, cell in enumerate(cells, 1):
        source = _source(cell)
        kind = _kind(cell) if source is not None else "raw"
        if source is None:
            complain(f"cell {number} cannot be read, and is left out")
            cell, source = {}, ""
        if len(source) > MOST_CELL_CHARACTERS:
            complain(f"cell {number} has {len(source) >> 20} MB of text, and is left out")
            source = "# too long, left out"
        elif len(source) > room:
            complain(
                f"cell {number} and what follows are left out: more than "
                f"{MOST_CHARACTERS >> 20} MB of text"
            )
            break
        room -= len(source)
        pictures, all_readable = _pictures(cell.get("attachments"))
        if not all_readable:
            complain(f"cell {number} has images that are not readable; they are left out")
        source = HALVES.sub("\N{REPLACEMENT CHARACTER}", source)
        found.append(HandedIn(kind, source, _text(cell.get("id")), _grade_id(cell), pictures))
    return found


def _source(cell: Any) -> str | None:
    """Return the text of a cell; None if it has none that can be read."""
    found = [cell[key] for key in TEXT_KEYS if key in cell] if isinstance(cell, dict) else []
    for value in found:
        lines = list(_lines(value))
        if all(isinstance(line, str) for line in lines):
            # Some tools write a list of lines without their ends.
            ends = any("\n" in line for line in lines)
            return ("" if ends else "\n").join(lines)
    return None


def _lines(value: Any) -> Iterator[Any]:
    """Yield what lists within each other contain, in order."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        else:
            yield value


def _kind(cell: dict[str, Any]) -> str:
    """Return the kind of a cell. If it states none: only code has outputs and a count."""
    kind = cell.get("cell_type", cell.get("kind"))
    if isinstance(kind, str) and (known := kind.strip().lower()) in KINDS:
        return known
    is_code = kind == VSCODES_CODE or {"outputs", "execution_count", "input"} & cell.keys()
    return "code" if is_code else "markdown"


def _grade_id(cell: dict[str, Any]) -> str | None:
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return _text(nbgrader.get("grade_id")) if isinstance(nbgrader, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _pictures(attachments: Any) -> tuple[dict[str, dict[str, str]], bool]:
    """Return the pictures attached to a cell, and whether nothing else is attached."""
    if not attachments:
        return {}, True
    if not isinstance(attachments, dict):
        return {}, False
    found: dict[str, dict[str, str]] = {}
    for name, kinds in attachments.items():
        for kind, content in kinds.items() if isinstance(kinds, dict) else ():
            content = "".join(content) if isinstance(content, list) else content
            if PICTURE.fullmatch(kind) and isinstance(content, str) and BASE64.fullmatch(content):
                found.setdefault(HALVES.sub("?", name), {})[kind] = content
    return found, len(found) == len(attachments)
