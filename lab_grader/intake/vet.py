"""Look at a submission before nbgrader does, and take from it only what is needed.

Of a notebook, that is the kind and the text of each cell, and to which cell of the lesson it
belongs; everything else is restored from the lesson. So whatever was done to metadata, tests or
outputs is repaired, the answers stay as they are, and the submission itself is not touched.
"""

import fnmatch
import functools
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import packages_distributions
from pathlib import PurePosixPath

from nbformat import NotebookNode

from lab_grader.intake.archives import (
    LONGEST_MAGIC,
    NOT_OPENED_NAMES,
    PACKED_NAMES,
    NotOpened,
    Unpacker,
    is_packed,
)
from lab_grader.intake.cells import HandedIn, read_cells
from lab_grader.intake.course import Course, Lesson
from lab_grader.intake.litter import is_litter
from lab_grader.intake.matching import known_cells, likeness, work_in
from lab_grader.intake.mending import mend
from lab_grader.intake.moment import NoMoment, read_moment
from lab_grader.intake.notebook import cells_of, looks_like_a_notebook
from lab_grader.intake.submitted import (
    MOST_FILES,
    NOTEBOOK,
    NotGradable,
    beginning_of,
    files_in,
    read_file,
)
from lab_grader.intake.text import cells_of_text, is_text

MOST_NOTEBOOK_BYTES = 256 << 20  # plots are stored in it
MOST_NOTEBOOKS_BYTES = 1 << 30  # of all of them
MOST_FILE_BYTES = 16 << 20
MOST_FILES_BYTES = 64 << 20  # of all but the notebooks
TIMESTAMP = "timestamp.txt"
# What people hand in instead of a notebook, and what to tell them.
INSTEAD = {
    (".html", ".htm", ".pdf", ".docx", ".doc", ".odt", ".png", ".jpg", ".jpeg", ".mhtml"): (
        "a picture of a notebook, which cannot be run; hand in the .ipynb"
    ),
    (".py", ".md", ".qmd", ".rmd", ".r"): (
        "a text that does not hold the lesson's cells; hand in the .ipynb"
    ),
    NOT_OPENED_NAMES: "an archive that cannot be opened here; hand in the .ipynb, or a .zip",
    (".eml", ".msg", ".mbox"): "an email; hand in the .ipynb that is attached to it",
    (".url", ".webloc", ".gdoc", ".lnk", ".desktop"): "a link to a file; hand in the file itself",
}
IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
CHECKPOINTS = ".ipynb_checkpoints"  # Jupyter's copies of notebooks


@dataclass
class Submission:
    """What a student handed in, as it will be graded.

    Attributes:
        notebooks: those that can be graded, by the lesson's name.
        files: the contents of other files by their path.
        moment: when it was handed in, in UTC; None where that is not known.
        mended: what was put right.
        problems: what could not be, and needs a person.
    """

    student: str
    notebooks: dict[str, NotebookNode] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    moment: datetime | None = None
    mended: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def vet(course: Course, student: str) -> Submission:
    """Return a student's submission, vetted. Nothing in it can make this fail.

    It may take as long and as much memory as the submission makes it: call it in a worker.

    Raises:
        NotRead: a file or folder of it cannot be opened here.
    """
    submission = Submission(student)
    folder, note = course.handed_in(student)
    if note:
        submission.mended.append(note)
    for name in course.beside(student):
        submission.problems.append(f"{name} lies beside the folder {folder.name}: it is not graded")
    found = _Found(course, submission)
    for name, entry in files_in(folder, course.lessons, submission.problems.append):
        found.add(name, entry)
    submission.files = found.files
    _read_timestamp(submission)
    _choose_notebooks(course, found, submission)
    return submission


def _read_timestamp(submission: Submission) -> None:
    if TIMESTAMP in submission.files:
        try:
            submission.moment, note = read_moment(submission.files.pop(TIMESTAMP))
            submission.problems += [f"{TIMESTAMP}: {note}"] if note else []
        except NoMoment as error:
            submission.problems.append(f"{TIMESTAMP}: {error}; it is graded as not late")


class _Found:
    """The files of a submission: what may be notebooks, and the others.

    Attributes:
        notebooks: for each file that may hold one, a function that reads its JSON.
        files: the contents of the others.
        ignored: the names of what the course leaves out.
        litter: the names of what a system made.
    """

    def __init__(self, course: Course, submission: Submission) -> None:
        self.course, self.submission = course, submission
        self.notebooks: dict[str, Callable[[], bytes]] = {}
        self.files: dict[str, bytes] = {}
        self.ignored: list[str] = []
        self.litter: list[str] = []
        self._room, self._notebook_room = MOST_FILES_BYTES, MOST_NOTEBOOKS_BYTES
        self._cells: dict[str, list[HandedIn] | None] = {}  # of the notebooks that were read
        self._unpacker = Unpacker(_is_wanted, self._complain, MOST_NOTEBOOK_BYTES)

    def add(self, name: str, entry: os.DirEntry) -> None:
        """Add a file by its path; what cannot be read is reported."""
        if is_litter(PurePosixPath(name)):
            self.litter.append(name)
            return
        try:
            if NOTEBOOK.search(name) and not is_packed(beginning_of(entry, LONGEST_MAGIC)):
                self.notebooks[name] = functools.partial(read_file, entry, MOST_NOTEBOOK_BYTES)
                if name.lower().endswith(".json"):  # which may turn out to be data
                    self._add_file(name, entry)
            elif _ignored(name, self.course):
                self.ignored.append(name)
            else:
                self._add_file(name, entry)
            if is_text(name):
                self.notebooks[name] = functools.partial(read_file, entry, MOST_FILE_BYTES)
        except NotGradable as error:
            self.submission.problems.append(f"{name}: {error}")

    def _add_file(self, name: str, entry: os.DirEntry) -> None:
        if not name.isprintable():
            raise NotGradable("a name that cannot be shown; it is left out")
        content = read_file(entry, MOST_FILE_BYTES)
        if len(content) > self._room:
            raise NotGradable(f"more than {MOST_FILES_BYTES >> 20} MB of files")
        self._room -= len(content)
        self.files[name] = content
        if is_packed(content[:LONGEST_MAGIC]) or name.lower().endswith(PACKED_NAMES):
            found = list(self._unpacker.members(name, content))
            found.sort(key=lambda it: it[0].replace("\\", "/").count("/"))
            self.notebooks |= dict(found[:MOST_FILES])
        elif name not in self.notebooks and looks_like_a_notebook(content):
            self.notebooks[name] = lambda: content

    def _complain(self, name: str, text: str) -> None:
        self.submission.problems.append(f"{name}: {text}")

    def cells(self, name: str) -> list[HandedIn] | None:
        """Return the cells of a notebook, which is read once; None if it has none to be read."""
        if name not in self._cells:
            self._cells[name] = None
            try:
                self._cells[name] = self._read_cells(name)
            except MemoryError:
                why = "reading it takes too much memory; clear its outputs and hand it in again"
                self.submission.problems.append(f"{name}: {why}")
            except (NotGradable, NotOpened) as error:
                if not self.may_be_data(name):
                    self.submission.problems.append(f"{name}: {error}")
        return self._cells[name]

    def _read_cells(self, name: str) -> list[HandedIn]:
        content = self.notebooks[name]() if self._notebook_room else None
        if content is None or len(content) > self._notebook_room:
            self._notebook_room = 0  # what follows is not even read
            raise NotGradable(f"more than {MOST_NOTEBOOKS_BYTES >> 20} MB of notebooks")
        self._notebook_room -= len(content)
        stem = PurePosixPath(name).stem

        def complain(text: str) -> None:
            self.submission.problems.append(f"{stem}: {text}")

        if is_text(name):
            likely = b"checks." in content or any(_named_as(it, name) for it in self.course.lessons)
            return read_cells(cells_of_text(content, name), complain) if likely else []
        return read_cells(cells_of(content, complain), complain)

    def may_be_data(self, name: str) -> bool:
        """Return whether a file's name does not say that it is a notebook."""
        return name in self.files or is_text(name) or name.lower().endswith(".json")


def _is_wanted(name: str) -> bool:
    """Return whether a file of an archive may hold a notebook, by its path there."""
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(NOTEBOOK.search(name) or is_text(name)) and not is_litter(path)


def _ignored(name: str, course: Course) -> bool:
    """Return whether the course leaves a file out."""
    patterns = course.directory.ignore
    return any(fnmatch.fnmatch(part, p) for part in name.split("/") for p in patterns)


def _report_ignored(ignored: list[str], submission: Submission) -> None:
    """Report the Python modules among what the course leaves out."""
    for name in ignored:
        if name.endswith(".py"):
            module = name.split("/")[0].removesuffix(".py")
            shadows = module in _module_names()
            why = f"it would shadow the module {module}" if shadows else "not graded"
            submission.mended.append(f"{name} is left out: {why}")


@functools.cache
def _module_names() -> frozenset[str]:
    """Return the names of Python's modules and of those that are installed.

    They come from metadata. A student's name is compared with them, and never handed to anything
    that would look for a module of that name and so run it.
    """
    ours = {"lab_grader", "lab_utils"}  # installed from a folder, which metadata may not name
    return sys.stdlib_module_names | packages_distributions().keys() | ours


def _choose_notebooks(course: Course, found: _Found, submission: Submission) -> None:
    """Find the notebook of each lesson, by its name or by the cells that it holds."""
    named = [name for lesson in course.lessons if (name := f"{lesson}.ipynb") in found.notebooks]
    for name in named:
        found.cells(name)  # first, while there is room for them
    others = sorted(
        (name for name in found.notebooks if name not in named),
        key=lambda name: (is_text(name), CHECKPOINTS in name.split("/"), name.count("/"), name),
    )
    used = set(named)
    for lesson in course.lessons.values():
        chosen = _choose(lesson, others, found, submission)
        if chosen is None:
            there = dict.fromkeys((*others, *found.files, *found.ignored))
            unused = [name for name in there if name not in used] or found.litter
            _report_missing(lesson, unused, submission)
            continue
        used.add(chosen)

        def note(text: str, lesson: Lesson = lesson) -> None:
            submission.mended.append(f"{lesson.name}: {text}")

        submission.notebooks[lesson.name] = mend(found.cells(chosen), lesson, note)
    for name in others:
        if name not in used and found.may_be_data(name):
            continue
        found.files.pop(name, None)  # a notebook without the name of one
        if name not in used and CHECKPOINTS not in name.split("/"):
            submission.problems.append(f"{name} is not graded, and is left out")
    found.ignored = [name for name in found.ignored if name not in used]
    _report_ignored(found.ignored, submission)
    _report_imports(found.ignored, submission)


def _choose(lesson: Lesson, others: list[str], found: _Found, submission: Submission) -> str | None:
    """Return the file to grade as a lesson: the one of its name, or one with more work in it.

    Another is only looked for if that of its name is missing or has no finished exercise: students
    hand in a blank copy beside their own.

    Args:
        others: files that may hold notebooks and have no lesson's name.
    """
    name = f"{lesson.name}.ipynb"
    cells = found.cells(name) if name in found.notebooks else None
    work = work_in(cells, lesson) if cells else -1
    named = name if cells else None
    if work == 2:
        return named
    alike = {
        other: its_work
        for other in others
        if (cells := found.cells(other)) and _is_of(lesson, other, cells)
        # A text may as well be notes, or a module.
        if (its_work := work_in(cells, lesson)) == 2 or not is_text(other)
    }
    most = max(alike.values(), default=-1)
    if most <= work:
        return named
    pool = [other for other, its_work in alike.items() if its_work == most]
    # Jupyter's copies come last, and do not compete with what they are copies of.
    first, is_copy = pool[0], CHECKPOINTS in pool[0].split("/")
    rivals = [other for other in pool if (CHECKPOINTS in other.split("/")) == is_copy]
    if any(_texts(found, other) != _texts(found, first) for other in rivals):
        submission.problems.append(
            f"{name} may be any of {', '.join(rivals)}: hand in one, or rename it"
        )
        return named
    why = f": {named} has no finished exercise" if named else ""
    submission.mended.append(f"{first} is graded as {name}{why}")
    return first


def _is_of(lesson: Lesson, name: str, cells: list[HandedIn]) -> bool:
    """Whether a file holds most cells of a lesson, or is a text of its name with an answer."""
    if is_text(name) and _named_as(lesson.name, name):
        return any(how != "place" for _, how in known_cells(cells, lesson).values())
    return likeness(cells, lesson) > 0.5


def _named_as(lesson: str, name: str) -> bool:
    """Whether a file's name holds a lesson's, however a system or a person spelled it."""

    def letters(text: str) -> str:
        return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))

    return letters(lesson) in letters(PurePosixPath(name).name)


def _texts(found: _Found, name: str) -> list[str]:
    return [cell.source for cell in found.cells(name)]


def _report_missing(lesson: Lesson, unused: list[str], submission: Submission) -> None:
    """Report that a lesson's notebook is missing, unless the reason has been reported already."""
    name = f"{lesson.name}.ipynb"
    if any(text.startswith((f"{name} may be", f"{name}: ")) for text in submission.problems):
        return
    there = f"; there is {', '.join(_with_advice(unused))}" if unused else ""
    submission.problems.append(f"{name} is missing{there}")


def _with_advice(names: list[str]) -> list[str]:
    """Return some names, with advice; first those that may have been meant for a notebook."""
    told = {
        name: f"{name} ({advice})"
        for name in names
        for suffixes, advice in INSTEAD.items()
        if name.lower().endswith(suffixes)
    }
    return [told.get(name, name) for name in sorted(names, key=lambda name: name not in told)[:3]]


def _report_imports(ignored: list[str], submission: Submission) -> None:
    """Report each notebook that needs a Python file which the course leaves out."""
    modules = {name.removesuffix(".py") for name in ignored if name.endswith(".py")}
    for lesson, notebook in submission.notebooks.items():
        texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        for module in sorted(set(IMPORT.findall(texts)) & modules):
            submission.problems.append(
                f"{lesson} imports {module}.py, which is left out: "
                "what is graded has to stand in the notebook"
            )
