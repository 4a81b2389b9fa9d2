"""What lesson 02 says of the times of a layer, in words that no cell computes, is so."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from prose import said
from torch import nn

from lab_utils.comparison import RESULTS
from lab_utils.layers import DoRALayer

WAYS = ("plain", "recorded", "compiled", "compiled and recorded")
PEFT = "DoRA, PEFT, adapter in the base's dtype"
LINES = (RESULTS / "layers.jsonl").read_text("utf-8").splitlines()
ON_GPU = [record for record in map(json.loads, LINES) if record["device"].startswith("NVIDIA")]


def values(key, out_features=4096):
    return {
        (record["form"], record["way"]): record[key]
        for record in ON_GPU
        if record["out_features"] == out_features
    }


def test_what_replaying_and_fusing_save():
    times = values("milliseconds")
    plain, recorded, compiled, both = (times["DoRA", way] for way in WAYS)
    assert round(plain - recorded, 2) == 0.20
    assert round(recorded - both, 2) == 0.08
    assert round(both - times["LoRA", "compiled and recorded"], 2) == 0.09
    assert times["LoRA", "compiled"] > 1.1 * times["LoRA", "plain"], "compiling alone is slower"
    assert 0.95 < compiled / plain < 1, "and DoRA is hardly faster"


def test_pefts_adapter_takes_longer_in_float32():
    said("02-from-scratch", "by default PEFT keeps it in float32, which takes longer.")
    times = values("milliseconds")
    for way in WAYS:
        assert times["DoRA, PEFT", way] > 1.2 * times[PEFT, way]
    base = nn.Linear(4, 4, dtype=torch.bfloat16)
    config = LoraConfig(r=2, target_modules=["0"], use_dora=True)
    theirs = get_peft_model(nn.Sequential(base), config)
    kinds = {parameter.dtype for parameter in theirs.parameters() if parameter.requires_grad}
    kinds |= {p.dtype for p in DoRALayer(base, rank=2).parameters() if p.requires_grad}
    assert kinds == {torch.float32}


def test_blocks_save_memory_first():
    memory = values("memory")
    for way in WAYS:
        assert memory["DoRA textbook", way] > 3 * memory["DoRA", way]


@pytest.mark.parametrize("out_features", [4096, 11008])
@pytest.mark.parametrize("way", WAYS)
def test_the_layer_takes_less_than_pefts(way, out_features):
    """As it is and recorded, far less; compiled, where theirs is fused as well, as much.

    Where the GPU waits for Python, four launches count that turn a float32 adapter into the dtype
    of the input and its gradient back: compiled alone, the small layer is compared with the like.
    """
    times, memory = (values(key, out_features) for key in ("milliseconds", "memory"))
    for theirs in ("DoRA, PEFT", PEFT):
        most = 1.03 if "compiled" in way else 0.8
        if (way, out_features, theirs) != ("compiled", 4096, PEFT):
            assert times["DoRA", way] < most * times[theirs, way]
        # its adapter is float32, and theirs may not be: 0.3 MB
        assert memory["DoRA", way] < memory[theirs, way] + 1e6


@pytest.mark.parametrize("out_features", [4096, 11008])
def test_dora_costs_little_more_than_lora_and_is_one_piece(out_features):
    times, breaks = (values(key, out_features) for key in ("milliseconds", "graph_breaks"))
    for way, most in (("recorded", 1.4), ("compiled and recorded", 1.2)):
        assert times["DoRA", way] < most * times["LoRA", way]
    for (form, way), found in breaks.items():
        if "compiled" in way and "PEFT" not in form:
            assert found == 0, form


def test_on_a_cpu_doras_share_shrinks_as_the_layer_grows():
    times_lora = {
        (record["in_features"], record["form"]): record["times_lora"]
        for record in map(json.loads, LINES)
        if record["dtype"] == "float32" and record["way"] == "plain"
    }
    assert times_lora[128, "DoRA"] == pytest.approx(1.5, abs=0.1)
    assert times_lora[2048, "DoRA"] < 1.1
    for width in (128, 2048):
        assert times_lora[width, "DoRA"] < times_lora[width, "DoRA, PEFT"]
        assert times_lora[width, "DoRA"] < times_lora[width, "DoRA textbook"]
