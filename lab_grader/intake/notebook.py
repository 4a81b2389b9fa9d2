"""Read the JSON of a notebook that may hold anything, in whatever form it was saved."""

import json
import re
from collections.abc import Callable
from typing import Any

from lab_grader.intake.submitted import NotGradable

MOST_CELLS = 2000
MOST_WRAPPINGS = 6  # around a notebook, such as a server's answer that contains it as a text
UNPRINTED = re.compile(r"[\x00-\x08\x0e-\x1f]")
BLANK = "\0 \t\r\n"
CONFLICT = re.compile(r"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)  # no line of JSON begins so


def looks_like_a_notebook(content: bytes) -> bool:
    """Return whether a file may hold a notebook, whatever its name is."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and b'"cells"' in content


def cells_of(content: bytes, complain: Callable[[str], None]) -> list[Any]:
    """Return the cells of a notebook's JSON, whatever its version says and whatever is around it.

    Args:
        complain: called with a sentence for what is odd about it.

    Raises:
        NotGradable: it has none, or too many; the text says why.
        MemoryError: reading it takes more than this process may have.
    """
    try:
        notebook = _unwrapped(_json(content, complain))
        _refuse_later_formats(notebook)
        cells = _cells(notebook)
    except RecursionError as error:
        raise NotGradable("not a readable notebook (nested too deeply)") from error
    if len(cells) > MOST_CELLS:
        raise NotGradable(f"{len(cells)} cells; at most {MOST_CELLS} are graded")
    if not cells:
        raise NotGradable("a notebook without cells")
    return cells


def _json(content: bytes, complain: Callable[[str], None]) -> Any:
    """Return the value in a file, in whatever encoding it was saved."""
    if not content.strip(BLANK.encode()):
        raise NotGradable("an empty file" if not content else "a file with nothing but blanks")
    encoding = json.detect_encoding(content)
    try:
        text, replaced = content.decode(encoding), False
    except UnicodeDecodeError:
        text, replaced = content.decode(encoding, errors="replace"), True
    text = text.lstrip("\ufeff \t\r\n")
    try:
        found, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        if (what := _something_else(text)) is not None:
            raise NotGradable(what) from error
        cut = error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip())
        why = "its end is missing" if cut and text.startswith("{") else f"not JSON: {error}"
        raise NotGradable(f"not a readable notebook ({why})") from error
    if replaced:
        complain("some characters are not UTF-8, and are replaced")
    if text[end:].strip(BLANK):
        complain("there is more after its end, which is left out")
    return found


def _something_else(text: str) -> str | None:
    """Return what a file under a notebook's name is, and what to do; None if that is unclear."""
    if CONFLICT.search(text):
        return "it holds both sides of a conflict in Git; resolve it, and hand in the notebook"
    if text.startswith("<"):
        return "a web page under a notebook's name; download the notebook itself"
    if text.startswith("version https://git-lfs"):
        return "a pointer of Git LFS, not the file; run `git lfs pull`, and hand in the notebook"
    if text.startswith("%PDF"):
        return "a PDF under a notebook's name; hand in the notebook itself"
    if UNPRINTED.search(text[:100]):
        return "what another program wrote under a notebook's name; hand in the notebook itself"
    return None


def _whole_number(digits: str) -> int:
    """Return a number; 0 for one so long that only an attack has it, and reading it takes long."""
    return int(digits) if len(digits) < 19 else 0


_DECODER = json.JSONDecoder(parse_int=_whole_number)


def _unwrapped(value: Any) -> dict[str, Any]:
    """Return the notebook in a JSON value: itself, or what a list, a text or a server's answer
    contains.

    Raises:
        NotGradable: there is none.
    """
    level = [value]
    for _ in range(MOST_WRAPPINGS):
        for found in level:
            if isinstance(found, dict) and not found.keys().isdisjoint(("cells", "worksheets")):
                return found
            if isinstance(found, list) and any(_is_cell(it) for it in found):
                return {"cells": found}
        level = [inner for outer in level for inner in _contents(outer)]
    raise NotGradable("not a readable notebook (JSON without cells)")


def _is_cell(value: Any) -> bool:
    return isinstance(value, dict) and "cell_type" in value


def _contents(value: Any) -> list[Any]:
    """Return what a JSON value contains; for a text, what its own JSON is."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"') and "cell" in value:
        try:
            return [_DECODER.decode(value)]
        except json.JSONDecodeError:
            return []
    return value if isinstance(value, list) else []


def _refuse_later_formats(notebook: dict[str, Any]) -> None:
    """Raise `NotGradable` for a notebook of a format that is not known yet."""
    try:
        version = int(notebook.get("nbformat", 4))
    except (TypeError, ValueError, OverflowError):
        return
    if version > 4:
        raise NotGradable(f"a notebook of the format {version}; save it as format 4")


def _cells(notebook: dict[str, Any]) -> list[Any]:
    """Return the cells of a notebook; up to format 3, they are in worksheets."""
    cells = _listed(notebook.get("cells")) or [
        cell
        for sheet in _listed(notebook.get("worksheets")) or []
        for cell in _listed(sheet.get("cells") if isinstance(sheet, dict) else None) or []
    ]
    if not cells and not isinstance(notebook.get("cells", []), list):
        raise NotGradable("its cells are not a list of cells")
    return cells


def _listed(value: Any) -> list[Any]:
    """Return a list, also of what was saved as an object by number."""
    if isinstance(value, dict) and value and all(str(key).isdecimal() for key in value):
        return [value[key] for key in sorted(value, key=_whole_number)]
    return value if isinstance(value, list) else []
