"""Stock nbgrader grades lessons 03 to 07, and a person marks the open question of 07."""

import subprocess
import sys

import nbformat
import pytest
import release
from nbgrader.api import Gradebook

LESSONS = (
    "03-decomposition",
    "04-head-to-head",
    "05-rank-and-magnitude",
    "06-peft-and-commonsense",
    "07-rslora-challenge",
)

POINTS = {
    "magnitude-change-rows": 2,
    "magnitude-change-columns": 1,
    "direction-change-rows": 2,
    "direction-change-columns": 1,
    "direction-change-zeros": 1,
    "coupling-correlation": 2,
    "coupling-constant": 1,
    "add-adapters-layers": 2,
    "add-adapters-frozen": 2,
    "add-adapters-types": 1,
    "train-step-numbers": 2,
    "train-step-weights": 2,
    "paired-difference-mean": 1,
    "paired-difference-interval": 3,
    "compare-across-ranks-keys": 1,
    "compare-across-ranks-losses": 3,
    "track-magnitude-history": 3,
    "track-magnitude-statistics": 3,
    "config-method": 1,
    "config-scaling": 1,
    "config-layers": 1,
    "state-lora": 2,
    "state-dora": 2,
    "accuracy-equal": 2,
    "accuracy-ragged": 1,
    "scaling-usual": 1,
    "scaling-stabilized": 1,
    "norms-usual": 2,
    "norms-stabilized": 2,
}
OPEN = {"plan": 4}  # marked by hand
ANSWER = "With alpha fixed, alpha / rank fell eightfold, so log the gradient norms first."


def solutions():
    """The solved exercise cells, by grade_id; to the open question, an answer of one's own."""
    cells = {}
    for lesson in LESSONS:
        notebook = nbformat.read(release.SOLUTIONS / f"{lesson}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("solution"):
                cells[cell.metadata.nbgrader.grade_id] = cell.source
    return cells | {"plan": ANSWER}


def half_right():
    """One property of each exercise wrong: an axis, the zeros, the freezing, the interval..."""
    answers = solutions()
    for grade_id, right, wrong in (
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
        assert right in answers[grade_id], right
        answers[grade_id] = answers[grade_id].replace(right, wrong)
    return answers


# What each student hands in, and the points that are lost.
STUDENTS = {
    "perfect": (solutions, {}),
    "blank": (dict, POINTS),
    "half-right": (
        half_right,
        {"magnitude-change-columns", "direction-change-zeros", "coupling-correlation"}
        | {"add-adapters-frozen", "train-step-numbers", "paired-difference-interval"}
        | {"compare-across-ranks-losses", "track-magnitude-statistics"}
        | {"config-scaling", "state-dora", "accuracy-ragged"}
        | {"scaling-stabilized", "norms-stabilized"},
    ),
}


def answered(lesson, answers):
    """A released notebook with a student's answers in its exercise cells."""
    notebook = nbformat.read(release.NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    return notebook


def nbgrader(folder, *arguments):
    """Call the command line as an instructor would; fail with what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder in which the submissions were graded."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "nbgrader_config.py").write_text((release.ROOT / "nbgrader_config.py").read_text())
    source = folder / "solutions" / "dora"
    source.mkdir(parents=True)
    for lesson in LESSONS:
        path = release.SOLUTIONS / f"{lesson}.ipynb"
        (source / path.name).write_bytes(path.read_bytes())
    nbgrader(folder, "generate_assignment", "dora")
    for student, (answers, _) in STUDENTS.items():
        submission = folder / "grading" / "submitted" / student / "dora"
        submission.mkdir(parents=True)
        for lesson in LESSONS:
            nbformat.write(answered(lesson, answers()), submission / f"{lesson}.ipynb")
    nbgrader(folder, "autograde", "dora")
    return folder


@pytest.fixture
def gradebook(course):
    with Gradebook(f"sqlite:///{course / 'grading' / 'gradebook.db'}") as found:
        yield found


@pytest.mark.parametrize("student", STUDENTS)
def test_marks_of_each_exercise(gradebook, student):
    lost = STUDENTS[student][1]
    expected = {grade_id: 0 if grade_id in lost else p for grade_id, p in POINTS.items()}
    submission = gradebook.find_submission("dora", student)
    grades = {g.name: g for notebook in submission.notebooks for g in notebook.grades}
    assert {name: grade.max_score for name, grade in grades.items()} == POINTS | OPEN
    assert {name: grades[name].auto_score for name in POINTS} == expected
    assert submission.score == sum(expected.values())
    assert submission.max_score == sum((POINTS | OPEN).values())


def test_an_open_answer_waits_for_a_person_and_a_missing_one_gets_nothing(gradebook):
    for student in STUDENTS:
        grade = gradebook.find_grade("plan", "07-rslora-challenge", "dora", student)
        assert grade.needs_manual_grade == (student != "blank")
        assert grade.auto_score == (0 if student == "blank" else None)
        submission = gradebook.find_submission("dora", student)
        assert submission.needs_manual_grade == (student != "blank")


def test_marks_given_by_hand_count(gradebook):
    grade = gradebook.find_grade("plan", "07-rslora-challenge", "dora", "half-right")
    before = gradebook.find_submission("dora", "half-right").score
    grade.manual_score = 2.5
    grade.needs_manual_grade = False
    gradebook.db.commit()
    assert gradebook.find_submission("dora", "half-right").score == before + 2.5


def test_the_marker_sees_the_rubric_and_the_student_does_not(course):
    path = course / "grading" / "autograded" / "perfect" / "dora" / "07-rslora-challenge.ipynb"
    graded = path.read_text()
    released = (course / "notebooks" / "dora" / "07-rslora-challenge.ipynb").read_text()
    for secret in ("For the marker", "Runs that separate the causes"):
        assert secret in graded
        assert secret not in released
    assert ANSWER in graded
    assert "One good answer" not in released
