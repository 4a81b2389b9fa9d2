"""What lesson 06 says of the committed measurements, in words that no cell computes, is so.

The numbers of section 1 are tested in tests/unit/test_published.py.
"""

import statistics

import pytest

from lab_utils import comparison
from lab_utils.commonsense import measurement


def read(name):
    return comparison.read_results(comparison.RESULTS / name, measurement.Run)


def test_adapting_matters_more_than_by_which_method():
    summary = measurement.summarise(read("commonsense.jsonl"))
    assert list(summary["differences"]) == [8, 32]
    gained = min(row["average"] for row in summary["methods"]) - summary["zero_shot"]["average"]
    assert gained > 5 * max(abs(gaps["average"].mean) for gaps in summary["differences"].values())


def test_the_rows_are_those_that_the_lesson_names():
    (base,) = comparison.select(read("commonsense.jsonl"), adapter_type="frozen")
    assert len(base["test_rows"]) == 7
    assert set(base["test_rows"].values()) == {500}
    assert "hellaswag" not in base["test_rows"]


def test_the_intervals_are_narrow_and_hold_zero():
    summary = measurement.summarise(read("commonsense.jsonl"))
    for gaps in summary["differences"].values():
        assert -0.005 < gaps["average"].low < 0 < gaps["average"].high < 0.005
        assert gaps["average"].seeds >= 5
    assert not any(row["at_edge"] for row in summary["methods"])


def test_the_learning_rate_matters_more_than_the_method():
    records = read("commonsense.jsonl")
    for row in measurement.summarise(records)["methods"]:
        found = comparison.select(records, adapter_type=row["adapter_type"], rank=row["rank"])
        by_rate = [
            statistics.fmean(
                run["average_accuracy"] for run in comparison.select(found, learning_rate=rate)
            )
            for rate in {run["learning_rate"] for run in found}
        ]
        assert 0.005 < max(by_rate) - row["average"] < 0.025  # "a point or two, from nothing"


def test_the_times_of_a_step():
    records = [run for run in read("commonsense-times.jsonl") if run["rank"]]
    assert {(run["rank"], run["batch_size"], run["made_with"]["jobs"]) for run in records} == {
        (32, 64, 1)
    }
    seconds = {
        (method, recorded, compiled): statistics.fmean(
            run["seconds"]
            for run in records
            if run["adapter_type"] == method
            and run["made_with"]["cuda_graphs"] == recorded
            and run["made_with"]["compiled"] == compiled
        )
        for method in ("lora", "dora")
        for recorded, compiled in ((False, False), (True, False), (True, True))
    }
    assert seconds["dora", False, False] / seconds["lora", False, False] == pytest.approx(
        1.5, abs=0.1
    )
    for method in ("lora", "dora"):
        assert seconds[method, True, False] < seconds[method, False, False] / 5
        # "a sixth", and "a tenth or less"
        assert seconds[method, True, True] < seconds[method, False, False] / 10


def test_the_hint_on_python_code():
    records = comparison.read_results(comparison.RESULTS / "head-to-head.jsonl")
    gaps = {}
    for rank in (4, 8, 16, 32):
        lora, dora = (
            comparison.at_chosen_rate(comparison.select(records, adapter_type=method, rank=rank))
            for method in ("lora", "dora")
        )
        gaps[rank] = comparison.paired_difference(lora, dora)
    assert all(gaps[rank].high < 0 for rank in (4, 8, 16))
    lower = [round(-100 * gaps[rank].relative, 1) for rank in (4, 8, 16)]
    assert (min(lower), max(lower)) == (0.5, 1.1)
    assert gaps[32].low < 0 < gaps[32].high


def test_launches_are_not_what_makes_dora_slower():
    """Recorded, LoRA and DoRA launch nothing, and the ratio of their times is still there."""
    seconds = {}
    for run in read("commonsense-times.jsonl"):
        if run["adapter_type"] != "frozen":
            way = run["made_with"]["compiled"], run["made_with"]["cuda_graphs"]
            seconds.setdefault(way, {}).setdefault(run["adapter_type"], []).append(run["seconds"])
    plain, recorded, compiled = (
        {method: statistics.fmean(found) for method, found in seconds[way].items()}
        for way in ((False, False), (False, True), (True, True))
    )
    assert recorded["dora"] / recorded["lora"] > plain["dora"] / plain["lora"] > 1.45
    for method in ("lora", "dora"):
        assert recorded[method] / plain[method] == pytest.approx(1 / 6, abs=0.02)
    extra = [times["dora"] / times["lora"] - 1 for times in (recorded, compiled)]
    assert extra[1] / extra[0] == pytest.approx(0.5, abs=0.1)
