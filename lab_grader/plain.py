"""Texts of students, made safe for a terminal, a log and a table: what all that is shown passes."""

import logging
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

MOST_CHARACTERS = 500  # of a text within a line, such as a file's name or what an error says
FORMULA = ("=", "+", "-", "@", "|", "%")  # what spreadsheets take for the start of a formula


def plain(text: object, most: int = MOST_CHARACTERS) -> str:
    """Return a text that stays on its line and shows all that it holds.

    Control characters, line breaks, marks that turn the direction of writing and halves of
    characters are shown as Python writes them, `\\x1b` or `\\n`. A long text is cut.
    """
    whole = str(text)
    shown = "".join(c if c.isprintable() else _escaped(c) for c in whole[:most])
    return shown if len(whole) <= most else f"{shown}… ({len(whole)} characters)"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def csv_cell(value: object) -> object:
    """Return what a table holds of a value; no spreadsheet takes it for a formula.

    Numbers stay as they are. A text is plain, and gets an apostrophe in front, as spreadsheets
    themselves mark a text, if it would be a formula.
    """
    if not isinstance(value, str):
        return value
    starts = unicodedata.normalize("NFKC", value.lstrip()).startswith(FORMULA)
    starts |= value.startswith(("\t", "\r", "\n"))
    return ("'" if starts else "") + plain(value, most=10_000)


def say(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Print lines. Everything that the grader prints passes here."""
    file = file or sys.stdout
    encoding = file.encoding or "utf-8"
    for line in lines:
        text = plain(line, most=10 * MOST_CHARACTERS)
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=file)


class PlainLog(logging.Filter):
    """Makes records of a log plain, each line of them; nbgrader logs paths and tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record; let it pass."""
        record.msg = "\n    ".join(plain(line) for line in record.getMessage().split("\n"))
        record.args = ()
        return True
