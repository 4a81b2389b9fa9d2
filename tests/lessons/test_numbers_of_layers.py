"""What lesson 02 says of the times of a layer, in words that no cell computes, is so."""

import json

import pytest

from lab_utils.comparison import RESULTS

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
    saved = {way: times["DoRA", "plain"] - times["DoRA", way] for way in ("recorded", "compiled")}
    assert {round(found, 1) for found in saved.values()} == {0.2}
    left = times["DoRA", "compiled and recorded"] - times["LoRA", "compiled and recorded"]
    assert round(left, 2) == 0.06
    assert times["LoRA", "compiled"] > 1.1 * times["LoRA", "plain"], "compiling alone is slower"


def test_blocks_save_memory_first():
    memory = values("memory")
    for way in WAYS:
        assert memory["DoRA textbook", way] > 2 * memory["DoRA", way]


@pytest.mark.parametrize("out_features", [4096, 11008])
@pytest.mark.parametrize("way", WAYS)
def test_the_layer_takes_less_than_pefts(way, out_features):
    times, memory = (values(key, out_features) for key in ("milliseconds", "memory"))
    for theirs in ("DoRA, PEFT", PEFT):
        assert times["DoRA", way] < times[theirs, way]
        # its adapter is float32, and theirs may not be: 0.3 MB
        assert memory["DoRA", way] < memory[theirs, way] + 1e6


@pytest.mark.parametrize("out_features", [4096, 11008])
def test_compiled_dora_costs_little_more_than_lora_and_is_one_piece(out_features):
    times, breaks = (values(key, out_features) for key in ("milliseconds", "graph_breaks"))
    assert times["DoRA", "compiled"] < 1.2 * times["LoRA", "compiled"]
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
