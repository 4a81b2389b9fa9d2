"""`benchmarks/layers.py`: every form is timed in every way, and others' results stay."""

import json
import sys

import pytest

from benchmarks import layers


def run(monkeypatch, path, *more):
    arguments = ["--device", "cpu", "--shapes", "24x16", "--tokens", "5", "--rank", "2"]
    few = ["--rounds", "2", "--milliseconds", "0.1", "--results", str(path)]
    monkeypatch.setattr(sys, "argv", ["layers.py", *arguments, *few, *more])
    layers.main()
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_form_is_timed_beside_lora(monkeypatch, tmp_path, capsys):
    path = tmp_path / "layers.jsonl"
    path.write_text('{"device": "another"}\n')
    other, *records = run(monkeypatch, path, "--ways", "plain")
    assert other == {"device": "another"}
    assert [record["form"] for record in records] == list(layers.FORMS)
    for record in records:
        assert record["milliseconds"] > 0
        assert len(record["rounds"]) == 2
        assert record["memory"] > 0
        assert {"command", "torch", "peft", "threads"} <= record["made_with"].keys()
    times_lora = {record["form"]: record["times_lora"] for record in records}
    assert times_lora["LoRA"] == 1.0
    memory = {record["form"]: record["memory"] for record in records}
    assert memory["frozen"] < memory["LoRA"] < memory["DoRA textbook, full gradient"]
    assert len(capsys.readouterr().out.splitlines()) == len(layers.FORMS)
    assert len(run(monkeypatch, path, "--ways", "plain")) == 1 + len(layers.FORMS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_compiled_forms_say_how_many_pieces_they_are_in(monkeypatch, tmp_path):
    forms = ["LoRA", "DoRA", "DoRA, PEFT"]
    records = run(monkeypatch, tmp_path / "r", "--ways", "compiled", "--forms", *forms)
    breaks = [record["graph_breaks"] for record in records]
    assert breaks[:2] == [0, 0]
    assert breaks[2] > 0


def test_a_form_that_fails_says_so_and_costs_no_other(monkeypatch, tmp_path):
    def broken(base, rank):
        raise RuntimeError("no such layer\nmore")

    monkeypatch.setitem(layers.FORMS, "DoRA", broken)
    forms = ["LoRA", "DoRA"]
    lora, dora = run(monkeypatch, tmp_path / "r", "--ways", "plain", "--forms", *forms)
    assert lora["milliseconds"] > 0
    assert dora["error"] == "RuntimeError: no such layer"
    assert "milliseconds" not in dora
