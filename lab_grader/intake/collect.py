"""Sort what an LMS hands out into a folder for each student, and say where each file went.

Names as Moodle, Canvas, Brightspace, Blackboard and Gradescope write them (`whose`); folders and
archives within each other; files of a download that was unpacked by hand. Nothing is dropped
without a word.
"""

import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from nbgrader.plugins import ExtractorPlugin, FileNameCollectorPlugin

from lab_grader.intake.archives import NOT_OPENED_NAMES, PACKED_NAMES
from lab_grader.intake.course import Course, CourseError
from lab_grader.intake.litter import is_litter
from lab_grader.intake.whose import (
    OVERVIEW,
    Opened,
    Whose,
    is_table,
    is_theirs,
    moment_of,
    told_by,
    whose,
)
from lab_grader.places import misfit
from lab_grader.plain import plain

PACKED = "an archive that is not opened here; unpack it, and put what it contains in its place"

MOST_BYTES = 256 << 20  # of a file
MOST_BYTES_EACH = 1 << 30  # of a student


@dataclass
class Collected:
    """The outcome of collecting.

    Attributes:
        files: where each file went, by student and by its path in the submission.
        left: why a file was not collected, by its path in the download.
        replaced: files that a later one of the same name took the place of.
        people: the name of each student in the download.
    """

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    people: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether there was something, and nothing was left."""
        return bool(self.files) and not self.left

    def describe(self) -> list[str]:
        """Return a line for each file, by student."""
        lines = []
        for student, files in sorted(self.files.items()):
            for name, source in sorted(files.items()):
                lines.append(
                    f"{student} ({plain(self.people[student])}): {plain(name)}, "
                    f"from {plain(source)}"
                )
        lines += self.replaced
        lines += [
            f"not collected: {plain(name)}: {plain(why)}" for name, why in sorted(self.left.items())
        ]
        return [*lines, f"{len(self.files)} students, {len(self.left)} files not collected"]


def _files(archive: Path) -> Iterator[tuple[PurePosixPath, Opened]]:
    """Yield the files of a download: their path, and what opens them or why they cannot be read."""
    for path in sorted(archive.rglob("*"), key=lambda path: (path.lstat().st_mtime, path)):
        name = PurePosixPath(path.relative_to(archive).as_posix())
        if path.is_symlink():
            yield name, "a link"
        elif path.is_file() and path.suffix.lower() == ".zip" and not is_theirs(name):
            yield from _members(path, name)
        elif path.is_file():
            yield name, _unopened(name) or path.open
        elif not path.is_dir():
            yield name, "neither a file nor a folder"


def _unopened(name: PurePosixPath) -> str | None:
    """Return why an archive of the LMS's is not opened; None for what is none, or a student's."""
    packed = name.name.lower().endswith((*PACKED_NAMES, *NOT_OPENED_NAMES))
    return PACKED if packed and not is_theirs(name) else None


def _members(path: Path, name: PurePosixPath) -> Iterator[tuple[PurePosixPath, Opened]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        yield name, f"not a readable archive ({error})"
        return
    for member in archive.infolist():
        if member.is_dir():
            continue
        inside = PurePosixPath(_decoded(member).replace("\\", "/"))
        if stat.S_ISLNK(member.external_attr >> 16):
            yield inside, "a link"
        elif inside.is_absolute() or ".." in inside.parts or not inside.parts:
            yield inside, "a path that leads out of the archive"
        else:
            yield inside, _unopened(inside) or _Opener(archive, member)


@dataclass(frozen=True)
class _Opener:
    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    def __call__(self, mode: str) -> BinaryIO:
        return self.archive.open(self.member)


def _decoded(member: zipfile.ZipInfo) -> str:
    """Return a member's name: without a flag it is in the oldest encoding, or in truth in UTF-8."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def collect(archive: Path, target: Path, lessons: set[str]) -> Collected:
    """Copy the files of a download into `target/STUDENT/`; later ones replace earlier ones.

    Args:
        archive: a folder with what the LMS handed out.
        lessons: the names of the assignment's notebooks.
    """
    done = Collected()
    used: dict[str, int] = {}
    files = [(path, opened) for path, opened in _files(archive) if not is_litter(path)]
    told = told_by(files)
    for path, opened in sorted(files, key=lambda it: moment_of(it[0])):
        if is_table(path) or told.get(path) == OVERVIEW:
            continue
        found = whose(path, lessons, told)
        if isinstance(opened, str):
            people = "" if isinstance(found, str) else ", ".join(it.person for it in found)
            done.left[str(path)] = f"{opened} (of {people})" if people else opened
        elif isinstance(found, str):
            done.left[str(path)] = found
        else:
            for owner in found:
                _take(path, opened, owner, target, used, done)
    return done


def _take(
    path: PurePosixPath,
    opened: Opened,
    owner: Whose,
    target: Path,
    used: dict[str, int],
    done: Collected,
) -> None:
    """Copy a file into its student's folder, and note that in `used` and `done`."""
    student = owner.student
    try:
        room = MOST_BYTES_EACH - used.get(student, 0)
        size = _copy(opened, target / student / owner.path, min(room, MOST_BYTES))
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        done.left[str(path)] = f"{error} (of {owner.person}, {student})"
        return
    used[student] = used.get(student, 0) + size
    done.people[student] = owner.person
    files = done.files.setdefault(student, {})
    if before := files.get(str(owner.path)):
        done.replaced.append(f"{plain(before)}: replaced by the later {plain(path)}")
    files[str(owner.path)] = str(path)


def first_paths(archive: Path, lessons: set[str]) -> dict[str, PurePosixPath]:
    """Return the path of one file of each student, as Moodle or Canvas named it.

    Args:
        archive, lessons: see `collect`.
    """
    paths: dict[str, PurePosixPath] = {}
    for path, opened in _files(archive):
        found = whose(path, lessons, {})  # which the other LMS, without pages to upload, need
        if not isinstance(found, str) and not isinstance(opened, str):
            (owner,) = found
            paths[owner.student] = min(path, paths.get(owner.student, path))
    return paths


def _copy(opened, target: Path, most: int) -> int:
    """Copy a file; return its size.

    Raises:
        ValueError: it is larger than `most` bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with opened("rb") as source, open(target, "wb") as file:
        while part := source.read(1 << 20):
            size += len(part)
            if size > most:
                break
            file.write(part)
    if size > most:
        target.unlink()
        raise ValueError(f"more than {most >> 20} MB")
    return size


def collect_course(course: Course) -> Collected:
    """Collect `grading/downloaded/ASSIGNMENT/archive` into the folders of submissions.

    What a student handed in before makes room for what is there now, and is kept in
    `grading/replaced`.

    Raises:
        CourseError: there is nothing in that folder, or it is none.
    """
    downloaded = course.work / "downloaded" / course.assignment
    fresh = course.work / "collecting"
    if why := misfit(downloaded / "archive", folder=True):
        raise CourseError(why)
    shutil.rmtree(fresh, ignore_errors=True)
    done = collect(downloaded / "archive", fresh, set(course.lessons))
    if not done.files and not done.left:
        raise CourseError(f"nothing to collect: put the LMS's download into {downloaded}/archive.")
    for student in done.files:
        place = course.folder("submitted", student)
        if place.exists():
            kept = course.work / "replaced" / student
            kept.mkdir(parents=True, exist_ok=True)
            place.rename(kept / f"{course.assignment}-{len(list(kept.iterdir())) + 1}")
        place.parent.mkdir(parents=True, exist_ok=True)
        (fresh / student).rename(place)
    shutil.rmtree(fresh, ignore_errors=True)
    return done


class Extractor(ExtractorPlugin):
    """Replaces nbgrader's own in `nbgrader zip_collect`: sorts files by student.

    The exit code is that of `python -m lab_grader collect`: not 0 if something was left.
    """

    def extract(self, archive_path: str, extracted_path: str) -> None:
        """Copy each file of a download into a folder of its student; say what is left."""
        released = Path(
            self.parent.coursedir.format_path(
                self.parent.coursedir.release_directory, ".", self.parent.coursedir.assignment_id
            )
        )
        lessons = {path.stem for path in released.glob("*.ipynb")}
        done = collect(Path(archive_path), Path(extracted_path), lessons)
        lines = done.describe()
        for line in lines:
            (self.log.warning if line.startswith("not collected") else self.log.info)(line)
        if not done.is_complete:
            self.parent.process_extracted_files()  # what is there, before this ends
            self.parent.fail(lines[-1])


class Collector(FileNameCollectorPlugin):
    """Reads the folders that `Extractor` makes."""

    def collect(self, submitted_file: str) -> dict[str, str]:
        """Return whose a file is."""
        app = self.parent
        root = Path(app._format_collect_path(app.extracted_directory))
        student, *inside = Path(submitted_file).relative_to(root).parts
        return {"student_id": student, "file_id": str(Path(*inside))}
