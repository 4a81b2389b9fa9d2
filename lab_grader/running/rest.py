"""What a cell did not reach, because something that it used before its answer is not here.

It may have called the reference, which is hidden while its exercise is graded, or used what was
there where the notebook was written: Colab's modules, a drive, a magic.
"""

import ast
import io
import re

from nbformat import NotebookNode

from lab_grader.intake.dependencies import as_python
from lab_grader.sandbox.masks import stopped_by_what_is_missing

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CELL_LINE = re.compile(r"Cell In ?\[[0-9]+\], line ([0-9]{1,7})")  # of IPython's traceback
# Where a cell's magic ran the line, and what IPython says and shows of a magic that fails; those
# that run a statement of the student's fail as it does.
CODE_MAGICS = {"capture", "prun", "time"}
CELL_MAGIC = re.compile(r"\s*%%(\w+)[^\n]*\n")
BELOW_A_MAGIC = re.compile(r"<(?:timed exec|string)>:([0-9]{1,7})")
AT_A_MAGIC = re.compile(
    r"^-+> *[0-9]+ get_ipython\(\)\.run_line_magic\('(?!(?:time|timeit|prun)')", re.MULTILINE
)
TIMES = re.compile(r"(?:CPU times: .*\n)?Wall time: .*\n*")
NO_MAGIC = re.compile(
    r"^UsageError: (?:Line magic function `%|Cell magic `%%)(\w+)` not found", re.MULTILINE
)


def not_reached(source: str, outputs: list[NotebookNode]) -> list[str]:
    """Return the statements that a cell did not reach, each as text.

    Args:
        outputs: of the cell. There are no statements if it did not stop early.
    """
    # A magic gives its times after an error, too.
    last = [output for output in outputs if not TIMES.fullmatch(output.get("text", ""))][-1:]
    return [text for output in last if _stopped_early(output) for text in _after(source, output)]


def _stopped_early(last: NotebookNode) -> bool:
    """Whether a cell stopped at something that is not here, or at a magic, which is no answer."""
    return (
        stopped_by_what_is_missing([last])
        or AT_A_MAGIC.search(_plain_traceback(last)) is not None
        or NO_MAGIC.search(last.get("text", "")) is not None
    )


def _after(source: str, last: NotebookNode) -> list[str]:
    """Return the statements of a cell after the one at which it stopped, each as text; none if
    the cell cannot be read.

    Args:
        last: the output that says where it stopped.
    """
    unknown, shown = NO_MAGIC.search(last.get("text", "")), _plain_traceback(last)
    reached = CELL_LINE.search(shown)
    while (magic := CELL_MAGIC.match(source)) and (magic[1] in CODE_MAGICS or unknown):
        # What is below runs in the notebook, and its lines are counted from there.
        source, reached = source[magic.end() :], BELOW_A_MAGIC.search(shown) or reached
        unknown = unknown if unknown and unknown[1] != magic[1] else None
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    python = as_python(source)
    try:
        tree = compile(python, "cell", "exec", flags)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = io.StringIO(python, newline=None).readlines()
    texts = {
        _first_line(statement): "".join(lines[_first_line(statement) - 1 : statement.end_lineno])
        for statement in tree.body
    }
    line = int(reached[1]) if reached else 0
    if unknown:
        call = f"run_line_magic({unknown[1]!r}, "
        line = next((number for number, text in texts.items() if call in text), len(lines))
    return [text for number, text in texts.items() if number > line]


def _plain_traceback(error: NotebookNode) -> str:
    return COLOUR.sub("", "\n".join(error.get("traceback", [])))


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", ())
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])
