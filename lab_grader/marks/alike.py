"""Answers that are alike once the released text and names are removed: a hint, never a mark.

Pygments makes tokens of a text and RapidFuzz compares all pairs at once, 200 students in a second.
(copydetect, made for this, takes folders of whole files: it knows no exercise, and finds no copy
in one of ten answers.)
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import nbformat
from pygments.lexers import PythonLexer
from pygments.token import Comment, Name, String, Text
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from lab_grader.intake.course import Course, role_of

ALIKE = 0.9  # of the tokens, in their order
FEWEST_TOKENS = 40  # a shorter answer is alike by itself
MOST_CHARACTERS = 20_000  # of an answer; the rest is not compared
COMMON = 0.1  # an answer that more of the class is alike to is what anybody would write
REFERENCE = ""  # in place of a student


@dataclass(frozen=True)
class Answer:
    """What a student, or the reference, wrote for an exercise."""

    student: str
    lesson: str
    exercise: str
    text: str
    tokens: int = 0


@dataclass(frozen=True)
class Pair:
    """Two answers to one exercise.

    Attributes:
        structure: how alike they are without names, from 0 to 1.
        letters: how alike they are with names, comments and all.
    """

    first: Answer
    second: Answer
    structure: float
    letters: float


def answers(course: Course) -> list[Answer]:
    """Return all answers of those who were graded, and the reference's."""
    found = []
    for folder in sorted((course.work / "vetted").glob(f"*/{course.assignment}")):
        for path in sorted(folder.glob("*.ipynb")):
            found += _answers(course, path, folder.parent.name)
    source = course.folder("source")
    for name in course.lessons:
        if (source / f"{name}.ipynb").exists():
            found += _answers(course, source / f"{name}.ipynb", REFERENCE)
    return found


def _answers(course: Course, path, student: str) -> Iterable[Answer]:
    if path.stem not in course.lessons:
        return
    lesson = course.lessons[path.stem]
    for cell in nbformat.read(path, as_version=4).cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if role_of(cell) in ("exercise", "manual") and name in lesson.released:
            yield Answer(student, lesson.name, name, cell.source[:MOST_CHARACTERS])


def _own_lines(text: str, released: str) -> str:
    """Return a text without the lines that everybody received."""
    given = {line.strip() for line in released.splitlines()}
    return "\n".join(line for line in text.splitlines() if line.strip() not in given)


def _tokens(text: str, is_code: bool) -> list[str]:
    """Return what a text is made of; for code, without comments and with one name for all names.

    Attributes keep theirs: which functions of a library are called, and in which order, is what
    an answer consists of.
    """
    if not is_code:
        return unicodedata.normalize("NFKC", text).casefold().split()
    found, after_dot = [], False
    for kind, value in PythonLexer().get_tokens(text):
        if kind in Comment or kind in String.Doc or (kind in Text and not value.strip()):
            continue
        plain_name = kind in Name and kind not in Name.Builtin and not after_dot
        found.append("name" if plain_name else value)
        after_dot = value == "."
    return found


def alike(found: list[Answer], released: dict[tuple[str, str], str]) -> list[Pair]:
    """Return the pairs of answers that are alike, the most telling first.

    Args:
        released: the text of each exercise as it was handed out, by lesson and name.
    """
    by_exercise: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in found:
        by_exercise[answer.lesson, answer.exercise].append(answer)
    pairs = []
    for exercise, those in by_exercise.items():
        is_code = "raise NotImplementedError" in released[exercise]
        tokens = [_tokens(_own_lines(it.text, released[exercise]), is_code) for it in those]
        kept = [i for i, its in enumerate(tokens) if len(its) >= FEWEST_TOKENS]
        pairs += _pairs([those[i] for i in kept], [tokens[i] for i in kept])
    return sorted(pairs, key=lambda it: (it.letters, it.structure, it.first.tokens), reverse=True)


def _pairs(those: list[Answer], tokens: list[list[str]]) -> Iterable[Pair]:
    if len(those) < 2:
        return
    letters: dict[str, str] = {}
    for its in tokens:
        for token in its:
            letters.setdefault(token, chr(0x10000 + len(letters)))  # one character for a token
    words = ["".join(letters[token] for token in its) for its in tokens]
    scores = cdist(words, words, scorer=Indel.normalized_similarity, score_cutoff=ALIKE, workers=1)
    students = [it.student != REFERENCE for it in those]
    most = max(4, COMMON * sum(students))
    neighbours = (scores[:, students] >= ALIKE).sum(axis=1)
    for i, j in combinations(range(len(those)), 2):
        if scores[i, j] < ALIKE or max(neighbours[i], neighbours[j]) > most:
            continue
        first, second = (
            Answer(it.student, it.lesson, it.exercise, it.text, len(tokens[k]))
            for k, it in ((i, those[i]), (j, those[j]))
        )
        with_names = Indel.normalized_similarity(first.text, second.text)
        yield Pair(first, second, float(scores[i, j]), with_names)
