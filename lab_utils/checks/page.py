"""How a check looks in an open notebook: colours, points, and where to read on.

Everywhere else (a terminal, Validate, grading) a check prints plain lines. The page holds the same
lines as its plain form, which is what a screen reader of another front end, or a diff, sees.
"""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

from IPython import get_ipython
from IPython.display import display

from lab_utils.checks.report import CheckFailed

LINE = re.compile(r"^  (ok  |FAIL)  (.*)$")
# Readable on JupyterLab's light and on its dark ground (contrast above 4.5).
GREEN, RED = "#2e7d32", "#c62828"
PRINTED = "font-family: monospace; white-space: pre-wrap; padding-left: 1em"
MOST = 8  # properties that hold and are listed openly: among more, a failure would be hard to see
_passed_calls: dict[str, int] = {}  # by execution, how many checks of its cell have passed


class Page:
    """What a check said.

    Args:
        lines: what it printed.
        points: what the cell gives, as "2 of 2 points", or "" if that is not known.
        failure: what it raised, if it did.
        note: what one should know before one reads the rest, or "".
    """

    def __init__(
        self, lines: list[str], points: str, failure: CheckFailed | None, note: str = ""
    ) -> None:
        self.lines, self.points, self.failure, self.note = lines, points, failure, note

    def __repr__(self) -> str:
        why = [*self.failure.student_lines, str(self.failure)] if self.failure else []
        around = [[text] if text else [] for text in (self.note, self.points)]
        return "\n".join([*around[0], *self.lines, *why, *around[1]])

    def _repr_html_(self) -> str:
        rows, hold = [], []
        for line in self.lines:
            verdict = LINE.match(line)
            if verdict is None:  # the title, and output of the student's code
                style = "font-weight: bold" if line == self.lines[0] else PRINTED
                rows.append(f'<div style="{style}">{escape(line)}</div>')
                continue
            holds = verdict[1] == "ok  "
            word = _badge("✓ ok" if holds else "✗ FAIL", GREEN if holds else RED)
            rows.append(f"<div>{word} {escape(verdict[2])}</div>")
            if holds:
                hold.append(rows[-1])
        if len(hold) > MOST:
            rows = [row for row in rows if row not in hold]
            word = _badge("✓ ok", GREEN)
            summary = f"<summary>{word} {len(hold)} properties hold</summary>"
            rows.insert(1, f"<details>{summary}{''.join(hold)}</details>")
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
        scrolls = "white-space: pre; overflow-x: auto"  # else JupyterLab breaks it within words
        code = f'<pre style="{scrolls}">{escape(lines)}</pre>' if lines else ""
        text, mistake = str(self.failure), self.failure.mistake
        if mistake is not None:
            text = text.replace(str(mistake), "").rstrip()
        html = f'<div style="white-space: pre-wrap">{escape(text)}</div>'
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
        lines = said.splitlines()
        note = _superseded(lines[0].partition(" · ")[0]) if lines else ""
        display(Page(lines, _points(failure is None), failure, note))


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
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, StopIteration):
        parent = get_ipython().get_parent()
        cell_id, run = parent["metadata"]["cellId"], parent["header"]["msg_id"]
        cells = json.loads(Path(os.environ["JPY_SESSION_NAME"]).read_text("utf-8"))["cells"]
        most = next(c for c in cells if c["id"] == cell_id)["metadata"]["nbgrader"]["points"]
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
