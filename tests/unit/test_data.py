"""The tasks: their parts share no passage, and what a trivial predictor makes of them."""

import pytest
import torch

from lab_utils import data
from lab_utils.data import TEXTS


def test_parts_of_the_code_share_no_passage():
    length = 60
    passages = {}
    for part in ("train", "validation", "test"):
        text = (TEXTS / f"code-{part}.txt").read_text("utf-8")
        passages[part] = {text[i : i + length] for i in range(len(text) - length + 1)}
    assert all(len(found) > 20_000 for found in passages.values())
    assert not passages["train"] & passages["validation"]
    assert not passages["train"] & passages["test"]
    assert not passages["validation"] & passages["test"]


def test_the_texts_come_with_their_licence():
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in (TEXTS / "LICENSE.txt").read_text("utf-8")


def test_targets_are_the_bytes_that_follow():
    split = data.windows(b"abcdefgh", 3)
    assert [bytes(row.tolist()) for row in split.inputs] == [b"abc", b"def"]
    assert [bytes(row.tolist()) for row in split.targets] == [b"bcd", b"efg"]


def test_the_language_task_has_all_its_windows_unless_a_notebook_is_graded(monkeypatch):
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    data.language_task.cache_clear()
    sizes = {part: len(getattr(data.language_task(), part)) for part in ("train", "test")}
    assert sizes == {"train": 744, "test": 239}
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    data.language_task.cache_clear()
    assert len(data.language_task().train) == len(data.language_task().test) == 24
    data.language_task.cache_clear()


def test_the_regression_task_is_solved_by_least_squares_and_its_base_is_not_pretrained():
    task = data.regression_task()
    x, y = task.train.inputs.flatten(0, 1), task.train.targets.flatten(0, 1)
    solution = torch.linalg.lstsq(x, y).solution
    error = task.loss(task.test.inputs @ solution, task.test.targets).item()
    assert error == pytest.approx(0.01**2, rel=0.2)  # the noise that was added
    with torch.no_grad():
        untrained = task.loss(task.base(task.test.inputs), task.test.targets).item()
    assert untrained > task.test.targets.square().mean().item()  # worse than to predict zero


def test_building_a_task_leaves_the_global_random_state_alone():
    data.regression_task.cache_clear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    data.regression_task()
    assert torch.equal(torch.rand(3), expected)


def test_the_reference_split_is_what_the_base_was_not_trained_on():
    text = (TEXTS / "language-reference.txt").read_bytes()
    split = data.reference_split()
    first = bytes(split.inputs[0].tolist())
    assert text.index(first) >= len(text) - len(text) // 20
    assert split.inputs.numel() > 0.99 * (len(text) // 20) - 128
    base = data.load_pretrained()
    with torch.no_grad():
        assert data.next_byte_loss(base(split.inputs), split.targets) < 1.2, "it knows such text"
