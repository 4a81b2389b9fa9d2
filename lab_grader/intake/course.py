"""What the grader knows of a course: its folders, its gradebook, and the cells of its lessons."""

import ast
import os
import traceback
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import nbformat
from filelock import FileLock
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import Execute
from sqlalchemy.exc import SQLAlchemyError
from traitlets import TraitError
from traitlets.config import Config, PyFileConfigLoader

from lab_grader.intake.litter import FOLDERS, is_litter
from lab_grader.places import about_file, misfit, not_readable, not_writable
from lab_grader.plain import plain

CONFIG = "nbgrader_config.py"
LOCK = "grading.lock"
# What the grader keeps beside the submissions, in folders.
KEPT = ("cache", "collecting", "history", "marks", "recorded", "replaced", "vetted")
MARKS = set(" ._@+-'")  # what a student's id may contain besides letters and digits


class CourseError(Exception):
    """The course's folder or gradebook is not as grading needs it; the text says what to do."""


@dataclass(frozen=True)
class Lesson:
    """One released notebook, with the whole text of its tests.

    Attributes:
        cells: of the notebook, in its order; a test cell holds its hidden tests too.
        released: the text of each exercise, test and question as students received it.
    """

    name: str
    cells: list[NotebookNode]
    metadata: NotebookNode
    released: dict[str, str]

    @cached_property
    def graded(self) -> dict[str, NotebookNode]:
        """The cells of exercises, tests and hand-marked answers by their `grade_id`."""
        cells = [cell for cell in self.cells if "nbgrader" in cell.metadata]
        return {cell.metadata.nbgrader.grade_id: cell for cell in cells}

    @cached_property
    def texts(self) -> set[str]:
        """The text of every cell as students get it."""
        plain = [cell.source for cell in self.cells if "nbgrader" not in cell.metadata]
        return {text.strip() for text in (*plain, *self.released.values())}

    def index(self, grade_id: str) -> int:
        """Return the place of a graded cell in the notebook."""
        return self.cells.index(self.graded[grade_id])

    @cached_property
    def plain_code(self) -> set[str]:
        """The text of every other code cell."""
        cells = [c for c in self.cells if c.cell_type == "code" and "nbgrader" not in c.metadata]
        return {cell.source.strip() for cell in cells}

    @cached_property
    def exercises(self) -> dict[str, str]:
        """The exercise that each test or hand-marked answer belongs to: the one before it."""
        found, exercise = {}, self.name
        for grade_id, cell in self.graded.items():
            if cell.metadata.nbgrader.solution:
                exercise = grade_id
            if cell.metadata.nbgrader.grade or cell.metadata.nbgrader.get("task"):
                found[grade_id] = exercise
        return found

    def visible_calls(self, grade_id: str) -> int:
        """Return how many calls of a test students can see; the hidden ones come after them."""
        return len(ast.parse(self.released[grade_id]).body)

    def points(self, grade_id: str) -> float:
        """Return the most that a test or answer can earn."""
        return float(self.graded[grade_id].metadata.nbgrader.points)


def refusal(student: str) -> str:
    """Return why a student's id cannot be used, or the empty text.

    nbgrader takes an id for a pattern of file names, strips its blanks, and Formgrader writes it
    into its pages as it is.
    """
    odd = sorted(
        {c for c in student if not (c.isalnum() or unicodedata.category(c)[0] == "M" or c in MARKS)}
    )
    if odd:
        return f"rename the folder: an id cannot contain {' '.join(map(plain, odd))}"
    if student != student.strip() or not (student[0].isalnum() or student[0] == "_"):
        return (
            f"rename the folder {student!r}: an id must begin with a letter, a digit or _, and "
            "must not end with a blank"
        )
    return ""


GRADEBOOK_ADVICE = {  # what a database says, and what to do
    ("no such column", "no such table", "no column named", "does not exist"): (
        "It was made by another version of nbgrader: keep a copy, and run `nbgrader db upgrade`."
    ),
    ("readonly", "read-only", "unable to open", "permission denied", "I/O error"): (
        "Make it and its folder writable, and run this again; nothing is lost."
    ),
    ("Could not parse", "Can't load plugin"): (
        "Mend c.CourseDirectory.db_url in nbgrader_config.py."
    ),
    ("malformed", "not a database"): (
        "It may be damaged: replace it with a copy. Without one, move it away, run make release "
        "and grade again; students, dates, and marks given by hand were only in it."
    ),
}


def about_gradebook(error: SQLAlchemyError) -> str:
    """Return a sentence on a gradebook that cannot be used, and what to do."""
    what = str(error).splitlines()[0]
    advice = "Close what else uses it, such as Formgrader, and run this again; nothing is lost."
    for words, other in GRADEBOOK_ADVICE.items():
        if any(word in what for word in words):
            advice = other
    return f"the gradebook cannot be used ({what}). {advice}"


def _alike(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def spelled_alike(students: Sequence[str]) -> dict[str, str]:
    """Return a sentence for each id that differs from another only in case or in its characters'
    form, as where one computer wrote é as one character and another as two."""
    alike: dict[str, list[str]] = {}
    for student in students:
        alike.setdefault(_alike(student), []).append(student)
    told = {}
    for one in students:
        if others := [ascii(other) for other in alike[_alike(one)] if other != one]:
            told[one] = f"spelled almost as {', '.join(others)}: is this one student or two?"
    return told


def _folders(folder: Path, linked: bool = False) -> list[str]:
    return [entry.name for entry in _entries(folder) if _is_folder(entry, linked)]


def _is_folder(entry: os.DirEntry, linked: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=linked)
    except OSError:  # a link that leads back to itself
        return False


def _notebooks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.ipynb") if not is_litter(path))


def _files(folder: Path) -> list[str]:
    """Return what is in a folder besides folders and links, and what nobody put there."""
    return [
        entry.name
        for entry in _entries(folder)
        if not entry.is_symlink() and not entry.is_dir() and not is_litter(PurePath(entry.name))
    ]


def _links(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_symlink()]


def _entries(folder: Path) -> list[os.DirEntry]:
    """Return what is in a folder; nothing if it does not exist or cannot be read."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []


def role_of(cell: NotebookNode) -> str:
    """Return `"exercise"`, `"test"`, `"manual"` or, for any other cell, the empty text."""
    nbgrader = cell.metadata.get("nbgrader", {})
    if nbgrader.get("solution"):
        return "manual" if nbgrader.get("grade") else "exercise"
    return "test" if nbgrader.get("grade") and cell.cell_type == "code" else ""


def _resolved(path: Path) -> Path:
    """Return a path without links; one that leads back to itself stays as it is."""
    return Path(os.path.realpath(path))


def _read_config(root: Path) -> Config:
    if why := misfit(root / CONFIG, folder=False):
        raise CourseError(why)
    if not (root / CONFIG).exists():
        raise CourseError(f"{root} has no {CONFIG}: run this in the course's folder.")
    try:
        return PyFileConfigLoader(CONFIG, str(root)).load_config()
    except OSError as error:
        raise CourseError(about_file(error)) from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(root / CONFIG)]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        where = f" on line {line}" if line else ""
        raise CourseError(
            f"{root / CONFIG} fails{where} ({type(error).__name__}: {error}): mend it, and "
            "run this again; what was graded is kept."
        ) from error


class Course:
    """A folder with `nbgrader_config.py`, and one of its assignments.

    Attributes:
        cell_seconds: how long a cell or a test may take: what the course sets for nbgrader.

    Raises:
        CourseError: there is no such course or assignment, or it has to be released again.
    """

    def __init__(self, root: Path, assignment: str) -> None:
        self.root, self.assignment = _resolved(root), assignment
        if assignment in ("", ".", "..") or assignment != PurePath(assignment).name:
            raise CourseError(
                f"{assignment!r} is not the name of an assignment: give one like dora."
            )
        self.config: Config = _read_config(self.root)
        self.config.CourseDirectory.root = str(self.root)
        try:
            self.directory = CourseDirectory(config=self.config)
            self.cell_seconds = float(Execute(config=self.config).timeout or 0)
        except TraitError as error:
            raise CourseError(f"{self.root / CONFIG}: {error} Mend it.") from error
        if not self.cell_seconds > 0:
            raise CourseError(
                f"{self.root / CONFIG}: c.ExecutePreprocessor.timeout must be the seconds that a "
                "cell may take, more than 0."
            )
        if self.directory.db_url.startswith("sqlite") and "?" not in self.directory.db_url:
            self.config.CourseDirectory.db_url = self.directory.db_url + "?timeout=60"
            self.directory = CourseDirectory(config=self.config)
        self._refuse_misfits()
        self.lessons = self._read_lessons()

    def gradebook(self) -> Gradebook:
        """Open the gradebook; use it as a context manager."""
        try:
            return Gradebook(self.directory.db_url, self.directory.course_id)
        except ImportError as error:
            raise CourseError(
                f"the gradebook's database needs a package that is not installed ({error}): "
                f"install it, or mend c.CourseDirectory.db_url in {CONFIG}."
            ) from error

    def folder(self, step: str, student: str = ".") -> Path:
        """Return nbgrader's folder of a step (`"submitted"`, ...), for a student."""
        name = getattr(self.directory, f"{step}_directory")
        return Path(self.directory.format_path(name, student, self.assignment))

    def only_grader(self) -> FileLock:
        """Return a lock; used as a context manager it keeps others from grading meanwhile.

        Entering it raises `filelock.Timeout` if another process grades this course.

        Raises:
            CourseError: a folder that grading writes to is not writable.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        for folder in self._written_to():
            if why := not_writable(folder):
                raise CourseError(why)
        return FileLock(self.work / LOCK, timeout=0)

    @cached_property
    def work(self) -> Path:
        """The folder of what the grader keeps: beside the submissions."""
        folder = Path(self.directory.submitted_directory).parent
        return _resolved(self.root / folder)

    @property
    def submitted(self) -> Path:
        """The folder that holds a folder for each student."""
        return _resolved(self.root / self.directory.submitted_directory)

    def students(self) -> list[str]:
        """Return the ids of all who handed something in, at whichever level it is."""
        return sorted(n for n in _folders(self.submitted, True) if self._place(n) is not None)

    def handed_in(self, student: str) -> tuple[Path, str]:
        """Return the folder of a student's submission, and what is unusual about its place.

        Raises:
            CourseError: there is no submission.
        """
        place = self._place(student)
        if place is None:
            raise CourseError(f"there is no {self.folder('submitted', student)}")
        shown = place.relative_to(self.submitted).as_posix()
        right = place.name == self.assignment
        return place, "" if right else f"handed in as {shown}, not {student}/{self.assignment}"

    def beside(self, student: str) -> list[str]:
        """Return what lies beside a student's submission, and may have been meant for it."""
        folder, (place, _) = self.submitted / student, self.handed_in(student)
        if place == folder:
            return []
        folders = {n for n in _folders(folder) if _alike(self.assignment) in _alike(n)}
        folders -= self.other_assignments
        return sorted((folders - {place.name}) | set(_files(folder)))

    def _place(self, student: str) -> Path | None:
        """Return where a student's submission is: under the assignment's name, as people write it,
        or right in the student's folder, if nothing else is there."""
        folder = self.submitted / student
        names = _folders(folder)
        if self.assignment in names:
            return folder / self.assignment
        alike = [name for name in names if _alike(name) == _alike(self.assignment)]
        if len(alike) == 1:
            return folder / alike[0]
        loose = not alike and any(name.lower().endswith(".ipynb") for name in _files(folder))
        return folder if loose and not self.other_assignments & set(names) else None

    def misplaced(self) -> dict[str, str]:
        """Return what is among the submissions without being one, and why, by its name."""
        found = {}
        for name in set(_folders(self.submitted, True)) - FOLDERS:
            inside = set(_folders(self.submitted / name))
            if self._place(name) is not None or self.other_assignments & inside:
                continue
            inside |= {f"{link}, a link" for link in _links(self.submitted / name)}
            inside |= {f"{file}, a file" for file in _files(self.submitted / name)}
            what = f"only {', '.join(sorted(inside)[:5])}" if inside else "nothing"
            found[name] = f"has no folder {self.assignment}; there is {what}"
            if not os.access(self.submitted / name, os.R_OK | os.X_OK):
                found[name] = "cannot be read: permission denied"
            elif _alike(name) == _alike(self.assignment):
                found[name] = f"the levels are swapped: it must be STUDENT/{self.assignment}"
        for name in set(_links(self.submitted)) - set(_folders(self.submitted, True)):
            found[name] = "is a link that leads to no folder; put the submission itself here"
        for name in _files(self.submitted):
            found[name] = f"lies outside of a folder STUDENT/{self.assignment}"
        return found

    @cached_property
    def other_assignments(self) -> set[str]:
        """The names of the course's other assignments."""
        with self.gradebook() as gradebook:
            return {a.name for a in gradebook.assignments} - {self.assignment}

    def _written_to(self) -> list[Path]:
        """Return the folders that grading writes to."""
        kept = [self.work / name for name in KEPT]
        within = [self.work / name / self.assignment for name in ("recorded", "history")]
        steps = (self.directory.autograded_directory, self.directory.feedback_directory)
        return [self.work, *kept, *within, *(self.root / step for step in steps)]

    def _refuse_misfits(self) -> None:
        """Refuse a file in the place of a folder, a folder in the place of a file, a broken link.

        Before anything is executed, rather than when the results are to be written.
        """
        release = self.folder("release")
        submitted = self.root / self.directory.submitted_directory  # before links are followed
        for folder in (submitted.parent, submitted, *self._written_to(), release):
            if why := misfit(folder, folder=True) or not_readable(folder):
                raise CourseError(why)
        files = [self.work / LOCK, *_notebooks(release), *self.work.glob("marks/*.csv")]
        prefix, _, database = self.directory.db_url.partition("?")[0].partition(":///")
        if prefix == "sqlite" and database:
            files.append(self.root / database)
        for file in files:
            if why := misfit(file, folder=False):
                raise CourseError(why)

    def _read_lessons(self) -> dict[str, Lesson]:
        released = _notebooks(self.folder("release"))
        if not released:
            others = [p.name for p in self.folder("release").parent.glob("*") if _notebooks(p)]
            named = f", or name an assignment that is released: {', '.join(others)}"
            raise CourseError(
                f"{self.folder('release')} contains no notebooks: run make release first"
                f"{named if others else ''}."
            )
        with self.gradebook() as gradebook:
            try:
                known = {n.name: n for n in gradebook.find_assignment(self.assignment).notebooks}
            except MissingEntry as error:
                raise CourseError(
                    f"the gradebook has no assignment {self.assignment!r}: run make release first."
                ) from error
            lessons = {path.stem: self._read_lesson(path, known) for path in released}
        if known.keys() != lessons.keys():
            raise CourseError(self._out_of_date(", ".join(known.keys() ^ lessons.keys())))
        return lessons

    def _read_lesson(self, path: Path, known: dict) -> Lesson:
        try:
            notebook = nbformat.read(path, as_version=4)
        except OSError:
            raise
        except Exception as error:  # of several packages, for what is no notebook
            raise CourseError(
                f"{path} is not a readable notebook ({type(error).__name__}): run make release "
                "again."
            ) from error
        graded = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
        released = {cell.metadata.nbgrader.grade_id: cell.source for cell in graded}
        lesson = Lesson(path.stem, notebook.cells, notebook.metadata, released)
        sources = known[path.stem].source_cells if path.stem in known else []
        texts = {cell.name: cell.source for cell in sources}
        if texts.keys() != lesson.graded.keys():
            raise CourseError(self._out_of_date(path.stem))
        for grade_id, cell in lesson.graded.items():
            if role_of(cell) == "test":
                cell.source = texts[grade_id]
        return lesson

    def _out_of_date(self, what: str) -> str:
        return (
            f"the gradebook and {self.folder('release')} do not agree on {what}: "
            "run make release again."
        )
