"""What `SECURITY.md` says is held by tests, and each test that it names is there."""

import ast
import re

import release

from lab_grader.sandbox.limits import Limits

TEXT = (release.ROOT / "SECURITY.md").read_text()
FOLDERS = [release.ROOT / place for place in (".", "lab_grader", "tests", "tests/grading")]


def found(path):
    """The file that the page means: it leaves out the folders that its text has named."""
    return next((folder / path for folder in FOLDERS if (folder / path).is_file()), None)


def functions_of(path):
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}


def test_each_test_that_is_named_exists():
    file, named, lost = None, 0, []
    for token in re.findall(r"`([^`\n]+)`", TEXT):
        path, _, test = token.rpartition("::")
        if token.endswith(".py") or path:
            file = found(path or token)
            if file is None:
                lost.append(token)
        if test.startswith("test_") and not test.endswith(".py"):
            named += 1
            if file is None or test not in functions_of(file):
                lost.append(token)
    assert not lost
    assert named > 25


def test_each_wall_and_each_limit_names_a_test():
    sections = [part for part in TEXT.split("\n## ") if re.search(r"\| test[^|]*\|\n\| -", part)]
    assert len(sections) == 3  # barriers, limits, and the ways of what a student wrote
    for section in sections:
        rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
        assert len(rows) >= 6
        for row in rows:
            last = row.rstrip(" |").rpartition("|")[2]
            assert "test_" in last or "see above" in last, row


def test_each_limit_of_a_kernel_is_on_the_page_with_its_number():
    section = TEXT.split("\n## Limits")[1].split("\n## ")[0]
    units = {
        "bytes": {"GB": 1 << 30, "MB": 1 << 20, "kB": 1 << 10},
        "seconds": {"minutes": 60, "s": 1},
    }
    for name, value in Limits().describe().items():
        sizes = units.get(name.rpartition("_")[2], {"": 1})
        forms = [rf"\b{value // size:g} ?{unit}\b" for unit, size in sizes.items() if value >= size]
        assert any(re.search(form, section) for form in forms), (name, value)
