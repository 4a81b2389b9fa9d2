"""`lab_utils.peft_bridge`: what this lab trains runs in PEFT, and the other way round."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lab_utils.adapters import (
    adapter_layers,
    add_adapters_to_model,
    merge_adapters,
    trainable_parameters,
)
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.peft_bridge import (
    from_peft_state,
    load_peft_adapter,
    save_peft_adapter,
    to_peft_config,
    to_peft_state,
)

# PEFT asks transformers for something under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TARGETS = ["q_proj", "k_proj", "down_proj"]  # 32 → 32, 32 → 16 and 40 → 32: one is square
EMBEDDED = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
SETTINGS = [
    pytest.param("lora", False, id="lora"),
    pytest.param("dora", False, id="dora"),
    pytest.param("lora", True, id="lora-rank-stabilized"),
    pytest.param("dora", True, id="dora-rank-stabilized"),
]


def base():
    """A small Llama with grouped-query attention; the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        model = LlamaForCausalLM(config).eval()
        # Random weights of std 0.02 give outputs so small that a wrong scaling is lost in 1e-5.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(10)
    return model


def trained(model):
    """Move every trained parameter away from its start, where DoRA is LoRA and LoRA is nothing."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def ours(kind, rank_stabilized=False, **arguments):
    return trained(
        add_adapters_to_model(
            base(),
            kind,
            rank=3,
            alpha=7.0,
            target_modules=TARGETS,
            rank_stabilized=rank_stabilized,
            generator=torch.Generator().manual_seed(2),
            **arguments,
        )
    )


def theirs(kind, rank_stabilized=False, **arguments):
    config = LoraConfig(
        r=3,
        lora_alpha=7.0,
        target_modules=TARGETS,
        use_dora=kind == "dora",
        use_rslora=rank_stabilized,
        **arguments,
    )
    return trained(get_peft_model(base(), config).eval())


def output_and_gradients(model):
    """Outputs, and gradients of the input and of what is trained, by the names of this lab."""
    embedded = EMBEDDED.clone().requires_grad_()
    output = model(inputs_embeds=embedded).logits
    weights = torch.linspace(-1, 2, output.numel()).view_as(output)  # no error cancels
    (output * weights).sum().backward()
    found = {"output": output.detach(), "input": embedded.grad}
    for name, parameter in trainable_parameters(model).items():
        name = name.removeprefix("base_model.model.").replace(".default", "")
        name = name.removesuffix(".weight").replace("lora_magnitude_vector", "magnitude")
        found[name] = parameter.grad
    return found


def assert_same(left, right):
    found, expected = output_and_gradients(left), output_and_gradients(right)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        size = value.abs().max().item()
        assert size > 1e-3, f"{name} is nothing, so nothing is compared"
        gap = (found[name].reshape(value.shape) - value).abs().max().item()
        assert gap < 1e-5 * max(1.0, size), f"{name}: {gap} of {size}"


@pytest.mark.parametrize(("kind", "rank_stabilized"), SETTINGS)
def test_peft_computes_and_learns_the_same_from_what_we_write(kind, rank_stabilized, tmp_path):
    model = ours(kind, rank_stabilized)
    save_peft_adapter(model, tmp_path / "adapter", task_type="CAUSAL_LM")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    loaded = PeftModel.from_pretrained(base(), tmp_path / "adapter", is_trainable=True)
    assert_same(loaded.eval(), model)

    merged, expected = loaded.merge_and_unload(), merge_adapters(model)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "rank_stabilized"), SETTINGS)
def test_we_compute_and_learn_the_same_from_what_peft_writes(kind, rank_stabilized, tmp_path):
    model = theirs(kind, rank_stabilized)
    model.save_pretrained(tmp_path)
    loaded = load_peft_adapter(base(), tmp_path)
    assert_same(loaded, model)

    merged, expected = merge_adapters(loaded), model.merge_and_unload()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], value, rtol=1e-5, atol=1e-5)


def test_what_both_sides_write_has_the_same_names_shapes_and_settings(tmp_path):
    save_peft_adapter(ours("dora", dropout=0.1), tmp_path / "ours", task_type="CAUSAL_LM")
    model = theirs("dora", lora_dropout=0.1, task_type="CAUSAL_LM")
    model.save_pretrained(tmp_path / "theirs")
    written = {}
    for side in ("ours", "theirs"):
        config = json.loads((tmp_path / side / "adapter_config.json").read_text())
        config["target_modules"].sort()
        weights = (tmp_path / side / "adapter_model.safetensors").read_bytes()
        length = int.from_bytes(weights[:8], "little")  # of the list of tensors, which is JSON
        header = json.loads(weights[8 : 8 + length])
        shapes = {k: v["shape"] for k, v in header.items() if k != "__metadata__"}
        written[side] = config, shapes, header["__metadata__"]
    assert written["ours"] == written["theirs"]


def test_all_settings_come_back(tmp_path):
    save_peft_adapter(ours("dora", rank_stabilized=True, dropout=0.25), tmp_path / "adapter")
    layers = adapter_layers(load_peft_adapter(base(), tmp_path / "adapter"))
    assert {name.split(".")[-1] for name in layers} == set(TARGETS)
    assert len(layers) == 2 * len(TARGETS)
    for layer in layers.values():
        assert type(layer) is DoRALayer
        assert (layer.rank, layer.alpha, layer.dropout.p) == (3, 7.0, 0.25)
        assert layer.scaling == 7.0 / 3**0.5


def test_one_layer_alone():
    linear = nn.Linear(6, 4)
    layer = trained(DoRALayer(linear, rank=2))
    state = to_peft_state(layer, "base_model.model.0")
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "base_model.model.0.lora_A.weight": (2, 6),
        "base_model.model.0.lora_B.weight": (4, 2),
        "base_model.model.0.lora_magnitude_vector": (4,),
    }
    other = DoRALayer(copy.deepcopy(linear), rank=2)
    from_peft_state(other, state, "base_model.model.0")
    x = torch.randn(3, 6)
    assert torch.equal(other(x), layer(x))
    with torch.no_grad():
        layer.lora_A.zero_()
    assert state["base_model.model.0.lora_A.weight"].any(), "the state is a copy"


def test_one_magnitude_per_input_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"q_proj has norm_dim=0; PEFT's DoRA has one magnitude"):
        save_peft_adapter(ours("dora-input"), tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


def test_a_model_that_peft_would_adapt_otherwise_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="no adapter to write"):
        to_peft_config(base())
    model = ours("lora")
    layer = model.model.layers[1].self_attn.q_proj
    model.model.layers[1].self_attn.q_proj = layer.original_layer
    with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.q_proj has no adapter, and PEFT"):
        to_peft_config(model)
    model.model.layers[1].self_attn.q_proj = LoRALayer(layer.original_layer, rank=5, alpha=7.0)
    with pytest.raises(ValueError, match=r"\(3, 7\.0, .*\(5, 7\.0, .*must all be the same"):
        to_peft_config(model)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lab_utils.peft_bridge.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_peft_adapter(ours("lora"), tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="name another folder"):
        save_peft_adapter(ours("lora"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bias", "all", "has bias='all', which this lab's layers do not have"),
        ("rank_pattern", {"q_proj": 2}, "has rank_pattern={'q_proj': 2}"),
        ("init_lora_weights", "pissa", "may have changed the base weights"),
        ("target_modules", ".*q_proj", "must be a list"),
        ("peft_type", "IA3", "has peft_type='IA3'; it must be 'LORA'"),
        ("r", 2, r"has the shape \(3, 32\) in the file and \(2, 32\) in the model"),
        ("use_dora", False, r"q_proj\.lora_magnitude_vector is in the file or in the"),
        ("target_modules", ["q_proj"], "a layer that the model does not have"),
    ],
)
def test_what_cannot_be_read_is_named(field, value, words, tmp_path):
    theirs("dora").save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text()) | {field: value}
    if field == "peft_type":
        config = {"peft_type": value}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_peft_adapter(base(), tmp_path)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        load_peft_adapter(base(), tmp_path)
