"""What lessons 04, 05 and 07 report, held against runs of seeds that had no part in it."""

import numpy as np
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
    "pair", again.PAIRS, ids=lambda pair: f"{pair[1].adapter_type}-{pair[1].rank}"
)
def test_a_difference_is_found_again(pair):
    """The mean of the new seeds is within the interval that is for another four seeds."""
    before = [reported(search.of_arm(BEFORE, arm)) for arm in pair]
    gaps = np.subtract(*([run["test_loss"] for run in runs] for runs in before[::-1]))
    new = paired_difference(*(search.of_arm(AGAIN, arm) for arm in pair))
    spread = gaps.std(ddof=1) * np.sqrt(1 / len(gaps) + 1 / new.seeds)
    allowed = stats.t.ppf(0.995, len(gaps) - 1) * spread
    assert abs(new.mean - gaps.mean()) < allowed
    assert np.sign(new.mean) == np.sign(gaps.mean())


def gap(other, rank=8):
    (pair,) = (p for p in again.PAIRS if (p[1].adapter_type, p[1].rank) == (other, rank))
    return paired_difference(*(search.of_arm(AGAIN, arm) for arm in pair))


def test_lesson_05_says_what_the_new_seeds_say():
    lines = (release.SOLUTIONS / "05-rank-and-magnitude.py").read_text("utf-8").splitlines()
    text = " ".join(line.removeprefix("# ").strip() for line in lines)
    assert "Four seeds that" in text and len(again.SEEDS) == 4
    assert "DoRA is below LoRA at every rank again" in text
    assert all(gap("dora", rank).mean < 0 for rank in again.RANKS)
    assert "Of these 95% intervals, only that of rank 32 contains zero" in text
    assert [rank for rank in again.RANKS if gap("dora", rank).high > 0] == [32]
    losses = {
        method: [[run["test_loss"] for run in search.of_arm(AGAIN, arm)] for arm in arms]
        for method, arms in (("lora", again.LORA), ("dora", again.DORA))
    }
    gaps = np.array(losses["dora"]) - np.array(losses["lora"])
    assert "decided from rank 4, not decided from rank 8" in text
    for first, decided in ((0, True), (1, False)):
        slopes = np.polyfit(np.log2(again.RANKS[first:]), gaps[first:], 1)[0]
        assert (stats.ttest_1samp(slopes, 0).pvalue < 0.05) == decided and slopes.mean() > 0
    before = [
        [
            np.subtract(*(r["test_loss"] for r in pair))
            for pair in zip(*(reported(search.of_arm(BEFORE, arm)) for arm in arms), strict=True)
        ]
        for arms in zip(again.DORA, again.LORA, strict=True)
    ]
    together = np.concatenate([before, gaps], axis=1)
    assert together.shape == (5, 14)
    at_32 = stats.ttest_1samp(together[again.RANKS.index(32)], 0).confidence_interval(0.99)
    assert (
        f"({-together[3].mean():.4f}, 99% interval {-at_32.high:.4f} to {-at_32.low:.4f})" in text
    )
    slopes = np.polyfit(np.log2(again.RANKS[1:]), together[1:], 1)[0]
    ends = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    said = f"(by {slopes.mean():.4f} for each doubling, {ends.low:.4f} to {ends.high:.4f})"
    assert said in text


def test_what_ends_lower_ends_lower_again_and_what_was_not_decided_is_not():
    assert all(gap("dora", rank).high < 0 for rank in (4, 8, 16, 64))
    assert gap("dora", 32).low < 0 < gap("dora", 32).high
    assert gap("dora-input").high < 0 and gap("lora-scaled").high < 0
    assert gap("dora-fixed").low < 0 < gap("dora-fixed").high
    assert gap("full", None).high < -0.14
    assert gap("dora-full").low < 0 < gap("dora-full").high
    lines = (release.SOLUTIONS / "05-rank-and-magnitude.py").read_text("utf-8").splitlines()
    text = " ".join(line.removeprefix("# ").strip() for line in lines)
    assert f"The full gradient ends {-gap('dora-full').mean:.4f} below DoRA" in text
    alone = gap("lora-scaled")
    assert f"`m` alone ends lower than LoRA, by {-alone.mean:.4f}, and lower than the norm" in text
    fixed, scaled = (
        search.of_arm(AGAIN, pair[1])
        for kind in ("dora-fixed", "lora-scaled")
        for pair in again.PAIRS
        if pair[1].adapter_type == kind
    )
    assert paired_difference(fixed, scaled).high < 0


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
