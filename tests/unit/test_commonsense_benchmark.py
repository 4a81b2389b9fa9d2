"""`benchmarks/commonsense`: training and the runs of the measurement, on a tiny random model."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.commonsense import runs
from benchmarks.commonsense.__main__ import main
from benchmarks.commonsense.training import (
    add_peft_adapters,
    learning_rates,
    make_batches,
    train,
)
from lab_utils import commonsense
from lab_utils.adapters import trainable_parameters
from lab_utils.commonsense import measurement
from lab_utils.commonsense.scoring import encode

# training


def texts_of(language_model, task="arc_easy"):
    return [
        encode(language_model[1], task, row["question"], row["choices"][row["answer"]])
        for row in commonsense.example_rows(task) * 3
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pair_starts_from_the_same_base_and_lora_a(language_model, dtype):
    lora, dora = (add_peft_adapters(language_model[0], m, 4, 7, dtype) for m in ("lora", "dora"))
    other = add_peft_adapters(language_model[0], "lora", 4, 8, dtype)
    base = dict(language_model[0].named_parameters())
    for name, parameter in trainable_parameters(lora).items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, trainable_parameters(dora)[name])
        if "lora_A" in name:
            assert not torch.equal(parameter, trainable_parameters(other)[name])
    magnitudes = {n: p for n, p in trainable_parameters(dora).items() if "magnitude" in n}
    assert (
        len(trainable_parameters(dora))
        == len(trainable_parameters(lora)) + len(magnitudes)
        == 15 * len(magnitudes) / 5
    )
    for name, magnitude in magnitudes.items():
        assert magnitude.dtype == torch.float32
        weight = base[name.replace("lora_magnitude_vector.default.", "")]
        torch.testing.assert_close(magnitude, weight.norm(dim=1))
    assert all(not p.requires_grad for p in base.values())
    rows = commonsense.example_rows("arc_easy")
    frozen, *adapted = (
        torch.tensor(commonsense.choice_scores(m, language_model[1], "arc_easy", rows))
        for m in (language_model[0], lora, dora)
    )
    for scores in adapted:
        tolerance = 1e-5 if dtype == torch.float32 else 0.1
        torch.testing.assert_close(scores, frozen, rtol=0, atol=tolerance)


def test_batches_are_the_same_for_the_same_seed(language_model):
    texts = texts_of(language_model)
    batches, again, other = (make_batches(texts, 4, 2, seed) for seed in (0, 0, 1))
    assert len(batches) == 6
    for batch, repeated in zip(batches, again, strict=True):
        assert all(map(torch.equal, batch.tensors(), repeated.tensors()))
        assert batch.weights.sum() == pytest.approx(1)
        assert [t.shape for t in batch.tensors()] == [t.shape for t in batches[0].tensors()]
    assert any(not torch.equal(b.tokens, o.tokens) for b, o in zip(batches, other, strict=True))
    for epoch in (batches[:3], batches[3:]):
        seen = torch.cat([batch.targets[batch.weights > 0] for batch in epoch]).tolist()
        assert sorted(seen) == sorted(t for text in texts for t in text.tokens[text.start :])
    with pytest.raises(ValueError, match="no texts"):
        make_batches([], 4, 2, 0)


def test_the_rate_rises_and_falls():
    rates = learning_rates(1.0, 20)
    assert len(rates) == 20 and rates.argmax() == 1 and rates.max() == 1
    assert (rates[1:].diff() < 0).all() and rates.min() > 0
    assert learning_rates(0.5, 1).tolist() == [0.5]


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_training_changes_the_adapters_alone_and_learns(method, language_model, score_alone):
    adapted = add_peft_adapters(language_model[0], method, 4, 0, torch.float32)
    before = {name: p.clone() for name, p in adapted.named_parameters()}
    texts = texts_of(language_model)
    result = train(adapted, make_batches(texts, len(texts), 20, 0), 1e-2)
    expected = [
        -score_alone(f"Question: {row['question']}\nAnswer:", f" {row['choices'][a]}")
        / len(f" {row['choices'][a]}".encode())  # one token a byte
        for row in commonsense.example_rows("arc_easy")
        for a in [row["answer"]]
    ]
    assert result["losses"][0] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert result["losses"][-1] < 0.8 * result["losses"][0]
    for name, parameter in adapted.named_parameters():
        assert torch.equal(parameter, before[name]) is not parameter.requires_grad, name


@pytest.mark.slow
def test_compiling_changes_nothing_but_the_time(language_model, monkeypatch):
    """The warm-up before it must leave no trace in the parameters or the optimiser."""
    real = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: real(self, backend="aot_eager", **how)
    )
    batches = make_batches(texts_of(language_model), 4, 2, 0)
    plain, compiled = (
        train(
            add_peft_adapters(language_model[0], "lora", 4, 0, torch.float32),
            batches,
            1e-2,
            compiled=how,
        )["losses"]
        for how in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-5)


# the measurement


@pytest.fixture(scope="module")
def rows_folder(tmp_path_factory, write_rows):
    """The lab's own rows as a data folder, of two tasks."""
    path = tmp_path_factory.mktemp("rows")
    for task in ("boolq", "arc_easy"):
        for split in ("train", "test"):
            write_rows(path / f"{task}.{split}.jsonl.gz", commonsense.example_rows(task))
    return path


@pytest.fixture
def machine(model_folder, rows_folder):
    return runs.Machine(
        model=str(model_folder), data=str(rows_folder), tasks=("boolq", "arc_easy"), device="cpu"
    )


SMALL = {"ranks": (2,), "rates": (1e-3, 1e-2), "grid_seeds": 1, "seeds": 2, "steps": 2}


def test_a_measurement_is_made_once_and_goes_on(machine, tmp_path, monkeypatch, capsys):
    file = tmp_path / "results.jsonl"
    records = runs.measure_all(machine, file, **SMALL)
    # the base, two methods at two rates, and two other seeds of each method
    assert len(records) == 1 + 4 + 4 == len(file.read_text().splitlines())
    dora = [r for r in records if r["adapter_type"] == "dora"]
    assert {r["pairing"]["lora_A"] for r in dora if r["seed"] == 0} == {
        r["pairing"]["lora_A"] for r in records if r["adapter_type"] == "lora" and r["seed"] == 0
    }
    for record in records:
        assert record["made_with"]["peft"] and record["made_with"]["torch"] == torch.__version__
        assert set(record["accuracy"]) == set(record["test_rows"]) == {"boolq", "arc_easy"}

    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + lines[-1][:40])  # interrupted while it wrote
    made = []
    real = runs.measure
    monkeypatch.setattr(
        runs, "measure", lambda run, machine: made.append(run) or real(run, machine)
    )
    again = runs.measure_all(machine, file, **SMALL)
    assert len(made) == 1
    assert [r["accuracy"] for r in again] == [r["accuracy"] for r in records]

    main(
        f"--model {machine.model} --data {machine.data} --results {file} --ranks 2 --device cpu "
        "--rates 1e-3 1e-2 --grid-seeds 1 --seeds 2 --steps 2".split()
    )
    assert len(made) == 1
    printed = capsys.readouterr().out
    assert "| zero-shot | LoRA, rank 2 | DoRA, rank 2 |" in printed
    assert "rank 2: DoRA minus LoRA" in printed and "2 paired seeds" in printed


def test_results_of_other_rows_are_not_mixed(machine, tmp_path):
    file = tmp_path / "results.jsonl"
    runs.measure_all(machine, file, **SMALL)
    lines = file.read_text().splitlines(keepends=True)
    changed = json.loads(lines[-1])
    changed["pairing"]["test"] = "other rows"
    file.write_text("".join(lines[:-1]) + json.dumps(changed) + "\n")
    with pytest.raises(ValueError, match="runs of 2 models or sets of test rows"):
        measurement.summarise([json.loads(line) for line in file.read_text().splitlines()])


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_named(device, capsys):
    with pytest.raises(SystemExit):
        main(["--results", "file", "--device", device])
    assert f"argument --device: this machine has no {device!r}: " in capsys.readouterr().err


@pytest.mark.parametrize("module", ["benchmarks.commonsense", "benchmarks.commonsense.again"])
def test_a_folder_without_rows_ends_in_a_sentence(module, tmp_path):
    options = ["--data", tmp_path, "--results", tmp_path / "results.jsonl", "--device", "cpu"]
    command = [sys.executable, "-m", module, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    expected = f"{tmp_path} has no <task>.train.jsonl.gz and <task>.test.jsonl.gz"
    assert done.stderr.strip().splitlines() == [expected]
