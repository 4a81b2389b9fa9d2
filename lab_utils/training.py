"""Train one adapter on one task, so that runs of the same seed differ in the method alone."""

import contextlib
import copy
import hashlib
import math
import numbers
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm.auto import tqdm

from lab_utils.adapters import (
    ADAPTERS,
    ATTENTION,
    METHODS,
    NAMES,
    TARGETS,
    adapter_layers,
    add_adapters_to_model,
    trainable_parameters,
)
from lab_utils.data import TASKS, Split, Task
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.memory import PeakMemory


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


# What a setting may be, and the words for it.
RANGES: dict[tuple[str, ...], tuple[Callable[[object], bool], str]] = {
    ("n_epochs", "batch_size", "rank"): (
        lambda value: _is_whole(value) and value > 0,
        "a whole number above 0",
    ),
    ("seed",): (lambda value: _is_whole(value) and value >= 0, "a whole number, 0 or more"),
    ("learning_rate", "alpha", "max_norm"): (
        lambda value: _is_finite(value) and value > 0,
        "a finite number above 0",
    ),
    ("weight_decay",): (
        lambda value: _is_finite(value) and value >= 0,
        "a finite number, 0 or more",
    ),
    ("rank_stabilized",): (lambda value: isinstance(value, bool), "True or False"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the numbers of a run. `train_and_evaluate` says what each field means.

    Raises:
        ValueError: a value is out of range or names nothing known.
    """

    adapter_type: str
    n_epochs: int = 3
    rank: int | None = 8
    task: str = "language"
    alpha: float | None = None
    learning_rate: float = 5e-3
    seed: int = 0
    batch_size: int = 8
    max_norm: float = 1.0
    weight_decay: float = 0.01
    rank_stabilized: bool = False
    device: str = "cpu"
    targets: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("adapter_type", METHODS), ("task", TASKS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of "
                    f"{', '.join(map(repr, allowed))}"
                )
        if self.targets not in (None, *TARGETS):
            raise ValueError(
                f"targets is {self.targets!r}; it must be one of {', '.join(map(repr, TARGETS))}, "
                "or None"
            )
        if self.adapter_type not in ADAPTERS:  # no adapter, so no rank: one run, not one a rank
            object.__setattr__(self, "rank", None)
            object.__setattr__(self, "alpha", None)
        missing = ("alpha",) if self.adapter_type in ADAPTERS else ("alpha", "rank")
        for names, (allows, wanted) in RANGES.items():
            for name in names:
                value = getattr(self, name)
                if not (allows(value) or (value is None and name in missing)):
                    raise ValueError(f"{name} is {value!r}; it must be {wanted}")
        try:
            torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"device is {self.device!r}; it must be a name such as 'cpu' or 'cuda'"
            ) from error
        if self.adapter_type in ADAPTERS and self.alpha is None:
            object.__setattr__(self, "alpha", 2.0 * self.rank)
        usual = "attention" if self.adapter_type in ADAPTERS else "all"
        if self.targets == usual:  # one run has one name
            object.__setattr__(self, "targets", None)


def train_and_evaluate(
    adapter_type: str,
    n_epochs: int = 3,
    rank: int = 8,
    verbose: bool = True,
    *,
    on_step: Callable[[int, nn.Module, float], None] | None = None,
    **settings,
) -> dict:
    """Adapt the base model of a task by one method, and measure how well that went.

    Every method of a seed starts from the same base and, if it has one, the same `lora_A`, and
    sees the same batches in the same order. The optimiser is AdamW with clipped gradients and a
    learning rate that falls to zero along a cosine. The same call gives the same numbers again,
    also on a GPU, where only deterministic algorithms are used; another device, or another
    version of PyTorch, rounds differently.

    Args:
        adapter_type: `"full"` (every parameter of the model is trained), `"frozen"` (none is), or
            one that `add_adapters_to_model` takes, such as `"lora"` or `"dora"`.
        n_epochs: passes over the training part.
        rank: of the adapters; `"full"` and `"frozen"` have none.
        verbose: show a progress bar.
        on_step: called with the step, the model and the loss of the step's batch, after every
            step, and once before training (step 0, whose loss is NaN).
        settings: any of

            - `task`: `"language"` (default) or `"regression"`, see `lab_utils.data`;
            - `alpha`: strength of the adapters; by default `2 * rank`, as in the paper (table 8);
            - `learning_rate` at the first step, 5e-3;
            - `seed` of `lora_A` and of the order of the batches, 0;
            - `batch_size`, 8 examples; what does not fill a batch is left out of the epoch;
            - `max_norm`, 1.0: the gradient of all trained parameters is clipped to this length;
            - `weight_decay` of `lora_A` and `lora_B`, or of all matrices for `"full"`, 0.01. A
              magnitude gets none: decay would pull it to zero regardless of the data;
            - `rank_stabilized`: as in `LoRALayer`, False;
            - `targets`: `"attention"`, the four projections of a block, or `"all"`: for an
              adapter also its MLP, for `"full"` every parameter of the model. None means
              `"attention"` for adapters and `"all"` for `"full"`;
            - `device`: where to train, such as `"cuda"`; `"cpu"`, as the lessons' numbers are.

    Returns:
        The settings by their names, and

        - `trainable_params`: how many numbers were trained;
        - `train_losses`: the mean loss of each epoch; `final_train_loss`: the last of them;
        - `validation_losses`: before training and after each epoch; `validation_loss`: the last;
        - `test_loss`: after training;
        - `step_losses`, `gradient_norms`: of every step; the norm is that before clipping;
        - `magnitude_history`: for DoRA, each layer's `m` before training and after each epoch,
          `(n_epochs + 1, magnitudes)`, by the layer's name; else empty;
        - `seconds`: what the steps took, without the first and without the evaluations;
        - `peak_memory`: the most bytes that tensors held in the first step, beyond the model:
          activations, gradients and the optimiser's state;
        - `pairing`: fingerprints of the base before it was adapted, the batches and `lora_A`.
          Runs may be compared seed by seed where these are equal. `lora_A` is None for a method
          that takes it from the base's own weights, where the seed has no say.

    Raises:
        ValueError: a setting is out of range or names nothing known.
    """
    run = Settings(adapter_type=adapter_type, n_epochs=n_epochs, rank=rank, **settings)
    with reproducible_on(run.device) as device:
        return _train_and_evaluate(run, device, verbose, on_step)


def _train_and_evaluate(
    run: Settings, device: torch.device, verbose: bool, on_step: Callable | None
) -> dict:
    task = TASKS[run.task]()
    train, validation, test = (part.to(device) for part in (task.train, task.validation, task.test))
    model = model_to_train(task, run).to(device)
    epochs = batch_order(len(train), run.batch_size, run.n_epochs, run.seed)
    n_steps = epochs.shape[0] * epochs.shape[1]
    optimizer = make_optimizer(model, run.learning_rate, run.weight_decay)
    scheduler = CosineAnnealingLR(optimizer, n_steps)
    pairing = _pairing(task, model, epochs)
    step_losses, gradient_norms, seconds = [], [], 0.0
    validation_losses = [evaluate(model, validation, task.loss)]
    magnitudes = [_magnitudes(model)]
    memory = PeakMemory()
    if on_step is not None:
        on_step(0, model, math.nan)
    with tqdm(
        total=n_steps, desc=f"{NAMES[run.adapter_type]}, seed {run.seed}", disable=not verbose
    ) as bar:
        for epoch in epochs:
            model.train()
            for indices in epoch:
                first = not step_losses
                batch = train.inputs[indices], train.targets[indices]
                started = time.perf_counter()
                with memory if first else contextlib.nullcontext():
                    loss, norm = train_step(model, batch, task.loss, optimizer, run.max_norm)
                if not first:  # measuring memory makes the first step slow
                    seconds += time.perf_counter() - started
                scheduler.step()
                step_losses.append(loss)
                gradient_norms.append(norm)
                bar.update()
                if on_step is not None:
                    on_step(len(step_losses), model, loss)
            validation_losses.append(evaluate(model, validation, task.loss))
            magnitudes.append(_magnitudes(model))

    train_losses = torch.tensor(step_losses).view(run.n_epochs, -1).mean(dim=1).tolist()
    return asdict(run) | {
        "trainable_params": sum(p.numel() for p in trainable_parameters(model).values()),
        "train_losses": train_losses,
        "final_train_loss": train_losses[-1],
        "validation_losses": validation_losses,
        "validation_loss": validation_losses[-1],
        "test_loss": evaluate(model, test, task.loss),
        "step_losses": step_losses,
        "gradient_norms": gradient_norms,
        "magnitude_history": {
            name: torch.stack([record[name] for record in magnitudes]) for name in magnitudes[0]
        },
        "seconds": seconds,
        "peak_memory": memory.peak,
        "pairing": pairing,
    }


def _pairing(task: Task, model: nn.Module, epochs: Tensor) -> dict[str, str | None]:
    """Return the fingerprints by which runs are paired, before the first step.

    Args:
        model: the task's base, adapted.
        epochs: from `batch_order`.
    """
    base = fingerprint(task.base.parameters())
    lora_A = fingerprint(layer.lora_A for layer in adapter_layers(model).values())
    # If a method starts by moving a part of the base into lora_A, the seed has no say in it.
    drawn = fingerprint(base_parameters(model)) == base
    return {
        "base": base,
        "batches": fingerprint([task.train.inputs[epochs], task.train.targets[epochs]]),
        "lora_A": lora_A if drawn else None,
    }


@contextlib.contextmanager
def reproducible_on(name: str) -> Iterator[torch.device]:
    """Yield a device on which PyTorch uses only algorithms that give the same numbers again.

    Raises:
        ValueError: this machine has no such device.
    """
    device = torch.device(name)
    if device.type != "cpu":
        try:
            torch.empty(1, device=device)
        except Exception as error:  # each backend has its own
            raise ValueError(
                f"device is {name!r}, which this machine or its PyTorch does not have: {error}"
            ) from error
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":  # on a CPU they are deterministic anyway
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS needs for it
        torch.use_deterministic_algorithms(True)
    try:
        yield device
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def model_to_train(task: Task, run: Settings) -> nn.Module:
    """Return a copy of a task's base in which only what the method trains is trainable."""
    if run.adapter_type in ADAPTERS:
        return add_adapters_to_model(
            task.base,
            run.adapter_type,
            run.rank,
            run.alpha,
            target_modules=TARGETS[run.targets or "attention"],
            rank_stabilized=run.rank_stabilized,
            generator=torch.Generator().manual_seed(run.seed),
        )
    model = copy.deepcopy(task.base).requires_grad_(False)
    if run.adapter_type == "full":
        for name, module in model.named_modules():
            if run.targets is None or name.split(".")[-1] in ATTENTION:
                module.requires_grad_()
    return model


def batch_order(examples: int, batch_size: int, n_epochs: int, seed: int) -> Tensor:
    """Return the examples of each batch, `(n_epochs, batches, batch_size)`, shuffled each epoch.

    Raises:
        ValueError: the batch is larger than the data.
    """
    if batch_size > examples:
        raise ValueError(f"batch_size is {batch_size}; the task has {examples} examples to train")
    generator = torch.Generator().manual_seed(seed)
    full = examples - examples % batch_size
    order = [torch.randperm(examples, generator=generator)[:full] for _ in range(n_epochs)]
    return torch.stack(order).view(n_epochs, -1, batch_size)


def make_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return AdamW over what is trainable; only matrices decay, and magnitudes do not."""
    decaying, others = [], []
    for name, parameter in trainable_parameters(model).items():
        matrix = parameter.ndim == 2 and name.split(".")[-1] != "magnitude"
        (decaying if matrix else others).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, learning_rate)


def train_step(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    max_norm: float = 1.0,
) -> tuple[float, float]:
    """Take one step on a batch of inputs and targets; return its loss and gradient norm.

    The norm is that of all trained parameters together, before it is clipped to `max_norm`.
    """
    inputs, targets = batch
    optimizer.zero_grad()
    loss = loss_function(model(inputs), targets)
    if loss.requires_grad:  # that of a frozen model does not
        loss.backward()
    parameters = trainable_parameters(model).values()
    gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    return loss.item(), gradient_norm.item()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    batch_size: int = 64,
) -> float:
    """Return the mean loss over a part of a task; the model is left in evaluation mode."""
    model.eval()
    total = 0.0
    for inputs, targets in zip(
        split.inputs.split(batch_size), split.targets.split(batch_size), strict=True
    ):
        total += loss_function(model(inputs), targets).item() * len(inputs)
    return total / len(split)


class WeightRecorder:
    """An `on_step` that keeps copies of weights, adapters merged, at some steps of a training.

    Args:
        layers: names of linear layers in the model, such as `"blocks.0.q_proj"`.
        steps: when to keep them; step 0 is before training.

    Attributes:
        weights: `weights[step][layer]` is `(out_features, in_features)`.
    """

    def __init__(self, layers: Iterable[str], steps: Iterable[int]) -> None:
        self.layers, self.steps = tuple(layers), frozenset(steps)
        self.weights: dict[int, dict[str, Tensor]] = {}

    def __call__(self, step: int, model: nn.Module, loss: float) -> None:
        if step in self.steps:
            found = {name: model.get_submodule(name) for name in self.layers}
            self.weights[step] = {
                name: (layer.merged_weight() if isinstance(layer, LoRALayer) else layer.weight)
                .detach()
                .clone()
                for name, layer in found.items()
            }


class MagnitudeRecorder:
    """An `on_step` that keeps copies of the magnitudes of DoRA layers while they train.

    Args:
        layers: their names in the model, such as `"blocks.0.q_proj"`.
        every: steps between two copies; the first is made before training.

    Attributes:
        steps: when a copy was made.
    """

    def __init__(self, layers: Iterable[str], every: int = 1) -> None:
        self.layers, self.every = tuple(layers), every
        self.steps: list[int] = []
        self._kept: list[list[Tensor]] = []

    def __call__(self, step: int, model: nn.Module, loss: float) -> None:
        if step % self.every == 0:
            self.steps.append(step)
            found = _magnitudes(model)
            self._kept.append([found[name] for name in self.layers])

    @property
    def histories(self) -> list[Tensor]:
        """Return a tensor `(len(steps), magnitudes)` for each layer."""
        return [torch.stack(rows) for rows in zip(*self._kept, strict=True)]


def base_parameters(model: nn.Module) -> list[Tensor]:
    """Return the parameters that a model had before it was adapted."""
    others = (module for module in model.modules() if not isinstance(module, LoRALayer))
    return [parameter for module in others for parameter in module.parameters(recurse=False)]


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Return a short text that differs if any number or shape of the tensors does."""
    digest = hashlib.sha256()
    for tensor in tensors:
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        # as bytes, since NumPy has no bfloat16
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _magnitudes(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every layer's magnitude, flat, by the layer's name."""
    return {
        name: layer.magnitude.detach().cpu().clone().flatten()
        for name, layer in adapter_layers(model).items()
        if isinstance(layer, DoRALayer)
    }
