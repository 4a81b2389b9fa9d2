"""Numbers of the DoRA paper and of those who ran its code again, each with its source.

The files are `results/published/*.csv`; accuracies are in per cent.
"""

import csv
from pathlib import Path

PUBLISHED = Path(__file__).parent / "results" / "published"
TASKS = ("BoolQ", "PIQA", "SIQA", "HellaSwag", "WinoGrande", "ARC-e", "ARC-c", "OBQA")
# What guessing among the choices of a question gets, in per cent.
GUESSING = dict(zip(TASKS, (50, 50, 100 / 3, 25, 50, 25, 25, 25), strict=True))


def commonsense_table() -> list[dict]:
    """Return table 1 of the DoRA paper (arXiv 2402.09353 v6), and LoRA as its authors ran it later.

    Each row has `model`, `method`, `rank`, `source`, the accuracy on each of `TASKS`, and the
    `average` as it was printed. `method` is `"LoRA"`, `"DoRA"`, or `"LoRA (own run)"` for the row
    of the authors' repository; the paper quotes its LoRA row for LLaMA-7B from other authors.
    """
    return _read("commonsense.csv", numbers=(*TASKS, "average"))


def rank_table() -> list[dict]:
    """Return table 15 of the DoRA paper: LoRA and DoRA on LLaMA-7B at five ranks.

    The rows have the fields of `commonsense_table`. A last one, `"DoRA (repository)"`, is what the
    authors' repository has for DoRA at rank 64, where it differs from the paper.
    """
    return _read("ranks.csv", numbers=(*TASKS, "average"))


def reruns() -> list[dict]:
    """Return what others got when they trained DoRA with the authors' code again.

    Each row has `model`, `method`, `rank`, `source`, and two averages over `TASKS`: `published`
    and `rerun`.
    """
    return _read("reruns.csv", numbers=("published", "rerun"))


def pairs(table: list[dict]) -> dict[str, tuple[dict, dict]]:
    """Return every DoRA row of a table with every LoRA row of its model, by a name for the pair."""
    return {
        f"{dora['model']}, DoRA rank {dora['rank']}"
        + (", LoRA own run" if "own" in lora["method"] else ""): (dora, lora)
        for dora in table
        if dora["method"] == "DoRA"
        for lora in table
        if lora["model"] == dora["model"] and lora["method"] != "DoRA"
    }


def average(row: dict) -> float:
    """Return the mean accuracy over `TASKS` of a row of the table."""
    return sum(row[task] for task in TASKS) / len(TASKS)


def find(rows: list[dict], model: str, method: str, rank: int) -> dict:
    """Return the one row of a model, method and rank.

    Raises:
        ValueError: there is no such row, or more than one.
    """
    found = [r for r in rows if (r["model"], r["method"], r["rank"]) == (model, method, rank)]
    if len(found) != 1:
        known = sorted({(r["model"], r["method"], r["rank"]) for r in rows})
        raise ValueError(f"{(model, method, rank)} names {len(found)} rows; there are {known}")
    return found[0]


def _read(name: str, numbers: tuple[str, ...]) -> list[dict]:
    with open(PUBLISHED / name, encoding="utf-8", newline="") as file:
        return [
            row | {"rank": int(row["rank"])} | {key: float(row[key]) for key in numbers}
            for row in csv.DictReader(file)
        ]
