"""Read the JSON of a notebook that may hold anything, in whatever form it was saved."""

import json
import re
import warnings
from collections.abc import Callable
from typing import Any

import nbformat

from lab_grader.intake.submitted import Unreadable

MOST_CELLS = 2000
BLANK = "\0 \t\r\n"
CONFLICT = re.compile(r"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)  # no line of JSON begins so


def looks_like_a_notebook(content: bytes) -> bool:
    """Return whether a file may hold a notebook, whatever its name is."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and b'"cells"' in content


def cells_of(content: bytes, complain: Callable[[str], None]) -> list[Any]:
    """Return the cells of a notebook's JSON, of any version that nbformat can bring to 4.

    Args:
        complain: called with a sentence for what is odd about it.

    Raises:
        Unreadable: it has none, or too many; the text says why.
        MemoryError: reading it takes more than this process may have.
    """
    try:
        notebook = _json(content, complain)
        version = _version(notebook)
        if version > 4:
            raise Unreadable(f"a notebook of the format {version}; save it as format 4")
        if version < 4:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = json.dumps(notebook | {"nbformat": version, "nbformat_minor": 0})
                notebook = nbformat.convert(nbformat.reader.reads(text), 4)
        cells = notebook.get("cells")
        if not isinstance(cells, list):
            raise Unreadable("its cells are not a list of cells")
    except (Unreadable, MemoryError):
        raise
    except RecursionError as error:
        raise Unreadable("not a readable notebook (nested too deeply)") from error
    except Exception as error:  # the file may hold anything, and nbformat fails in many ways
        raise Unreadable(f"not a readable notebook ({type(error).__name__}: {error})") from error
    if len(cells) > MOST_CELLS:
        raise Unreadable(f"{len(cells)} cells; at most {MOST_CELLS} are graded")
    if not cells:
        raise Unreadable("a notebook without cells")
    return cells


def _json(content: bytes, complain: Callable[[str], None]) -> dict[str, Any]:
    """Return the object in a file, in whatever encoding it was saved."""
    if not content.strip(BLANK.encode()):
        raise Unreadable("an empty file" if not content else "a file with nothing but blanks")
    encoding = json.detect_encoding(content)
    try:
        text, replaced = content.decode(encoding), False
    except UnicodeDecodeError:
        text, replaced = content.decode(encoding, errors="replace"), True
    text = text.lstrip("\ufeff \t\r\n")
    try:
        found, end = json.JSONDecoder(parse_int=_whole_number).raw_decode(text)
    except json.JSONDecodeError as error:
        if (what := _something_else(text)) is not None:
            raise Unreadable(what) from error
        cut = error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip())
        why = "its end is missing" if cut and text.startswith("{") else f"not JSON: {error}"
        raise Unreadable(f"not a readable notebook ({why})") from error
    if replaced:
        complain("some characters are not UTF-8, and are replaced")
    if not isinstance(found, dict):
        raise Unreadable("not a readable notebook (JSON of something else)")
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
    return None


def _whole_number(digits: str) -> int:
    """Return a number; 0 for one so long that only an attack has it, and reading it takes long."""
    return int(digits) if len(digits) < 19 else 0


def _version(notebook: dict[str, Any]) -> int:
    """Return the format of a notebook: 4 if it has cells where only 4 has them, unless it is later,
    and 3 if it has worksheets instead.

    Raises:
        Unreadable: it does not say.
    """
    has_cells = isinstance(notebook.get("cells"), list)
    version = notebook.get("nbformat", 4 if has_cells else 3)
    try:
        version = int(version)
    except (TypeError, ValueError, OverflowError) as error:
        if has_cells:
            return 4
        raise Unreadable("not a readable notebook (its nbformat is not a number)") from error
    if not has_cells and "worksheets" in notebook:
        return min(3, version)
    return max(4, version) if has_cells else version
