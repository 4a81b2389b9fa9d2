"""How an error looks in the outputs of a graded notebook."""

from nbformat import NotebookNode
from nbformat.v4 import new_output

LONGEST_ERROR = 10_000  # characters


def error_output(name: str, text: str, student_lines: list[str] | None = None) -> NotebookNode:
    """Return the output of an error; `student_lines` say where in the student's code it was."""
    text = cut(text)
    traceback = [*(student_lines or []), *f"{name}: {text}".splitlines()]
    return new_output("error", ename=name, evalue=text, traceback=traceback)


def cut(text: str) -> str:
    """Return a text as it is, or its beginning if it is too long to be shown."""
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]} (cut here)"
