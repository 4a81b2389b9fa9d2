"""What the exercises from lesson 04 on say is asked: each sentence has answers that break it."""

import re
from pathlib import Path

import pytest
from answers import LATER, of_lessons

from lab_utils import checks

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
EXERCISES = of_lessons("EXERCISES", LATER)
BROKEN_BY = of_lessons("BROKEN_BY", LATER)


def texts():
    """The text of each exercise, up to its solution, in one line."""
    for path in sorted(SOLUTIONS.glob("[0-9][0-9]-*.py")):
        parts = re.split(r"^# ### Exercise \d: `(\w+)`", path.read_text(), flags=re.M)[1:]
        for name, part in zip(parts[::2], parts[1::2], strict=True):
            yield name, " ".join(part.replace("\n# ", " ").split())


TEXTS = dict(texts())


def test_no_exercise_is_left_out():
    assert TEXTS.keys() == of_lessons("EXERCISES").keys() == of_lessons("BROKEN_BY").keys()


@pytest.mark.parametrize("exercise", BROKEN_BY)
def test_each_sentence_stands_in_the_lesson(exercise):
    for words in BROKEN_BY[exercise]:
        assert words in TEXTS[exercise], words


@pytest.mark.slow
@pytest.mark.parametrize("exercise", BROKEN_BY)
def test_what_breaks_a_sentence_fails_where_it_is_asked(exercise):
    check, _, wrong = EXERCISES[exercise]
    for words, (aspect, names) in BROKEN_BY[exercise].items():
        for name in names.split():
            try:
                check(getattr(wrong, name), aspect)
            except checks.CheckFailed:
                continue
            pytest.fail(f"{name} passes {aspect}, and breaks “{words}”")
