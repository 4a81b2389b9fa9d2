"""Look at a submission before nbgrader does, and take from it only what is needed.

Of a notebook that is the kind and the text of each cell, and to which cell of the lesson it
belongs; everything else is put back from the lesson. So whatever was done to metadata, tests or
outputs is mended on the way, the answers stay as they are, and the submission is not touched.
"""

import fnmatch
import functools
import json
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from lab_grader.intake.course import Course, Lesson, role_of

MOST_FILES = 500
MOST_NOTEBOOK_BYTES = 256 << 20  # plots are stored in it
MOST_FILE_BYTES = 16 << 20
MOST_FILES_BYTES = 64 << 20  # of all but the notebooks
MOST_CELL_BYTES = 1 << 20
MOST_CELLS = 2000
# What a cell has besides its id and text. The notebook that they make up is validated as a whole.
NEW_CELL = {"code": {"outputs": [], "execution_count": None}, "markdown": {}, "raw": {}}


class Unreadable(Exception):
    """A file that cannot be graded; the text says why."""


@dataclass
class Submission:
    """What a student handed in, as it will be graded.

    Attributes:
        notebooks: those that can be graded, by the lesson's name.
        files: the contents of other files by their path.
        mended: what was put right.
        problems: what could not be, and needs a person.
    """

    student: str
    notebooks: dict[str, NotebookNode] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    mended: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def vet(course: Course, student: str) -> Submission:
    """Return a student's submission, vetted. Nothing that it holds can make this fail."""
    submission = Submission(student)
    found: dict[str, bytes] = {}
    folder, room = course.folder("submitted", student), MOST_FILES_BYTES
    for path, entry in _entries(folder, submission):
        name = path.relative_to(folder).as_posix()
        try:
            if not _ignored(name, course, submission):
                content = _read(entry, path)
                if not name.endswith(".ipynb"):
                    room -= len(content)
                if room < 0:
                    raise Unreadable(f"more than {MOST_FILES_BYTES >> 20} MB of files")
                found[name] = content
        except (Unreadable, OSError) as error:
            submission.problems.append(f"{name}: {error}")
    contents = {}
    for name in [name for name in found if name.endswith(".ipynb")]:
        try:
            contents[name] = _cells(found.pop(name))
        except Unreadable as error:
            submission.problems.append(f"{name}: {error}")
    submission.files = found
    _assign(course, contents, submission)
    return submission


def _entries(folder: Path, submission: Submission) -> Iterator[tuple[Path, os.DirEntry]]:
    """Yield the files of a folder and its folders; links are reported and not followed."""
    pending, count = [folder], 0
    while pending:
        for entry in sorted(os.scandir(pending.pop()), key=lambda entry: entry.name):
            path, count = Path(entry.path), count + 1
            if count > MOST_FILES:
                submission.problems.append(f"more than {MOST_FILES} files; the rest is left out")
                return
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                yield path, entry


def _ignored(name: str, course: Course, submission: Submission) -> bool:
    """Whether the course leaves a file out; one of Python is mentioned."""
    parts = name.split("/")
    if not any(fnmatch.fnmatch(part, p) for part in parts for p in course.directory.ignore):
        return False
    if name.endswith(".py"):
        module = parts[0].removesuffix(".py")
        shadows = module in _module_names()
        why = f"it would take the place of the module {module}" if shadows else "not graded"
        submission.mended.append(f"{name} is left out: {why}")
    return True


@functools.cache
def _module_names() -> frozenset[str]:
    """The names of Python's modules, and of those that are installed. Nothing is imported for it:
    a student's name is compared with them, and asked of nothing that could run what it names."""
    ours = {"lab_grader", "lab_utils"}  # installed from a folder, which metadata may not name
    return sys.stdlib_module_names | packages_distributions().keys() | ours


def _read(entry: os.DirEntry, path: Path) -> bytes:
    """Read a regular file, by a descriptor that cannot become another file in between."""
    if entry.is_symlink():
        raise Unreadable("a link; hand in the file itself")
    if not entry.is_file(follow_symlinks=False):
        raise Unreadable("neither a file nor a folder")
    most = MOST_NOTEBOOK_BYTES if path.suffix == ".ipynb" else MOST_FILE_BYTES
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("neither a file nor a folder")
        if status.st_size > most:
            raise Unreadable(f"{status.st_size >> 20} MB; at most {most >> 20} MB are read")
        return file.read(most)


def _cells(content: bytes) -> list[dict[str, Any]]:
    """Return the cells of a notebook's JSON, of any version that nbformat can bring to 4."""
    try:
        notebook = json.loads(content)
        version = notebook["nbformat"]
        if version > 4:
            raise Unreadable(f"a notebook of the format {version}; save it as format 4")
        if version < 4:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                notebook = nbformat.convert(nbformat.reader.reads(content.decode()), 4)
        cells = notebook["cells"]
        if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
            raise Unreadable("its cells are no list of cells")
    except Unreadable:
        raise
    except Exception as error:  # the file may hold anything, and nbformat fails in many ways
        raise Unreadable(f"no readable notebook ({type(error).__name__}: {error})") from error
    if len(cells) > MOST_CELLS:
        raise Unreadable(f"{len(cells)} cells; at most {MOST_CELLS} are graded")
    return cells


def _assign(course: Course, contents: dict[str, list[dict]], submission: Submission) -> None:
    """Find the notebook of each lesson, by its name or by the cells that it holds."""
    for lesson in course.lessons.values():
        name = f"{lesson.name}.ipynb"
        if name not in contents:
            others = [n for n in contents if Path(n).stem not in course.lessons or "/" in n]
            alike = [n for n in others if _likeness(contents[n], lesson) > 0.5]
            if len(alike) != 1:
                which = f": it may be any of {', '.join(alike)}" if alike else ""
                submission.problems.append(f"{name} is missing{which}")
                continue
            submission.mended.append(f"{alike[0]} is graded as {name}")
            contents[name] = contents.pop(alike[0])
        cells = contents.pop(name)
        submission.notebooks[lesson.name] = _mend(cells, lesson, submission)
    for name in contents:
        submission.problems.append(f"{name} is no notebook of this assignment, and is left out")


def _likeness(cells: list[dict], lesson: Lesson) -> float:
    found = {_grade_id(cell) for cell in cells}
    return len(found & lesson.graded.keys()) / max(1, len(lesson.graded))


def _grade_id(cell: dict) -> str | None:
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    found = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return found if isinstance(found, str) else None


def _mend(cells: list[dict], lesson: Lesson, submission: Submission) -> NotebookNode:
    """Return a notebook of the student's texts, with the lesson's own cells as they should be."""

    def note(text: str) -> None:
        submission.mended.append(f"{lesson.name}: {text}")

    last = {_grade_id(cell): index for index, cell in enumerate(cells)}  # of copies, as nbgrader
    made: list[tuple[str | None, NotebookNode]] = []
    for index, cell in enumerate(cells):
        kind, source = cell.get("cell_type"), cell.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if kind not in NEW_CELL or not isinstance(source, str):
            submission.problems.append(f"{lesson.name}, cell {index + 1} is none; it is left out")
            continue
        if len(source) > MOST_CELL_BYTES:
            submission.problems.append(
                f"{lesson.name}, cell {index + 1} has {len(source) >> 20} MB of text, and is left "
                "out"
            )
            source = "# too long, left out"
        grade_id = _grade_id(cell)
        if grade_id in lesson.graded and last[grade_id] == index:
            made.append((grade_id, _lessons_cell(lesson.graded[grade_id], source)))
            continue
        if grade_id is not None:
            known = "a copy of" if grade_id in lesson.graded else "an unknown cell"
            note(f"cell {index + 1} is {known} {grade_id}, and counts as the student's own")
        new = {"cell_type": kind, "id": f"student-{index}", "metadata": {}, "source": source}
        made.append((None, nbformat.from_dict(new | NEW_CELL[kind])))
        attached = cell.get("attachments")
        if kind == "markdown" and attached:
            made[-1][1].attachments = attached
    for grade_id in _missing(lesson, made):
        note(f"the cell {grade_id} was deleted, and is put back")
    notebook = new_notebook(cells=[cell for _, cell in made], metadata=lesson.metadata)
    if not nbformat.validator.isvalid(notebook):  # only attachments can be at fault
        for cell in notebook.cells:
            cell.pop("attachments", None)
        note("images in text cells were not readable, and are left out")
    return notebook


def _lessons_cell(released: NotebookNode, source: str) -> NotebookNode:
    """Return a cell of the lesson; where it is an answer, with the student's text."""
    cell = nbformat.from_dict(released)
    if role_of(released) in ("exercise", "manual"):
        cell.source = source
    return cell


def _missing(lesson: Lesson, made: list[tuple[str | None, NotebookNode]]) -> list[str]:
    """Put the lesson's graded cells that are not there after the one before them."""
    added, before = [], None
    for grade_id, cell in lesson.graded.items():
        present = [name for name, _ in made]
        if grade_id not in present:
            place = present.index(before) + 1 if before else 0
            made.insert(place, (grade_id, nbformat.from_dict(cell)))
            added.append(grade_id)
        before = grade_id
    return added
