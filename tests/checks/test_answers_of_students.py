"""Answers of lessons 04 to 07 as students write them: no false mark, no false name, most named."""

import contextlib
import io
import itertools
import time

import pytest
from answers import LATER, answers, cases, of_lessons

from lab_utils import checks
from lab_utils.checks import head_to_head_pairs, head_to_head_step, peft_and_commonsense, rslora
from lab_utils.checks.diagnosis import tell_apart
from lab_utils.checks.values import near

EXERCISES = of_lessons("EXERCISES", LATER)


@pytest.mark.usefixtures("runs_are_made_once")
@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 1))
def test_a_right_answer_passes(check, answer, capsys):
    check(answer)
    captured = capsys.readouterr()
    assert "FAIL" not in captured.out
    assert captured.err == ""


@pytest.mark.usefixtures("runs_are_made_once")
@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 2))
def test_a_wrong_answer_is_told_what_is_so(check, answer, capsys):
    with pytest.raises(checks.CheckFailed) as raised:
        check(answer)
    failure, expected = raised.value, answer.__doc__
    if expected.startswith("unnamed: "):
        assert failure.mistake is None, failure.mistake
        assert str(failure).startswith(expected.removeprefix("unnamed: "))
    else:
        assert failure.mistake is not None, str(failure)
        assert failure.mistake.name == expected
    assert len(str(failure).splitlines()[0]) < 600
    assert capsys.readouterr().err == ""


def test_four_of_five_wrong_answers_are_named():
    wrong = [answer for exercise in EXERCISES.values() for answer in answers(exercise[2])]
    named = [answer for answer in wrong if not answer.__doc__.startswith("unnamed: ")]
    assert len(wrong) > 300
    assert len(named) >= 0.8 * len(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXERCISES)
def test_a_check_takes_less_than_two_seconds(name):
    """Of processor time, once what is the same for every student is there."""
    check, right, _ = EXERCISES[name]
    answer = answers(right)[0]
    took = []
    for _ in range(2):
        started = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            check(answer)
        took.append(time.process_time() - started)
    assert took[1] < 2.0


# Each mistake must give other numbers than every other, for the inputs of the lessons' cells and
# for those of any seed: else a name could be false.
SEEDS = range(40)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "confidence"), [(5, 0.9), (8, 0.9), (3, 0.99), (12, 0.5)])
def test_no_two_mistakes_give_the_same_interval(seeds, confidence):
    for seed in SEEDS:
        drawn = head_to_head_pairs._draw_pairs(seeds, confidence, seed)
        expected = [head_to_head_pairs.interval(c.lora, c.dora, c.level) for c in drawn]
        by_case = zip(*map(head_to_head_pairs.wrong_triples, drawn), strict=True)
        predicted = [(of[0][0], [triple for _, triple in of]) for of in by_case]
        assert tell_apart(expected, predicted, head_to_head_pairs._same_triples)


@pytest.mark.slow
@pytest.mark.parametrize("questions", [15, 31])
@pytest.mark.parametrize("ragged", [False, True])
def test_no_two_mistakes_give_the_same_accuracies(questions, ragged):
    for seed in SEEDS:
        draw = peft_and_commonsense._draw_accuracies(questions, seed, ragged)
        assert tell_apart(*draw[1:])


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "rank"), [(12.0, 9), (5.0, 64)])
def test_no_two_mistakes_give_the_same_scalings(alpha, rank):
    for seed, rule in itertools.product(SEEDS, (False, True)):
        drawn = rslora._draw_scalings(alpha, rank, seed)
        expected = [rslora._scaling(*case, rule) for case in drawn]
        assert tell_apart(expected, rslora._wrong_scalings(drawn, rule))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(16, 4, 64), (6, 32, 128)])
def test_no_two_mistakes_give_the_same_gradient_norms(ranks):
    """Not under both rules: what is the same under one is told apart by the other."""

    def same(one, other):
        return near(one, other, rslora.CLOSE)

    tables = {}
    for rule in (False, True):
        expected = [rslora._measured(rank, rule) for rank in ranks]
        predicted = rslora._wrong_norms(ranks, rule, expected)
        # a norm that is rounded to many digits is right
        tables[rule] = [(m, p) for m, p in predicted if m is not rslora.NORMS_ROUNDED]
        assert not any(same(norms, expected) for _, norms in tables[rule])
    for rule, table in tables.items():
        for (one, norms), (other, others) in itertools.combinations(table, 2):
            if one is not other and same(norms, others):
                again = [
                    [p for m, p in tables[not rule] if m is mistake] for mistake in (one, other)
                ]
                assert not any(same(a, b) for a, b in itertools.product(*again)), (one, other)


@pytest.mark.slow
@pytest.mark.parametrize(("max_norm", "steps"), [(0.5, 3), (0.1, 5), (100.0, 3)])
def test_no_two_mistakes_take_the_same_steps(max_norm, steps):
    trainings = head_to_head_step._draw_trainings(max_norm, steps, seed=0)

    def traces(way):
        return [head_to_head_step._simulate(training, way) for training in trainings]

    def same(one, other):
        parts = ("norm", "loss", "weights")
        return all(head_to_head_step._agree(one, other, part) for part in parts)

    predicted = [(mistake, traces(way)) for mistake, way in head_to_head_step.WRONG_WAYS]
    assert tell_apart(traces(head_to_head_step.RIGHT), predicted, same)
