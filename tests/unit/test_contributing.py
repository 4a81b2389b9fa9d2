"""What CONTRIBUTING.md and the README tell maintainers to edit, call and use is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAINTAINERS = (ROOT / "README.md").read_text().split("## For maintainers")[1]
RECIPES = dict(
    re.findall(r"^([\w-]+):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
)
GENERATED = {"build/book/index.html"}  # made by make, and ignored by git
texts = pytest.mark.parametrize("text", [CONTRIBUTING, MAINTAINERS], ids=["CONTRIBUTING", "README"])


def quoted(text, form):
    """What stands between backticks, outside of blocks of code, and has a form."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return {it for it in re.findall(r"`([^`\n]+)`", text) if re.fullmatch(form, it)}


@texts
def test_every_file_that_is_named_exists(text):
    named = quoted(text, r"[\w.*/-]+(?:/|\.(?:py|md|toml|txt|yml))")
    named = {path for path in named if not re.search("NN|NAME", path)} - GENERATED
    assert len(named) > 5
    # A sentence on a folder names what is in it: `grade.py` of `lab_grader/`.
    folders = ("", "lab_*/", "tests/checks/")
    missing = [p for p in named if not any(any(ROOT.glob(f + p.rstrip("/"))) for f in folders)]
    assert not missing


@texts
def test_every_target_of_make_exists(text):
    named = {it.split()[1] for it in quoted(text, "make .*")}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(named) >= 3
    assert named <= targets, named - targets


def test_every_name_of_the_code_that_a_recipe_uses_exists():
    names = quoted(CONTRIBUTING, r"[A-Z][A-Za-z_]+")
    assert {"METHODS", "Limits", "EXERCISES", "BROKEN_BY", "AS_RIGHT", "LoRALayer"} <= names
    files = [
        p for f in ("lab_utils", "lab_grader", "tests/checks") for p in (ROOT / f).rglob("*.py")
    ]
    code = "\n".join(path.read_text() for path in files)
    unknown = [it for it in names if not re.search(rf"^(?:class )?{it}\b", code, re.MULTILINE)]
    assert not unknown


BENCHMARKS = sorted(
    p for p in (ROOT / "benchmarks").rglob("*.py") if '__name__ == "__main__"' in p.read_text()
)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda it: it.stem)
def test_every_benchmark_says_how_it_is_started_and_all_are_started_alike(path):
    """As a module, from the repository's folder: by make where there is a target for it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    command = f"python -m {'.'.join(parts).removesuffix('.__main__')}"
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    by_make = [t for t, line in RECIPES.items() if f"$(BIN)/{command}" in line]
    assert any(it in docstring for it in (command, *(f"make {target}" for target in by_make)))
    assert "python benchmarks" not in docstring
