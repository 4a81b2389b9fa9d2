"""What a class got wrong, on one page that needs no network: for the instructor, or the class."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import numpy as np
from scipy.stats import pointbiserialr

from lab_grader.intake.course import Course
from lab_grader.marks.alike import Pair, alike, answers
from lab_grader.marks.anonymous import hider, names_of
from lab_grader.marks.histogram import histogram
from lab_grader.marks.history import Findings, Grading, gradings, scores_of
from lab_grader.marks.rendering import templates
from lab_grader.marks.standing import Standing, State, exercise_columns, read_standings
from lab_grader.running.cache import write_atomically
from lab_grader.running.workers import WorkerError, Workers

FEWEST = 10  # students, for a correlation
SEPARATES, SEPARATES_LITTLE = 0.3, 0.1  # the least correlation for each remark
LOW = 0.4  # of the points
MOST_PAIRS = 40
ALIKE_SECONDS, ALIKE_BYTES = 300, 4 << 30


@dataclass
class Check:
    """How a test went.

    Attributes:
        tried: how many were graded in it.
        passed: how many got all of its points.
        correlation: point-biserial, of passing it with the points in all other tests; None for
            too few students, or if all have the same.
    """

    lesson: str
    test: str
    points: float
    tried: int
    passed: int
    correlation: float | None

    @property
    def rate(self) -> float:
        """The share of those who passed."""
        return self.passed / self.tried if self.tried else 0.0

    @property
    def remark(self) -> str:
        """What the correlation says, in words."""
        if self.correlation is None:
            return ""
        if self.correlation < SEPARATES_LITTLE:
            return "does not separate strong from weak"
        if self.correlation < SEPARATES:
            return "separates a little"
        return "separates strong from weak"


@dataclass
class NamedMistake:
    """A known mistake in a class, with how many students made it in which exercises."""

    name: str
    why: str
    section: str
    lesson: str
    students: list[str] = field(default_factory=list)
    exercises: Counter = field(default_factory=Counter)
    example: str = ""


@dataclass
class Attention:
    """Somebody to look at, and why."""

    who: str
    score: float | None
    reasons: list[str]
    weight: float


def write_report(course: Course, names: bool = False) -> Path:
    """Write the report of an assignment; return its path.

    Args:
        names: show students' names; without it, they are numbers in arbitrary order.
    """
    text = templates().get_template("report.html").render(**_contents(course, names))
    path = course.work / "reports" / f"{course.assignment}{'-names' if names else ''}.html"
    write_atomically(path, text)
    return path


def _contents(course: Course, names: bool) -> dict[str, object]:
    """Return what the report shows, by the template's names for it."""
    standings, kept = read_standings(course), gradings(course)
    findings = kept[-1].students if kept else {}
    marked = [it for it in standings if it.state in (State.FINAL, State.WAITING)]
    most = sum(exercise_columns(course).values())
    who, hide = names_of(course, standings, names), str if names else hider(standings)
    pairs, no_pairs = _alike(course)
    about = {
        "assignment": course.assignment,
        "names": names,
        "when": kept[-1].when[:16].replace("T", " ") if kept else "",
        "counts": {state: sum(it.state == state for it in standings) for state in State},
        "late": sum(it.late_seconds > 0 for it in standings),
        "dated": sum(it.handed_in is not None for it in standings),
        "attempts": sorted(Counter(it.attempts for it in findings.values() if it.attempts).items()),
    }
    points = {
        "most": most,
        "marked": len(marked),
        "summary": _summary(marked),
        "histogram": histogram([it.score for it in marked], most),
        "change": _changes(standings, kept, who),
    }
    work = {
        "attention": _attention(standings, findings, most, who, names),
        "mistakes": _mistakes(course, findings, hide),
        "checks": _checks(course, marked, findings),
        "pairs": [_shown(pair, who, hide) for pair in pairs[:MOST_PAIRS]],
        "all_pairs": len(pairs),
        "no_pairs": no_pairs,
    }
    return about | points | work


def _summary(marked: list[Standing]) -> dict[str, float]:
    scores = [it.score for it in marked]
    if not scores:
        return {}
    low, middle, high = np.percentile(scores, [25, 50, 75])
    return {"mean": float(np.mean(scores)), "low": low, "median": middle, "high": high}


def _attention(
    standings: list[Standing],
    findings: dict[str, Findings],
    most: float,
    who: Callable[[str], str],
    names: bool,
) -> list[Attention]:
    """Return those to look at; first those whose marks are missing, then by what they lost."""
    found = []
    for it in standings:
        known = findings.get(it.student, Findings())
        reasons = []
        if it.state in (State.ABSENT, State.FAILED):
            reasons.append(f"{it.state}{f': {it.why}' if names and it.why else ''}")
        elif it.score < LOW * most:
            reasons.append(f"less than {LOW:.0%} of the points")
        if names:
            reasons += [*known.problems, *known.notes]
        elif known.problems or known.notes:
            count = len(known.problems) + len(known.notes)
            reasons.append(f"{count} remark{'s' if count > 1 else ''} of make grade")
        if reasons:
            weight = 2 * most if it.score is None else most - it.score
            found.append(Attention(who(it.student), it.score, reasons, weight))
    return sorted(found, key=lambda it: (-it.weight, it.who))


def _changes(
    standings: list[Standing], kept: list[Grading], who: Callable[[str], str]
) -> dict[str, object]:
    """Return whose points changed since the grading before the last one."""
    if len(kept) < 2:
        return {}
    before, rows = kept[0], []
    for it in standings:
        known, now = before.students.get(it.student), scores_of(it.marks)
        if known is None:
            if now:
                rows.append((who(it.student), None, sum(filter(None, now.values()))))
        elif known.scores != now:
            then = sum(filter(None, known.scores.values()))
            rows.append((who(it.student), then, sum(filter(None, now.values()))))
    return {"since": before.when[:16].replace("T", " "), "rows": sorted(rows)}


def _mistakes(
    course: Course, findings: dict[str, Findings], hide: Callable[[str], str]
) -> list[NamedMistake]:
    """Return the named mistakes, the most common one first."""
    found: dict[tuple[str, str, str], NamedMistake] = {}
    made: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for student, known in findings.items():
        for it in known.missed:
            if not it.name:
                continue
            key = it.lesson, it.section, it.name
            mistake = found.setdefault(key, NamedMistake(it.name, it.why, it.section, it.lesson))
            exercise = course.lessons[it.lesson].exercises[it.test]
            if student not in mistake.students:
                mistake.students.append(student)
            if (student, exercise) not in made[key]:
                made[key].append((student, exercise))
                mistake.exercises[exercise] += 1
    for key, mistake in found.items():
        texts = [_answer(course, key[0], *one) for one in made[key][:20]]
        mistake.example = min((hide(text) for text in texts if text), key=len, default="")
    return sorted(found.values(), key=lambda it: (-len(it.students), it.lesson, it.name))


def _answer(course: Course, lesson: str, student: str, exercise: str) -> str:
    path = course.work / "vetted" / student / course.assignment / f"{lesson}.ipynb"
    if not path.exists():
        return ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == exercise:
            return cell.source
    return ""


def _checks(course: Course, marked: list[Standing], findings: dict[str, Findings]) -> list[Check]:
    """Return how each test went, in the order of the lessons."""
    found = []
    for lesson in course.lessons.values():
        for test in lesson.exercises:
            own = [
                (it.marks[lesson.name, test].score, it)
                for it in marked
                if (lesson.name, test) in it.marks
                and not it.marks[lesson.name, test].needs_manual_grade
                and lesson.name in findings.get(it.student, Findings(lessons=[lesson.name])).lessons
            ]
            passed = np.array([score >= lesson.points(test) for score, _ in own], dtype=bool)
            rest = np.array([sum(m.score for m in it.marks.values()) - s for s, it in own])
            correlation = None
            if len(own) >= FEWEST and 0 < passed.sum() < len(own) and np.ptp(rest):
                correlation = float(pointbiserialr(passed, rest).statistic)
            check = Check(
                lesson.name, test, lesson.points(test), len(own), int(passed.sum()), correlation
            )
            found.append(check)
    return found


def _alike(course: Course) -> tuple[list[Pair], str]:
    """Return the pairs of answers that are alike, or why there are none."""
    calls = {"": (str(course.root), course.assignment)}
    limits = {"seconds": ALIKE_SECONDS, "memory_bytes": ALIKE_BYTES}
    with Workers(1) as worker:
        ((_, answer),) = worker.run(_find_alike, calls, **limits)
    if isinstance(answer, WorkerError):
        return [], str(answer)
    return answer, ""


def _find_alike(where: tuple[str, str]) -> list[Pair]:
    course = Course(Path(where[0]), where[1])
    released = {
        (lesson.name, name): text
        for lesson in course.lessons.values()
        for name, text in lesson.released.items()
    }
    return alike(answers(course), released)


def _shown(pair: Pair, who: Callable[[str], str], hide: Callable[[str], str]) -> dict[str, object]:
    return {
        "who": [who(pair.first.student), who(pair.second.student)],
        "exercise": f"{pair.first.lesson}: {pair.first.exercise}",
        "structure": pair.structure,
        "letters": pair.letters,
        "texts": [hide(pair.first.text), hide(pair.second.text)],
    }
