"""Rows of the eight commonsense tasks in one schema: from a folder, the hub, or the lab's own.

A row is `{"question": text, "choices": [text, ...], "answer": index of the right choice}`. A blank
`_` in a WinoGrande question is where a choice goes.
"""

import gzip
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab_utils.commonsense.hub import cache_folder, require_hub

EXAMPLES = Path(__file__).parents[1] / "texts" / "commonsense.jsonl"
SPLITS = ("train", "test")


class RowsError(RuntimeError):
    """Rows are not there or not in the schema, and what to do about it."""


@dataclass(frozen=True)
class Source:
    """Where a public data set is, and how one of its records becomes a row.

    Attributes:
        path, name, revision: what `datasets.load_dataset` takes.
        test: the split to test on. Where the labels of the test split are secret, it is the
            validation split, as in the papers.
        convert: maps a record to a question, the choices, and the answer's index.
    """

    path: str
    name: str | None
    test: str
    convert: Callable[[dict], tuple[str, list[str], int]]
    revision: str | None = None


def _arc(record: dict) -> tuple[str, list[str], int]:
    question = record.get("question") or record["question_stem"]  # OpenBookQA names it so
    choices = record["choices"]
    return question, choices["text"], choices["label"].index(record["answerKey"])


def _boolq(record: dict) -> tuple[str, list[str], int]:
    # without the passage, as in the DoRA paper's data
    return record["question"] + "?", ["false", "true"], int(record["answer"])


def _piqa(record: dict) -> tuple[str, list[str], int]:
    return record["goal"], [record["sol1"], record["sol2"]], record["label"]


def _siqa(record: dict) -> tuple[str, list[str], int]:
    choices = [record["answerA"], record["answerB"], record["answerC"]]
    return f"{record['context']} {record['question']}", choices, int(record["label"]) - 1


def _hellaswag(record: dict) -> tuple[str, list[str], int]:
    def clean(text: str) -> str:  # marks such as [title] and [step], left from WikiHow
        return re.sub(r"\s+", " ", re.sub(r"\[.*?\]", "", text)).strip()

    question = clean(f"{record['activity_label']}: {record['ctx']}")
    return question, [clean(ending) for ending in record["endings"]], int(record["label"])


def _winogrande(record: dict) -> tuple[str, list[str], int]:
    choices = [record["option1"], record["option2"]]
    return record["sentence"], choices, int(record["answer"]) - 1


# Two sets are scripts on the hub, which `datasets` no longer runs; their Parquet form is a branch.
PARQUET = "refs/convert/parquet"
SOURCES = {  # in the order of the paper's Table 1
    "boolq": Source("google/boolq", None, "validation", _boolq),
    "piqa": Source("ybisk/piqa", None, "validation", _piqa, PARQUET),
    "siqa": Source("allenai/social_i_qa", None, "validation", _siqa, PARQUET),
    "hellaswag": Source("Rowan/hellaswag", None, "validation", _hellaswag),
    "winogrande": Source("allenai/winogrande", "winogrande_xl", "validation", _winogrande),
    "arc_easy": Source("allenai/ai2_arc", "ARC-Easy", "test", _arc),
    "arc_challenge": Source("allenai/ai2_arc", "ARC-Challenge", "test", _arc),
    "openbookqa": Source("allenai/openbookqa", "main", "test", _arc),
}
TASKS = tuple(SOURCES)


def example_rows(task: str) -> list[dict]:
    """Return a few rows that were written for this lab, too few to measure anything."""
    _check_task(task)
    lines = EXAMPLES.read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        {key: row[key] for key in ("question", "choices", "answer")}
        for row in rows
        if row["task"] == task
    ]


def load_rows(task: str, split: str, folder: str | os.PathLike | None = None) -> list[dict]:
    """Return all rows of one part of a task.

    Args:
        task: one of `TASKS`.
        split: `"train"` or `"test"`.
        folder: holds `<task>.<split>.jsonl.gz`, a row a line. By default it is the one that the
            environment variable `DORA_LAB_DATA` names; without that, rows come from the
            Hugging Face hub (package `datasets`) and are kept in the lab's cache folder.

    Raises:
        RowsError: the file is not there or holds something else, or the package `datasets` is
            missing.
        HubUnreachable: the rows are only on the hub, which does not answer.
        ValueError: the task or the split is unknown.
    """
    _check_task(task)
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be 'train' or 'test'")
    folder = folder or os.environ.get("DORA_LAB_DATA")
    path = Path(folder or cache_folder() / "rows", f"{task}.{split}.jsonl.gz")
    if not folder and not path.exists():
        _download(task, split, path)
    if not path.exists():
        raise RowsError(
            f"{path} is not there. Name a folder with <task>.<split>.jsonl.gz in DORA_LAB_DATA, "
            "or unset it to take the public data sets from the Hugging Face hub"
        )
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [_checked(line, task, f"{path}, line {n}") for n, line in enumerate(file, 1)]


def tasks_in(folder: str | os.PathLike) -> list[str]:
    """Return the tasks that a folder has both parts of, in the order of `TASKS`.

    Raises:
        RowsError: there is no such folder.
    """
    found = [
        task
        for task in TASKS
        if all(Path(folder, f"{task}.{split}.jsonl.gz").exists() for split in SPLITS)
    ]
    if not found:
        raise RowsError(f"{folder} has no <task>.train.jsonl.gz and <task>.test.jsonl.gz")
    return found


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it must be one of {', '.join(TASKS)}")


def _checked(line: str, task: str, where: str) -> dict:
    """Return the row of a line, or say what is wrong with it."""
    try:
        row = json.loads(line)
        texts = [row["question"], *row["choices"]]
        right = len(texts) > 2 and all(isinstance(text, str) and text for text in texts)
        right = right and row["answer"] in range(len(row["choices"]))
        right = right and (task != "winogrande" or row["question"].count("_") == 1)
    except (json.JSONDecodeError, KeyError, TypeError):
        right = False
    if not right:
        blank = " with one blank _" if task == "winogrande" else ""
        raise RowsError(
            f"{where} is {line.strip()[:80]!r}; it must be a JSON object with a question{blank}, "
            "two or more choices, and the index of the right one as answer"
        )
    return row


def _download(task: str, split: str, path: Path) -> None:
    """Fetch a part of a public data set and write it to a file, complete or not at all."""
    require_hub(f"the rows of {task}", "name a folder with rows in DORA_LAB_DATA")
    try:
        from datasets import load_dataset  # a second, and only needed here
    except ImportError as error:
        raise RowsError(
            f"the rows of {task} are fetched with the package datasets, which is not installed: "
            "pip install datasets"
        ) from error

    source = SOURCES[task]
    records = load_dataset(
        source.path,
        source.name,
        split=source.test if split == "test" else "train",
        revision=source.revision,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    with gzip.open(unfinished, "wt", encoding="utf-8") as file:
        for record in records:
            question, choices, answer = source.convert(record)
            row = {"question": question, "choices": choices, "answer": answer}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    unfinished.replace(path)
