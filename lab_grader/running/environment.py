"""What decides a result, apart from its job: the interpreter, packages, and our own files."""

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lab_grader
import lab_utils

NAME, EXTRA = "dora-lab", "grading"


@functools.cache
def everything() -> dict[str, str]:
    """Return the versions of the interpreter and of every package, and our own files' hashes."""
    found = {"Python": platform.python_version(), "machine": platform.machine()}
    for package in distributions():  # of two versions the first is imported
        found.setdefault(canonicalize_name(package.name), package.version)
    for package in (lab_utils, lab_grader):
        folder = Path(package.__file__).parent
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and "__pycache__" not in name.parts:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[f"{folder.name}/{name}"] = digest
    return found


def deciding() -> dict[str, str]:
    """Return that part of `everything` which a worker needs to be the same.

    Packages that the lab does not need may be others there, or missing.
    """
    needed = _needed()
    others = {canonicalize_name(package.name) for package in distributions()} - needed
    return {name: value for name, value in everything().items() if name not in others}


def _needed() -> set[str]:
    """Return the packages that grading needs, and what these need."""
    found: set[str] = set()
    waiting = [Requirement(f"{NAME}[{EXTRA}]")]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found and not wanted.extras:
            continue
        found.add(name)
        try:
            texts = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for one in map(Requirement, texts):
            extras = ("", *wanted.extras)
            if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(one)
    return found
