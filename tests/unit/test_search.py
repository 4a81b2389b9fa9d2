"""The search of benchmarks: what an arm needs next, and what the ablations compute."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from benchmarks import search
from lab_utils import adapters, comparison, decomposition
from lab_utils.training import Settings, model_to_train

ARM = Settings(adapter_type="dora")


def records_of(best, *, limit=200):
    """Go on with a search whose validation loss is lowest at `best` until it needs no run."""
    records = []
    for _ in range(limit):
        runs = search.next_runs(ARM, records, (5e-3, 1.2e-2), range(2))
        if not runs:
            return records
        records += [
            asdict(run) | {"validation_loss": abs(run.learning_rate - best) + 0.0001 * run.seed}
            for run in runs
        ]
    raise AssertionError("it does not end")


@pytest.mark.parametrize("best", [3e-4, 5e-3, 7.7e-3, 1.2e-2, 3e-2])
def test_the_rate_found_has_both_neighbours_and_new_seeds(best):
    records = records_of(best)
    reported = [r for r in records if r["seed"] in search.REPORTING]
    assert {r["learning_rate"] for r in reported} == {best}
    assert [r["seed"] for r in reported] == list(search.REPORTING)
    at = search.RATES.index(best)
    tried = {r["learning_rate"] for r in records if r["seed"] not in search.REPORTING}
    assert set(search.RATES[max(0, at - 1) : at + 2]) <= tried
    assert comparison.reported(records) == reported


def test_neighbours_on_the_lattice_are_about_a_factor_of_one_and_a_half_apart():
    steps = [b / a for a, b in zip(search.RATES, search.RATES[1:], strict=False)]
    assert min(steps) > 1.5 and max(steps) < 1.7


def test_nothing_is_reported_of_seeds_that_chose():
    records = [r for r in records_of(5e-3) if r["seed"] not in search.REPORTING]
    with pytest.raises(ValueError, match="chose the rate; train others"):
        comparison.reported(records)


def linear(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(7, 5).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(5, 7, generator=generator))
    return layer


def moved(method):
    """A layer whose trained parameters are away from their start."""
    layer = adapters.ADAPTERS[method](linear(torch.float64), 2, 4.0)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        layer.lora_B.normal_(generator=generator)
        if layer.magnitude.requires_grad:
            layer.magnitude.mul_(1 + torch.rand(5, 1, generator=generator))
    return layer


@pytest.mark.parametrize("method", ["dora-fixed", "lora-scaled", "dora-full"])
def test_an_ablation_computes_its_merged_weight_and_starts_as_the_base(method):
    start = adapters.ADAPTERS[method](linear(), 2, 4.0)
    x = torch.randn(3, 7)
    torch.testing.assert_close(start(x), start.original_layer(x))
    layer = moved(method)
    x = x.double()
    torch.testing.assert_close(layer(x), layer.merge()(x))


def test_what_each_ablation_leaves_out():
    fixed, scaled = moved("dora-fixed"), moved("lora-scaled")
    base = linear(torch.float64).weight
    torch.testing.assert_close(fixed.merged_weight().norm(dim=1), base.norm(dim=1))
    assert "magnitude" not in {n for n, p in fixed.named_parameters() if p.requires_grad}
    ratio = scaled.merged_weight() / scaled.updated_weight()
    torch.testing.assert_close(ratio, (scaled.magnitude / scaled.base_norm).expand_as(ratio))
    gradients = {}
    for method in ("dora", "dora-full"):
        layer = moved(method)
        layer(torch.ones(1, 7, dtype=torch.float64)).square().sum().backward()
        gradients[method] = layer.lora_B.grad
    assert not torch.allclose(*gradients.values())


def test_targets_say_what_is_trained():
    from lab_utils.data import language_task

    def names(**settings):
        model = model_to_train(language_task(), Settings(**settings))
        return {n for n, p in model.named_parameters() if p.requires_grad}

    attention = names(adapter_type="full", targets="attention")
    assert {name.split(".")[-2] for name in attention} == set(adapters.ATTENTION)
    assert len(names(adapter_type="full")) > len(attention)
    everywhere = {name.split(".")[-2] for name in names(adapter_type="lora", targets="all")}
    assert everywhere == set(adapters.TARGETS["all"])
    assert Settings(adapter_type="lora", targets="attention") == Settings(adapter_type="lora")
    assert Settings(adapter_type="full", targets="all") == Settings(adapter_type="full")
    with pytest.raises(ValueError, match="targets is 'mlp'"):
        replace(ARM, targets="mlp")


@pytest.mark.parametrize("norm_dim", [0, 1])
def test_a_random_update_is_as_long_as_the_found_one_and_lies_across(norm_dim):
    generator = torch.Generator().manual_seed(5)
    before = torch.randn(200, 300, generator=generator)
    after = before + 0.3 * torch.randn(200, 300, generator=generator)
    random = decomposition.random_update(before, after, generator, norm_dim)
    torch.testing.assert_close(
        (random - before).norm(dim=norm_dim), (after - before).norm(dim=norm_dim)
    )
    assert not torch.allclose(random, after)
    lengths = random.norm(dim=norm_dim) / before.norm(dim=norm_dim)
    assert lengths.mean() == pytest.approx(1.09**0.5, abs=0.01)  # Pythagoras


def test_intruders_are_new_strong_directions():
    generator = torch.Generator().manual_seed(6)
    before = torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0, 0.1, 0.1]))
    assert decomposition.intruders(before, 2 * before, top=3) == 0
    strong = torch.outer(torch.ones(6), torch.randn(6, generator=generator))
    assert decomposition.intruders(before, before + 20 * strong, top=1) == 1
