"""What a new grading would change, reported before it counts."""

from collections.abc import Mapping

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
        notebook = submission.notebooks.get(lesson.name)
        outputs = result.outputs.get(lesson.name, [])
        cells = notebook.cells if notebook else []
        for cell, said in zip(cells, outputs, strict=False):
            nbgrader = cell.metadata.get("nbgrader", {})
            if not nbgrader.get("grade") or nbgrader.get("solution") or cell.cell_type != "code":
                continue
            key = lesson.name, nbgrader.grade_id
            passed = not any(output["output_type"] == "error" for output in said or [])
            now = lesson.points(nbgrader.grade_id) if said is not None and passed else 0.0
            mark = marks.get(key)
            if mark is None or mark.manual is None:
                found[key] = now - ((mark.auto or 0.0) if mark else 0.0)
    return {key: points for key, points in found.items() if points}


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
