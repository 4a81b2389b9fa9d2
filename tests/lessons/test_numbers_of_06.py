"""What lesson 06 says of the committed measurements, in words that no cell computes, is so.

The numbers of section 1 are tested in tests/unit/test_published.py.
"""

import statistics

import pytest

from lab_utils import comparison
from lab_utils.commonsense import measurement


def read(name):
    settings = ("adapter_type", "rank", "learning_rate", "seed")
    return comparison.read_results(comparison.RESULTS / name, settings)


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


def test_launched_one_by_one_dora_takes_nearly_twice_the_time():
    records = [run for run in read("commonsense-times.jsonl") if run["rank"]]
    assert {(run["rank"], run["batch_size"], run["made_with"]["jobs"]) for run in records} == {
        (32, 64, 1)
    }
    seconds = {
        (method, recorded): statistics.fmean(
            run["seconds"]
            for run in records
            if run["adapter_type"] == method
            and run["made_with"]["cuda_graphs"] == recorded
            and not run["made_with"]["compiled"]
        )
        for method, recorded in (("lora", False), ("dora", False), ("dora", True))
    }
    assert seconds["dora", False] / seconds["lora", False] == pytest.approx(1.7, abs=0.2)
    assert seconds["dora", True] < seconds["dora", False] / 5


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
