"""Which cell of a submission is which cell of the lesson, even if an editor changed its metadata.

A cell is known by its id, by its `grade_id`, by its text, or by its place between others, in this
order.
"""

import re

from lab_grader.intake.cells import HandedIn
from lab_grader.intake.course import Lesson, role_of
from lab_grader.intake.dependencies import names_of

UNFINISHED = re.compile(r"^\s*raise NotImplementedError\b", re.MULTILINE)  # what a stub ends with

Matches = dict[str, tuple[int, str]]  # by `grade_id`: a cell's index, and by what it is known


def work_in(cells: list[HandedIn], lesson: Lesson) -> int:
    """Return 2 if an exercise is finished, 1 if any text differs from the release, otherwise 0.

    A different text alone says little: a blank copy of an earlier release has some, too.
    """
    for grade_id, (index, _) in known_cells(cells, lesson).items():
        source, role = cells[index].source.strip(), role_of(lesson.graded[grade_id])
        changed = source and source != lesson.released[grade_id].strip()
        if role == "exercise" and changed and not UNFINISHED.search(source):
            return 2
    return int(any(c.source.strip() not in lesson.texts for c in cells if c.source.strip()))


def likeness(cells: list[HandedIn], lesson: Lesson) -> float:
    """Return the share of the lesson's graded cells that are known there by id, `grade_id` or
    text."""
    return len(_surely(cells, lesson)) / max(1, len(lesson.graded))


def known_cells(cells: list[HandedIn], lesson: Lesson) -> Matches:
    """Return the index of each graded cell, and by what it is known."""
    guesses = _Guesses(cells, lesson, _surely(cells, lesson))
    for grade_id, released in lesson.graded.items():
        if grade_id not in guesses.found and role_of(released) == "exercise":
            guesses.by_definitions(grade_id)
    for grade_id, released in lesson.graded.items():
        if grade_id not in guesses.found and role_of(released):
            guesses.by_place(grade_id)
    return guesses.found


def _surely(cells: list[HandedIn], lesson: Lesson) -> Matches:
    """Return the index of each graded cell that is known by its id, `grade_id` or whole text."""
    found: Matches = {}
    taken: set[int] = set()
    for how in ("id", "grade_id", "text"):
        places: dict[str | None, int] = {}
        for index, cell in enumerate(cells):
            if index not in taken:  # the last of several copies, as in nbgrader
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


class _Guesses:
    """Finds cells that are not known for sure, by what they define and where they are.

    Attributes:
        found: the cells that are known so far.
    """

    def __init__(self, cells: list[HandedIn], lesson: Lesson, found: Matches) -> None:
        self.cells, self.lesson, self.found = cells, lesson, found
        taken = {index for index, _ in found.values()}
        self.theirs = [  # indices of cells that are not the lesson's, as far as is known
            index
            for index, cell in enumerate(cells)
            if index not in taken and cell.source.strip() not in lesson.texts
        ]

    def by_definitions(self, grade_id: str) -> None:
        """Find the cell that defines what an exercise asks for, preferably where it belongs."""
        asked = names_of(self.lesson.released[grade_id]).binds
        if not asked:
            return
        fits = [
            index
            for index in self.theirs
            if self.cells[index].kind == "code"
            and asked <= names_of(self.cells[index].source).binds
        ]
        low, high = self._around(grade_id)
        fits = [index for index in fits if low < index < high] or fits
        if fits:
            self._take(grade_id, fits[-1], "text")

    def by_place(self, grade_id: str) -> None:
        """Find the only cell of the right kind between the lesson's cells around it."""
        released = self.lesson.graded[grade_id]
        low, high = self._around(grade_id)
        fits = [
            index
            for index in self.theirs
            if low < index < high and self.cells[index].kind == released.cell_type
        ]
        if role_of(released) == "test":  # its text is replaced, which nothing of a student's may be
            fits = [index for index in fits if "checks." in self.cells[index].source]
        if len(fits) == 1:
            self._take(grade_id, fits[0], "place")

    def _take(self, grade_id: str, index: int, how: str) -> None:
        self.found[grade_id] = index, how
        self.theirs.remove(index)

    def _around(self, grade_id: str) -> tuple[int, int]:
        """Return the indices of the nearest known cells of the lesson around one that is not."""
        ids = {cell.id: index for index, cell in enumerate(self.cells) if cell.id}
        texts = {cell.source.strip(): index for index, cell in enumerate(self.cells)}
        places = []
        for cell in self.lesson.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name is not None:
                places.append(self.found.get(name, (None,))[0])
            else:
                places.append(ids.get(cell.get("id"), texts.get(cell.source.strip())))
        at = self.lesson.index(grade_id)
        low = next((i for i in reversed(places[:at]) if i is not None), -1)
        high = next((i for i in places[at + 1 :] if i is not None and i > low), len(self.cells))
        return low, high
