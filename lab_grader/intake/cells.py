"""Which cell of a submission is which cell of the lesson, even if an editor changed its metadata.

A cell is known by its id, by its `grade_id`, by its text, or by its place between others, in this
order. The lesson's own cells are then put back as they were; the answers keep the student's text.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from lab_grader.intake.course import Lesson, role_of
from lab_grader.intake.dependencies import names_of

MOST_CELL_CHARACTERS = 1 << 20
MOST_CHARACTERS = 8 << 20  # of all cells of a notebook
# What a cell has besides its id and text.
NEW_CELL = {"code": {"outputs": [], "execution_count": None}, "markdown": {}, "raw": {}}
PICTURE = re.compile(r"image/(png|jpeg|gif|webp)")
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
UNFINISHED = re.compile(r"^\s*raise NotImplementedError\b", re.MULTILINE)  # what a stub ends with
HALVES = re.compile("[\ud800-\udfff]")  # of characters that JSON writes as two


@dataclass(frozen=True)
class HandedIn:
    """A cell as it was handed in; every invalid field is None or empty."""

    kind: str
    source: str
    id: str | None = None
    grade_id: str | None = None
    pictures: dict[str, dict[str, str]] = field(default_factory=dict)


def read_cells(cells: list[Any], complain) -> list[HandedIn]:
    """Return the cells of a notebook's JSON; one that cannot be read becomes an empty text.

    Args:
        complain: called with a sentence for what cannot be read.
    """
    found, room = [], MOST_CHARACTERS
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict):
            cell = {"cell_type": None}
        kind, source = cell.get("cell_type", _kind_by_fields(cell)), cell.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(kind, str) or kind not in NEW_CELL or not isinstance(source, str):
            complain(f"cell {number} cannot be read, and is left out")
            kind, source = "raw", ""
        if len(source) > MOST_CELL_CHARACTERS:
            complain(f"cell {number} has {len(source) >> 20} MB of text, and is left out")
            source = "# too long, left out"
        elif len(source) > room:
            complain(
                f"cell {number} and what follows are left out: more than "
                f"{MOST_CHARACTERS >> 20} MB of text"
            )
            break
        room -= len(source)
        if HALVES.search(source):
            source = HALVES.sub("\N{REPLACEMENT CHARACTER}", source)
        metadata = cell.get("metadata")
        nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
        pictures, all_readable = _pictures(cell.get("attachments"))
        if not all_readable:
            complain(f"cell {number} has images that are not readable; they are left out")
        found.append(HandedIn(kind, source, _text(cell.get("id")), _text(grade_id), pictures))
    return found


def _kind_by_fields(cell: dict) -> str:
    """Return what a cell is that does not say it: only code has outputs and is counted."""
    return "code" if {"outputs", "execution_count"} & cell.keys() else "markdown"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _pictures(attachments: Any) -> tuple[dict[str, dict[str, str]], bool]:
    """Return the pictures that are attached to a cell, and whether that is all that is."""
    if not attachments:
        return {}, True
    if not isinstance(attachments, dict):
        return {}, False
    found: dict[str, dict[str, str]] = {}
    for name, kinds in attachments.items():
        for kind, content in kinds.items() if isinstance(kinds, dict) else ():
            content = "".join(content) if isinstance(content, list) else content
            if PICTURE.fullmatch(kind) and isinstance(content, str) and BASE64.fullmatch(content):
                found.setdefault(HALVES.sub("?", name), {})[kind] = content
    return found, len(found) == len(attachments)


def work_in(cells: list[HandedIn], lesson: Lesson) -> int:
    """Return 2 if an exercise is finished, 1 if any text was not released, else 0.

    A text alone says little: after a lesson was released again, so has a blank copy of the old one.
    """
    for grade_id, (index, _) in known_cells(cells, lesson).items():
        source, role = cells[index].source.strip(), role_of(lesson.graded[grade_id])
        changed = source and source != lesson.released[grade_id].strip()
        if role == "exercise" and changed and not UNFINISHED.search(source):
            return 2
    return int(any(c.source.strip() not in lesson.texts for c in cells if c.source.strip()))


def likeness(cells: list[HandedIn], lesson: Lesson) -> float:
    """Return which part of the lesson's graded cells is known there by id, `grade_id` or text."""
    return len(_surely(cells, lesson)) / max(1, len(lesson.graded))


def _surely(cells: list[HandedIn], lesson: Lesson) -> dict[str, tuple[int, str]]:
    """Return the index of each graded cell that is known by its id, `grade_id` or whole text."""
    found: dict[str, tuple[int, str]] = {}
    taken: set[int] = set()
    for how in ("id", "grade_id", "text"):
        places: dict[str | None, int] = {}
        for index, cell in enumerate(cells):
            if index not in taken:  # of copies the last, as nbgrader has it
                places[cell.source.strip() if how == "text" else getattr(cell, how)] = index
        for grade_id, released in lesson.graded.items():
            key = {"id": released.get("id"), "grade_id": grade_id}.get(
                how, lesson.released[grade_id].strip()
            )
            index = places.get(key)
            if grade_id not in found and key and index is not None and index not in taken:
                found[grade_id] = index, how
                taken.add(index)
    return found


def known_cells(cells: list[HandedIn], lesson: Lesson) -> dict[str, tuple[int, str]]:
    """Return the index of each graded cell, and by what it is known."""
    found = _surely(cells, lesson)
    taken = {index for index, _ in found.values()}
    theirs = [
        index
        for index, cell in enumerate(cells)
        if index not in taken and cell.source.strip() not in lesson.texts
    ]
    for grade_id, released in lesson.graded.items():
        asked = _defines(lesson.released[grade_id])
        if grade_id in found or role_of(released) != "exercise" or not asked:
            continue
        low, high = _between(grade_id, cells, lesson, found)
        fits = [i for i in theirs if cells[i].kind == "code" and asked <= _defines(cells[i].source)]
        fits = [i for i in fits if low < i < high] or fits
        if fits:
            found[grade_id] = fits[-1], "text"
            theirs.remove(fits[-1])
    for grade_id, released in lesson.graded.items():
        role = role_of(released)
        if grade_id in found or not role:
            continue
        low, high = _between(grade_id, cells, lesson, found)
        fits = [i for i in theirs if low < i < high and cells[i].kind == released.cell_type]
        if role == "test":  # its text is replaced, which nothing of a student's may be
            fits = [i for i in fits if "checks." in cells[i].source]
        if len(fits) == 1:
            found[grade_id] = fits[0], "place"
            theirs.remove(fits[0])
    return found


def _defines(source: str) -> frozenset[str]:
    return names_of(source).binds


def _between(
    grade_id: str,
    cells: list[HandedIn],
    lesson: Lesson,
    found: dict[str, tuple[int, str]],
) -> tuple[int, int]:
    """Return the indices of the nearest cells of the lesson around one that is not known."""
    ids = {cell.id: index for index, cell in enumerate(cells) if cell.id}
    texts = {cell.source.strip(): index for index, cell in enumerate(cells)}
    places = []
    for cell in lesson.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name is not None:
            places.append(found.get(name, (None,))[0])
        else:
            places.append(ids.get(cell.get("id"), texts.get(cell.source.strip())))
    at = lesson.index(grade_id)
    low = next((i for i in reversed(places[:at]) if i is not None), -1)
    high = next((i for i in places[at + 1 :] if i is not None and i > low), len(cells))
    return low, high


def mend(cells: list[HandedIn], lesson: Lesson, note) -> NotebookNode:
    """Return a notebook of the student's texts, with the lesson's own cells as they should be.

    Args:
        note: called with a sentence for each thing that was put right.
    """
    found = known_cells(cells, lesson)
    by_index = {index: grade_id for grade_id, (index, _) in found.items()}
    made: list[tuple[str | None, NotebookNode]] = []
    for index, cell in enumerate(cells):
        grade_id = by_index.get(index)
        if grade_id is not None:
            if role_of(lesson.graded[grade_id]) == "test" and _is_answer(cell, grade_id, lesson):
                made.append((None, _students_cell(index, cell)))
                note(f"the answer in the test {grade_id} counts as a cell of the student's")
            made.append((grade_id, _lessons_cell(lesson.graded[grade_id], cell)))
            continue
        if cell.grade_id is not None:
            known = "a copy of" if cell.grade_id in lesson.graded else "an unknown cell"
            note(f"cell {index + 1} is {known} {cell.grade_id}, and counts as the student's own")
        made.append((None, _students_cell(index, cell)))
    _say_how(cells, lesson, found, note)
    _put_back(lesson, made, note)
    _drop_stubs(lesson, made, note)
    _put_tests_after_answers(lesson, made, note)
    return new_notebook(cells=[cell for _, cell in made], metadata=lesson.metadata)


def _say_how(
    cells: list[HandedIn], lesson: Lesson, found: dict[str, tuple[int, str]], note
) -> None:
    """Say which cells are not known by their `grade_id`, as nbgrader knows them."""
    otherwise: dict[str, list[str]] = {}
    for grade_id in lesson.graded:
        index, how = found.get(grade_id, (None, ""))
        if index is not None and cells[index].grade_id != grade_id:
            otherwise.setdefault(how, []).append(grade_id)
    for how, names in otherwise.items():
        lost = "their metadata are not the lesson's"
        note(f"{', '.join(names)}: known by their {how}, because {lost}")


def _is_answer(cell: HandedIn, test: str, lesson: Lesson) -> bool:
    """Whether a test cell was written over with what its exercise asks for."""
    asked = _defines(lesson.released[lesson.exercises[test]])
    return cell.kind == "code" and bool(asked & _defines(cell.source))


def _students_cell(index: int, cell: HandedIn) -> NotebookNode:
    """Return a cell of the student's own, by its index in what was handed in."""
    new = {"cell_type": cell.kind, "id": f"student-{index}", "metadata": {}}
    made = nbformat.from_dict(new | {"source": cell.source} | NEW_CELL[cell.kind])
    if cell.kind == "markdown" and cell.pictures:
        made.attachments = nbformat.from_dict(cell.pictures)
    return made


def _lessons_cell(released: NotebookNode, handed_in: HandedIn) -> NotebookNode:
    """Return a cell of the lesson; where it is an answer, with the student's text."""
    cell = nbformat.from_dict(released)
    if role_of(released) in ("exercise", "manual"):
        cell.source = handed_in.source
        if cell.cell_type == "markdown" and handed_in.pictures:
            cell.attachments = nbformat.from_dict(handed_in.pictures)
    return cell


def _put_back(lesson: Lesson, made: list[tuple[str | None, NotebookNode]], note) -> None:
    """Put the lesson's graded cells that are not there where they belong: a test goes after the
    cell before it, and after whatever defines what it asks for."""
    for grade_id, released in lesson.graded.items():
        names = [name for name, _ in made]
        if grade_id in names:
            continue
        place = 0
        for cell in lesson.cells[: lesson.index(grade_id)]:
            other = cell.metadata.get("nbgrader", {}).get("grade_id")
            same = (
                names.index(other)
                if other in names
                else next((i for i, (_, c) in enumerate(made) if c.source == cell.source), -1)
            )
            place = max(place, same + 1)
        if role_of(released) == "test":
            asked = _defines(lesson.released[lesson.exercises[grade_id]])
            for index, (_, cell) in enumerate(made):
                if cell.cell_type == "code" and asked & _defines(cell.source):
                    place = max(place, index + 1)
        made.insert(place, (grade_id, nbformat.from_dict(released)))
        note(f"the cell {grade_id} was deleted, and is put back")


def _drop_stubs(lesson: Lesson, made: list[tuple[str | None, NotebookNode]], note) -> None:
    """Empty an exercise that is as it was released where the student defined elsewhere what it
    asks for: it would take the place of that."""
    for grade_id, stub in made:
        if grade_id is None or role_of(stub) != "exercise":
            continue
        released = lesson.released[grade_id]
        if stub.source.strip() != released.strip():
            continue
        asked, elsewhere = _defines(released), set()
        for name, cell in made:
            theirs = name is None or role_of(cell) == "exercise"
            changed = cell.source.strip() not in lesson.texts
            if cell.cell_type == "code" and theirs and changed:
                elsewhere |= _defines(cell.source)
        if asked and asked <= elsewhere:
            stub.source = "# what this cell asks for stands in another cell"
            note(f"{grade_id} is as it was released; what it asks for stands in another cell")


def _put_tests_after_answers(
    lesson: Lesson, made: list[tuple[str | None, NotebookNode]], note
) -> None:
    """Move each test that stands before everything that defines what it asks for behind it."""
    for grade_id, released in lesson.graded.items():
        if role_of(released) != "test":
            continue
        asked = _defines(lesson.released[lesson.exercises[grade_id]])
        place = next(i for i, (name, _) in enumerate(made) if name == grade_id)
        answers = [
            index
            for index, (name, cell) in enumerate(made)
            if cell.cell_type == "code" and (name is None or role_of(cell) == "exercise")
            if asked & _defines(cell.source)
        ]
        if answers and place < answers[0]:
            test = made.pop(place)
            made.insert(answers[-1], test)
            note(f"the test {grade_id} stood before what it asks for, and is made after it")
