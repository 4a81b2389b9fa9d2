"""`lab_utils.adapters`: adapters in a model, merged, and in a file."""

import copy

import pytest
import torch
from torch import nn

from lab_utils.adapters import (
    ADAPTERS,
    adapter_layers,
    add_adapters_to_model,
    load_adapters,
    merge_adapters,
    save_adapters,
    trainable_parameters,
)
from lab_utils.layers import DoRALayer, LoRALayer

KINDS = list(ADAPTERS)


class Block(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width // 2, bias=False)
        self.v_proj = nn.Linear(width, width // 2, bias=False)
        self.o_proj = nn.Linear(width // 2, width)
        self.mlp = nn.Linear(width, width)

    def forward(self, x):
        gate = torch.sigmoid(self.q_proj(x)[..., : self.o_proj.in_features])
        return self.mlp(x + self.o_proj(gate * self.k_proj(x) + self.v_proj(x)))


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(Block(), Block())


def adapted(kind, seed=1, **arguments):
    generator = torch.Generator().manual_seed(seed)
    return add_adapters_to_model(model(), kind, rank=3, generator=generator, **arguments)


def perturb(net):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in trainable_parameters(net).values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


X = torch.randn(4, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapted_copy_computes_the_same_and_the_model_stays(kind):
    base = model()
    before = copy.deepcopy(base.state_dict())
    net = add_adapters_to_model(base, kind, rank=3)
    torch.testing.assert_close(net(X), base(X))
    assert all(p.requires_grad for p in base.parameters())
    assert not adapter_layers(base)
    perturb(net)
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())


def test_only_adapters_are_trainable_and_sit_in_the_targets():
    net = adapted("dora")
    assert list(adapter_layers(net)) == [
        f"{block}.{name}" for block in (0, 1) for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    assert {name.rsplit(".", 1)[1] for name in trainable_parameters(net)} == {
        "lora_A",
        "lora_B",
        "magnitude",
    }
    only = adapted("lora", target_modules=["mlp"])
    assert list(adapter_layers(only)) == ["0.mlp", "1.mlp"]


def test_types():
    for kind, layer_type, norm_dim in (("dora", DoRALayer, 1), ("dora-input", DoRALayer, 0)):
        layer = adapter_layers(adapted(kind))["0.k_proj"]
        assert type(layer) is layer_type
        assert layer.norm_dim == norm_dim
    assert type(adapter_layers(adapted("lora"))["0.k_proj"]) is LoRALayer


def test_lora_and_dora_start_from_the_same_lora_a():
    nets = [adapter_layers(adapted(kind)) for kind in KINDS]
    for name, layer in nets[0].items():
        assert all(torch.equal(layer.lora_A, net[name].lora_A) for net in nets[1:])
    other = adapter_layers(adapted("lora", seed=2))
    assert not torch.equal(nets[0]["0.q_proj"].lora_A, other["0.q_proj"].lora_A)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_model_computes_the_same_without_adapters(kind):
    net = perturb(adapted(kind, dropout=0.3)).eval()
    merged = merge_adapters(net)
    assert not adapter_layers(merged)
    assert merged.state_dict().keys() == model().state_dict().keys()
    torch.testing.assert_close(merged(X), net(X), rtol=1e-5, atol=1e-5)
    assert adapter_layers(net), "the adapted model itself was changed"


@pytest.mark.parametrize("kind", KINDS)
def test_saved_adapters_come_back(kind, tmp_path):
    net = perturb(adapted(kind))
    save_adapters(net, tmp_path / "adapter.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]
    fresh = adapted(kind, seed=5)
    assert not torch.allclose(fresh(X), net(X))
    load_adapters(fresh, tmp_path / "adapter.safetensors")
    assert torch.equal(fresh(X), net(X))


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "adapter.safetensors"
    save_adapters(adapted("dora"), path)
    before = path.read_bytes()

    def full_disk(tensors, name, metadata):
        name.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lab_utils.adapters.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_adapters(perturb(adapted("dora")), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: adapted("lora"), "differ in 0.k_proj.magnitude"),
        (lambda: adapted("dora-input"), "of shape (12, 1) and the model's has (1, 12)"),
        (lambda: add_adapters_to_model(model(), "dora", rank=2), "adapt the model with the rank"),
        (lambda: adapted("dora", target_modules=["mlp"]), "differ in 0.k_proj.lora_A"),
        (lambda: adapted("dora", alpha=3.0), "was trained with scaling 5.33"),
    ],
)
def test_a_file_for_other_adapters_is_refused_and_nothing_changes(other, words, tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_adapters(perturb(adapted("dora")), path)
    net = other()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError) as raised:
        load_adapters(net, path)
    assert words in str(raised.value)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: add_adapters_to_model(model(), "DoRA"), ValueError, "one of 'lora', 'dora'"),
        (lambda: adapted("lora", target_modules=["c_attn"]), ValueError, "no layer named c_attn"),
        (lambda: adapted("lora", target_modules=[]), ValueError, "target_modules is []"),
        (lambda: adapted("lora", target_modules=["1"]), TypeError, "original_layer is a Block"),
        (lambda: add_adapters_to_model(adapted("lora"), "dora"), ValueError, "adapters already"),
        (lambda: save_adapters(model(), "x.safetensors"), ValueError, "no adapter to save"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)


class Shared(nn.Module):
    """One layer under two names, and one block in two places."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q_proj = nn.Linear(8, 8)
        self.v_proj = self.q_proj
        self.o_proj = nn.Linear(8, 8)
        self.alias = self.o_proj
        self.blocks = nn.ModuleList([Block(8)] * 2)

    def forward(self, x):
        x = self.alias(torch.tanh(self.q_proj(x))) + self.o_proj(torch.sin(self.v_proj(x)))
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("targets", [("q_proj", "o_proj"), ("v_proj",), ("q_proj", "v_proj")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_under_two_names_has_one_adapter_under_both(kind, targets, tmp_path):
    base = Shared().double()
    net = add_adapters_to_model(base, kind, rank=3, target_modules=targets)
    assert net.q_proj is net.v_proj
    assert isinstance(net.q_proj, LoRALayer)
    assert net.blocks[0] is net.blocks[1]
    assert net.o_proj is net.alias
    assert isinstance(net.o_proj, LoRALayer) == ("o_proj" in targets)
    distinct = len(adapter_layers(net))
    assert distinct == len({id(layer) for layer in net.modules() if isinstance(layer, LoRALayer)})
    perturb(net)
    x = torch.randn(3, 8, dtype=torch.float64)
    assert not torch.allclose(net(x), base(x))

    merged = merge_adapters(net)
    assert not adapter_layers(merged)
    assert merged.q_proj is merged.v_proj
    torch.testing.assert_close(merged(x), net(x))

    save_adapters(net, tmp_path / "file")
    again = add_adapters_to_model(base, kind, rank=3, target_modules=targets)
    load_adapters(again, tmp_path / "file")
    torch.testing.assert_close(again(x), net(x))


def test_weights_that_two_layers_share_are_adapted_in_the_one_that_is_named():
    base = nn.Sequential(Block(), Block())
    base[0].mlp.weight = base[0].q_proj.weight
    net = add_adapters_to_model(base, "dora", rank=3)
    before = net[0].mlp.weight.clone()
    perturb(net)
    x = torch.randn(2, 12)
    assert type(net[0].mlp) is nn.Linear
    torch.testing.assert_close(merge_adapters(net)(x), net(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(net[0].mlp.weight, before)
