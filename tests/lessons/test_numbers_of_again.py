"""What lessons 04, 05 and 07 report, held against runs of seeds that had no part in it."""

from itertools import pairwise

import numpy as np
import prose
import pytest
import release
from scipy import stats

from benchmarks import again, rslora, search
from lab_utils.comparison import (
    RESULTS,
    SETTINGS,
    paired_difference,
    read_results,
    reported,
    select,
)

BEFORE = read_results(RESULTS / "head-to-head.jsonl") + read_results(RESULTS / "ablations.jsonl")
AGAIN = read_results(RESULTS / "again.jsonl")


def test_the_seeds_are_new_and_the_rates_are_those_that_were_reported():
    used = {record["seed"] for record in BEFORE}
    for arm in again.ARMS:
        records = search.of_arm(AGAIN, arm)
        assert [record["seed"] for record in records] == list(again.SEEDS)
        assert not used.intersection(again.SEEDS)
        rates = {record["learning_rate"] for record in records}
        assert rates == {reported(search.of_arm(BEFORE, arm))[0]["learning_rate"]}


@pytest.mark.parametrize(
    "pair",
    again.PAIRS,
    ids=lambda pair: f"{pair[1].adapter_type}-{pair[1].rank}-{pair[1].targets}",
)
def test_a_difference_is_found_again(pair):
    """The mean of the new seeds is within the interval that is for another mean of as many."""
    before = [reported(search.of_arm(BEFORE, arm)) for arm in pair]
    gaps = np.subtract(*([run["test_loss"] for run in runs] for runs in before[::-1]))
    new = paired_difference(*(search.of_arm(AGAIN, arm) for arm in pair))
    spread = gaps.std(ddof=1) * np.sqrt(1 / len(gaps) + 1 / new.seeds)
    allowed = stats.t.ppf(0.995, len(gaps) - 1) * spread
    assert abs(new.mean - gaps.mean()) < allowed
    assert np.sign(new.mean) == np.sign(gaps.mean())


def arm(method, rank=8, targets=None):
    """The arm of a method that is trained again."""
    (found,) = {
        one
        for one in again.ARMS
        if (one.adapter_type, one.rank, one.targets) == (method, rank, targets)
    }
    return found


def losses(method, rank=8, targets=None, key="test_loss"):
    """What the new seeds ended at, in the order of the seeds."""
    return np.array([run[key] for run in search.of_arm(AGAIN, arm(method, rank, targets))])


def with_the_mlp(key="test_loss"):
    """DoRA minus LoRA where the MLP is adapted too."""
    return losses("dora", targets="all", key=key) - losses("lora", targets="all", key=key)


def parts(key="test_loss"):
    """The nine differences that lesson 05 takes DoRA apart by."""
    dora, lora, fixed, alone, full, per_input = (
        losses(method, key=key)
        for method in ("dora", "lora", "dora-fixed", "lora-scaled", "dora-full", "dora-input")
    )
    return {
        "DoRA": dora - lora,
        "norm alone": fixed - lora,
        "m alone": alone - lora,
        "m alone minus DoRA": alone - dora,
        "m alone minus norm alone": alone - fixed,
        "full gradient": full - dora,
        "norm_dim=0": per_input - dora,
        "MLP": with_the_mlp(key),
        "change by the MLP": with_the_mlp(key) - (dora - lora),
    }


def undecided(differences, level):
    return {name for name, values in differences.items() if p_value(values) > level}


def over_ranks(key="test_loss"):
    """DoRA minus LoRA, (ranks, seeds)."""
    return np.array([losses("dora", r, key=key) - losses("lora", r, key=key) for r in again.RANKS])


def p_value(differences):
    return stats.ttest_1samp(differences, 0).pvalue


def ends(differences, confidence=0.95):
    return stats.ttest_1samp(differences, 0).confidence_interval(confidence)


LESSON = prose.text_of(release.SOLUTIONS / "05-rank-and-magnitude.py")
README = prose.text_of(prose.README)


def test_dora_is_below_lora_at_every_rank_and_less_so_as_the_rank_grows():
    gaps = over_ranks()
    assert "Twenty seeds that" in LESSON and gaps.shape == (5, 20)
    assert "DoRA is below LoRA at every rank again, and now all five intervals exclude" in LESSON
    assert "Twenty more seeds find the gap at each of the five ranks, and find that it" in README
    assert all(ends(of_rank, 0.99).high < 0 for of_rank in gaps)
    for first in (0, 1):
        slopes = np.polyfit(np.log2(again.RANKS[first:]), gaps[first:], 1)[0]
        assert ends(slopes).low > 0
        assert f"shrinks by {slopes.mean():.4f} for each doubling of the rank" in LESSON


def test_the_gap_is_largest_at_rank_4():
    shares = [
        -100 * (g / losses("lora", r)).mean()
        for g, r in zip(over_ranks(), again.RANKS, strict=True)
    ]
    assert shares.index(max(shares)) == 0
    prose.said(
        "06-peft-and-commonsense",
        f"0.8% of the loss ({shares[0]:.1f}% with other seeds, lesson 05)",
    )


def test_the_seeds_that_ran_after_the_plan_decide_the_same():
    assert "the sixteen others alone decide the same" in LESSON
    gaps = over_ranks()[:, 4:]
    assert gaps.shape == (5, 16) and all(ends(of_rank, 0.99).high < 0 for of_rank in gaps)
    for first in (0, 1):
        assert ends(np.polyfit(np.log2(again.RANKS[first:]), gaps[first:], 1)[0]).low > 0
    dora, full = losses("dora"), losses("dora-full")
    change = with_the_mlp() - (dora - losses("lora"))
    for decided in ((dora - full)[4:], change[4:], (losses("lora") - losses("lora-scaled"))[4:]):
        assert ends(decided, 1 - 0.05 / 9).low > 0


def test_dora_at_half_the_rank_of_lora_does_not_reach_it():
    gaps = {high: losses("dora", low) - losses("lora", high) for low, high in pairwise(again.RANKS)}
    for high in (8, 16, 32):
        assert ends(gaps[high], 1 - 0.05 / 4).low > 0
    assert f"twenty put it {gaps[64].mean():.4f} higher, though not when corrected" in LESSON
    assert 0.05 / 4 < p_value(gaps[64]) < 0.05


def test_the_parts_of_dora_found_again():
    dora, lora, fixed, alone = map(losses, ("dora", "lora", "dora-fixed", "lora-scaled"))
    either = ends(alone - dora)
    assert f"to within {max(-either.low, either.high):.4f} either way" in LESSON
    assert either.low < 0 < either.high
    norm = ends(fixed - lora)
    assert f"the norm alone is worth {-norm.low:.4f} at most, a quarter of the gain" in LESSON
    assert norm.low / (dora - lora).mean() == pytest.approx(1 / 4, abs=0.01) and norm.high > 0
    assert "gives a tenth of the gain in those seeds" in README
    assert (fixed - lora).mean() / (dora - lora).mean() == pytest.approx(0.1, abs=0.01)
    detached = dora - losses("dora-full")
    assert f"detaching the norm costs {detached.mean():.4f}, more than half of what" in LESSON
    assert detached.mean() > (lora - dora).mean() / 2
    with_mlp = with_the_mlp()
    change = with_mlp - (dora - lora)
    assert f"smaller by {change.mean():.4f}, which leaves {-with_mlp.mean():.4f}, not" in LESSON
    per_input = losses("dora-input") - dora
    assert f"One magnitude per input may cost {per_input.mean():.4f}." in LESSON
    assert "Corrected for all nine lines, that one is not decided" in LESSON
    open_ones = {"norm alone", "m alone minus DoRA", "MLP"}
    assert len(parts()) == 9 and undecided(parts(), 0.05) == open_ones
    assert undecided(parts(), 0.05 / 9) == open_ones | {"norm_dim=0"}


def test_the_validation_text_gives_the_same_verdicts_with_two_exceptions():
    gaps = over_ranks("validation_loss")
    assert "except at rank 64, where the interval just reaches zero" in LESSON
    highest = [ends(of_rank, 0.99).high for of_rank in gaps]
    assert max(highest[:-1]) < 0 < highest[-1] < 0.0001
    for first in (0, 1):
        assert ends(np.polyfit(np.log2(again.RANKS[first:]), gaps[first:], 1)[0]).low > 0
    half = losses("dora", 32, key="validation_loss") - losses("lora", 64, key="validation_loss")
    assert f"On the validation text it is {half.mean():.4f} higher, corrected or not" in LESSON
    assert ends(half, 1 - 0.05 / 4).low > 0
    found = parts("validation_loss")
    assert "gives the same verdicts, except with the MLP" in LESSON
    assert f"there {found['change by the MLP'].mean():.4f} of the gain is lost and" in LESSON
    assert f"{-found['MLP'].mean():.4f} is left, both decided" in LESSON
    for level in (0.05, 0.05 / 9):
        assert undecided(found, level) == undecided(parts(), level) - {"MLP"}
    for name, differences in parts().items():
        assert name in undecided(parts(), 0.05) or (
            np.sign(differences.mean()) == np.sign(found[name].mean())
        )


def test_what_rank_4_and_the_full_gradient_say_of_the_training_text():
    at_4, *at_others = over_ranks("train_loss")
    assert "at rank 4, where LoRA has the higher rate, it is not above)" in LESSON
    assert at_4.mean() < 0 and all(ends(of_rank).low > 0 for of_rank in at_others)
    lora, dora = (search.of_arm(AGAIN, arm(method, 4))[0] for method in ("lora", "dora"))
    assert lora["learning_rate"] > dora["learning_rate"], "where LoRA has the higher rate"
    full = losses("dora-full", key="train_loss") - losses("lora", key="train_loss")
    assert ends(full).low < 0 < ends(full).high and max(-ends(full).low, ends(full).high) < 0.0034
    fixed = losses("dora-fixed", key="train_loss") - losses("lora", key="train_loss")
    assert ends(fixed).low > 0.02, "the detached norm fits less"


def test_what_lesson_04_says_of_them():
    lesson_04 = prose.text_of(release.SOLUTIONS / "04-head-to-head.py")
    before = [reported(search.of_arm(BEFORE, arm(method))) for method in ("dora", "dora-input")]
    first = np.subtract(*([run["test_loss"] for run in runs] for runs in before[::-1]))
    for per_input in (first, losses("dora-input") - losses("dora")):
        assert max(-ends(per_input).low, ends(per_input).high) < 0.00415
    assert "differ by 0.004 at most (lesson 05 has twenty more seeds)" in lesson_04
    forgotten = over_ranks("reference_loss")
    assert f"and by {forgotten.mean():.3f} in the twenty other seeds there" in lesson_04
    assert ends(forgotten.mean(axis=0)).low > 0


RSLORA = read_results(RESULTS / "rslora.jsonl")
RSLORA_AGAIN = read_results(RESULTS / "rslora-again.jsonl")


def rules(records, method, rank):
    """The runs under the usual and under the rank-stabilised rule, at one rate and alpha."""
    return [
        select(
            records,
            adapter_type=method,
            rank=rank,
            rank_stabilized=stabilized,
            alpha=rslora.ALPHA,
            learning_rate=5e-3,
        )
        for stabilized in (False, True)
    ]


def test_the_seeds_of_lesson_07_are_new():
    wanted = rslora.at_one_rate((4, 64), rslora.AGAIN)
    found = [tuple(record[name] for name in SETTINGS) for record in RSLORA_AGAIN]
    assert sorted(found, key=str) == sorted((tuple(vars(run).values()) for run in wanted), key=str)
    assert not {record["seed"] for record in RSLORA}.intersection(rslora.AGAIN)


@pytest.mark.parametrize(("method", "rank"), [("lora", 4), ("lora", 64), ("dora", 64)])
def test_the_lead_of_the_stabilised_rule_is_found_again(method, rank):
    before = [[run for run in found if run["seed"] < 9] for found in rules(RSLORA, method, rank)]
    first = paired_difference(*before)
    again_ = paired_difference(*rules(RSLORA_AGAIN, method, rank))
    assert (first.seeds, again_.seeds) == (9, 3)
    assert first.high < 0 and again_.high < 0
    assert again_.mean / first.mean == pytest.approx(0.5 if rank == 4 else 0.9, abs=0.1)
