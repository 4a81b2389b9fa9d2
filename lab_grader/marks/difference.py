"""What a new grading would change, reported before it counts."""

from collections.abc import Iterator, Mapping

from lab_grader.intake.course import Course
from lab_grader.intake.vet import Submission
from lab_grader.marks.record import Marks
from lab_grader.plain import plain
from lab_grader.running.job import Result

Changes = Mapping[tuple[str, str], float]  # points gained (or lost), by lesson and test


def changed(course: Course, submission: Submission, result: Result, marks: Marks) -> Changes:
    """Return the points that each test would gain or lose; none for one that was marked by hand.

    Args:
        result: of executing the submission now.
        marks: what the gradebook holds.
    """
    found: dict[tuple[str, str], float] = {}
    for lesson in course.lessons.values():
        for test, passed in _tests(submission, result, lesson.name):
            mark = marks.get((lesson.name, test))
            if mark is not None and mark.manual is not None:
                continue
            before = (mark.auto or 0.0) if mark else 0.0
            found[lesson.name, test] = (lesson.points(test) if passed else 0.0) - before
    return {key: points for key, points in found.items() if points}


def _tests(submission: Submission, result: Result, lesson: str) -> Iterator[tuple[str, bool]]:
    """Yield the `grade_id` of each test that was handed in, and whether it passed."""
    if lesson not in submission.notebooks:
        return
    cells, outputs = submission.notebooks[lesson].cells, result.outputs[lesson]
    for cell, said in zip(cells, outputs, strict=True):
        nbgrader = cell.metadata.get("nbgrader", {})
        if nbgrader.get("grade") and not nbgrader.get("solution") and cell.cell_type == "code":
            ran = said is not None  # a test that was not run has not passed
            yield nbgrader.grade_id, ran and not any(o["output_type"] == "error" for o in said)


def differences(changes: Mapping[str, Changes]) -> list[str]:
    """Return a line for each student who gains or loses, the largest loss first, and the sum."""
    totals = {student: sum(points.values()) for student, points in changes.items()}
    lines = []
    for student in sorted((s for s in changes if changes[s]), key=lambda s: (totals[s], s)):
        tests = "; ".join(
            f"{lesson}: {test} {points:+g}"
            for (lesson, test), points in sorted(changes[student].items())
        )
        lines.append(f"{plain(student)}: {totals[student]:+g} ({plain(tests)})")
    gain, lose = (sum(sign * total > 0 for total in totals.values()) for sign in (1, -1))
    lines.append(
        f"{gain} would gain, {lose} would lose, {len(changes) - gain - lose} keep their points. "
        "Nothing was recorded."
    )
    return lines
