"""The tasks that models are adapted to: a small real one, and a synthetic one that hides things."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab_utils.models import SimpleTransformerBlock, load_pretrained

TEXTS = Path(__file__).parent / "texts"


@dataclass(frozen=True)
class Split:
    """One part of a task: examples in the first dimension of both tensors."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> "Split":
        """Return the same examples on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Task:
    """A base model, and data to adapt it to.

    Attributes:
        name: `"language"` or `"regression"`.
        base: the model before it is adapted. Nobody changes it: training works on copies.
        loss: maps the model's output and the targets to a scalar, the mean over a batch.
        train, validation, test: a learning rate is chosen by the validation loss; the test
            loss is what a comparison reports.
    """

    name: str
    base: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    train: Split
    validation: Split
    test: Split


@cache
def language_task() -> Task:
    """Return the lab's task: a model that has read Python's language reference is to predict code.

    The base was pretrained on the text of that reference. The parts are source code of the same
    five standard modules of Python, dealt out function by function, in windows of 128 bytes; inputs
    and targets are `(windows, 128)`, shifted by one byte. The loss is the cross-entropy in nats per
    byte.

    While nbgrader validates or grades a notebook (it sets NBGRADER_EXECUTION), each part is cut to
    its first 24 windows: no exercise is marked on this task, and nobody should wait for
    demonstrations then.
    """
    base = load_pretrained()
    length = 24 * base.context + 1 if "NBGRADER_EXECUTION" in os.environ else None
    parts = {
        part: windows((TEXTS / f"code-{part}.txt").read_bytes()[:length], base.context)
        for part in ("train", "validation", "test")
    }
    return Task("language", base, next_byte_loss, **parts)


def reference_split() -> Split:
    """Return the part of the language reference that the base was not trained on, in windows.

    `lab_utils/pretrained/pretrain.py` held out the last twentieth. It shows what a model forgets.
    """
    text = (TEXTS / "language-reference.txt").read_bytes()
    return windows(text[-(len(text) // 20) :], language_task().base.context)


def windows(text: bytes, length: int) -> Split:
    """Cut a text into windows of tokens, each with the tokens that follow its own by one."""
    tokens = torch.tensor(list(text))
    count = (len(tokens) - 1) // length
    inputs, targets = tokens[: count * length], tokens[1 : count * length + 1]
    return Split(inputs.view(count, length), targets.view(count, length))


def next_byte_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats per byte: logits `(…, 256)`, targets `(…)`."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


@cache
def regression_task() -> Task:
    """Return a synthetic task that is fast and teaches little: `y = T x + noise`.

    Inputs are Gaussian, T is one random matrix, and the base is one untrained transformer block:
    there is nothing pretrained to adapt. Inputs and targets are `(sequences, 8, 32)`, and the
    loss is the mean squared error.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # nn.Linear draws from the global generator and from no other
        base = SimpleTransformerBlock(d_model=32, n_heads=4).eval()
    transform = torch.randn(32, 32, generator=generator) / 32**0.5

    def split(sequences: int) -> Split:
        inputs = torch.randn(sequences, 8, 32, generator=generator)
        noise = 0.01 * torch.randn(inputs.shape, generator=generator)
        return Split(inputs, inputs @ transform.T + noise)

    return Task("regression", base, F.mse_loss, split(256), split(64), split(64))


# What `train_and_evaluate(task=...)` may name; a name, unlike a task, can be written to a file.
TASKS: dict[str, Callable[[], Task]] = {
    "language": language_task,
    "regression": regression_task,
}
