"""What lessons 03 to 05 say about the committed runs is what those runs show."""

import re
import statistics
from itertools import pairwise, product

import nbformat
import numpy as np
import pytest
import release
import torch
from prose import README, said, text_of
from safetensors.torch import load_file
from scipy import stats

from benchmarks import ablations, head_to_head, search, weight_changes
from lab_utils import comparison
from lab_utils.adapters import NAMES
from lab_utils.comparison import (
    RESULTS,
    choose_learning_rate,
    of_the_search,
    paired_difference,
    reported,
    select,
)
from lab_utils.decomposition import coupling, intruders
from lab_utils.models import load_pretrained
from lab_utils.training import train_and_evaluate
from lab_utils.widgets import RECORDED_LAYER

HEAD_TO_HEAD = comparison.read_results(RESULTS / "head-to-head.jsonl")
ABLATIONS = comparison.read_results(RESULTS / "ablations.jsonl")
WEIGHT_CHANGES = comparison.read_results(RESULTS / "weight-changes.jsonl")
AGAIN = comparison.read_results(RESULTS / "weight-changes-again.jsonl")
PAPER = {"full": -0.62, "lora": +0.83, "dora": -0.31}


def arm(method, rank=8, targets=None):
    rank = None if method == "full" else rank
    return select(HEAD_TO_HEAD, adapter_type=method, rank=rank, targets=targets)


def chosen(method, rank=8, targets=None):
    """The reported runs."""
    return reported(arm(method, rank, targets))


def ablated(method, targets=None, alpha=16.0, max_norm=1.0):
    settings = {"targets": targets, "alpha": alpha, "max_norm": max_norm}
    return reported(select(ABLATIONS, adapter_type=method, **settings))


def mean(runs, key="test_loss"):
    return statistics.fmean(run[key] for run in runs)


def mean_at(method, rate, key, rank=8):
    runs = select(of_the_search(arm(method, rank)), learning_rate=rate)
    assert len(runs) == 5
    return mean(runs, key)


def gap(*pair, **how):
    """The difference and the ends of its interval, in words of the lessons."""
    found = paired_difference(*pair, **how)
    return found, *(f"{value:+.4f}" for value in (found.mean, found.low, found.high))


@pytest.mark.parametrize(
    ("records", "arms", "first", "choosing"),
    [
        (
            HEAD_TO_HEAD,
            head_to_head.COMPARED + head_to_head.CONTROLS,
            head_to_head.FIRST,
            search.CHOOSING,
        ),
        (ABLATIONS, ablations.ARMS, ablations.FIRST, ablations.CHOOSING),
    ],
    ids=["head-to-head", "ablations"],
)
def test_every_search_is_finished_and_every_record_is_of_one(records, arms, first, choosing):
    for of_arm in arms:
        assert search.next_runs(of_arm, records, first[of_arm], choosing) == []
        runs = reported(search.of_arm(records, of_arm))
        assert [run["seed"] for run in runs] == list(search.REPORTING)
    assert len(records) == sum(len(search.of_arm(records, of_arm)) for of_arm in arms)


def test_there_is_something_to_learn_and_rank_matters():
    base = HEAD_TO_HEAD[0]["validation_losses"][0]
    assert mean(chosen("full"), "validation_loss") < base - 0.8
    for method in ("lora", "dora", "dora-input"):
        by_rank = [mean(chosen(method, rank)) for rank in head_to_head.RANKS]
        assert by_rank == sorted(by_rank, reverse=True)
        assert by_rank[0] - by_rank[-1] > 0.07, "more than between any two methods of a rank"


def test_every_run_of_a_seed_is_paired():
    for seed in (*search.CHOOSING, *search.REPORTING):
        runs = select(HEAD_TO_HEAD + ABLATIONS, seed=seed)
        assert len({run["pairing"]["base"] for run in runs}) == 1
        assert len({run["pairing"]["batches"] for run in runs}) == 1
        for rank in (*head_to_head.RANKS, 64):
            adapted = [run for run in select(runs, rank=rank) if run["targets"] is None]
            assert len({run["pairing"]["lora_A"] for run in adapted}) == 1


def test_a_run_made_again_goes_as_the_committed_one_did():
    """DoRA on this machine, for 84 of its 279 steps: the first 7 of the 24 means that are kept."""
    committed = chosen("dora")[0]
    losses = []

    class Enough(Exception):
        pass

    def stop(step, model, loss):
        losses.append(loss)
        if step == 84:
            raise Enough

    with pytest.raises(Enough):
        settings = {name: committed[name] for name in comparison.SETTINGS}
        train_and_evaluate(verbose=False, on_step=stop, **settings)
    means = [statistics.fmean(losses[i : i + 12]) for i in range(1, 84, 12)]
    assert means == pytest.approx(committed["step_losses"][:7], abs=0.01)
    assert means[0] - means[-1] > 0.1, "it learned nothing that could differ"


# ---- lesson 03


def points(method, seed, kind):
    run = select(WEIGHT_CHANGES + AGAIN, adapter_type=method, seed=seed)[0]
    return [point for point in run["changes"] if point["layer"].endswith(kind)]


def seeds(of):
    return sorted({run["seed"] for run in of})


def correlation(found):
    return coupling([p["delta_m"] for p in found], [p["delta_d"] for p in found])


def pooled(method, kind, random=False, of=WEIGHT_CHANGES):
    of_seeds = [points(method, seed, kind) for seed in seeds(of)]
    if random:
        of_seeds = [[point["random"] for point in found] for found in of_seeds]
    return statistics.fmean(map(correlation, of_seeds))


def grouped(method, kind, key, random=False, of=WEIGHT_CHANGES):
    return statistics.fmean(
        correlation(
            [p["random"] if random else p for p in points(method, seed, kind) if p[key] == group]
        )
        for seed in seeds(of)
        for group in {p[key] for p in points(method, seed, kind)}
    )


def test_lesson_03_correlations():
    ours = {method: f"{pooled(method, 'q_proj'):+.2f}" for method in PAPER}
    said(
        "03-decomposition",
        f"{ours['full']} for full fine-tuning, {ours['lora']} for LoRA, {ours['dora']} for DoRA",
    )
    random = {m: pooled(m, "q_proj", random=True) for m in PAPER}
    low, high = min(random.values()), max(random.values())
    said("03-decomposition", f"Random updates get {low:+.2f} to {high:+.2f}")
    assert abs(pooled("lora", "q_proj") - random["lora"]) < 0.02, "chance's"
    within = grouped("dora", "q_proj", "layer")
    assert pooled("dora", "q_proj") < random["dora"] - 0.05 and within < 0.6
    for seed in seeds(WEIGHT_CHANGES + AGAIN):
        found = points("dora", seed, "q_proj")
        assert correlation(found) < correlation([point["random"] for point in found])
    by_chance = grouped("dora", "q_proj", "layer", random=True)
    again = grouped("dora", "q_proj", "layer", of=AGAIN)
    said(
        "03-decomposition",
        f"DoRA's correlation is {within:+.2f} with the first five seeds and {again:+.2f} with the",
        f"(chance: {by_chance:+.2f} and {grouped('dora', 'q_proj', 'layer', True, of=AGAIN):+.2f})",
    )
    value = (grouped("full", "v_proj", "layer"), grouped("full", "v_proj", "step"))
    said(
        "03-decomposition",
        f"within a layer is {value[0]:+.2f} and that across layers {value[1]:+.2f}",
        f"makes {pooled('full', 'v_proj'):+.2f}",
    )


def test_lesson_03_what_other_seeds_keep():
    assert seeds(AGAIN) == list(weight_changes.AGAIN)
    assert not {run["seed"] for run in HEAD_TO_HEAD}.intersection(seeds(AGAIN))
    rates = {(run["adapter_type"], run["learning_rate"]) for run in WEIGHT_CHANGES}
    assert {(run["adapter_type"], run["learning_rate"]) for run in AGAIN} == rates
    for method in PAPER:
        first, others = pooled(method, "q_proj"), pooled(method, "q_proj", of=AGAIN)
        assert abs(first - others) < 0.01, "to 0.01"
    first, others = pooled("dora", "v_proj"), pooled("dora", "v_proj", of=AGAIN)
    said("03-decomposition", f"its pooled one falls from {first:+.2f} to {others:+.2f}")


def at_the_end(method, kind="proj", of=WEIGHT_CHANGES):
    found = [p for seed in seeds(of) for p in points(method, seed, kind)]
    last = max(p["step"] for p in found)
    return [p for p in found if p["step"] == last]


@pytest.mark.parametrize("of", [WEIGHT_CHANGES, AGAIN], ids=["reported", "again"])
def test_lesson_03_how_many_rows_became_shorter(of):
    longer = {m: statistics.fmean(p["longer"] for p in at_the_end(m, of=of)) for m in PAPER}
    random = {
        m: statistics.fmean(p["random"]["longer"] for p in at_the_end(m, of=of)) for m in PAPER
    }
    assert longer["lora"] > 0.95 and random["lora"] > 0.95
    assert longer["dora"] == pytest.approx(0.5, abs=0.05), "about half"
    assert round(random["dora"], 2) == 0.98, "chance shortens 2%"
    said(
        "03-decomposition",
        f"Full fine-tuning lies between: {1 - longer['full']:.0%}",
        f"where chance shortens {1 - random['full']:.0%}",
    )
    for point in at_the_end("lora", of=of):
        assert point["delta_m"] == pytest.approx(point["random"]["delta_m"], rel=0.25)


def test_lesson_03_lora_changes_lengths_a_little_less_than_chance():
    less = []
    for kind in ("q_proj", "k_proj", "v_proj", "o_proj"):
        found = at_the_end("lora", kind, of=WEIGHT_CHANGES + AGAIN)
        moved, random = (
            statistics.fmean(p["delta_m"] for p in of)
            for of in (found, [p["random"] for p in found])
        )
        less.append(100 * (1 - moved / random))
    said("03-decomposition", f"({min(less):.0f} to {max(less):.0f}% less, depending on the kind of")


def test_lesson_03_the_null_model():
    first = min(p["step"] for p in points("full", 0, "q_proj"))
    early = [p for s in range(5) for p in points("full", s, "proj") if p["step"] == first]
    shorter = 1 - statistics.fmean(p["random"]["longer"] for p in early)
    assert 0.22 < shorter < 0.33, "about a quarter to a third"


def test_lesson_03_magnitudes_of_dora_stay_in_a_narrow_band():
    def spread(method, key):
        values = [p[key] for seed in range(5) for p in points(method, seed, "q_proj")]
        return max(values) / min(values)

    assert spread("dora", "delta_m") < 2
    assert spread("dora", "delta_d") > 5
    assert spread("lora", "delta_m") > 5


def test_lesson_03_lora_makes_rows_longer_and_dora_does_not():
    recorded = load_file(RESULTS / "one-layer.safetensors")
    weight = load_pretrained().get_submodule(RECORDED_LAYER).weight.detach()
    assert weight_changes.LAYER == RECORDED_LAYER
    last = max(int(key.split("/")[2]) for key in recorded)
    grown = {"lora": [], "dora": []}
    for rank in weight_changes.RANKS:
        lora = f"lora/{rank}/{last}"
        merged = weight + 2 * recorded[f"{lora}/lora_B"] @ recorded[f"{lora}/lora_A"]
        after = {"lora": merged.norm(dim=1)}
        after["dora"] = recorded[f"dora/{rank}/{last}/magnitude"].flatten()
        for method, lengths in after.items():
            grown[method].append((lengths > weight.norm(dim=1)).float().mean().item())
    assert min(grown["lora"]) > 0.95
    assert (round(min(grown["dora"]), 2), round(max(grown["dora"]), 2)) == (0.33, 0.44)
    said(
        "03-decomposition",
        "95% or more at every rank, close to the line; with DoRA fewer than half",
    )
    said("03-decomposition", "33 to 44%")


def test_lesson_03_what_its_own_training_shows():
    """What the lesson says of one pass over the data, and what it printed below the picture."""
    path = release.SOLUTIONS / "03-decomposition.ipynb"
    (shown,) = (c for c in nbformat.read(path, 4).cells if "plots.weight_changes(" in c.source)
    printed = "".join(output.get("text", "") for output in shown.outputs)
    line = r"(.+): (\d+)% of the rows became longer; no entry moved by more than ([\d.]+)"
    found = {name: (int(grown), float(moved)) for name, grown, moved in re.findall(line, printed)}
    full, lora, dora = (found[NAMES[method]] for method in PAPER)
    assert lora[0] > 90 and full[0] < 50 and dora[0] < 50
    assert 4 < lora[1] / full[1] < 7 and 4 < dora[1] / full[1] < 7
    said("03-decomposition", "LoRA made nearly every row longer", "are about five times")


# ---- lesson 04


def test_lesson_04_rates():
    rates = {m: chosen(m)[0]["learning_rate"] for m in ("lora", "dora", "dora-input", "full")}
    assert rates == {"lora": 0.012, "dora": 0.012, "dora-input": 0.012, "full": 0.0013}
    said("04-head-to-head", 'RATES = {"lora": 0.012, "dora": 0.012}')
    difference = mean_at("dora", 0.03, "validation_loss") - mean_at("lora", 0.03, "validation_loss")
    assert round(difference, 1) == -1.2
    said("04-head-to-head", '"advantage of DoRA" (-1.2)')
    assert mean_at("lora", 0.03, "validation_loss") > 2.40, "worse than the base: it diverged"
    assert mean_at("dora", 0.03, "validation_loss") < 1.75
    best = [mean_at(method, 0.012, "validation_loss") for method in ("lora", "dora")]
    assert abs(best[0] - best[1]) < 0.01
    for method in ("lora", "dora"):
        assert mean_at(method, 0.0003, "validation_loss") - min(best) > 0.2
    curves = {
        method: comparison.learning_rate_curve(of_the_search(arm(method)), "validation_loss")
        for method in ("lora", "dora")
    }
    spans = {
        method: max(map(statistics.fmean, by_rate.values())) - best_of
        for (method, by_rate), best_of in zip(curves.items(), best, strict=True)
    }
    assert spans["dora"] == pytest.approx(0.25, abs=0.01) and spans["lora"] > 1
    said("04-head-to-head", "DoRA's best and worst rates are a quarter of a nat apart")
    assert min(curves["lora"][0.03]) > 2.40, "LoRA diverged with all five seeds"


def test_lesson_04_the_coarse_grid_made_more_than_half_of_a_gap():
    rates = {"lora": 0.005, "dora": 0.012}
    coarse = {m: select(of_the_search(arm(m, 16)), learning_rate=r) for m, r in rates.items()}
    fine = {m: select(of_the_search(arm(m, 16)), learning_rate=0.0077) for m in rates}
    before, after = (paired_difference(f["lora"], f["dora"]).mean for f in (coarse, fine))
    assert before < after < 0 and after > before / 2


def test_lesson_04_a_rate_of_0_03_at_other_ranks():
    said(
        "04-head-to-head",
        "at rank 8 DoRA tolerates higher rates than LoRA. (At ranks 16 and 32 that",
    )
    base = HEAD_TO_HEAD[0]["validation_losses"][0]
    for rank in (16, 32):
        lora, dora = (mean_at(m, 0.03, "validation_loss", rank) for m in ("lora", "dora"))
        assert dora == pytest.approx(base, abs=0.1), "about where the base was"
        assert lora > base + 0.5, "and LoRA above it"


def test_lesson_04_the_grids():
    said("04-head-to-head", "with steps of 2.5", "a factor of about 1.6 away")
    for rates, step in ((head_to_head.WIDE, 2.5), (search.RATES, 1.6)):
        assert [b / a for a, b in pairwise(rates)] == pytest.approx(
            [step] * (len(rates) - 1), abs=0.17
        )


def test_lesson_04_differences():
    dora, mean_gap, low, high = gap(chosen("lora"), chosen("dora"))
    assert abs(dora.relative) == pytest.approx(0.005, abs=0.0005) and dora.seeds == 10
    said("04-head-to-head", f"DoRA ends {mean_gap[1:]} nats per byte below LoRA")
    said("04-head-to-head", f"({low} to {high} over seeds)")
    assert paired_difference(chosen("lora"), chosen("dora"), "validation_loss").high < -0.005
    text = paired_difference(chosen("lora"), chosen("dora"), over_text=True)
    assert [end / text.mean for end in (text.high, text.low)] == pytest.approx([0.5, 1.5], abs=0.1)
    by_window = np.subtract(
        *([run["window_losses"] for run in chosen(method)] for method in ("dora", "lora"))
    ).mean(axis=0)
    alike = np.corrcoef(by_window[:-1], by_window[1:])[0, 1]
    assert 2 / len(by_window) ** 0.5 < alike < 0.3, "neighbouring windows are a little alike"
    _, other, *_ = gap(chosen("lora"), chosen("dora-input"))
    said("04-head-to-head", f"the difference to LoRA is about the same, {other}")
    axes = paired_difference(chosen("dora"), chosen("dora-input"))
    assert axes.low < 0 < axes.high and max(-axes.low, axes.high) < 0.003
    full = paired_difference(chosen("lora"), chosen("full"))
    assert round(full.mean, 2) == -0.15 and round(full.mean / dora.mean) == 17
    said("04-head-to-head", "0.15 below LoRA, seventeen times", "ends 0.009 above DoRA at its own")


def test_lesson_04_what_the_pairs_gain():
    lora, dora = ([run["test_loss"] for run in chosen(m)] for m in ("lora", "dora"))
    paired, unpaired = (
        test.confidence_interval(0.95)
        for test in (stats.ttest_rel(dora, lora), stats.ttest_ind(dora, lora, equal_var=False))
    )
    width = (paired.high - paired.low) / (unpaired.high - unpaired.low)
    assert width == pytest.approx(0.9, abs=0.05), "about a tenth"


def test_lesson_04_the_layers_and_what_was_forgotten():
    lora, full = mean(chosen("lora")), mean(chosen("full"))
    attention, rank_64 = mean(chosen("full", targets="attention")), mean(chosen("lora", 64))
    said("04-head-to-head", f"From LoRA's {lora:.3f} to full fine-tuning's {full:.3f}")
    said(
        "04-head-to-head",
        f"attention alone covers {lora - attention:.3f} of that, a third",
        f"LoRA at rank 64 covers {lora - rank_64:.3f}",
        f"ends {lora - attention:.3f} below LoRA",
    )
    assert (lora - attention) / (lora - full) == pytest.approx(1 / 3, abs=0.05)
    by_rank = (lora - rank_64) / (lora - full)
    assert by_rank == pytest.approx(2 / 5, abs=0.02)
    said("04-head-to-head", f"and LoRA of rank 64 ends {lora - rank_64:.3f} below")
    less = paired_difference(chosen("lora"), chosen("full", targets="attention"), "reference_loss")
    assert less.high < 0, "the attention alone forgot less"
    manual = {
        "lora": mean(chosen("lora"), "reference_loss"),
        "dora": mean(chosen("dora"), "reference_loss"),
        "lora 64": mean(chosen("lora", 64), "reference_loss"),
        "attention": mean(chosen("full", targets="attention"), "reference_loss"),
        "full": mean(chosen("full"), "reference_loss"),
    }
    assert manual["attention"] < manual["lora"] < manual["dora"] < manual["full"] - 0.04
    assert manual["lora 64"] == pytest.approx(manual["full"], abs=0.015)
    covered = (lora - mean(ablated("lora", targets="all"))) / (lora - full)
    assert covered == pytest.approx(3 / 4, abs=0.03)
    said("04-head-to-head", f"(lesson 05) covers {covered * (lora - full):.3f}, three quarters")
    said("04-head-to-head", f"most of the gap, {100 * (1 - by_rank):.0f} to {100 * covered:.0f}%")
    said("04-head-to-head", "A quarter to two fifths of it: full fine-tuning of the same four")
    assert 1 - covered == pytest.approx(1 / 4, abs=0.03)
    counts = mean(chosen("dora"), "intruders"), mean(chosen("lora", 64), "intruders")
    assert counts[0] == pytest.approx(counts[1], abs=3), "nearly the same count"
    for method, rank in (("lora", 8), ("dora", 8), ("lora", 64), ("dora", 64)):
        assert mean(chosen(method, rank), "intruders") > 80, "most of 160"
    said("04-head-to-head", "Most strong directions of these four adapters are intruders")
    assert mean(chosen("full"), "intruders") < 10
    assert mean(chosen("full", targets="attention"), "intruders") < 50
    assert len({run["learning_rate"] for run in (chosen("lora")[0], chosen("full")[0])}) == 2


def test_lesson_04_dora_forgets_more_and_not_by_its_rate():
    gaps = {
        rank: [
            b["reference_loss"] - a["reference_loss"]
            for a, b in zip(chosen("lora", rank), chosen("dora", rank), strict=True)
        ]
        for rank in RANKS
    }
    over_ranks = np.mean(list(gaps.values()), axis=0)
    ends = stats.ttest_1samp(over_ranks, 0).confidence_interval(0.95)
    means = {rank: statistics.fmean(found) for rank, found in gaps.items()}
    lowest, highest = (end(means, key=means.get) for end in (min, max))
    assert ends.low > 0 and min(means.values()) > 0
    said(
        "04-head-to-head",
        f"by {over_ranks.mean():.3f} on average over the five ranks",
        f"({ends.low:.3f} to {ends.high:.3f})",
        f"from {means[lowest]:.3f} at rank {lowest} to {means[highest]:.3f} at rank {highest}",
    )
    same = [
        chosen("lora", rank)[0]["learning_rate"] == chosen("dora", rank)[0]["learning_rate"]
        for rank in RANKS
    ]
    assert same == [False, True, True, True, True], "from rank 8 on, both have the same rate"


def test_lesson_04_a_random_update_makes_intruders_too():
    recorded = load_file(RESULTS / "one-layer.safetensors")
    weight = load_pretrained().get_submodule(RECORDED_LAYER).weight.detach()
    last = max(int(key.split("/")[2]) for key in recorded)
    generator = torch.Generator().manual_seed(0)
    found = []
    for method, rank in product(("lora", "dora"), weight_changes.RANKS):
        trained = f"{method}/{rank}/{last}"
        after = weight + 2 * recorded[f"{trained}/lora_B"] @ recorded[f"{trained}/lora_A"]
        if method == "dora":
            after *= recorded[f"{trained}/magnitude"] / after.norm(dim=1, keepdim=True)
        sizes = torch.linalg.svdvals(after - weight)

        def random(sizes=sizes):
            left, right = (
                torch.linalg.qr(torch.randn(width, len(sizes), generator=generator)).Q
                for width in weight.shape
            )
            return left @ sizes.diag() @ right.T

        found.append(intruders(weight, after))
        by_chance = statistics.fmean(intruders(weight, weight + random()) for _ in range(10))
        assert abs(found[-1] - by_chance) < 2
    said("04-head-to-head", f"of ranks 4 to 32 made {min(found)} to {max(found)} of the ten")


# ---- lesson 05

RANKS = (4, 8, 16, 32, 64)


def test_lesson_05_ranks():
    found = {
        rank: paired_difference(chosen("lora", rank), chosen("dora", rank), confidence=0.99)
        for rank in RANKS
    }
    shares = [round(-100 * found[rank].relative, 1) for rank in RANKS]
    assert shares == [0.8, 0.5, 0.5, 0.2, 0.4]
    assert found[32].low < 0 < found[32].high, "the figure's alternative text says so"
    assert all(found[rank].high < 0 for rank in (4, 8, 16, 64))
    for low, high in pairwise(RANKS):
        half, whole = chosen("dora", low), chosen("lora", high)
        said("05-rank-and-magnitude", f"{mean(half):.3f} against {mean(whole):.3f}")
        ends = stats.ttest_1samp(differences(whole, half), 0).confidence_interval(1 - 0.05 / 4)
        assert (ends.low > 0) == (low < 32), "reached at no rank, or not decided"
        if low == 32:
            assert ends.low < 0 < ends.high
            said("05-rank-and-magnitude", "it comes close: ten seeds do not decide it")


def by_seed(ranks):
    """DoRA minus LoRA, (seeds, ranks)."""
    losses = {
        m: [[run["test_loss"] for run in chosen(m, rank)] for rank in ranks]
        for m in ("lora", "dora")
    }
    return (np.array(losses["dora"]) - np.array(losses["lora"])).T


def test_lesson_05_the_mean_over_ranks_and_the_slope():
    gaps = by_seed(RANKS)
    mean_gap = gaps.mean(axis=1)
    interval = stats.ttest_1samp(mean_gap, 0).confidence_interval(0.95)
    said(
        "05-rank-and-magnitude",
        f"({-mean_gap.mean():.4f} nats per byte, {-interval.high:.4f} to {-interval.low:.4f})",
    )
    readme = text_of(README)
    assert f"({-mean_gap.mean():.4f} nats per byte, 95% interval {-interval.high:.4f} to" in readme
    assert f"DoRA's, {dora_minus(chosen('lora'), chosen('dora')):.4f}" in readme
    assert f"norm_dim=0, {dora_minus(chosen('lora'), chosen('dora-input')):.4f}" in readme
    for ranks, decided in ((RANKS, True), (RANKS[1:], False)):
        slopes = np.polyfit(np.log2(ranks), by_seed(ranks).T, 1)[0]
        assert (stats.ttest_1samp(slopes, 0).pvalue < 0.05) == decided
    assert gaps.mean(axis=0).argmin() == 0, "largest at rank 4"
    assert gaps.std(axis=0).argmax() == 0, "it varies most at rank 4"
    high = sorted(run["test_loss"] for run in chosen("lora", 4))
    assert high[-2] - high[-3] > 0.01 > high[-3] - high[0], "two of LoRA's ten ended high"


def test_lesson_05_one_magnitude_per_input():
    ranks = head_to_head.RANKS
    assert max(ranks) == 32
    losses = {
        method: [[run["test_loss"] for run in chosen(method, rank)] for rank in ranks]
        for method in ("dora", "dora-input")
    }
    gaps = (np.array(losses["dora-input"]) - np.array(losses["dora"])).mean(axis=0)
    ends = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    said(
        "05-rank-and-magnitude",
        f"ends {gaps.mean():.4f} higher than one per output ({ends.low:.4f} to {ends.high:.4f};",
    )
    corrected = stats.ttest_1samp(gaps, 0).confidence_interval(1 - 0.05 / 4)
    assert corrected.low < 0 < corrected.high, "not decided"
    assert gaps.mean() < -by_seed(ranks).mean() / 2, "it has most of the gain"


def test_lesson_05_why_dora_ends_lower():
    lora, dora = chosen("lora"), chosen("dora")
    alone, level = gap(lora, ablated("lora-scaled")), gap(dora, ablated("lora-scaled"))
    fixed = gap(lora, ablated("dora-fixed"))
    said("05-rank-and-magnitude", f"without the norm, ends {alone[1][1:]} below LoRA, level with")
    assert level[0].low < 0 < level[0].high and alone[0].high < -0.005
    said("05-rank-and-magnitude", f"The norm alone ends {fixed[1][1:]} below LoRA, 0.006 at most")
    assert fixed[0].low > -0.006 and fixed[0].high > 0
    assert fixed[0].mean / dora_minus(lora, dora) == pytest.approx(1 / 4, abs=0.05), "the README"
    added = chosen("dora")[0]["trainable_params"] - chosen("lora")[0]["trainable_params"]
    said("05-rank-and-magnitude", f"{added:,} numbers in all")
    wider = chosen("lora", 16)
    more = wider[0]["trainable_params"] - lora[0]["trainable_params"]
    gained = mean(lora) - mean(wider)
    said(
        "05-rank-and-magnitude",
        f"gains {gained:.3f} with {more:,} more of them",
        f"another {added:,} of that kind would be worth about {gained * added / more:.3f}",
    )
    training = {
        "fixed": paired_difference(lora, ablated("dora-fixed"), "train_loss").mean,
        "dora": paired_difference(lora, dora, "train_loss").mean,
        "alone": paired_difference(lora, ablated("lora-scaled"), "train_loss").mean,
    }
    assert {k: round(v, 3) for k, v in training.items()} == {
        "fixed": 0.026,
        "dora": 0.007,
        "alone": -0.007,
    }
    for rank in (16, 32, 64):
        found = paired_difference(chosen("lora", rank), chosen("dora", rank), "train_loss")
        assert round(found.mean, 3) >= 0.017 and found.low > 0
    assert training["alone"] < 0 and abs(alone[0].mean) > abs(dora_minus(lora, dora)) - 0.002
    at_4 = paired_difference(chosen("lora", 4), chosen("dora", 4), "train_loss")
    assert at_4.low < 0 < at_4.high, "at rank 4 it is not decided"
    more = gap(ablated("dora-fixed"), ablated("lora-scaled"))
    ends = f"{more[1][1:]} ({more[3][1:]} to {more[2][1:]})"
    said("05-rank-and-magnitude", f"lower than the norm alone, by {ends}")
    costs = gap(dora, ablated("dora-fixed"))
    ends = f"{costs[1][1:]} nats per byte higher ({costs[2][1:]} to {costs[3][1:]}, ten seeds)"
    said("05-rank-and-magnitude", f"with `m` fixed, DoRA ends {ends}")
    assert costs[0].mean > -dora_minus(lora, dora) / 2, "most of its gain"
    full = gap(dora, ablated("dora-full"))
    ends = f"{full[1][1:]} lower ({full[3][1:]} to {full[2][1:]}, seed by seed)"
    said("05-rank-and-magnitude", f"with the full gradient DoRA ends {ends}")
    for how in ({"alpha": 8.0}, {"max_norm": 1e6}):
        stays = paired_difference(ablated("lora", **how), ablated("dora", **how))
        assert stays.high < 0 and stays.mean == pytest.approx(dora_minus(lora, dora), abs=0.002)
    lines = [(lora, dora)] + [
        (lora, ablated(m)) for m in ("dora-fixed", "lora-scaled", "dora-full")
    ]
    around = [{"targets": "all"}, {"alpha": 8.0}, {"max_norm": 1e6}]
    lines += [(ablated("lora", **how), ablated("dora", **how)) for how in around]
    for confidence in (0.95, 1 - 0.05 / len(lines)):
        found = [paired_difference(*pair, confidence=confidence) for pair in lines]
        assert [line.high < 0 for line in found] == [True, False, True, True, False, True, True]
    everywhere = paired_difference(ablated("lora", "all"), ablated("dora", "all"))
    assert everywhere.low < 0 < everywhere.high and round(everywhere.mean, 3) == -0.004


def dora_minus(lora, dora):
    return paired_difference(lora, dora).mean


def differences(lora, dora, key="test_loss"):
    return [b[key] - a[key] for a, b in zip(lora, dora, strict=True)]


def test_lesson_05_one_rate_for_all_ranks():
    for rank in (8, 16, 32):
        dora = mean(chosen("dora", rank))
        assert mean_at("lora", 0.03, "test_loss", rank) - dora > 1
    gaps = [mean_at("lora", 0.0003, "test_loss", r) - mean(chosen("dora", r)) for r in (4, 8, 16)]
    assert [round(gap, 1) for gap in gaps] == [0.2, 0.2, 0.2]
    said(
        "05-rank-and-magnitude", 'of the way from the base to its own best, and DoRA "wins" by 0.2'
    )
    base = HEAD_TO_HEAD[0]["validation_losses"][0]
    for method, rank in product(("lora", "dora"), (4, 8, 16, 32)):
        slow = base - mean_at(method, 0.0003, "validation_loss", rank)
        rate = chosen(method, rank)[0]["learning_rate"]
        covered = slow / (base - mean_at(method, rate, "validation_loss", rank))
        assert covered == pytest.approx(0.7, abs=0.06), "about 70%, and DoRA no more"


def test_lesson_05_shares():
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj")

    def per_cent(method, random=False, of=WEIGHT_CHANGES):
        return [
            100
            * statistics.fmean(
                (p["random"] if random else p)["magnitude_share"]
                for p in at_the_end(method, kind, of)
            )
            for kind in kinds
        ]

    shares, chance = ({m: per_cent(m, random) for m in PAPER} for random in (False, True))
    low, high = (round(end(shares["lora"])) for end in (min, max))
    said("05-rank-and-magnitude", f"LoRA's {low} to {high}% are a little less than chance's")
    for found, expected in zip(shares["lora"], chance["lora"], strict=True):
        assert 0.8 * expected < found < expected
    assert (round(min(shares["full"])), round(max(shares["full"]))) == (1, 3)
    assert {round(share) for share in chance["full"]} == {2} or max(chance["full"]) < 2
    assert (round(min(shares["dora"][:3])), round(max(shares["dora"][:3]))) == (3, 6)
    assert (round(min(chance["dora"][:3])), round(max(chance["dora"][:3]))) == (9, 12)
    assert round(shares["dora"][3]) == 11 and shares["dora"][3] > chance["dora"][3]
    for seed in seeds(WEIGHT_CHANGES + AGAIN):  # full fine-tuning's output projections
        found = [p for p in points("full", seed, "o_proj") if p["step"] == 279]
        share, random = (
            statistics.fmean(p["magnitude_share"] for p in of)
            for of in (found, [p["random"] for p in found])
        )
        assert share > 1.4 * random
    assert max(shares["full"][:3]) < 1.2 * max(chance["full"][:3])
    said("05-rank-and-magnitude", "Three other seeds give the same shares to within a point")
    for method, found in shares.items():
        assert per_cent(method, of=AGAIN) == pytest.approx(found, abs=1)


def test_the_recorded_decomposition_is_of_the_chosen_rates():
    for method in PAPER:
        runs = select(WEIGHT_CHANGES, adapter_type=method)
        assert [run["seed"] for run in runs] == list(weight_changes.SEEDS)
        rate = choose_learning_rate(of_the_search(arm(method)))
        assert {run["learning_rate"] for run in runs} == {rate}
        searched = select(of_the_search(arm(method)), learning_rate=rate)
        for run, other in zip(runs, searched, strict=True):
            assert run["pairing"] == other["pairing"]
            assert run["test_loss"] == pytest.approx(other["test_loss"], abs=0.02)
