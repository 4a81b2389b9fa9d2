"""Back into the LMS: Moodle's grading worksheet, and pages under the names that files came with."""

import csv
import html
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab_grader.intake.collect import first_paths
from lab_grader.intake.course import Course
from lab_grader.intake.whose import CANVAS, MOODLE
from lab_grader.marks.export import Policy, write_table
from lab_grader.marks.page import PAGE
from lab_grader.marks.standing import Standing, exercise_columns, read_comments, read_standings
from lab_grader.places import about_file

DELIMITERS = ",;\t"
ID_NUMBER, EMAIL, MAXIMUM = "ID number", "Email address", "Maximum Grade"
GRADE, COMMENTS = "Grade", "Feedback comments"
NO_TABLE = "is a spreadsheet, or not in UTF-8: save it as CSV (UTF-8), and run this again."


class WorksheetError(Exception):
    """A file is not a grading worksheet of Moodle's; the text says what is missing."""


@dataclass(frozen=True)
class Filled:
    """The outcome of filling in a worksheet.

    Attributes:
        said: what an instructor should know, a line each.
    """

    path: Path
    said: list[str]


def fill_worksheet(
    course: Course,
    worksheet: Path,
    policy: Policy | None = None,
    grade_column: str = GRADE,
    comments_column: str = COMMENTS,
) -> Filled:
    """Rewrite Moodle's grading worksheet, with marks and the markers' comments.

    A row belongs to the student with its participant's number (its first column, such as
    "Participant 17"), its ID number or its address. Rows of people who were not graded, and
    marks that are not final, are left unchanged. Marks are scaled to the row's maximum grade.

    Args:
        grade_column, comments_column: their headers, which differ in other languages than English.

    Raises:
        WorksheetError: a column is missing, or it is not a table in UTF-8.
    """
    policy = policy or Policy()
    header, rows = _read(worksheet, grade_column)
    column = {name: index for index, name in enumerate(header)}
    most = sum(exercise_columns(course).values())
    standings = read_standings(course)
    path, factors, written = course.work / "marks" / worksheet.name, set(), set()
    for row in rows:
        it = _whose(row, column, standings)
        score = policy.score(it) if it else None
        if score is None:
            continue
        maximum = _number(row[column[MAXIMUM]]) if MAXIMUM in column else None
        factors.add((maximum or most) / most)
        row[column[grade_column]] = f"{score * (maximum or most) / most:.2f}"
        comments = read_comments(course, it.student)
        if comments and comments_column in column:
            row[column[comments_column]] = _joined(comments)
        written.add(it.student)
    delimiter = _delimiter(worksheet.read_text("utf-8-sig"))
    write_table(path, [header, *rows], delimiter)
    exported = [it.student for it in standings if policy.score(it) is not None]
    elsewhere = [student for student in exported if student not in written]
    said = [
        f"{len(written)} of {len(rows)} rows have a mark now.",
        *(
            f"Moodle's maximum is {factor * most:g} and the lab's {most:g}: marks were multiplied "
            f"by {factor:g}."
            for factor in sorted(factors - {1.0})
        ),
        *([f"not in the worksheet: {', '.join(elsewhere)}"] if elsewhere else []),
    ]
    return Filled(path, said)


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(DELIMITERS, key=first.count)


def _read(worksheet: Path, grade_column: str) -> tuple[list[str], list[list[str]]]:
    try:
        content = worksheet.read_bytes()
        text = content.decode("utf-8-sig")
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)))
    except OSError as error:
        raise WorksheetError(about_file(error)) from error
    except (ValueError, csv.Error) as error:
        raise WorksheetError(f"{worksheet} {NO_TABLE}") from error
    if content.startswith(b"PK") or b"\0" in content:
        raise WorksheetError(f"{worksheet} {NO_TABLE}")
    if not table:
        raise WorksheetError(f"{worksheet} is empty: download the grading worksheet again.")
    header, *rows = table
    if grade_column not in header:
        raise WorksheetError(
            f"{worksheet} has no column {grade_column!r}; it has {', '.join(header)}. If the "
            "worksheet is in another language, name it with --grade-column."
        )
    return header, [row + [""] * (len(header) - len(row)) for row in rows if any(row)]


def _whose(row: list[str], column: dict[str, int], standings: list[Standing]) -> Standing | None:
    """Return the student of a row: by the participant's number, the ID number or the address."""
    number = row[0].rpartition(" ")[2].strip()
    known = row[column[ID_NUMBER]].strip() if ID_NUMBER in column else ""
    email = row[column[EMAIL]].strip().casefold() if EMAIL in column else ""
    ways = (
        lambda it: number and it.student == number,
        lambda it: known and known in (it.student, it.lms_user_id),
        lambda it: email and email in (it.student.casefold(), it.email.casefold()),
    )
    for way in ways:
        found = [it for it in standings if way(it)]
        if len(found) == 1:
            return found[0]
    return None


def _number(text: str) -> float | None:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None


def _joined(comments: dict[tuple[str, str], str]) -> str:
    """Return the comments as the HTML that Moodle expects."""
    lines = [f"{lesson}, {cell}: {text}" for (lesson, cell), text in sorted(comments.items())]
    return "<br>".join(html.escape(line).replace("\n", "<br>") for line in lines)


@dataclass
class Returned:
    """The archives of pages, and whose page is in none of them because nobody knows its name."""

    archives: dict[str, Path]
    left: list[str]


def zip_pages(course: Course) -> Returned:
    """Write the pages of all who were graded into an archive for each LMS that files came from.

    Moodle and Canvas know by the name of a file whose it is: each page has the name that the
    student's files had in the download.
    """
    archive = course.work / "downloaded" / course.assignment / "archive"
    paths = first_paths(archive, set(course.lessons)) if archive.exists() else {}
    members: dict[str, list[tuple[str, bytes]]] = {}
    left = []
    for it in read_standings(course):
        page = course.folder("feedback", it.student) / PAGE
        if it.score is None or not page.exists():
            continue
        if it.student not in paths:
            left.append(it.student)
            continue
        lms, name = _name_of_page(paths[it.student])
        members.setdefault(lms, []).append((name, page.read_bytes()))
    written = {
        lms: _write_archive(course.work / "returns" / f"{course.assignment}-{lms}.zip", files)
        for lms, files in sorted(members.items())
    }
    return Returned(written, left)


def _name_of_page(path: PurePosixPath) -> tuple[str, str]:
    """Return the LMS that a path comes from, and what a page of the same student is called."""
    for part in path.parts:
        if found := MOODLE.fullmatch(part):
            start = part[: len(part) - len(found["rest"])]
            return "moodle", f"{start}{PAGE}" if found["rest"] else f"{start}/{PAGE}"
    found = CANVAS.fullmatch(path.name)
    return "canvas", f"{path.name[: len(path.name) - len(found['rest'])]}{PAGE}"


def _write_archive(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path
