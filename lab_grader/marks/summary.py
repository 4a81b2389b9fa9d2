"""What `make grade` prints: who has how many points, and what to look at, within 80 columns."""

from collections.abc import Mapping, Sequence

from lab_grader.marks.standing import Standing, State
from lab_grader.plain import plain

WIDTH = 80
COLUMN = 5  # characters of a lesson's points
SHOWN = 3  # remarks on one student; the others are counted
WAITS = "…"


def table(standings: Sequence[Standing]) -> list[str]:
    """Return a line for each student: the points of each lesson, and their total.

    Lessons are named by the number that their names begin with. Points of each exercise are in the
    table for people, `marks/<assignment>.csv`.
    """
    if not standings:
        return []
    lessons = list(standings[0].course.lessons)
    most = {name: 0.0 for name in lessons}
    for lesson in standings[0].course.lessons.values():
        most[lesson.name] = sum(lesson.points(grade_id) for grade_id in lesson.exercises)
    labels = [name.partition("-")[0][: COLUMN - 1] for name in lessons]
    names = [plain(_shown(it), most=WIDTH) for it in standings]
    room = max(12, WIDTH - COLUMN * len(lessons) - 10)
    width = min(room, max(map(len, [*names, "of"])))
    lines = [
        " " * width + "".join(f"{label:>{COLUMN}}" for label in labels) + "     total",
        f"{'of':{width}}"
        + "".join(f"{most[name]:>{COLUMN}g}" for name in lessons)
        + f"{sum(most.values()):>10g}",
    ]
    for name, it in zip(names, standings, strict=True):
        cells = "".join(f"{_subtotal(it, lesson):>{COLUMN}}" for lesson in lessons)
        total = "–" if it.score is None else f"{it.score:g}{WAITS if it.waiting else ''}"
        lines.append(f"{_cut(name, width):{width}}{cells}{total:>10}")
    if any(it.waiting for it in standings):
        lines.append(f"{WAITS} more points wait for a mark by hand")
    return lines


def _shown(standing: Standing) -> str:
    known = standing.name != standing.student
    return f"{standing.name} ({standing.student})" if known else standing.student


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _subtotal(standing: Standing, lesson: str) -> str:
    if standing.score is None:
        return "–"
    points = [value for (name, _), value in standing.points.items() if name == lesson]
    known = sum(value for value in points if value is not None)
    return f"{known:g}{WAITS if None in points else ''}"


def to_look_at(
    standings: Sequence[Standing],
    remarks: Mapping[str, Sequence[str]],
    misplaced: Mapping[str, str],
    mended: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return what an instructor should look at: a line for each student, what costs most first.

    Args:
        remarks: what is odd about a submission, or happened while it ran.
        misplaced: what is among the submissions without being one, and why.
        mended: what was put right.
    """
    lost = {it.student: float("inf") if it.score is None else -it.score for it in standings}

    def of(state: State) -> dict[str, Sequence[str]]:
        found = {it.student: [it.why] for it in standings if it.state == state}
        return dict(sorted(found.items()))

    waiting = {
        it.student: [f"{lesson}: {cell}" for lesson, cell in it.waiting]
        for it in standings
        if it.waiting
    }
    by_cost = sorted((s for s in remarks if remarks[s]), key=lambda s: (-lost.get(s, 0), s))
    sections = {
        "Could not be graded": of(State.FAILED),
        "Handed in nothing": of(State.ABSENT),
        "Not a submission": {name: [why] for name, why in sorted(misplaced.items())},
        "Needs attention": {student: remarks[student] for student in by_cost},
        "Waits for a mark by hand, in Formgrader": waiting,
        "Was repaired": {s: texts for s, texts in sorted(mended.items()) if texts},
    }
    lines = []
    for title, entries in sections.items():
        if entries:
            lines += [title, *(_line(student, texts) for student, texts in entries.items())]
    return lines or ["Nothing needs your attention."]


def _line(student: str, texts: Sequence[str]) -> str:
    texts = [plain(text, most=200) for text in texts if text]
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"  {plain(student, most=60)}{': ' if texts else ''}{'; '.join(texts[:SHOWN])}{more}"
