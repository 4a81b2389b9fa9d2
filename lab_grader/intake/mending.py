"""Restore a notebook: the student's answers, between the lesson's cells as they were released.

Cells of the lesson that were changed, moved or deleted are put back.
"""

import re
from collections.abc import Callable

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from lab_grader.intake.cells import HandedIn
from lab_grader.intake.course import Lesson, role_of
from lab_grader.intake.dependencies import names_of
from lab_grader.intake.matching import Matches, known_cells

# What a cell has besides its id and text.
NEW_CELL = {"code": {"outputs": [], "execution_count": None}, "markdown": {}, "raw": {}}

FENCED = re.compile(r"\s*(```+|~~~+)[^\n]*\n(.*)\n\1\s*", re.DOTALL)  # code in a text cell

Note = Callable[[str], None]
Made = list[tuple[str | None, NotebookNode]]  # cells with their `grade_id`; None: the student's own


def mend(cells: list[HandedIn], lesson: Lesson, note: Note) -> NotebookNode:
    """Return a notebook with the student's texts and the lesson's cells as they were released.

    Args:
        note: called with a sentence for each repair.
    """
    found = known_cells(cells, lesson)
    by_index = {index: grade_id for grade_id, (index, _) in found.items()}
    made: Made = []
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


def _say_how(cells: list[HandedIn], lesson: Lesson, found: Matches, note: Note) -> None:
    """Report the cells that were not recognised by their `grade_id`, as nbgrader does it."""
    otherwise: dict[str, list[str]] = {}
    for grade_id in lesson.graded:
        index, how = found.get(grade_id, (None, ""))
        if index is not None and cells[index].grade_id != grade_id:
            otherwise.setdefault(how, []).append(grade_id)
    for how, names in otherwise.items():
        lost = "their metadata are not the lesson's"
        note(f"{', '.join(names)}: known by their {how}, because {lost}")


def _is_answer(cell: HandedIn, test: str, lesson: Lesson) -> bool:
    """Whether a test cell was overwritten with an answer to its exercise."""
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
    """Return a cell of the lesson, with the student's text if it is an answer."""
    cell = nbformat.from_dict(released)
    if role_of(released) in ("exercise", "manual"):
        cell.source = handed_in.source
        fenced = FENCED.fullmatch(cell.source)
        if cell.cell_type == "code" and handed_in.kind != "code" and fenced:
            cell.source = fenced[2]
        if cell.cell_type == "markdown" and handed_in.pictures:
            cell.attachments = nbformat.from_dict(handed_in.pictures)
    return cell


def _put_back(lesson: Lesson, made: Made, note: Note) -> None:
    """Put the lesson's missing graded cells where they belong: a test goes after the cell that
    precedes it in the lesson, and after whatever defines what it asks for."""
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


def _drop_stubs(lesson: Lesson, made: Made, note: Note) -> None:
    """Empty an unchanged exercise if the student defined elsewhere what it asks for: the stub would
    replace that definition."""
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
            stub.source = "# what this cell asks for is defined in another cell"
            note(f"{grade_id} is as it was released; what it asks for is defined in another cell")


def _put_tests_after_answers(lesson: Lesson, made: Made, note: Note) -> None:
    """Move each test that comes before the answer that it asks for to after that answer."""
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
            note(f"the test {grade_id} came before what it asks for, and is made after it")


def _defines(source: str) -> frozenset[str]:
    """Return the names that a cell's code defines."""
    return names_of(source).binds
