"""Look at a submission before nbgrader does, and take from it only what is needed.

Of a notebook that is the kind and the text of each cell, and to which cell of the lesson it
belongs; everything else is put back from the lesson. So whatever was done to metadata, tests or
outputs is mended on the way, the answers stay as they are, and the submission is not touched.
"""

import errno
import fnmatch
import functools
import itertools
import json
import os
import re
import stat
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from nbformat import NotebookNode

from lab_grader.intake.archives import LONGEST_MAGIC, PACKED_NAMES, NotOpened, Unpacker, is_packed
from lab_grader.intake.cells import HandedIn, likeness, mend, read_cells, work_in
from lab_grader.intake.course import Course, Lesson
from lab_grader.intake.litter import is_litter
from lab_grader.intake.moment import NoMoment, read_moment

MOST_FILES = 500
MOST_NAMES = 20_000  # of files and folders that are looked at
MOST_DEPTH = 20  # folders within each other
MOST_NOTEBOOK_BYTES = 256 << 20  # plots are stored in it
MOST_NOTEBOOKS_BYTES = 1 << 30  # of all of them
MOST_FILE_BYTES = 16 << 20
MOST_FILES_BYTES = 64 << 20  # of all but the notebooks
MOST_CELLS = 2000
TIMESTAMP = "timestamp.txt"
# What may hold a notebook: 01.ipynb, 01.IPYNB, 01.ipynb.json, 01.ipynb.txt, 01.json
NOTEBOOK = re.compile(r"\.ipynb[\W_]*\w{0,4}\W*$|\.json$", re.IGNORECASE)
# What people hand in instead of a notebook, and what to tell them.
INSTEAD = {
    (".html", ".htm", ".pdf", ".docx", ".doc", ".odt", ".png", ".jpg", ".jpeg"): (
        "a picture of a notebook, which cannot be run; hand in the .ipynb"
    ),
    (".py", ".md", ".qmd", ".rmd", ".r"): (
        "the text of a notebook; hand in the .ipynb, or make one of it: jupytext --to ipynb"
    ),
    (".7z", ".rar", ".zst"): "an archive that cannot be opened here; hand in the .ipynb, or a .zip",
    (".url", ".webloc", ".gdoc", ".lnk", ".desktop"): "a link to a file; hand in the file itself",
}
IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
CONFLICT = re.compile(r"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)  # no line of JSON begins so
CHECKPOINTS = ".ipynb_checkpoints"


class Unreadable(Exception):
    """A file that cannot be graded; the text says why."""


class NotRead(Exception):
    """This machine does not let a submission be read, which is not the student's fault."""


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
    """Return a student's submission, vetted. Nothing that it holds can make this fail.

    It may take as long and as much memory as the submission makes it: call it in a worker.

    Raises:
        NotRead: a file or folder of it cannot be opened here.
    """
    submission = Submission(student)
    folder, note = course.handed_in(student)
    if note:
        submission.mended.append(note)
    found = _Found(course, submission)
    for name, path, entry in _entries(folder, course.lessons, submission):
        found.add(name, entry, path)
    submission.files = found.files
    if TIMESTAMP in submission.files:
        try:
            submission.moment, note = read_moment(submission.files.pop(TIMESTAMP))
            submission.problems += [f"{TIMESTAMP}: {note}"] if note else []
        except NoMoment as error:
            submission.problems.append(f"{TIMESTAMP}: {error}; it is graded as not late")
    _assign(course, found, submission)
    return submission


def _entries(
    folder: Path, lessons: Collection[str], submission: Submission
) -> Iterator[tuple[str, Path, os.DirEntry]]:
    """Yield the files of a folder and its folders; links are reported and not followed.

    First come notebooks, those named as a lesson before others, and what lies less deep before
    what lies deeper: so that no folder of figures or packages takes the place of an answer.
    """
    found = [
        (PurePosixPath(os.path.relpath(entry.path, folder)), entry)
        for entry in _below(folder, submission)
    ]
    found = [(name, entry) for name, entry in found if not is_litter(name)]
    found.sort(key=lambda it: (it[0].stem not in lessons, not NOTEBOOK.search(it[0].name)))
    if len(found) > MOST_FILES:
        submission.problems.append(f"more than {MOST_FILES} files; the rest is left out")
    for name, entry in found[:MOST_FILES]:
        yield str(name), Path(entry.path), entry


def _below(folder: Path, submission: Submission) -> Iterator[os.DirEntry]:
    """Yield what is no folder in a folder and in those below, level by level."""
    room, level = MOST_NAMES, [os.fspath(folder)]
    for _ in range(MOST_DEPTH):
        below = []
        for current in level:
            try:
                with os.scandir(current) as scanned:
                    entries = sorted(itertools.islice(scanned, room), key=lambda it: it.name)
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    submission.problems.append("folders with too long a path are left out")
                    continue
                raise NotRead(f"{current} cannot be read: {error.strerror}") from error
            room -= len(entries)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                else:
                    yield entry
        level = below
    if level:
        submission.problems.append(f"folders more than {MOST_DEPTH} deep are left out")
    if not room:
        submission.problems.append(f"more than {MOST_NAMES:,} names; the rest is left out")


class _Found:
    """The files of a submission: what may be notebooks, and the others.

    Attributes:
        notebooks: what reads the JSON of each file that may hold one.
        files: the contents of the others.
        ignored: the names of what the course leaves out.
    """

    def __init__(self, course: Course, submission: Submission) -> None:
        self.course, self.submission = course, submission
        self.notebooks: dict[str, Callable[[], bytes]] = {}
        self.files: dict[str, bytes] = {}
        self.room, self.notebook_room = MOST_FILES_BYTES, MOST_NOTEBOOKS_BYTES
        self.ignored: list[str] = []
        self.cells: dict[str, list[HandedIn] | None] = {}
        self.unpacker = Unpacker(_is_wanted, self._complain, MOST_NOTEBOOK_BYTES)

    def add(self, name: str, entry: os.DirEntry, path: Path) -> None:
        try:
            if NOTEBOOK.search(name) and not _is_packed(path, entry):
                self.notebooks[name] = lambda: _read(entry, path, MOST_NOTEBOOK_BYTES)
                if name.lower().endswith(".json"):  # or data, as it turns out
                    self._add_file(name, entry, path)
            elif _ignored(name, self.course, self.submission):
                self.ignored.append(name)
            else:
                self._add_file(name, entry, path)
        except Unreadable as error:
            self.submission.problems.append(f"{name}: {error}")

    def _add_file(self, name: str, entry: os.DirEntry, path: Path) -> None:
        if not name.isprintable():
            raise Unreadable("a name that cannot be shown; it is left out")
        content = _read(entry, path, MOST_FILE_BYTES)
        if len(content) > self.room:
            raise Unreadable(f"more than {MOST_FILES_BYTES >> 20} MB of files")
        self.room -= len(content)
        self.files[name] = content
        if is_packed(content[:LONGEST_MAGIC]) or name.lower().endswith(PACKED_NAMES):
            found = list(self.unpacker.members(name, content))
            found.sort(key=lambda it: it[0].replace("\\", "/").count("/"))
            self.notebooks |= dict(found[:MOST_FILES])
        elif name not in self.notebooks and _looks_like_a_notebook(content):
            self.notebooks[name] = lambda: content

    def _complain(self, name: str, text: str) -> None:
        self.submission.problems.append(f"{name}: {text}")

    def read(self, name: str) -> list[HandedIn] | None:
        """Return the cells of a notebook, read once; None where there are none to be read."""
        if name not in self.cells:
            self.cells[name] = None
            try:
                content = self.notebooks[name]() if self.notebook_room else None
                if content is None or len(content) > self.notebook_room:
                    self.notebook_room = 0  # what follows is not even read
                    raise Unreadable(f"more than {MOST_NOTEBOOKS_BYTES >> 20} MB of notebooks")
                self.notebook_room -= len(content)
                stem = PurePosixPath(name).stem

                def complain(text: str) -> None:
                    self.submission.problems.append(f"{stem}: {text}")

                self.cells[name] = read_cells(_cells(content, complain), complain)
            except MemoryError:
                why = "reading it takes too much memory; clear its outputs and hand it in again"
                self.submission.problems.append(f"{name}: {why}")
            except (Unreadable, NotOpened) as error:
                if name not in self.files and not name.lower().endswith(".json"):  # else it is data
                    self.submission.problems.append(f"{name}: {error}")
        return self.cells[name]


def _is_wanted(name: str) -> bool:
    """Whether a file of an archive may hold a notebook, by its path there."""
    return bool(NOTEBOOK.search(name)) and not is_litter(PurePosixPath(name.replace("\\", "/")))


def _is_packed(path: Path, entry: os.DirEntry) -> bool:
    """Whether what is named as a notebook is an archive, as some browsers and servers make it."""
    if not entry.is_file(follow_symlinks=False):
        return False
    with open(_opened(path), "rb") as file:
        return is_packed(file.read(LONGEST_MAGIC))


def _looks_like_a_notebook(content: bytes) -> bool:
    """Whether a file without the name of a notebook may be one, as a browser left it."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and b'"cells"' in content


def _ignored(name: str, course: Course, submission: Submission) -> bool:
    """Whether the course leaves a file out; one of Python is mentioned."""
    parts = name.split("/")
    if not any(fnmatch.fnmatch(part, p) for part in parts for p in course.directory.ignore):
        return False
    if name.endswith(".py"):
        module = parts[0].removesuffix(".py")
        shadows = module in _module_names()
        why = f"it would shadow the module {module}" if shadows else "not graded"
        submission.mended.append(f"{name} is left out: {why}")
    return True


@functools.cache
def _module_names() -> frozenset[str]:
    """The names of Python's modules, and of those that are installed. Nothing is imported for it:
    a student's name is compared with them, and asked of nothing that could run what it names."""
    ours = {"lab_grader", "lab_utils"}  # installed from a folder, which metadata may not name
    return sys.stdlib_module_names | packages_distributions().keys() | ours


def _read(entry: os.DirEntry, path: Path, most: int) -> bytes:
    """Read a regular file, by a descriptor that cannot become another file in between."""
    if entry.is_symlink():
        raise Unreadable("a link; hand in the file itself")
    if not entry.is_file(follow_symlinks=False):
        raise Unreadable("neither a file nor a folder")
    try:
        with open(_opened(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise Unreadable(f"{size >> 20} MB; at most {most >> 20} MB are read")
            return file.read(most)
    except OSError as error:
        raise NotRead(f"{path} cannot be read: {error.strerror}") from error


def _opened(path: Path) -> int:
    """Open a regular file; return its descriptor, which cannot become another file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise NotRead(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable("neither a file nor a folder")
    return descriptor


def _cells(content: bytes, complain: Callable[[str], None]) -> list[Any]:
    """Return the cells of a notebook's JSON, of any version that nbformat can bring to 4.

    Args:
        complain: called with a sentence for what is odd about it.

    Raises:
        Unreadable: there are none; the text says why.
    """
    try:
        notebook = _json(content, complain)
        version = _version(notebook)
        if version > 4:
            raise Unreadable(f"a notebook of the format {version}; save it as format 4")
        if version < 4:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = json.dumps(notebook | {"nbformat": version})
                notebook = nbformat.convert(nbformat.reader.reads(text), 4)
        cells = notebook["cells"]
        if not isinstance(cells, list):
            raise Unreadable("its cells are not a list of cells")
    except (Unreadable, MemoryError):
        raise
    except RecursionError as error:
        raise Unreadable("not a readable notebook (nested too deeply)") from error
    except Exception as error:  # the file may hold anything, and nbformat fails in many ways
        raise Unreadable(f"not a readable notebook ({type(error).__name__}: {error})") from error
    if len(cells) > MOST_CELLS:
        raise Unreadable(f"{len(cells)} cells; at most {MOST_CELLS} are graded")
    if not cells:
        raise Unreadable("a notebook without cells")
    return cells


def _json(content: bytes, complain: Callable[[str], None]) -> dict[str, Any]:
    """Return the object that a notebook's file holds, in whatever encoding it was saved."""
    if not content.strip(b"\0 \t\r\n"):
        raise Unreadable("an empty file" if not content else "a file with nothing but blanks")
    encoding = json.detect_encoding(content)
    text, replaced = content.decode(encoding, errors="replace"), False
    if "\N{REPLACEMENT CHARACTER}" in text:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            replaced = True
    text = text.lstrip("\ufeff \t\r\n")
    try:
        found, end = json.JSONDecoder(parse_int=_whole_number).raw_decode(text)
    except json.JSONDecodeError as error:
        if (what := _something_else(text)) is not None:
            raise Unreadable(what) from error
        cut = error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip())
        why = "its end is missing" if cut and text.startswith("{") else f"not JSON: {error}"
        raise Unreadable(f"not a readable notebook ({why})") from error
    if replaced:
        complain("some characters are not UTF-8, and are replaced")
    if not isinstance(found, dict):
        raise Unreadable("not a readable notebook (JSON of something else)")
    if text[end:].strip("\0 \t\r\n"):
        complain("there is more after its end, which is left out")
    return found


def _something_else(text: str) -> str | None:
    """Return what a file under a notebook's name is, and what to do; None if that is unclear."""
    if CONFLICT.search(text):
        return "it holds both sides of a conflict in Git; resolve it, and hand in the notebook"
    if text.startswith("<"):
        return "a web page under a notebook's name; download the notebook itself"
    if text.startswith("version https://git-lfs"):
        return "a pointer of Git LFS, not the file; run `git lfs pull`, and hand in the notebook"
    if text.startswith("%PDF"):
        return "a PDF under a notebook's name; hand in the notebook itself"
    return None


def _whole_number(digits: str) -> int:
    """Return a number; nothing in a notebook that is looked at needs one that is longer."""
    return int(digits) if len(digits) < 19 else 0


def _version(notebook: dict[str, Any]) -> int:
    """Return the format of a notebook: 4 if it has cells where only 4 has them, unless it is later.

    Raises:
        Unreadable: it does not say.
    """
    has_cells = isinstance(notebook.get("cells"), list)
    version = notebook.get("nbformat", 4 if has_cells else 3)
    try:
        version = int(version)
    except (TypeError, ValueError, OverflowError) as error:
        if has_cells:
            return 4
        raise Unreadable("not a readable notebook (its nbformat is not a number)") from error
    return max(4, version) if has_cells else version


def _assign(course: Course, found: _Found, submission: Submission) -> None:
    """Find the notebook of each lesson, by its name or by the cells that it holds."""
    named = {
        name: lesson
        for lesson in course.lessons.values()
        if (name := f"{lesson.name}.ipynb") in found.notebooks
    }
    work = {name: found.read(name) for name in named}
    lacking = {
        lesson.name
        for lesson in course.lessons.values()
        if not (cells := work.get(f"{lesson.name}.ipynb")) or work_in(cells, lesson) < 2
    }
    others = sorted(
        (name for name in found.notebooks if name not in named),
        key=lambda name: (CHECKPOINTS in name.split("/"), name.count("/"), name),
    )
    used = set(named)
    for lesson in course.lessons.values():
        name = f"{lesson.name}.ipynb"
        chosen = name if work.get(name) else None
        if lesson.name in lacking:
            chosen = _elsewhere(lesson, chosen, others, found, submission) or chosen
        if chosen is None:
            here = [n for n in (*others, *found.files, *found.ignored) if n not in used]
            there = f"; there is {', '.join(_with_advice(here))}" if here else ""
            told = any(p.startswith((f"{name} may be", f"{name}: ")) for p in submission.problems)
            if not told:
                submission.problems.append(f"{name} is missing{there}")
            continue
        used.add(chosen)

        def note(text: str, lesson: Lesson = lesson) -> None:
            submission.mended.append(f"{lesson.name}: {text}")

        submission.notebooks[lesson.name] = mend(found.read(chosen), lesson, note)
    for name in others:
        if name not in used and (name in found.files or name.lower().endswith(".json")):
            continue
        found.files.pop(name, None)
        if name not in used and CHECKPOINTS not in name.split("/"):
            submission.problems.append(f"{name} is not graded, and is left out")
    _say_what_is_imported(found.ignored, submission)


def _say_what_is_imported(ignored: list[str], submission: Submission) -> None:
    """Report a notebook that needs a file of Python which the course leaves out."""
    modules = {name.removesuffix(".py") for name in ignored if name.endswith(".py")}
    for lesson, notebook in submission.notebooks.items():
        texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        imported = set(IMPORT.findall(texts)) & modules
        for module in sorted(imported):
            submission.problems.append(
                f"{lesson} imports {module}.py, which is left out: "
                "what is graded has to stand in the notebook"
            )


def _with_advice(names: list[str]) -> list[str]:
    """Return some names, with advice; first those that may have been meant for a notebook."""
    told = {
        name: f"{name} ({advice})"
        for name in names
        for suffixes, advice in INSTEAD.items()
        if name.lower().endswith(suffixes)
    }
    return [told.get(name, name) for name in sorted(names, key=lambda name: name not in told)[:3]]


def _elsewhere(
    lesson: Lesson, named: str | None, others: list[str], found: _Found, submission: Submission
) -> str | None:
    """Return the only other file that holds more of a student's work on a lesson, and say so."""
    alike = {
        name: work_in(cells, lesson)
        for name in others
        if (cells := found.read(name)) and likeness(cells, lesson) > 0.5
    }
    most = max(alike.values(), default=-1)
    if most <= (work_in(found.read(named), lesson) if named else -1):
        return None
    pool = [name for name, work in alike.items() if work == most]
    first = found.read(pool[0])
    places = {CHECKPOINTS in name.split("/") for name in pool}
    rest = [n for n in pool if (CHECKPOINTS in n.split("/")) == min(places)]
    if any([c.source for c in found.read(n)] != [c.source for c in first] for n in rest):
        submission.problems.append(
            f"{lesson.name}.ipynb may be any of {', '.join(rest)}: hand in one, or rename it"
        )
        return None
    why = f": {named} has no finished exercise" if named else ""
    submission.mended.append(f"{pool[0]} is graded as {lesson.name}.ipynb{why}")
    return pool[0]
