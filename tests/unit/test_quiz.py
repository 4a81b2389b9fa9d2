""" "Which mistake is this?": what one predicts, what a check finds, and when code shows."""

import pytest
from ipywidgets import HTML, Dropdown

from lab_utils import checks, decomposition, quiz
from lab_utils.checks import report

LESSONS = sorted(path.stem for path in quiz.VERSIONS.glob("*.py"))


@pytest.fixture(autouse=True)
def nothing_passed_yet(monkeypatch):
    monkeypatch.setattr(report, "_passed", set())


def decompose(weight, norm_dim=1, eps=1e-8):
    """A right answer, which calls nothing of the lab's."""
    magnitude = weight.norm(dim=norm_dim, keepdim=True)
    return magnitude, weight / magnitude.clamp_min(eps)


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_version_is_told_in_words_and_not_in_code(lesson):
    made = quiz.which_mistake(lesson)
    assert len(made.questions) >= 3
    page = made._repr_mimebundle_()["text/html"]
    for question in made.questions:
        assert question.tells.endswith(".")
        assert question.finding == quiz.NOTHING or question.answer in question.finding
        body = [line.strip() for line in question.source.splitlines()[1:] if "return" in line]
        assert body or "class" in question.source
        assert not any(line in page + repr(made) for line in body)


def test_a_prediction_is_compared_with_the_finding():
    made = quiz.which_mistake("mathematics")
    choice = next(child for child in made.children if isinstance(child, Dropdown))
    said = next(c for c in made.children[made.children.index(choice) :] if isinstance(c, HTML))
    assert said.value == ""
    choice.value = quiz.NOTHING
    assert "Not what you predicted" in said.value and "expected shape" in said.value
    choice.value = "norm over the wrong axis"
    assert "As you predicted" in said.value
    assert "keepdim" not in said.value, "the code is not shown before the student's own has passed"
    checks.check_decompose(decompose)
    choice.value = quiz.PREDICT
    assert said.value == ""
    choice.value = "norm over the wrong axis"
    assert "1 - norm_dim, keepdim=True" in said.value


def test_a_version_that_passes_in_a_quiz_passes_for_nobody():
    quiz.which_mistake("mathematics")
    assert not report.passed("decompose", ["rows"])


def test_code_shows_once_every_aspect_has_passed():
    code = quiz.Code(decomposition.decompose, "decompose", ["rows", "columns"])
    checks.check_decompose(decompose, "rows")
    assert "once the checks of decompose have passed" in code._repr_html_()
    with pytest.raises(checks.CheckFailed):
        checks.check_decompose(lambda weight, **_: (weight, weight), "columns")
    assert "return" not in repr(code)
    checks.check_decompose(decompose, "columns")
    assert "def decompose" in repr(code) and "def decompose" in code._repr_html_()


def test_a_version_is_no_way_out_of_an_exercise():
    import lab_utils.mistakes.mathematics as versions

    with pytest.raises(checks.CheckFailed, match="which is the reference"):
        checks.check_decompose(versions.root_of_the_sum, "rows")
