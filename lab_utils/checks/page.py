"""How a check looks in an open notebook: colours, points, and where to read on.

Everywhere else (a terminal, Validate, grading) a check prints plain lines. The page holds the same
lines as its plain form, which is what a screen reader of another front end, or a diff, sees.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

from IPython import get_ipython
from IPython.display import display

from lab_utils.checks.report import CheckFailed
from lab_utils.saved import cells_around

LINE = re.compile(r"^  (ok  |FAIL)  (.*)$")
TITLE = re.compile(r"^(\w+) · ")
# Readable on JupyterLab's light and on its dark ground (contrast above 4.5).
GREEN, RED = "#2e7d32", "#c62828"
PRINTED = "font-family: monospace; white-space: pre-wrap; padding-left: 1em"
MOST = 8  # lines of a kind that are shown openly: among more, a failure would be hard to see
MOST_PRINTED = 500  # lines of the student's code that are kept: a browser halts at 100,000
_passed_calls: dict[str, int] = {}  # by execution, how many checks of its cell have passed


@dataclass
class _Part:
    """A title, what the student's code printed, before it too, and a line for each property."""

    title: str = ""
    printed: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [*([self.title] if self.title else []), *self._kept(), *self.verdicts]

    def _kept(self) -> list[str]:
        more = len(self.printed) - MOST_PRINTED
        said = [f"... and {more} more lines"] if more > 0 else []
        return [*self.printed[:MOST_PRINTED], *said]

    def rows(self) -> list[str]:
        """Return the rows of the page, as HTML."""
        rows = [f'<div style="font-weight: bold">{escape(self.title)}</div>'] if self.title else []
        if self.printed:
            text = f'<div style="{PRINTED}">{escape(chr(10).join(self._kept()))}</div>'
            count = f"{len(self.printed):,} lines that your code printed"
            rows.append(_folded(count, text) if len(self.printed) > MOST else text)
        verdicts = [LINE.match(line) for line in self.verdicts]
        hold = [verdict for verdict in verdicts if verdict[1] == "ok  "]
        if len(hold) > MOST:
            word = f"{_badge('✓ ok', GREEN)} {len(hold)} properties hold"
            rows.append(_folded(word, "".join(map(_row, hold))))
            verdicts = [verdict for verdict in verdicts if verdict not in hold]
        return rows + [_row(verdict) for verdict in verdicts]


class Page:
    """What a check said.

    Args:
        lines: what it printed.
        points: what the cell gives, as "2 of 2 points", or "" if that is not known.
        failure: what it raised, if it did.
    """

    def __init__(self, lines: list[str], points: str, failure: CheckFailed | None) -> None:
        self.parts = [_Part()]
        for line in lines:
            if TITLE.match(line):
                if self.parts[-1].title:
                    self.parts.append(_Part())
                self.parts[-1].title = line
            else:
                part = self.parts[-1]
                (part.verdicts if LINE.match(line) else part.printed).append(line)
        self.points, self.failure = points, failure
        self.note = ""  # what one should know before one reads the rest

    def __repr__(self) -> str:
        why = [*self.failure.student_lines, str(self.failure)] if self.failure else []
        lines = [line for part in self.parts for line in part.lines()]
        around = [[text] if text else [] for text in (self.note, self.points)]
        return "\n".join([*around[0], *lines, *why, *around[1]])

    def _repr_html_(self) -> str:
        rows = [row for part in self.parts for row in part.rows()]
        if self.failure is not None:
            rows.append(self._why())
        if self.points:
            all_of_them = self.points.split()[0] == self.points.split()[2]
            rows.append(f"<div>{_badge(self.points, GREEN if all_of_them else RED)}</div>")
        if self.note:
            rows.insert(0, f"<div><b>Note:</b> {escape(self.note)}</div>")
        return f'<div role="status" style="line-height: 1.6">{"".join(rows)}</div>'

    def _why(self) -> str:
        lines = "\n".join(self.failure.student_lines)
        # JupyterLab would break it within words.
        wraps = "white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere"
        code = f'<pre style="{wraps}">{escape(lines)}</pre>' if lines else ""
        text, mistake = str(self.failure), self.failure.mistake
        if mistake is not None:
            text = text.replace(str(mistake), "").rstrip()
        text = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(text))
        html = f'<div style="white-space: pre-wrap; overflow-wrap: anywhere">{text}</div>'
        if mistake is not None:
            anchor = escape(mistake.section.replace(" ", "-"))  # as JupyterLab names headings
            html += (
                f"<div><b>Known mistake: {escape(mistake.name)}.</b> {escape(mistake.why)}</div>"
                f'<div>See the section <a href="#{anchor}">“{escape(mistake.section)}”</a>, and '
                "the hints of the exercise.</div>"
            )
        return (
            f'<div style="border-left: 4px solid {RED}; padding: 0.2em 1em; margin: 0.5em 0">'
            f"{code}{html}</div>"
        )


def _row(verdict: re.Match) -> str:
    holds = verdict[1] == "ok  "
    word = _badge("✓ ok" if holds else "✗ FAIL", GREEN if holds else RED)
    return f"<div>{word} {escape(verdict[2])}</div>"


def _folded(summary: str, html: str) -> str:
    return f"<details><summary>{summary}</summary>{html}</details>"


def _badge(text: str, colour: str) -> str:
    style = f"background: {colour}; color: white; border-radius: 4px; padding: 0 0.5em"
    return f'<span style="{style}">{escape(text)}</span>'


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show what a check prints as a page, if it runs in an open notebook."""
    if not _is_open():
        yield
        return
    printed, failure = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            yield
    except CheckFailed as error:
        failure = error
        error.on_page = True
        raise
    finally:
        said = printed.getvalue()
        if failure is not None:  # its sentences are below
            said = said.replace(f"  FAIL  {failure}\n", "")
        told = Page(said.splitlines(), _points(failure is None), failure)
        if told.parts[0].title:
            told.note = _superseded(TITLE.match(told.parts[0].title)[1])
        display(told)


def _is_open() -> bool:
    """Return whether this is a notebook in JupyterLab, and its output the student's to see."""
    return (
        "JPY_SESSION_NAME" in os.environ
        and "NBGRADER_EXECUTION" not in os.environ
        and type(sys.stdout).__module__ == "ipykernel.iostream"
    )


def _superseded(name: str) -> str:
    """Return a note if the last cell that was to define a name could not be read as Python.

    Then the check is about the version before, and what it says would puzzle.
    """
    shell = get_ipython()
    defines = re.compile(rf"^(?:def|class) {re.escape(name)}\b", re.MULTILINE)
    cells = shell.history_manager.input_hist_raw if shell else []
    last = next((cell for cell in reversed(cells) if defines.search(cell)), None)
    if last is not None:
        try:
            compile(shell.transform_cell(last), "<cell>", "exec")
        except (SyntaxError, ValueError):  # ValueError: a null byte
            return (
                f"The last cell with {name} that you ran has a syntax error: nothing of it counts, "
                "and this is about the version before."
            )
    return ""


def _points(passes: bool) -> str:
    """Return the points of the cell that runs, once all of its checks have run or one failed."""
    with contextlib.suppress(LookupError, TypeError, AttributeError, StopIteration):
        parent = get_ipython().get_parent()
        cell_id, run = parent["metadata"]["cellId"], parent["header"]["msg_id"]
        same = (cell for cell in cells_around(cell_id) if cell["id"] == cell_id)
        most = next(same)["metadata"]["nbgrader"]["points"]
        if not passes:
            return f"0 of {_counted(most)}"
        done = _passed_calls.get(run, 0) + 1
        _passed_calls.clear()
        _passed_calls[run] = done
        if done >= parent["content"]["code"].count("checks.check_"):
            return f"{most:g} of {_counted(most)}"
    return ""


def _counted(points: float) -> str:
    return f"{points:g} point" + ("" if points == 1 else "s")
