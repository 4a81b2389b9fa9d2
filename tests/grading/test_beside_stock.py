"""Lessons 03 to 07, graded by stock nbgrader and by lab_grader; the open question by a person."""

import shutil

import nbformat
import pytest
from classroom import (
    STOCK,
    database,
    folder_of,
    grade,
    make_course,
    notebook_with,
    points_of,
    run,
    solutions_of,
    told,
    without_demonstrations,
)
from nbgrader.api import Gradebook

LESSONS = (
    "03-decomposition",
    "04-head-to-head",
    "05-rank-and-magnitude",
    "06-peft-and-commonsense",
    "07-rslora-challenge",
)

POINTS = points_of(*LESSONS)
OPEN = points_of(*LESSONS, by_hand=True)
ANSWER = "With alpha fixed, alpha / rank fell eightfold, so log the gradient norms first."


def right():
    """The solved exercises, and to the open question an answer of one's own."""
    return solutions_of(LESSONS) | {"plan": ANSWER}


def half_right():
    """One property of each exercise wrong: an axis, the zeros, the freezing, the interval..."""
    answers = right()
    for grade_id, correct, wrong in (
        ("magnitude-change", "dim=norm_dim", "dim=1"),
        ("direction-change", ".clamp_min(1e-8)", ""),
        ("coupling", ".item()", ".item() ** 2"),
        ("add-adapters", ".requires_grad_(False)", ""),
        ("train-step", "gradient_norm.item()", "min(gradient_norm.item(), max_norm)"),
        ("paired-difference", "stats.t.ppf((1 + confidence) / 2, len(differences) - 1)", "1.96"),
        ("compare-across-ranks", '["test_loss"]', '["final_train_loss"]'),
        ("track-magnitude", "(history - start).abs()", "(history - start)"),
        ("make-config", "lora_alpha=2 * rank", "lora_alpha=32"),
        ("to-peft-state", 'hasattr(layer, "magnitude")', "False"),
        ("choice-accuracy", "zip(scores,", "zip(torch.tensor(scores).tolist(),"),
        ("lora-scaling", " if rank_stabilized else ", " if False else "),
        ("gradient-norms", "rank_stabilized=rank_stabilized", "rank_stabilized=False"),
    ):
        assert correct in answers[grade_id], correct
        answers[grade_id] = answers[grade_id].replace(correct, wrong)
    return answers


LOST = (
    {"magnitude-change-columns", "direction-change-zeros", "coupling-correlation"}
    | {"add-adapters-frozen", "train-step-numbers", "paired-difference-interval"}
    | {"compare-across-ranks-losses", "track-magnitude-statistics"}
    | {"config-scaling", "state-dora", "accuracy-ragged"}
    | {"scaling-stabilized", "norms-stabilized"}
)
HALF = {grade_id: 0 if grade_id in LOST else points for grade_id, points in POINTS.items()}


def hand_in_all(course, student, answers):
    """Hand in the lessons without the demonstrations, which take minutes; that these run in an
    unsolved notebook and in a solved one is tested elsewhere."""
    for lesson in LESSONS:
        path = folder_of(course, student) / f"{lesson}.ipynb"
        nbformat.write(without_demonstrations(notebook_with(answers, lesson)), path)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder in which stock nbgrader graded the half-right submission."""
    folder = make_course(tmp_path_factory.mktemp("course"), *STOCK, lessons=LESSONS)
    hand_in_all(folder, "half-right", half_right())
    run(folder, "nbgrader", "autograde", "dora")
    return folder


@pytest.fixture
def marked(course, tmp_path):
    """A copy of the course in which a person marked the open answer."""
    copy = shutil.copytree(course, tmp_path / "course")
    with Gradebook(database(copy)) as gradebook:
        mark = gradebook.find_grade("plan", "07-rslora-challenge", "dora", "half-right")
        mark.manual_score, mark.needs_manual_grade = 2.5, False
        gradebook.db.commit()
    return copy


@pytest.fixture
def gradebook(course):
    with Gradebook(database(course)) as found:
        yield found


def grades_of(gradebook, student):
    submission = gradebook.find_submission("dora", student)
    return {grade.name: grade for notebook in submission.notebooks for grade in notebook.grades}


def test_marks_of_each_exercise(gradebook):
    submission = gradebook.find_submission("dora", "half-right")
    grades = grades_of(gradebook, "half-right")
    assert {name: grade.max_score for name, grade in grades.items()} == POINTS | OPEN
    assert {name: grades[name].auto_score for name in POINTS} == HALF
    assert submission.score == sum(HALF.values())
    assert submission.max_score == sum((POINTS | OPEN).values())


def test_an_open_answer_waits_for_a_person(gradebook):
    mark = gradebook.find_grade("plan", "07-rslora-challenge", "dora", "half-right")
    assert mark.needs_manual_grade
    assert mark.auto_score is None
    assert gradebook.find_submission("dora", "half-right").needs_manual_grade


def test_marks_given_by_hand_count(marked):
    with Gradebook(database(marked)) as gradebook:
        score = gradebook.find_submission("dora", "half-right").score
    assert score == sum(HALF.values()) + 2.5


def test_the_marker_sees_the_rubric_and_the_student_does_not(course):
    path = course / "grading" / "autograded" / "half-right" / "dora" / "07-rslora-challenge.ipynb"
    graded = path.read_text()
    released = (course / "notebooks" / "dora" / "07-rslora-challenge.ipynb").read_text()
    for secret in ("For the marker", "Runs that separate the causes"):
        assert secret in graded
        assert secret not in released
    assert ANSWER in graded
    assert "One good answer" not in released


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")
def test_lab_grader_gives_the_same_and_a_perfect_one_all_and_a_blank_one_nothing(marked):
    stock = told(marked, "half-right", LESSONS)
    hand_in_all(marked, "perfect", right())
    hand_in_all(marked, "blank", {})
    grade(marked, "--no-feedback")
    assert told(marked, "half-right", LESSONS) == stock

    said = told(marked, "blank", LESSONS)
    assert said.keys() == POINTS.keys()
    assert all("is not written yet" in errors[0][1] for _, errors in said.values())
    nothing = dict.fromkeys(POINTS, 0)
    with Gradebook(database(marked)) as gradebook:
        # A mark by hand is kept, for nbgrader to be looked at again; no answer needs none.
        for student, automatic, by_hand, awaited in (
            ("half-right", HALF, 2.5, True),
            ("perfect", POINTS, None, True),
            ("blank", nothing, None, False),
        ):
            grades = grades_of(gradebook, student)
            assert {name: grades[name].auto_score for name in POINTS} == automatic
            assert grades["plan"].manual_score == by_hand, student
            assert gradebook.find_submission("dora", student).needs_manual_grade == awaited
