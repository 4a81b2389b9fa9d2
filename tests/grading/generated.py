"""A class of any size that was never executed: marks, mistakes and answers are drawn at random."""

import random
import re
from datetime import datetime, timedelta

import nbformat
from classroom import database, folder_of, solutions_of
from known_mistakes import mistakes_of
from nbgrader.api import Gradebook
from release import SOLUTIONS

from lab_grader.intake.course import Course, role_of
from lab_grader.marks.history import Findings, Missed, keep, scores_of
from lab_grader.marks.record import read_marks

FIRST = ["Ada", "Bob", "Chloé", "Dmitri", "Eve", "Fatima", "Grace", "Hiro", "Ines", "Jan", "Kofi"]
LAST = ["Lovelace", "Babbage", "Noether", "Turing", "Hopper", "Ramanujan", "Gauss", "Hamilton"]


def mistakes_named_in(lesson):
    """The mistakes that the checks of a lesson can name, in the order in which they stand there."""
    return mistakes_of(re.search(r"^checks\.(check_\w+)\(", lesson.read_text(), re.MULTILINE)[1])


MISTAKES = {path.stem: mistakes_named_in(path) for path in sorted(SOLUTIONS.glob("*.py"))}
COPIED = """def gradient_norms_by_rank(ranks, rank_stabilized):
    # the plan: one layer for each rank, the same data for all of them
    torch.manual_seed({seed})
    base = torch.nn.Linear({size}, {size})
    {x} = torch.randn(16, {size})
    results = {{}}
    for {r} in ranks:
        scale = 16.0 / ({r} ** 0.5 if rank_stabilized else {r})
        down = torch.randn({r}, {size}) / {size} ** 0.5
        up = torch.zeros({size}, {r}, requires_grad=True)
        loss = (base({x}) + scale * ({x} @ down.T) @ up.T).pow(2).mean()
        loss.backward()
        results[{r}] = up.grad.norm().item()
    return results
"""


def generate(root, size, seed=0, absent=0, form="s{:04}"):
    """Fill the gradebook and the grader's folders of a released course; return the ids.

    The last `absent` students are registered and hand in nothing. The first two hand in the same
    long answer with other names in it. `form` makes an id of a student's number.
    """
    draw = random.Random(seed)
    course = Course(root, "dora")
    students = [form.format(number) for number in range(size)]
    found = {}
    with Gradebook(database(root)) as gradebook:
        for number, student in enumerate(students):
            gradebook.add_student(
                student,
                first_name=draw.choice(FIRST),
                last_name=f"{draw.choice(LAST)}-{number}",
                email=f"{student}@example.org",
                lms_user_id=str(1000 + number),
            )
            if number < size - absent:
                found[student] = _grade(gradebook, course, student, draw.betavariate(4, 2), draw)
        gradebook.db.commit()
    marks = read_marks(course)
    for number, (student, (missed, lessons)) in enumerate(found.items()):
        _write(course, student, lessons, missed, draw, number)
        found[student] = Findings(
            lessons=lessons,
            scores=scores_of(marks[student]),
            missed=missed,
            notes=["01-mathematics: decompose: it took more than 30 s"] if number == 5 else [],
            problems=[f"{lesson}.ipynb is missing" for lesson in course.lessons.keys() - lessons],
            seed=number + 1,
        )
    keep(course, found)
    return students


def _grade(gradebook, course, student, ability, draw):
    start = datetime(2026, 11, 20, 12)
    gradebook.add_submission(
        "dora", student, timestamp=start + timedelta(hours=draw.uniform(0, 90))
    )
    submission = gradebook.find_submission("dora", student)
    missed, lessons = [], []
    for notebook in submission.notebooks:
        lesson = course.lessons[notebook.name]
        handed_in = draw.random() < 0.96
        lessons += [lesson.name] if handed_in else []
        known = MISTAKES[lesson.name]
        for grade in notebook.grades:
            passed = handed_in and draw.random() < 0.25 + 0.75 * ability
            if role_of(lesson.graded[grade.name]) == "manual":
                grade.auto_score = None
                grade.manual_score = round(4 * ability) if draw.random() < 0.8 else None
                grade.needs_manual_grade = handed_in and grade.manual_score is None
                continue
            grade.auto_score = lesson.points(grade.name) if passed else 0
            grade.needs_manual_grade = False
            if handed_in and not passed:
                mistake = known[min(len(known) - 1, int(draw.expovariate(0.4)))]
                named = (mistake.name, mistake.why, mistake.section)
                named = named if draw.random() < 0.7 else ("", "", "")
                problem = "expected 1, found 2."
                missed.append(Missed(lesson.name, grade.name, draw.random() < 0.2, problem, *named))
    return missed, sorted(lessons)


def _write(course, student, lessons, missed, draw, number):
    """Write what was handed in, and beside it what the grader made of it."""
    wrong = {course.lessons[it.lesson].exercises[it.test] for it in missed}
    right = solutions_of(lessons)
    for name in lessons:
        lesson = course.lessons[name]
        cells = nbformat.from_dict(lesson.cells)
        for cell in cells:
            if role_of(cell) != "exercise":
                continue
            grade_id = cell.metadata.nbgrader.grade_id
            text = right[grade_id].replace("### BEGIN SOLUTION", "").replace("### END SOLUTION", "")
            cell.source = f"# {student}: try {draw.random():.6f}\n{text}"
            if grade_id in wrong:
                cell.source = cell.source.replace("norm_dim", "0").replace("(rank", "(7 * rank")
            if grade_id == "gradient-norms":
                names = ({"x": "x", "r": "r"}, {"x": "batch", "r": "rank"})[number % 2]
                sizes = {"seed": number // 2, "size": 24}
                lines = COPIED.format(**names, **sizes).splitlines()
                if number > 1:
                    own = [
                        f"    extra_{k} = {draw.random():.3f} * {number} - {k}" for k in range(9)
                    ]
                    lines[2:2] = own
                    draw.shuffle(lines)
                cell.source = "\n".join(lines)
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=lesson.metadata)
        for folder in (
            course.work / "vetted" / student / course.assignment,
            folder_of(course.root, student),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, folder / f"{name}.ipynb")
