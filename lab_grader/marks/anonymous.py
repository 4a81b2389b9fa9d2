"""Show a class without saying who is who: numbers for names, answers without comments."""

import ast
import hashlib
import re
import secrets
from collections.abc import Callable

from lab_grader.intake.course import Course
from lab_grader.marks.alike import REFERENCE
from lab_grader.marks.standing import Standing
from lab_grader.running.cache import write_atomically


def names_of(course: Course, standings: list[Standing], names: bool) -> Callable[[str], str]:
    """Return a function from a student's id to what a report shows.

    That is the name, or a number, which stays the same in this course as long as nobody joins or
    leaves. The order of the numbers follows from a secret of the course and not from the ids.
    """
    if names:
        known = {it.student: it.name for it in standings}
        shown = {s: n if n == s else f"{n} ({s})" for s, n in known.items()}
    else:
        path = course.work / "reports" / "secret"
        if not path.exists():
            write_atomically(path, secrets.token_hex())
        secret = path.read_text("utf-8")

        def order(student: str) -> str:
            text = secret.encode() + student.encode(errors="surrogatepass")
            return hashlib.sha256(text).hexdigest()

        ordered = sorted((it.student for it in standings), key=order)
        shown = {student: f"Student {number}" for number, student in enumerate(ordered, 1)}
    shown[REFERENCE] = "the reference solution"
    return lambda student: shown.get(student, "somebody who left")


def hider(standings: list[Standing]) -> Callable[[str], str]:
    """Return a function that takes comments, docstrings and everybody's names out of an answer."""
    words = {w for it in standings for w in (it.student, it.first_name, it.last_name) if len(w) > 2}
    anybody = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)")

    def hide(text: str) -> str:
        try:
            text = ast.unparse(_without_docstrings(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            lines = text.splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        return anybody.sub("…", text)

    return hide


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                it
                for it in body
                if not (isinstance(it, ast.Expr) and isinstance(it.value, ast.Constant))
            ] or [ast.Pass()]
    return tree
