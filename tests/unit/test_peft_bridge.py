"""`lab_utils.peft_bridge`: what this lab trains runs in PEFT, and the other way round."""

import copy
import json
import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
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
    model.model.layers[1].self_attn.q_proj = LoRALayer(layer.original_layer, rank=5, alpha=7.0)
    with pytest.raises(ValueError, match=r"\(3, 7\.0, .*\(5, 7\.0, .*must all be the same"):
        to_peft_config(model)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ModuleDict({"q_proj": nn.Linear(8, 8)})
        self.second = nn.ModuleDict({"q_proj": self.first["q_proj"], "k_proj": nn.Linear(8, 8)})

    def forward(self, inputs_embeds):
        x = self.second["k_proj"](self.first["q_proj"](inputs_embeds[..., :8]))
        return SimpleNamespace(logits=self.second["q_proj"](x.tanh()))


def test_an_adapter_in_two_places_is_not_written_since_peft_adapts_one_of_them():
    model = add_adapters_to_model(Twice(), "dora", rank=2, target_modules=["q_proj", "k_proj"])
    with pytest.raises(ValueError, match=r"first\.q_proj is one adapter in 2 places of the model"):
        to_peft_config(model)


def test_of_a_layer_in_two_places_the_one_is_adapted_that_peft_adapts(tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj", "k_proj"], use_dora=True)
    trained(get_peft_model(Twice(), config)).save_pretrained(tmp_path)
    assert len(assert_loads_as_in_peft(tmp_path, Twice)) == 2


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


def rewritten(folder, rename=lambda name: name, pickled=False, **config):
    """Change the files of an adapter: names of tensors, the format, fields of the configuration."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    weights = folder / "adapter_model.safetensors"
    state = {rename(name): tensor for name, tensor in load_file(weights).items()}
    if pickled:
        weights.unlink()
        torch.save(state, folder / "adapter_model.bin")
    else:
        save_file(state, weights)
    return folder


def assert_loads_as_in_peft(folder, model=base):
    theirs = PeftModel.from_pretrained(model(), folder, is_trainable=True).eval()
    loaded = load_peft_adapter(model(), folder)
    assert_same(loaded, theirs)
    return adapter_layers(loaded)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("magnitude_vector", "magnitude_vector.weight"),
        lambda name: name.replace("magnitude_vector", "magnitude_vector.default.weight"),
        lambda name: re.sub(r"(lora_.)\.weight", r"\1.default.weight", name),
    ],
    ids=["magnitude.weight", "magnitude.default.weight", "lora_A.default.weight"],
)
@pytest.mark.parametrize("pickled", [False, True])
def test_other_names_and_the_older_format(rename, pickled, tmp_path):
    theirs("dora").save_pretrained(tmp_path)
    assert_loads_as_in_peft(rewritten(tmp_path, rename, pickled))


LAYER = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("settings", "adapted"),
    [
        ({"target_modules": "all-linear"}, 14),
        ({"target_modules": [LAYER]}, 1),
        ({"target_modules": [LAYER, "self_attn.v_proj"]}, 3),
        ({"target_modules": r".*layers\.0\..*_proj"}, 7),
        ({"target_modules": "all-linear", "exclude_modules": ["down_proj"]}, 12),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, 1),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"}, 1),
        ({"target_modules": ["q_proj", "lm_head"]}, 3),
        ({"target_modules": TARGETS, "rank_pattern": {"q_proj": 5}}, 2 * len(TARGETS)),
        ({"target_modules": TARGETS, "alpha_pattern": {"q_proj": 1.0}}, 2 * len(TARGETS)),
        ({"target_modules": TARGETS, "init_lora_weights": "orthogonal", "r": 4}, 2 * len(TARGETS)),
        ({"target_modules": TARGETS, "init_lora_weights": "eva"}, 2 * len(TARGETS)),
        ({"target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {"0.*q_proj": 2}}, 2),
        ({"target_modules": TARGETS, "fan_in_fan_out": True}, 2 * len(TARGETS)),
        ({"target_modules": TARGETS, "modules_to_save": []}, 2 * len(TARGETS)),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("use_dora", [False, True])
def test_whatever_layers_and_ranks_a_configuration_chooses(settings, adapted, use_dora, tmp_path):
    config = LoraConfig(**{"r": 3, "lora_alpha": 7.0, "use_dora": use_dora} | settings)
    trained(get_peft_model(base(), config)).save_pretrained(tmp_path)
    assert len(assert_loads_as_in_peft(tmp_path)) == adapted


def test_loaded_layers_of_some_names_are_written_again(tmp_path):
    """Others have the same last part, so their names are a pattern."""
    config = LoraConfig(r=3, target_modules=[LAYER, "model.layers.0.mlp.up_proj"], use_dora=True)
    trained(get_peft_model(base(), config)).save_pretrained(tmp_path / "theirs")
    loaded = load_peft_adapter(base(), tmp_path / "theirs")
    save_peft_adapter(loaded, tmp_path / "ours")
    layers = assert_loads_as_in_peft(tmp_path / "ours")
    assert list(layers) == ["model.layers.0.mlp.up_proj", LAYER]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bias", "all", "has bias='all', which this lab's layers do not have"),
        ("modules_to_save", ["lm_head"], r"has modules_to_save=\['lm_head'\], which this lab's"),
        ("lora_bias", True, "has lora_bias=True, which this lab's layers do not have"),
        (
            "rank_pattern",
            {"q_proj": 2},
            r"has the shape \(3, 32\) in the file and \(2, 32\) in the",
        ),
        ("init_lora_weights", "pissa", "may have changed the base weights"),
        (
            "target_modules",
            ["embed_tokens"],
            "embed_tokens, a Embedding; this lab's layers",
        ),
        ("target_modules", ["nowhere"], "nowhere"),
        ("peft_type", "IA3", "has peft_type='IA3'; it must be 'LORA'"),
        ("peft_type", "NEW", "cannot be read as a PEFT adapter: .*NEW"),
        ("r", 2, r"has the shape \(3, 32\) in the file and \(2, 32\) in the model"),
        ("r", 33, "rank is 33; for in_features=32"),
        ("use_dora", False, r"q_proj\.lora_magnitude_vector is in the file or in the"),
        ("target_modules", ["q_proj"], "belongs to no layer of the model that the configuration"),
    ],
)
def test_what_cannot_be_read_is_named(field, value, words, tmp_path):
    kind = "lora" if field == "lora_bias" or value == ["embed_tokens"] else "dora"
    theirs(kind).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text()) | {field: value}
    if field == "peft_type":
        config = {"peft_type": value}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_peft_adapter(base(), tmp_path)


def test_base_weights_beside_the_adapter_must_be_the_models(tmp_path):
    config = LoraConfig(r=3, target_modules=["lm_head"])
    trained(get_peft_model(base(), config)).save_pretrained(tmp_path)
    other = base()
    with torch.no_grad():
        other.lm_head.weight.mul_(2)
    with pytest.raises(
        ValueError, match=r"contains lm_head\.weight, a weight of the base model, and"
    ):
        load_peft_adapter(other, tmp_path)


class Payload:
    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b"{}"),
        ("adapter_model.safetensors", b"not tensors"),
        ("adapter_model.bin", pickle.dumps(Payload(), protocol=2)),
        ("adapter_model.bin", b""),
    ],
)
def test_files_that_are_broken_or_more_than_tensors(name, content, tmp_path):
    theirs("dora").save_pretrained(tmp_path)
    if name.endswith(".bin"):
        (tmp_path / "adapter_model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    sentence = r"cannot be read as a PEFT adapter: \w+: |has peft_type=None; it must be"
    with pytest.raises(ValueError, match=sentence):
        load_peft_adapter(base(), tmp_path)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        load_peft_adapter(base(), tmp_path)
