"""What lesson 07 says about the committed runs is what they show."""

import functools
import itertools
import math
import statistics

import prose
import pytest
import torch

from benchmarks import rslora, search
from lab_utils import comparison
from lab_utils.adapters import NAMES, adapter_layers, trainable_parameters
from lab_utils.data import language_task
from lab_utils.training import Settings, make_optimizer, model_to_train, train_step

RECORDS = comparison.read_results(comparison.RESULTS / "rslora.jsonl")
said = functools.partial(prose.said, "07-rslora-challenge")


def runs(method, rank, stabilized, rate=5e-3, alpha=16.0):
    """The runs that the lesson takes: those of the first nine seeds, if there are so many."""
    found = comparison.select(
        RECORDS,
        adapter_type=method,
        rank=rank,
        rank_stabilized=stabilized,
        learning_rate=rate,
        alpha=alpha,
    )
    found = [record for record in found if record["seed"] in rslora.SEEDS]
    expected = rslora.SEEDS if rate == 5e-3 else rslora.CHOOSING
    assert [record["seed"] for record in found] == list(expected)
    return found


def at_best_rate(method, stabilized):
    found = comparison.select(
        RECORDS, adapter_type=method, rank=64, rank_stabilized=stabilized, alpha=16.0
    )
    found = [run for run in comparison.reported(found) if run["seed"] in search.REPORTING]
    assert [run["seed"] for run in found] == list(search.REPORTING)
    return found


def mean(found, key="test_loss"):
    return statistics.fmean(record[key] for record in found)


def norm(found, part):
    return statistics.fmean(record["gradient_norms"][part] for record in found)


def test_every_search_is_finished_and_every_record_is_of_the_benchmark():
    for arm in rslora.SEARCHED:
        assert search.next_runs(arm, RECORDS, rslora.WIDE, rslora.CHOOSING) == []

    def key(settings):
        return tuple(settings[name] for name in comparison.SETTINGS)

    at_one_rate = {key(vars(run)) for run in rslora.at_one_rate()}
    searched = {key(r) for arm in rslora.SEARCHED for r in search.of_arm(RECORDS, arm)}
    assert at_one_rate <= {key(r) for r in RECORDS} <= at_one_rate | searched


def test_a_higher_rank_ends_lower_and_the_rules_drift_apart():
    losses = {
        rule: [mean(runs("lora", rank, *rule_of(rank, rule))) for rank in rslora.RANKS]
        for rule in ("usual", "stabilized", "growing")
    }
    for by_rank in losses.values():
        assert by_rank == sorted(by_rank, reverse=True)
    lead = [a - b for a, b in zip(losses["usual"], losses["stabilized"], strict=True)]
    assert lead == sorted(lead)
    assert (round(lead[0], 2), round(lead[-1], 3)) == (0.01, 0.035)
    for rank in rslora.RANKS:
        pair = runs("lora", rank, False), runs("lora", rank, True)
        confidence = 1 - 0.05 / len(rslora.RANKS)
        assert comparison.paired_difference(*pair, confidence=confidence).high < 0


def rule_of(rank, rule):
    """The arguments of `runs` besides method and rank."""
    alpha = 2.0 * rank if rule == "growing" else 16.0
    return rule == "stabilized", 5e-3, alpha


def test_a_growing_alpha_is_the_one_rule_at_rank_8_and_the_other_at_rank_64():
    for rank, stabilized in ((8, False), (64, True)):
        growing, fixed = runs("lora", rank, False, alpha=2.0 * rank), runs("lora", rank, stabilized)
        for left, right in zip(growing, fixed, strict=True):
            assert left["test_loss"] == right["test_loss"]


def test_gradient_norms():
    for part, at_4, at_64 in ((0, 1.5, 5), (-1, 1.5, 4)):
        for rank, factor in ((4, at_4), (64, at_64)):
            ratio = norm(runs("lora", rank, True), part) / norm(runs("lora", rank, False), part)
            assert ratio == pytest.approx(factor, rel=0.15)
    first = {s: [norm(runs("lora", rank, s), 0) for rank in (4, 64)] for s in (False, True)}
    last = {s: [norm(runs("lora", rank, s), -1) for rank in (4, 64)] for s in (False, True)}
    said("about four fifths of that at rank 4", "a quarter of it at first, and a third in the end")
    for norms, of_rank_4 in (
        (first[True], 0.8),
        (last[True], 0.8),
        (first[False], 0.25),
        (last[False], 1 / 3),
    ):
        assert norms[1] / norms[0] == pytest.approx(of_rank_4, abs=0.04)
    assert norm(runs("dora", 64, False), 0) > 1.3 * norm(runs("lora", 64, False), 0)
    highest = [
        max(run["gradient_norms"])
        for method, rank in (("lora", 4), ("lora", 64), ("dora", 64))
        for stabilized in (False, True)
        for run in runs(method, rank, stabilized)
    ]
    said(f"no run's norm, averaged over a stretch, exceeds {max(highest):.1f}")


def test_losses_at_rank_64():
    def behind(runs_of, others):
        """By how much the mean loss of each stretch of the training is above the others'."""
        parts = [
            [
                statistics.fmean(part)
                for part in zip(*(r["step_losses"] for r in found), strict=True)
            ]
            for found in (runs_of, others)
        ]
        return [a - b for a, b in zip(*parts, strict=True)]

    usual, stabilized = (runs("lora", 64, rule) for rule in (False, True))
    lag = behind(usual, stabilized)
    assert min(lag) > 0
    assert lag.index(max(lag)) > 0.75 * len(lag)
    assert max(behind(usual, runs("lora", 4, False))) < 0, "never behind rank 4"


def test_most_of_the_lead_at_one_rate_is_the_learning_rate():
    for method, at_one_rate, left in (("lora", 0.035, 0.007), ("dora", 0.038, 0.009)):
        same = comparison.paired_difference(runs(method, 64, False), runs(method, 64, True))
        best = comparison.paired_difference(at_best_rate(method, False), at_best_rate(method, True))
        usual, stabilized = (at_best_rate(method, s)[0]["learning_rate"] for s in (False, True))
        assert usual > stabilized
        assert same.high < 0 and best.high < 0
        assert (round(-same.mean, 3), round(-best.mean, 3)) == (at_one_rate, left)
        assert 1 - best.mean / same.mean == pytest.approx(0.8, abs=0.05), "about four fifths"
        assert (same.seeds, best.seeds) == (9, 10)
        ends = 1 - best.low / same.high, 1 - best.high / same.low
        said(f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f}% for {NAMES[method]}")
    three = comparison.paired_difference(
        runs("lora", 64, False, 1.2e-2), [r for r in runs("lora", 64, True) if r["seed"] < 3]
    )
    assert three.low < 0 < three.high, "LoRA's interval over the three seeds contains zero"


def test_dora_trains_at_rates_that_are_too_high_for_lora():
    for rate, stabilized in ((3e-2, False), (1.2e-2, True)):
        lora, dora = (runs(method, 64, stabilized, rate) for method in ("lora", "dora"))
        assert mean(lora, "validation_loss") > 2.4, "worse than the base, 2.40"
        assert mean(dora, "validation_loss") < 1.8
        peaks = [statistics.fmean(max(r["gradient_norms"]) for r in runs) for runs in (lora, dora)]
        assert peaks[0] > 1.5 * peaks[1]
        worst, best = (
            max(r["validation_loss"] for r in dora),
            min(r["validation_loss"] for r in lora),
        )
        assert worst < best - 0.5, "three seeds each, all alike"


def test_m_alone_tolerates_a_high_rate_as_well():
    losses = {}
    for name, method in (
        ("head-to-head", "lora"),
        ("head-to-head", "dora"),
        ("ablations", "lora-scaled"),
        ("ablations", "dora-fixed"),
    ):
        records = comparison.read_results(comparison.RESULTS / f"{name}.jsonl")
        settings = {"rank": 8, "targets": None, "alpha": 16.0, "max_norm": 1.0}
        found = comparison.select(records, adapter_type=method, learning_rate=0.019, **settings)
        found = [run for run in found if run["seed"] in rslora.CHOOSING]
        assert len(found) == 3
        losses[method] = f"{mean(found, 'validation_loss'):.3f}"
    assert losses["dora"] == losses["lora-scaled"]
    said(f"(validation loss {losses['lora']})", f"({losses['dora']} each; three seeds)")
    said(f"and better than the norm alone ({losses['dora-fixed']})")


def test_at_their_best_rates_dora_ends_a_little_lower():
    shares = []
    for stabilized in (False, True):
        pair = at_best_rate("lora", stabilized), at_best_rate("dora", stabilized)
        gap = comparison.paired_difference(*pair)
        assert gap.high < 0
        shares.append(round(-100 * gap.relative, 1))
    assert shares == [0.3, 0.4]


def test_what_the_first_step_does():
    """AdamW moves lora_B by the learning rate, whatever the gradient.

    W' then moves by s * sqrt(rank) in all, and by s * rank downhill: under alpha / rank the loss
    falls as far at every rank.
    """
    task = language_task()
    inputs, targets = task.train.inputs[:8], task.train.targets[:8]
    change, fall = {}, {}
    for rank, stabilized in itertools.product((4, 16, 64), (False, True)):
        run = Settings(adapter_type="lora", rank=rank, alpha=16.0, rank_stabilized=stabilized)
        model = model_to_train(task, run)
        layers = list(adapter_layers(model).values())
        before = [layer.merged_weight().detach().clone() for layer in layers]
        optimizer = make_optimizer(model, run.learning_rate, run.weight_decay)
        loss, _ = train_step(model, (inputs, targets), task.loss, optimizer)
        largest = max(layer.lora_B.abs().max().item() for layer in layers)
        assert largest == pytest.approx(0.005, rel=0.01)
        moved = [layer.merged_weight() - w for layer, w in zip(layers, before, strict=True)]
        change[rank, stabilized] = torch.nn.utils.get_total_norm(moved).item()
        with torch.no_grad():
            fall[rank, stabilized] = loss - task.loss(model(inputs), targets).item()
    assert change[4, False] / change[64, False] == pytest.approx(3.5, abs=0.1)
    assert change[4, True] / change[64, True] == pytest.approx(1, abs=0.2)
    said("moves it 3.5 times less at rank 64 than at rank 4")
    assert {f"{fall[rank, False]:.2f}" for rank in (4, 16, 64)} == {"0.36"}
    said("the loss falls by 0.36 at each of the three ranks")
    assert fall[64, True] > 1.2 * fall[16, True] > 1.44 * fall[4, True]


def test_doras_first_steps_are_much_the_same():
    """Its gradient norm falls less under alpha / rank: that of its magnitude does not shrink."""
    task = language_task()
    inputs, targets = task.train.inputs[:8], task.train.targets[:8]
    norms, falls, of_m = {}, {}, []
    for method, rank in itertools.product(("lora", "dora"), (4, 64)):
        run = Settings(adapter_type=method, rank=rank, alpha=16.0)
        model = model_to_train(task, run)
        optimizer = make_optimizer(model, run.learning_rate, run.weight_decay)
        loss, norms[method, rank] = train_step(
            model, (inputs, targets), task.loss, optimizer, max_norm=math.inf
        )
        with torch.no_grad():
            falls[method, rank] = loss - task.loss(model(inputs), targets).item()
        if method == "dora":
            magnitudes = [layer.magnitude.grad for layer in adapter_layers(model).values()]
            of_m.append(torch.nn.utils.get_total_norm(magnitudes).item())
    shrunk = {method: norms[method, 4] / norms[method, 64] for method in ("lora", "dora")}
    assert shrunk["lora"] > 4 and shrunk["dora"] < 0.7 * shrunk["lora"]
    assert of_m[0] == pytest.approx(of_m[1], rel=1e-3)
    for rank in (4, 64):
        assert falls["dora", rank] == pytest.approx(falls["lora", rank], rel=0.15)
    said("Only its gradient norm falls less under", "does not shrink with the scaling")


def test_on_other_batches_the_loss_falls_as_far_at_every_rank_too():
    task = language_task()
    for seed in range(1, 5):
        inputs, targets = (part[8 * seed : 8 * seed + 8] for part in vars(task.train).values())
        fall = []
        for rank in (4, 16, 64):
            run = Settings(adapter_type="lora", rank=rank, alpha=16.0, seed=seed)
            model = model_to_train(task, run)
            optimizer = make_optimizer(model, run.learning_rate, run.weight_decay)
            loss, _ = train_step(model, (inputs, targets), task.loss, optimizer)
            with torch.no_grad():
                fall.append(loss - task.loss(model(inputs), targets).item())
        assert max(fall) / min(fall) < 1.07
    said("with other seeds, the ranks agree to within seven per cent")


def test_in_gradient_descent_the_root_is_what_keeps_the_first_step():
    task = language_task()
    inputs, targets = task.train.inputs[:8], task.train.targets[:8]
    fall = {}
    for rank, stabilized in itertools.product((4, 64), (False, True)):
        run = Settings(adapter_type="lora", rank=rank, alpha=16.0, rank_stabilized=stabilized)
        model = model_to_train(task, run)
        optimizer = torch.optim.SGD(trainable_parameters(model).values(), lr=0.01)
        loss, _ = train_step(model, (inputs, targets), task.loss, optimizer, max_norm=math.inf)
        with torch.no_grad():
            fall[rank, stabilized] = loss - task.loss(model(inputs), targets).item()
    assert fall[64, True] / fall[4, True] == pytest.approx(1, abs=0.1)
    assert fall[4, False] / fall[64, False] == pytest.approx(16, rel=0.15)
    said("16 times smaller at rank 64 than at rank 4")
