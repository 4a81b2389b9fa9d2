"""Whose a file of an LMS's download is: by its name, or by what the LMS has written beside it.

Moodle, Canvas and Brightspace write a number of the student's into each name. Blackboard writes a
text file for each attempt, and Gradescope one table for all submissions; only these say whose the
files are.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from lab_grader.intake.course import refusal

# Ada Lovelace_17_assignsubmission_file_/01.ipynb, ..._file/01.ipynb, ..._file_01.ipynb. Names of
# people may hold anything, blanks and underscores too; the number is the participant's.
MOODLE = re.compile(
    r"(?P<person>.*)_(?P<id>[0-9]+)_assignsubmission_(?P<kind>[a-z]+)_?(?P<rest>.*)"
)
# lovelaceada_LATE_123_4567_01-1.ipynb; anonymous: anon_Ab3dE_4567_01.ipynb. Files of a quiz, of
# which Canvas writes the question's number there, are nobody's.
CANVAS = re.compile(
    r"(?P<person>[^/]+?)(?<!_question)_(?:LATE_)?"
    r"(?P<id>[0-9]+|(?:(?<=anon_)|(?<=anon_LATE_))[A-Za-z0-9]{5})_[0-9]+_(?P<rest>.+)"
)
RESUBMITTED = re.compile(r"(.+)-[0-9]+(\.[^.]+)")
# Lab 3_ada_l_attempt_2026-11-20-10-15-00_01.ipynb, and ..._attempt_2026-11-20-10-15-00.txt. Where
# the assignment's name ends and the user's begins cannot be seen. The student's part comes last.
BLACKBOARD = re.compile(
    r"(?P<attempt>.+?_attempt_(?P<moment>[0-9]{4}(?:-[0-9]{2}){5}))(?:_(?P<rest>.+)|\.txt)"
)
BLACKBOARD_NAME = re.compile(r"\s*Name: (?P<person>.*) \((?P<id>[^()\n]+)\)\s*\n")  # its first line
BLACKBOARD_TEXT = "Blackboard.txt"  # what the student typed is in it
# submission_123/01.ipynb, beside submission_metadata.yml
GRADESCOPE = re.compile(r"submission_[0-9]+")
GRADESCOPE_TABLE = "submission_metadata.yml"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# 123-4567 - Ada Lovelace - Nov 20, 2026 1015 AM/01.ipynb, or ... AM - 01.ipynb. The numbers are the
# student's and the assignment's, the time is when it was handed in.
BRIGHTSPACE = re.compile(
    r"(?P<id>[0-9]+)-[0-9]+ ?- ?(?P<person>.+?) ?- ?"
    rf"(?P<month>{'|'.join(MONTHS)})[a-z]* "
    r"(?P<day>[0-9]{1,2}), (?P<year>[0-9]{4}) "
    r"(?P<hour>[0-9]{1,2})(?P<minute>[0-9]{2}) ?(?P<half>[AP])M(?: ?- ?(?P<rest>.+))?"
)
BRIGHTSPACE_PAGE = "index.html"  # lists what was handed in
OVERVIEW = "it lists the files beside it"
MOST_BYTES = 64 << 20  # of what an LMS has written

Opened = Callable[[str], BinaryIO] | str  # what opens a file, or why it cannot be read


@dataclass(frozen=True)
class Whose:
    """To whom a file of a download belongs."""

    student: str
    person: str
    path: PurePosixPath


Told = Mapping[PurePosixPath, list[tuple[str, str]] | str]
"""What the LMS says beside the files: for a folder of Gradescope's, for the folder above where its
table cannot be read, or for the path with which the files of an attempt in Blackboard begin, the
students' ids and names, or why they are unknown. For a number in Brightspace, why it is none of a
student's; for the page that Brightspace writes, what it is."""


def told_by(files: Iterable[tuple[PurePosixPath, Opened]]) -> Told:
    """Read what Blackboard and Gradescope have written beside the files of a download.

    A number in Brightspace that several people have is none of a student's.
    """
    told: dict[PurePosixPath, list[tuple[str, str]] | str] = {}
    people: dict[str, set[str]] = {}
    for path, opened in files:
        if of_brightspace := _in_brightspace(path):
            found, folder = of_brightspace
            told[folder / BRIGHTSPACE_PAGE] = OVERVIEW
            people.setdefault(found["id"], set()).add(found["person"])
        if isinstance(opened, str):
            continue
        if is_table(path):
            told |= {path.parent / name: owners for name, owners in _table(opened).items()}
        elif (found := BLACKBOARD.fullmatch(path.name)) and not found["rest"]:
            told[path.parent / found["attempt"]] = _named_in(opened)
    for number, names in people.items():
        if len(names) > 1:
            shown = " and ".join(sorted(names))
            told[PurePosixPath(number)] = f"the number {number} is that of {shown}"
    return told


def _table(opened: Callable[[str], BinaryIO]) -> dict[str, list[tuple[str, str]] | str]:
    """Return who handed in each folder of Gradescope's; a group hands in together."""
    import yaml  # takes a while, and few use Gradescope

    try:
        table = yaml.load(_beginning(opened), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        return {".": f"{GRADESCOPE_TABLE} cannot be read ({' '.join(str(error).split())})"}
    names = [name for name in table if GRADESCOPE.fullmatch(str(name))] if table else []
    return {name: _submitters(table[name]) for name in names}


def _submitters(entry: Any) -> list[tuple[str, str]] | str:
    people = entry.get(":submitters") if isinstance(entry, dict) else None
    found = []
    for it in people if isinstance(people, list) else []:
        if not isinstance(it, dict) or not (student := it.get(":sid") or it.get(":email")):
            return f"{GRADESCOPE_TABLE} has neither an :sid nor an :email of who handed it in"
        found.append((str(student), str(it.get(":name") or student)))
    return found or f"{GRADESCOPE_TABLE} does not say who handed it in"


def _named_in(opened: Callable[[str], BinaryIO]) -> list[tuple[str, str]] | str:
    """Return who handed in an attempt, by the text that Blackboard has written for it."""
    try:
        found = BLACKBOARD_NAME.match(_beginning(opened).decode("utf-8-sig", "replace"))
    except (OSError, ValueError) as error:
        return f"its text file cannot be read ({error})"
    if found is None:
        return "its text file does not begin with “Name: PERSON (USERNAME)”"
    return [(found["id"].strip(), found["person"])]


def _beginning(opened: Callable[[str], BinaryIO]) -> bytes:
    with opened("rb") as file:
        return file.read(MOST_BYTES)


def whose(path: PurePosixPath, lessons: set[str], told: Told) -> list[Whose] | str:
    """Return whose a file is, by its path in a download, or why that is unknown.

    Args:
        lessons: the names of the assignment's notebooks.
        told: what the LMS says beside it.
    """
    for number, part in enumerate(path.parts):
        below = path.parts[number + 1 :]
        if found := MOODLE.fullmatch(part):
            return _of_moodle(found, below)
        if GRADESCOPE.fullmatch(part) and below:
            beside = PurePosixPath(*path.parts[:number])
            why = f"{GRADESCOPE_TABLE}, which Gradescope writes beside it, does not name it"
            owners = told.get(beside / part, told.get(beside, why))
            return _of_all(owners, PurePosixPath(*below))
        if (found := BRIGHTSPACE.fullmatch(part)) and bool(found["rest"]) != bool(below):
            owners = told.get(PurePosixPath(found["id"]), [(found["id"], found["person"])])
            return _of_all(owners, PurePosixPath(found["rest"] or PurePosixPath(*below)))
        if not below and (found := BLACKBOARD.fullmatch(part)):
            why = f"Blackboard's text file, {found['attempt']}.txt, is not beside it"
            owners = told.get(path.parent / found["attempt"], why)
            return _of_all(owners, PurePosixPath(found["rest"] or BLACKBOARD_TEXT))
        if not below and (found := CANVAS.fullmatch(part)):
            name = found["rest"]
            again = RESUBMITTED.fullmatch(name)
            if again and PurePosixPath(name).stem not in lessons and again[1] in lessons:
                name = again[1] + again[2]
            return _of_all([(found["id"], found["person"])], PurePosixPath(name))
    return "not named as Moodle, Canvas, Brightspace, Blackboard or Gradescope name their downloads"


def _of_moodle(found: re.Match[str], below: tuple[str, ...]) -> list[Whose] | str:
    rest = [found["rest"]] if found["rest"] else []
    if found["kind"] == "onlinetext":
        return f"text that {found['person']} typed into Moodle; mark it by hand"
    if found["kind"] != "file":
        return f"Moodle's {found['kind']} is not a file of a submission"
    if not rest and not below:
        return "a file where Moodle has a folder"
    return _of_all([(found["id"], found["person"])], PurePosixPath(*rest, *below))


def _of_all(owners: list[tuple[str, str]] | str, inside: PurePosixPath) -> list[Whose] | str:
    """Return a file of one or several students, or why one of them cannot be a student."""
    if isinstance(owners, str):
        return f"nobody knows whose it is: {owners}; add what is missing, or sort it by hand"
    for student, _ in owners:
        if why := refusal(student):
            return f"{student!r} is no id of a student here: {why.partition(': ')[2]}"
    return [Whose(student, person, inside) for student, person in owners]


def is_table(path: PurePosixPath) -> bool:
    """Return whether a file is the table that Gradescope writes, and not one of a student's."""
    return path.name == GRADESCOPE_TABLE and not is_theirs(path)


def is_theirs(path: PurePosixPath) -> bool:
    """Return whether a file is in what a student handed in, by how the LMS names it."""
    in_folder = any(MOODLE.fullmatch(p) or GRADESCOPE.fullmatch(p) for p in path.parts)
    in_folder |= _in_brightspace(path) is not None
    return in_folder or any(way.fullmatch(path.name) for way in (BLACKBOARD, CANVAS))


def moment_of(path: PurePosixPath) -> str:
    """Return when a file was handed in, where its name says so; as a text that can be sorted."""
    if of_brightspace := _in_brightspace(path):
        found, _ = of_brightspace
        hour = int(found["hour"]) % 12 + 12 * (found["half"] == "P")
        month = MONTHS.index(found["month"]) + 1
        day = f"{found['year']}-{month:02}-{int(found['day']):02}"
        return f"{day}-{hour:02}-{found['minute']}-00"
    found = BLACKBOARD.fullmatch(path.name)
    return found["moment"] if found else ""


def _in_brightspace(path: PurePosixPath) -> tuple[re.Match[str], PurePosixPath] | None:
    """Return what Brightspace says of a file, in the name of its folder or in its own, and where
    that folder or file lies; None for another LMS's."""
    for number, part in enumerate(path.parts):
        if MOODLE.fullmatch(part) or GRADESCOPE.fullmatch(part):
            return None
        if found := BRIGHTSPACE.fullmatch(part):
            return found, PurePosixPath(*path.parts[:number])
    return None
