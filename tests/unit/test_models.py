"""The models: causal, of the names that adapters look for, and the committed checkpoint."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from lab_utils import models
from lab_utils.data import TEXTS, next_byte_loss, windows


def test_a_position_sees_no_later_one():
    torch.manual_seed(0)
    model = models.TinyLanguageModel(d_model=16, n_heads=2, n_blocks=2, context=12).eval()
    tokens = torch.randint(256, (1, 12))
    changed = tokens.clone()
    changed[0, 7] = (tokens[0, 7] + 1) % 256
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_a_block_has_the_layers_that_adapters_look_for():
    block = models.SimpleTransformerBlock(d_model=16, n_heads=2)
    linear = [name for name, m in block.named_children() if isinstance(m, nn.Linear)]
    assert linear == ["q_proj", "k_proj", "v_proj", "o_proj", "mlp_up", "mlp_down"]
    assert block(torch.randn(2, 5, 16)).shape == (2, 5, 16)


def test_attention_layers_are_in_the_model():
    model = models.TinyLanguageModel(d_model=16, n_heads=2, n_blocks=3, context=8)
    names = models.attention_layers(model)
    assert len(names) == 12
    assert all(isinstance(model.get_submodule(name), nn.Linear) for name in names)


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_must_divide_the_width(heads):
    with pytest.raises(ValueError, match="d_model is 16; it must be a multiple of n_heads"):
        models.SimpleTransformerBlock(d_model=16, n_heads=heads)


def test_a_text_longer_than_the_context_is_refused():
    model = models.TinyLanguageModel(d_model=16, n_heads=2, n_blocks=1, context=8)
    with pytest.raises(ValueError, match="length 9; the context is 8"):
        model(torch.zeros(1, 9, dtype=torch.long))


def test_the_checkpoint_is_small_and_its_record_says_what_made_it():
    assert models.CHECKPOINT.stat().st_size < 4_000_000
    record = json.loads(models.CHECKPOINT.with_suffix(".json").read_text())
    model = models.load_pretrained()
    assert record["parameters"] == sum(p.numel() for p in model.parameters()) < 1_000_000
    assert record["command"].endswith("/pretrain.py")
    assert record["versions"].keys() == {"python", "torch"}
    steps = [row[0] for row in record["losses"]["rows"]]
    assert steps[-1] == record["settings"]["steps"]

    # the loss that the record ends with is that of the committed weights
    text = (TEXTS / "language-reference.txt").read_bytes()
    held_out = windows(text[-(len(text) // 20) :], model.context)
    with torch.no_grad():
        loss = next_byte_loss(model(held_out.inputs), held_out.targets).item()
    assert loss == pytest.approx(record["losses"]["rows"][-1][2], abs=1e-3)


@pytest.mark.slow
def test_pretraining_runs_on_a_cpu_and_writes_what_can_be_loaded(tmp_path):
    script = models.CHECKPOINT.parent / "pretrain.py"
    options = ["--steps", "2", "--batch-size", "2", "--device", "cpu", "--folder", str(tmp_path)]
    subprocess.run(
        [sys.executable, str(script), *options], check=True, capture_output=True, timeout=300
    )
    checkpoint = tmp_path / models.CHECKPOINT.name
    trained = models.load_pretrained(checkpoint)
    assert trained(torch.zeros(1, 5, dtype=torch.long)).shape == (1, 5, 256)
    record = json.loads(checkpoint.with_suffix(".json").read_text())
    assert record["device"] == "CPU"
    assert [row[0] for row in record["losses"]["rows"]] == [1, 2]
