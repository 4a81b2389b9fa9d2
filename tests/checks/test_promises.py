"""What the exercises of lessons 01 to 03 promise is asked: each sentence has answers that break it.

The sentences are the lists under “What must hold” in the lessons. A new one needs its line in
`BROKEN_BY`, beside the answers.
"""

import re
from pathlib import Path

import pytest
from answers import EARLY, of_lessons

from lab_utils import checks

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
EXERCISES = of_lessons("EXERCISES", EARLY)
BROKEN_BY = of_lessons("BROKEN_BY", EARLY)


def promises(text):
    """The sentences under “What must hold” of each exercise, in the text of a lesson."""
    exercises = re.split(r"^# ### Exercise \d: `(\w+)`", text, flags=re.M)[1:]
    for name, part in zip(exercises[::2], exercises[1::2], strict=True):
        lines = part.split("\n# %% nbgrader")[0].splitlines()
        start = next(i for i, line in enumerate(lines) if "What must hold" in line)
        after = lines[start + 1 :]
        bullets = []
        for line in after:
            if line.startswith("# - "):
                bullets.append(line[4:])
            elif bullets and not line.startswith("#   "):
                break
        yield name, bullets


PROMISES = {
    name: sentences
    for path in sorted(SOLUTIONS.glob("0[123]-*.py"))
    for name, sentences in promises(path.read_text())
}


def test_each_exercise_says_what_holds():
    assert PROMISES.keys() == BROKEN_BY.keys() == EXERCISES.keys()


@pytest.mark.parametrize("name", BROKEN_BY)
def test_each_sentence_has_answers_that_break_it(name):
    beginnings = list(BROKEN_BY[name])
    for sentence in PROMISES[name]:
        assert any(sentence.startswith(beginning) for beginning in beginnings), sentence
    for beginning in beginnings:
        assert any(sentence.startswith(beginning) for sentence in PROMISES[name]), beginning


@pytest.mark.parametrize(
    ("name", "beginning", "answer"),
    [
        (name, beginning, answer)
        for name, sentences in BROKEN_BY.items()
        for beginning, answers in sentences.items()
        for answer in answers.split()
    ],
)
def test_what_breaks_it_fails(name, beginning, answer):
    check, _, wrong = EXERCISES[name]
    with pytest.raises(checks.CheckFailed):
        check(getattr(wrong, answer))
