"""What a class got wrong, on one page that needs no network: for its teacher, or for the class."""

import ast
import hashlib
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator
from scipy.stats import pointbiserialr

from lab_grader.intake.course import Course
from lab_grader.marks.alike import REFERENCE, Pair, alike, answers
from lab_grader.marks.history import Findings, Grading, gradings, scores_of
from lab_grader.marks.rendering import templates
from lab_grader.marks.standing import Standing, State, exercise_columns, read_standings
from lab_grader.running import workers
from lab_grader.running.cache import write_atomically

FEWEST = 10  # students, for a correlation
TELLS, SAYS_LITTLE = 0.3, 0.1  # point-biserial: what a check should reach, and what is next to none
LOW = 0.4  # of the points
MOST_PAIRS = 40
ALIKE_SECONDS, ALIKE_BYTES = 300, 4 << 30
INK, BAR = "#010203", "#040506"  # in a figure; the page puts the colours of its theme there


@dataclass
class Check:
    """How a test went.

    Attributes:
        tried: how many were graded in it.
        passed: how many got all of its points.
        correlation: point-biserial, of passing it with the points of all other tests; None: too
            few, or all alike.
    """

    lesson: str
    test: str
    points: float
    tried: int
    passed: int
    correlation: float | None

    @property
    def rate(self) -> float:
        return self.passed / self.tried if self.tried else 0.0

    @property
    def remark(self) -> str:
        """What the correlation says, in words."""
        if self.correlation is None:
            return ""
        if self.correlation < SAYS_LITTLE:
            return "does not separate strong from weak"
        return "separates strong from weak" if self.correlation >= TELLS else "separates a little"


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
        names: show who is who. Without it students are numbers, in arbitrary order.
    """
    standings = read_standings(course)
    kept = gradings(course)
    findings = kept[-1].students if kept else {}
    who = _names(course, standings, names)
    marked = [it for it in standings if it.state in (State.FINAL, State.WAITING)]
    pairs, no_pairs = _alike(course)
    hide = _hider(standings) if not names else str
    text = (
        templates()
        .get_template("report.html")
        .render(
            assignment=course.assignment,
            names=names,
            when=kept[-1].when[:16].replace("T", " ") if kept else "",
            most=sum(exercise_columns(course).values()),
            counts={state: sum(it.state == state for it in standings) for state in State},
            marked=len(marked),
            summary=_summary(marked),
            histogram=_histogram(course, marked),
            attention=_attention(course, standings, findings, who, names),
            change=_changes(standings, kept, who),
            mistakes=_mistakes(course, findings, hide),
            checks=_checks(course, marked, findings),
            attempts=sorted(
                Counter(it.attempts for it in findings.values() if it.attempts).items()
            ),
            late=sum(it.late_seconds > 0 for it in standings),
            dated=sum(it.handed_in is not None for it in standings),
            pairs=[_shown(pair, who, hide) for pair in pairs[:MOST_PAIRS]],
            all_pairs=len(pairs),
            no_pairs=no_pairs,
        )
    )
    path = course.work / "reports" / f"{course.assignment}{'-names' if names else ''}.html"
    write_atomically(path, text)
    return path


def _names(course: Course, standings: list[Standing], names: bool) -> Callable[[str], str]:
    """Return what shows a student: the name, or a number that stays the same in this course."""
    if names:
        known = {it.student: it.name for it in standings}
        shown = {s: n if n == s else f"{n} ({s})" for s, n in known.items()}
    else:
        path = course.work / "reports" / "secret"
        if not path.exists():
            write_atomically(path, secrets.token_hex())
        secret = path.read_text()

        def order(student: str) -> str:
            text = secret.encode() + student.encode(errors="surrogatepass")
            return hashlib.sha256(text).hexdigest()

        ordered = sorted((it.student for it in standings), key=order)
        shown = {student: f"Student {number}" for number, student in enumerate(ordered, 1)}
    shown[REFERENCE] = "the reference solution"
    return lambda student: shown.get(student, "somebody who left")


def _hider(standings: list[Standing]) -> Callable[[str], str]:
    """Return what takes comments, long texts and everybody's names out of an answer."""
    words = {w for it in standings for w in (it.student, it.first_name, it.last_name) if len(w) > 2}
    anybody = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)")

    def hide(text: str) -> str:
        try:
            text = ast.unparse(_without_docstrings(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            lines = text.splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        return anybody.sub("…", text)

    return hide


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                it
                for it in body
                if not (isinstance(it, ast.Expr) and isinstance(it.value, ast.Constant))
            ] or [ast.Pass()]
    return tree


def _summary(marked: list[Standing]) -> dict[str, float]:
    scores = [it.score for it in marked]
    if not scores:
        return {}
    low, middle, high = np.percentile(scores, [25, 50, 75])
    return {"mean": float(np.mean(scores)), "low": low, "median": middle, "high": high}


def _histogram(course: Course, marked: list[Standing]) -> Markup:
    """Return the distribution of the points as an SVG in the colours of the page."""
    if not marked:
        return Markup()
    most = sum(exercise_columns(course).values())
    width = max(1, round(most / 20))
    edges = np.arange(0, most + width, width)
    scores = [it.score for it in marked]
    counts, _ = np.histogram(scores, edges)
    with plt.rc_context(
        {"svg.hashsalt": "report", "text.color": INK, "axes.labelcolor": INK}
        | {"xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK, "font.size": 11}
        | {"axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, ax = plt.subplots(figsize=(8, 2.9), layout="constrained")
        ax.bar(edges[:-1], counts, width=0.9 * width, align="edge", color=BAR)
        ax.axvline(np.median(scores), color=INK, linestyle="--", linewidth=1.2)
        ax.set_xlim(0, edges[-1])
        ax.set_xlabel(f"points of {most:g}")
        ax.set_ylabel("students")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    alt = (
        f"Histogram of the points of {len(scores)} students: from {min(scores):g} to "
        f"{max(scores):g}, half of them below {np.median(scores):g}."
    )
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = svg.replace(INK, "currentColor").replace(BAR, "var(--bar)")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))


def _attention(
    course: Course,
    standings: list[Standing],
    findings: dict[str, Findings],
    who: Callable[[str], str],
    names: bool,
) -> list[Attention]:
    """Return those to look at; first those whose marks are missing, then by what they lost."""
    most = sum(exercise_columns(course).values())
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
    """Return what is otherwise than after the grading before the last one."""
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
    """Return the named mistakes, the one that most students made first."""
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
    ((_, answer),) = workers.run(_find_alike, calls, jobs=1, **limits)
    if isinstance(answer, workers.WorkerError):
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
