"""Checks of lesson 04: `train_step`."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lab_utils.checks.diagnosis import only_explanation, other_kind, returned_kind, roundings
from lab_utils.checks.head_to_head import CLOSE, REFERENCE, base_model, state_of
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import check, probe
from lab_utils.checks.values import apart, describe, near, number
from lab_utils.data import next_byte_loss
from lab_utils.questions.head_to_head import (
    ask_steps,
    small_model,
)

STEP = "3. One step of training"


def _step(name: str, why: str) -> Mistake:
    return Mistake(name, why, STEP)


ACCUMULATED = _step(
    "gradients accumulated", "backward() adds to what is there: call optimizer.zero_grad() before."
)
ERASED = _step(
    "zero_grad between backward and step",
    "The optimiser then finds no gradients: zero_grad() goes before backward(), or after step().",
)
STEP_FIRST = _step(
    "step before backward", "The optimiser needs the gradients of this batch: step() comes last."
)
NO_BACKWARD = _step(
    "no gradients",
    "loss.backward() makes them, unless detach(), no_grad() or .item() has cut the loss off from "
    "the parameters.",
)
NO_STEP = _step("no step", "Call optimizer.step() after the gradients are clipped.")
TWO_STEPS = _step("more than one step", "Call optimizer.step() once a batch.")
BY_HAND = _step(
    "a step without the optimiser",
    "Call optimizer.step(): the optimiser decides how far a parameter moves.",
)
WEIGHTS_CHANGED = _step(
    "weights changed besides the step",
    "Only optimizer.step() moves the weights. What is clipped are the gradients, parameter.grad.",
)
GRADIENTS_OF_ZERO = _step(
    "gradients of zero",
    "Differentiate the loss as it is: where clamp, round or detach comes before backward(), no "
    "gradient passes.",
)
UPHILL = _step(
    "gradients of the other sign", "The optimiser goes down: differentiate the loss, not minus it."
)
NOT_CLIPPED = _step(
    "no clipping", "torch.nn.utils.clip_grad_norm_ goes between backward() and step()."
)
NORM_AFTER_CLIPPING = _step(
    "norm after clipping",
    "clip_grad_norm_ returns the norm that it found; after it no norm is above max_norm.",
)
ALWAYS_SCALED = _step(
    "short gradients made longer",
    "max_norm is a maximum: gradients whose norm is below it are left alone.",
)
EACH_CLIPPED = _step(
    "each parameter clipped by itself",
    "Pass all trained parameters to one call, so that their ratios are kept.",
)
EACH_GROUP = _step(
    "each group clipped by itself",
    "Pass the parameters of all groups to one call: model.parameters() has them.",
)
ONE_GROUP = _step(
    "one parameter group only",
    "An optimiser may have several groups: model.parameters() has the parameters of all.",
)
ENTRIES_CLIPPED = _step(
    "entries clipped, not the norm",
    "clip_grad_value_ bounds each entry; clip_grad_norm_ bounds the length of all together.",
)
MAX_NORM_IGNORED = _step("max_norm ignored", "Pass max_norm on to clip_grad_norm_.")
OTHER_DEFAULT = _step("another default of max_norm", "Without max_norm, train_step takes 1.0.")
LARGEST_GRADIENT = _step(
    "largest gradient instead of the norm", "The norm is the root of the sum of all squares."
)
ABSOLUTE_SUM = _step(
    "sum of absolute values instead of the norm", "The norm is the root of the sum of all squares."
)
SQUARED_NORM = _step("squared norm", "The norm is the root of the sum of all squares.")
ROOT_MEAN_SQUARE = _step("root mean square", "Take the norm: do not divide it.")
SUM_OF_NORMS = _step(
    "norms added up", "The norm of all gradients is the root of the sum of their squared norms."
)
ONE_NORM = _step(
    "norm of one parameter", "Return the norm of all gradients together, as clip_grad_norm_ does."
)
NORM_OF_WEIGHTS = _step(
    "norm of the weights",
    "Return the norm of the gradients, parameter.grad, not of what they move.",
)
MAX_NORM_RETURNED = _step("max_norm returned", "Return the norm that clip_grad_norm_ found.")
MEAN_OF_NORMS = _step(
    "mean of the norms", "The norm of all gradients is the root of the sum of their squared norms."
)
TWICE_BACKWARD = _step("more than one backward", "backward() adds to what is there: call it once.")
DIVIDED_LOSS = _step("loss divided", "next_byte_loss is a mean already: do not divide it.")
A_PART = _step(
    "a part of the batch only", "The loss is that of all windows and all of their positions."
)
FACTOR_RETURNED = _step(
    "factor in place of the norm", "Return the norm that clip_grad_norm_ found."
)
CLIPPED_TWICE = _step(
    "clipped to another length",
    "The step goes the right way, but not as far: clip_grad_norm_ with max_norm as it is, and no "
    "more, decides the length.",
)
RATE_CHANGED = _step(
    "another learning rate", "train_step must not change the optimiser's settings."
)
NUMBER_OF_LOSS = _step("a number made of the loss", "Return the loss itself.")
SHIFTED = _step(
    "targets shifted once more", "targets are the next bytes already: compare as they are."
)
SOFTMAX = _step("softmax before the loss", "next_byte_loss takes logits: it does that itself.")
SOME_LEFT = _step(
    "some parameters left out", "Pass all trained parameters to one call: model.parameters()."
)
INVERSE_FACTOR = _step(
    "factor upside down", "Gradients that are too long are multiplied by max_norm / norm."
)
AVERAGED = _step("gradients divided", "The loss is a mean already: do not divide its gradients.")
ANOTHER_MODEL = _step(
    "a copy of the model", "Train the model that is given: the optimiser holds its parameters."
)
NO_PAIR = _step("no pair", "Return two numbers: (loss, gradient_norm).")
THAWED = _step(
    "frozen parameters made trainable", "Leave requires_grad as it is: what is frozen stays so."
)
LOSS_ALONE = _step("loss alone", "Return the norm, too: (loss, gradient_norm).")
LOSS_AFTER_STEP = _step(
    "loss after the step", "Return the loss that was differentiated: that before the step."
)
SUMMED_LOSS = _step("loss summed", "next_byte_loss is a mean: leave it as it is.")
TARGETS_LOST = _step(
    "inputs in place of targets",
    "batch is (inputs, targets): the model reads inputs, the loss compares with targets.",
)
ORDER = _step("norm before loss", "Return (loss, gradient_norm), in this order.")
EVALUATION = _step(
    "model in evaluation mode",
    "Evaluation mode switches dropout off: leave model.eval() out of a training step.",
)
BATCH_CHANGED = _step(
    "in-place change of the batch",
    "A batch is often a view of the data set: methods that end in _ write into the data.",
)
OTHER_LOSS = _step(
    "another loss",
    "The loss and its gradient differ even before the first step: differentiate "
    "data.next_byte_loss(model(inputs), targets), as it is.",
)
LOSS_MULTIPLIED = _step("loss multiplied", "next_byte_loss is a mean in nats: do not multiply it.")
OTHER_LOSS_RETURNED = _step(
    "another number than the loss",
    "The steps are right: return the loss that you differentiated, as it is.",
)
OTHER_NORM_RETURNED = _step(
    "another number than the norm",
    "The steps and the losses are right: return the norm that clip_grad_norm_ found.",
)
CARRIED_OVER = _step(
    "right in the first steps only",
    "From step to step the optimiser keeps its state, and nothing else is kept: the gradients of "
    "all parameters are new.",
)
THROWN_AWAY = _step(
    "long gradients thrown away",
    "Gradients longer than max_norm are shortened to it, not set to zero.",
)
STEP_ROUNDED = _step("rounded", "Return the numbers themselves; round what you print.")


@dataclass(frozen=True, eq=False)
class Training:
    """A few steps to take: a model, an optimiser, batches. It is equal only to itself."""

    title: str
    state: dict[str, Tensor]
    frozen: list[str]
    optimizer: str
    groups: list[dict[str, Any]]  # with names in place of parameters
    named: dict[str, Any]
    batches: list[list[Tensor]]
    max_norm: float | None  # None: the default


@dataclass(frozen=True)
class Way:
    """A way to take a step; the defaults are the right one."""

    zero: bool = True
    clip: str = "all"
    limit: str = "given"
    norm: str = "before"
    loss: str = "before"
    scale: str = "mean"
    targets: str = "targets"
    swapped: bool = False


RIGHT = Way()
# What is returned besides a fault may be any of these: the norms of an answer that clips each
# parameter by itself, say.
WRONG_WAYS: list[tuple[Mistake, Way]] = [
    (ACCUMULATED, Way(zero=False)),
    (NOT_CLIPPED, Way(clip="none")),
    (NORM_AFTER_CLIPPING, Way(norm="after")),
    (LOSS_AFTER_STEP, Way(loss="after")),
    *((EACH_CLIPPED, Way(clip="each", norm=n)) for n in ("before", "after", "last", "sum")),
    *((EACH_GROUP, Way(clip="each group", norm=n)) for n in ("before", "last group")),
    *((ONE_GROUP, Way(clip="first group", norm=n)) for n in ("before", "first group")),
    (ONE_GROUP, Way(norm="first group")),
    *((ENTRIES_CLIPPED, Way(clip="entries", norm=n)) for n in ("before", "after", "largest")),
    (ALWAYS_SCALED, Way(clip="always")),
    *((LARGEST_GRADIENT, Way(clip=c, norm="largest")) for c in ("all", "largest")),
    *((ABSOLUTE_SUM, Way(clip=c, norm="absolute")) for c in ("all", "absolute")),
    *((SQUARED_NORM, Way(clip=c, norm="squared")) for c in ("all", "squared")),
    (SUM_OF_NORMS, Way(norm="sum")),
    *((ONE_NORM, Way(norm=n)) for n in ("first", "last", "largest norm")),
    (NORM_OF_WEIGHTS, Way(norm="weights")),
    *((NORM_OF_WEIGHTS, Way(norm=n)) for n in ("moved weights", "all weights", "all moved")),
    (MAX_NORM_IGNORED, Way(limit="1")),
    (SUMMED_LOSS, Way(scale="sum")),
    (SUMMED_LOSS, Way(scale="batch")),
    (SUMMED_LOSS, Way(loss="sum")),
    (SUMMED_LOSS, Way(loss="batch")),
    *((DIVIDED_LOSS, Way(scale=f"1 / {by}")) for by in ("sum", "batch", "length")),
    *((DIVIDED_LOSS, Way(loss=f"1 / {by}")) for by in ("sum", "batch", "length")),
    *((A_PART, Way(targets=p)) for p in ("first window", "eight windows", "last position")),
    (FACTOR_RETURNED, Way(norm="factor")),
    *((NUMBER_OF_LOSS, Way(loss=made)) for made in ("exp", "bits", "limited", "averaged")),
    (SHIFTED, Way(targets="shifted")),
    (SOFTMAX, Way(targets="softmax")),
    *((SOME_LEFT, Way(clip=part, norm=part)) for part in ("matrices", "all but the last")),
    (INVERSE_FACTOR, Way(clip="inverse")),
    (AVERAGED, Way(clip="averaged")),
    (ROOT_MEAN_SQUARE, Way(norm="root mean square")),
    *((MAX_NORM_IGNORED, Way(limit=f"always {limit:g}")) for limit in (0.1, 0.5)),
    (CLIPPED_TWICE, Way(limit="squared")),
    *((CLIPPED_TWICE, Way(limit=f"times {factor:g}")) for factor in (0.5, 0.1, 2.0, 10.0)),
    *((A_PART, Way(targets=part)) for part in ("but the last window", "first positions")),
    (SUM_OF_NORMS, Way(clip="sum", norm="sum")),
    (THROWN_AWAY, Way(clip="thrown away")),
    (TARGETS_LOST, Way(targets="inputs")),
    (TARGETS_LOST, Way(targets="swapped")),
    (TWICE_BACKWARD, Way(scale="twice")),
    (UPHILL, Way(scale="negative")),
    (MAX_NORM_RETURNED, Way(norm="limit")),
    (MEAN_OF_NORMS, Way(norm="mean")),
    (ORDER, Way(swapped=True)),
]


@check(forbids=REFERENCE, seeded=True, needs=["optimizers", "scipy"])
def check_train_step(
    train_step: Callable,
    aspect: str | None = None,
    *,
    max_norm: float = 0.5,
    steps: int = 3,
    seed: int = 0,
) -> None:
    """Check a `train_step(model, batch, optimizer, max_norm=1.0) -> (loss, gradient_norm)`.

    Args:
        aspect: `"numbers"` (what is returned) or `"weights"` (what the steps did); both if None.
        max_norm, steps, seed: of one of the trainings; two others have limits of their own.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    trainings = _draw_trainings(max_norm, steps, seed)
    expected = [_simulate(training, RIGHT) for training in trainings]
    for name in chosen(aspect, ("numbers", "weights")):
        with Report(f"train_step · {name} · {steps} steps, max_norm {max_norm:g}") as report:
            rows = [
                probe(
                    ask_steps,
                    train_step,
                    *(training.state, training.frozen, training.optimizer, training.groups),
                    *(training.named, training.batches, training.max_norm),
                    step=f"train_step(model, batch, optimizer), with {training.title},",
                    reference=REFERENCE,
                )
                for training in trainings
            ]
            found = [_trace(training, r) for training, r in zip(trainings, rows, strict=True)]
            rounded = _are_rounded(found, expected)
            mistake = STEP_ROUNDED if rounded else _seen_fault(rows, found)
            mistake = mistake or _explain_steps(trainings, expected, found)
            if name == "numbers":
                _check_numbers(report, trainings, rows, expected, found, mistake)
            else:
                _check_weights(report, trainings, rows, expected, found, mistake)


@functools.lru_cache(maxsize=8)
def _draw_trainings(max_norm: float, steps: int, seed: int) -> tuple[Training, ...]:
    model = base_model(1, seed)
    names = [name for name, _ in model.named_parameters()]
    generator = torch.Generator().manual_seed(seed)
    matrices = [name for name in names if "proj" in name or "mlp" in name]
    matrices = [name for name in matrices if name.endswith("weight")]
    rest = [name for name in names if name not in matrices]
    some = [name for name in names if name not in ("position.weight", "blocks.0.norm2.bias")]

    def batches() -> list[list[Tensor]]:
        # one is larger than the batches of the lesson
        sizes = [(4, 12, 1)[step % 3] for step in range(steps)]
        tokens = [torch.randint(256, (size, 9), generator=generator) for size in sizes]
        return [[t[:, :-1].contiguous(), t[:, 1:].contiguous()] for t in tokens]

    two_groups = [
        {"params": matrices, "lr": 0.05, "weight_decay": 0.1},
        {"params": rest, "lr": 0.02, "weight_decay": 0.0},
    ]
    # eps is large, so that a gradient that is zero except for rounding moves nothing
    adam = ("AdamW", two_groups, {"eps": 1e-2})
    momentum = ("SGD", [{"params": names, "lr": 0.2, "momentum": 0.9}], {})
    # short enough steps to keep rounding errors from growing
    plain = ("SGD", [{"params": some, "lr": 0.25 / min(max_norm, 12.0)}], {})
    slow = ("SGD", [{"params": some, "lr": 0.02}], {})
    state = state_of(model)
    frozen = [name for name in names if name not in some]
    return (
        Training("SGD", state, frozen, *plain, batches(), max_norm),
        Training("AdamW and two parameter groups", state, [], *adam, batches(), 0.3),
        Training("momentum and the default of max_norm", state, [], *momentum, batches(), None),
        Training("a max_norm that is never reached", state, frozen, *slow, batches(), 1000.0),
    )


def _trainable(model: torch.nn.Module, training: Training) -> dict[str, Tensor]:
    for name in training.frozen:
        model.get_parameter(name).requires_grad_(False)
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


@functools.lru_cache(maxsize=1024)  # the same for every answer; about 0.1 MB each
def _simulate(training: Training, way: Way, steps: int | None = None) -> dict[str, Tensor]:
    """Return the norms and losses of each step, and how far the weights are from their start.

    All of shape `(steps,)`, but `weights`, which is `(steps, parameters)`.

    Args:
        steps: how many of the first steps are taken; all if None.
    """
    model = small_model(training.state, 1)
    trained = _trainable(model, training)
    groups = [
        group | {"params": [trained[n] for n in group["params"] if n in trained]}
        for group in training.groups
    ]
    optimizer = getattr(torch.optim, training.optimizer)(groups, **training.named)
    parameters = [group["params"] for group in groups]
    limit = 1.0 if training.max_norm is None else training.max_norm
    limit = _limit(way.limit, limit)
    start = _flat(training.state)
    losses, norms, weights = [], [], []
    for inputs, targets in training.batches[:steps]:
        if way.zero:
            optimizer.zero_grad()
        read, compared = _compared(way.targets, inputs, targets)
        logits, compared = _predicted(way.targets, model(read), compared)
        loss = next_byte_loss(logits, compared)
        factors = _factors(targets)
        (loss * (factors | {"twice": 2, "negative": -1}).get(way.scale, 1)).backward()
        weights_before = _flat(dict(model.named_parameters())).norm().item()
        before = _norms(list(trained.values()), parameters)
        _clip(way.clip, list(trained.values()), parameters, limit, len(inputs))
        after = _norms(list(trained.values()), parameters)["before"] if way.norm == "after" else 0
        optimizer.step()
        value = loss.item() * factors.get(way.loss, factors.get(way.scale, 1))
        if way.loss in ("after", "averaged"):
            after_step = next_byte_loss(model(inputs), targets).item()
            value = after_step if way.loss == "after" else (value + after_step) / 2
        losses.append(_reported(way.loss, value, limit))
        now = _flat(dict(model.named_parameters()))
        others = {
            "after": after,
            "limit": limit,
            "factor": min(1.0, limit / (before["before"] + 1e-6)),
            "moved weights": _flat(trained).norm().item(),
            "all weights": weights_before,
            "all moved": now.norm().item(),
        }
        norms.append((before | others)[way.norm])
        weights.append(now - start)
    found = {"norm": norms, "loss": losses}
    if way.swapped:
        found = {"norm": losses, "loss": norms}
    numbers = {key: torch.tensor(column, dtype=torch.float64) for key, column in found.items()}
    return numbers | {"weights": torch.stack(weights)}


def _compared(way: str, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the model reads and what its output is compared with, after a way to take a
    batch."""
    ways = {
        "inputs": (inputs, inputs),
        "swapped": (targets, inputs),
        "first window": (inputs[:1], targets[:1]),
        "eight windows": (inputs[:8], targets[:8]),
        "but the last window": (inputs[:-1], targets[:-1]),
    }
    return ways.get(way, (inputs, targets))


def _predicted(way: str, logits: Tensor, compared: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits and targets that the loss is of, after a way to take positions."""
    ways = {
        "last position": (logits[:, -1:], compared[:, -1:]),
        "first positions": (logits[:, :-1], compared[:, :-1]),
        "shifted": (logits[:, :-1], compared[:, 1:]),
        "softmax": (logits.softmax(-1), compared),
    }
    return ways.get(way, (logits, compared))


def _factors(targets: Tensor) -> dict[str, float]:
    """Return what a mean loss may be multiplied by, by the name of the way."""
    sizes = {"sum": targets.numel(), "batch": len(targets), "length": targets.shape[1]}
    return sizes | {f"1 / {name}": 1 / size for name, size in sizes.items()}


def _reported(way: str, loss: float, limit: float) -> float:
    """Return what is made of the loss that is returned."""
    if way == "exp":
        return math.exp(loss)
    return {"bits": loss / math.log(2), "limited": min(loss, limit)}.get(way, loss)


def _limit(way: str, given: float) -> float:
    """Return the norm that gradients are clipped to, after a way to take it."""
    kind, _, number_ = way.partition(" ")
    of_number = {"1": 1.0, "given": given, "squared": given**2}
    if kind in of_number:
        return of_number[kind]
    return float(number_) * (given if kind == "times" else 1.0)


def _norms(trained: list[Tensor], groups: list[list[Tensor]]) -> dict[str, float]:
    """Return the norm of all gradients, and what may be mistaken for it."""
    together = torch.cat([p.grad.flatten() for p in trained])
    each = torch.stack([p.grad.norm() for p in trained])
    first, last = (torch.cat([p.grad.flatten() for p in groups[i]]).norm().item() for i in (0, -1))
    return {
        "before": together.norm().item(),
        "squared": together.square().sum().item(),
        "root mean square": together.square().mean().sqrt().item(),
        "matrices": torch.stack([p.grad.norm() for p in trained if p.dim() > 1]).norm().item(),
        "all but the last": each[:-1].norm().item(),
        "largest": together.abs().max().item(),
        "absolute": together.abs().sum().item(),
        "sum": each.sum().item(),
        "mean": each.mean().item(),
        "first": each[0].item(),
        "last": each[-1].item(),
        "largest norm": each.max().item(),
        "weights": torch.cat([p.detach().flatten() for p in trained]).norm().item(),
        "first group": first,
        "last group": last,
    }


def _clip(
    clip: str, trained: list[Tensor], groups: list[list[Tensor]], limit: float, size: int
) -> None:
    norm = torch.nn.utils.clip_grad_norm_
    if clip == "all":
        norm(trained, limit)
    elif clip == "each":
        for parameter in trained:
            norm([parameter], limit)
    elif clip == "each group":
        for group in groups:
            norm(group, limit)
    elif clip == "first group":
        norm(groups[0], limit)
    elif clip == "entries":
        torch.nn.utils.clip_grad_value_(trained, limit)
    elif clip in ("largest", "absolute"):
        norm(trained, limit, norm_type=math.inf if clip == "largest" else 1.0)
    elif clip in ("matrices", "all but the last"):
        norm([p for p in trained if p.dim() > 1] if clip == "matrices" else trained[:-1], limit)
    elif clip == "thrown away":
        if torch.cat([p.grad.flatten() for p in trained]).norm() > limit:
            for parameter in trained:
                parameter.grad = None
    elif clip in ("always", "squared", "inverse", "averaged", "sum"):
        together = torch.cat([p.grad.flatten() for p in trained]).norm()
        factor = {
            "always": limit / together,
            "squared": min(1.0, limit / together.item() ** 2),
            "inverse": max(1.0, together.item() / limit),
            "averaged": min(1.0, limit / together.item()) / size,
            "sum": min(1.0, limit / sum(p.grad.norm().item() for p in trained)),
        }[clip]
        for parameter in trained:
            parameter.grad.mul_(factor)


def _flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in state.values()])


def _trace(training: Training, rows: list[dict[str, Any]]) -> dict[str, Tensor | None]:
    """Return what was found, in the form of `_simulate`; None for what is not a number."""
    pairs = [row["returned"] for row in rows]
    columns: dict[str, Tensor | None] = {"norm": None, "loss": None}
    if all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        for index, key in enumerate(("loss", "norm")):
            column = [_value(pair[index]) for pair in pairs]
            if None not in column:
                columns[key] = torch.tensor(column, dtype=torch.float64)
    start = _flat(training.state)
    return columns | {"weights": torch.stack([row["weights"] for row in rows]) - start}


def _value(part: Any) -> float | None:
    """Return the value of a number, also in a tensor: to find a mistake besides the wrong type."""
    if isinstance(part, Tensor) and part.numel() == 1 and part.is_floating_point():
        return float(part.detach())
    return number(part)


def _agree(found: list[dict], expected: list[dict], part: str) -> bool:
    return all(
        f[part] is not None and near(f[part], e[part], CLOSE)
        for f, e in zip(found, expected, strict=True)
    )


def _seen_fault(rows: list[list[dict[str, Any]]], found: list[dict]) -> Mistake | None:
    """Return a mistake that was observed: in what the optimiser was given, and how often."""
    calls = [row for of_one in rows for row in of_one]
    if not any(row["this model"] for row in calls):
        return ANOTHER_MODEL
    if any(row["settings changed"] for row in calls):
        return RATE_CHANGED
    if not all(row["training"] for row in calls):
        return EVALUATION
    if any(row["thawed"] for row in calls):
        return THAWED
    if all(not row["steps"] for row in calls):
        return BY_HAND if any(bool(trace["weights"].any()) for trace in found) else NO_STEP
    if any(len(row["steps"]) > 1 for row in calls):
        return TWO_STEPS
    if any(row["moved besides"] for row in calls):
        return WEIGHTS_CHANGED
    if all(of_one[0]["steps"] == [False] and of_one[0]["left"] for of_one in rows):
        return STEP_FIRST
    if all(row["steps"] == [False] for row in calls):
        if all(row["gradients"] for row in calls):
            return ERASED
        return GRADIENTS_OF_ZERO if all(row["backward"] for row in calls) else NO_BACKWARD
    return None


def _explain_steps(
    trainings: Sequence[Training], expected: list[dict], found: list[dict]
) -> Mistake | None:
    """Return the mistake that explains all that is wrong; if none does, the first part of it."""
    wrong = [part for part in ("norm", "loss", "weights") if not _agree(found, expected, part)]
    alike = [
        all(_agree([f], [e], part) for part in ("norm", "loss", "weights"))
        for f, e in zip(found, expected, strict=True)
    ]
    if alike.count(False) == 1 and trainings[alike.index(False)].max_norm is None:
        return OTHER_DEFAULT

    def like(index: int, steps: int, way: Way, parts: tuple[str, ...]) -> bool:
        """Return whether the first steps of a training give what was found."""
        predicted = _simulate(trainings[index], way, steps)
        beginning = {p: None if v is None else v[:steps] for p, v in found[index].items()}
        return all(_agree([beginning], [predicted], part) for part in parts)

    for parts in [("norm", "loss", "weights"), *((part,) for part in wrong)] if wrong else []:
        left = WRONG_WAYS
        for index in range(len(trainings)):
            for steps in (1, len(trainings[index].batches)):
                left = [(mistake, way) for mistake, way in left if like(index, steps, way, parts)]
        if len({mistake for mistake, _ in left}) == 1:
            return left[0][0]
    if not wrong:
        return None
    # two faults: gradients that add up, and one that shows in the first step already
    left = [
        (mistake, replace(way, zero=False))
        for mistake, way in WRONG_WAYS
        if all(like(i, 1, way, ("norm", "loss", "weights")) for i in range(len(trainings)))
    ]
    for index in range(len(trainings)):
        every = len(trainings[index].batches)
        left = [
            (mistake, way)
            for mistake, way in left
            if like(index, every, way, ("norm", "loss", "weights"))
        ]
    return ACCUMULATED if left else _part_at_fault(trainings, expected, found)


def _part_at_fault(
    trainings: Sequence[Training], expected: list[dict], found: list[dict]
) -> Mistake | None:
    """Return which part of a step is wrong: what is returned, the loss, or the clipping.

    It holds whatever the cause is.
    """
    right = {p: _agree(found, expected, p) for p in ("norm", "loss", "weights")}
    if any(trace[part] is None for trace in found for part in ("norm", "loss")):
        return None
    if right["weights"] and right["norm"]:
        return OTHER_LOSS_RETURNED
    if right["weights"] and right["loss"]:
        return OTHER_NORM_RETURNED

    def first(traces: list[dict], part: str) -> list[Tensor]:
        return [trace[part][:1] for trace in traces]

    pairs = {p: list(zip(first(found, p), first(expected, p), strict=True)) for p in right}
    same = {part: [near(f, e, CLOSE) for f, e in of_part] for part, of_part in pairs.items()}
    if all(map(all, same.values())):
        return CARRIED_OVER
    norms = [f.item() for f, _ in pairs["norm"]]
    if all(same["loss"]) and 0.0 in norms and not any(e == 0 for _, e in pairs["norm"]):
        left_out = zip(norms, same["norm"], strict=True)
        return GRADIENTS_OF_ZERO if all(right or norm == 0 for norm, right in left_out) else None
    if all(same["loss"]) and all(same["norm"]):
        moves = [(f.flatten(), e.flatten()) for f, e in pairs["weights"]]
        plain = [m for m, t in zip(moves, trainings, strict=True) if t.optimizer == "SGD"]
        parallel = all(f.norm() > 0 and near(f * (e.norm() / f.norm()), e, 1e-4) for f, e in plain)
        return CLIPPED_TWICE if parallel else None
    if not all(same["loss"]):
        by = {part: [(f / e).item() for f, e in pairs[part]] for part in ("loss", "norm")}
        factor = by["loss"][0]
        if near(by["loss"], [factor] * len(found), 1e-4) and near(
            by["norm"], [abs(factor)] * len(found), 1e-4
        ):
            return LOSS_MULTIPLIED
        if not any(same["norm"]) and not all(same["weights"]):
            return OTHER_LOSS
    return None


def _are_rounded(found: list[dict], expected: list[dict]) -> bool:
    """Return whether the losses or the norms are the right ones, but for their last digits."""
    for part in ("norm", "loss"):
        if all(trace[part] is not None for trace in found):
            columns = [trace[part].tolist() for trace in found]
            right = [trace[part].tolist() for trace in expected]
            whole = [[float(math.trunc(value)) for value in of_one] for of_one in right]
            rounded = [*roundings(right, STEP_ROUNDED), (STEP_ROUNDED, whole)]
            if only_explanation(columns, rounded, lambda a, b: near(a, b, 1e-12)):
                return True
    return False


def _check_numbers(
    report: Report,
    trainings: Sequence[Training],
    rows: list[list[dict[str, Any]]],
    expected: list[dict],
    found: list[dict],
    mistake: Mistake | None,
) -> None:
    returned = rows[0][0]["returned"]
    if not report.expect(
        isinstance(returned, tuple | list) and len(returned) == 2,
        "it returns two things",
        f"train_step must return two numbers, (loss, gradient_norm); found {describe(returned)}.",
        LOSS_ALONE
        if _value(returned) is not None
        else NO_PAIR
        if isinstance(returned, dict | list | tuple | Tensor)
        else returned_kind(returned, "a number", STEP),
    ):
        return
    odd = next((part for part in returned if number(part) is None), None)
    floats = all(number(part) is not None for part in returned)
    kinds = " and ".join(type(part).__name__ for part in returned)
    report.expect(
        floats,
        "it returns two floats",
        f"expected (loss, gradient_norm) as floats, found {kinds}"
        + (
            "; a tensor keeps its graph and memory alive: .item() makes a number of it."
            if isinstance(odd, Tensor)
            else f": {describe(odd)}."
        ),
        other_kind(odd, "a number", STEP),
    )
    report.expect(
        mistake is not STEP_ROUNDED,
        "they are not rounded",
        "expected the numbers as they are, found rounded ones: "
        + ", ".join(map(str, returned))
        + ".",
        STEP_ROUNDED,
    )
    for training, trace, right in zip(trainings, found, expected, strict=True):
        if trace["norm"] is None or trace["loss"] is None:
            continue
        problem = _first_difference(trace, right)
        for part, what in (("norm", "gradient norm"), ("loss", "loss")):
            report.expect(
                _agree([trace], [right], part),
                f"{what} of each step, with {training.title}",
                f"with {training.title}, {problem}.",
                mistake,
            )


def _first_difference(found: dict, expected: dict) -> str:
    """Say at which step the numbers differ, the norm first: faults of clipping show there."""
    steps = range(len(expected["norm"]))
    for step in steps:
        values = {p: (expected[p][step].item(), found[p][step].item()) for p in ("norm", "loss")}
        differ = {p: not near(f, e, 1e-4) for p, (e, f) in values.items()}
        if any(differ.values()):
            norm, loss = (
                apart(*values[p]) if differ[p] else f"{values[p][0]:.4g}, as expected"
                for p in ("norm", "loss")
            )
            return f"step {step + 1}: gradient norm: {norm}; loss: {loss}"
    return "the numbers are as expected"


def _check_weights(
    report: Report,
    trainings: Sequence[Training],
    rows: list[list[dict[str, Any]]],
    expected: list[dict],
    found: list[dict],
    mistake: Mistake | None,
) -> None:
    report.expect(
        all(row["training"] for of_one in rows for row in of_one),
        "the model stays in training mode",
        "expected the model to be in training mode, as it came; found it in evaluation mode.",
        EVALUATION,
    )
    report.expect(
        all(row["batch kept"] for of_one in rows for row in of_one),
        "the batch stays as it is",
        "the inputs or the targets that were passed in have other values after the step.",
        BATCH_CHANGED,
    )
    for training, trace, right in zip(trainings, found, expected, strict=True):
        steps = len(right["weights"])
        agrees = [near(trace["weights"][i], right["weights"][i], CLOSE) for i in range(steps)]
        first = agrees.index(False) if False in agrees else 0
        lengths = (right["weights"][first].norm().item(), trace["weights"][first].norm().item())
        report.expect(
            all(agrees),
            f"how far each step moved the weights, with {training.title}",
            f"with {training.title}, after step {first + 1} the distance of all weights from their "
            f"start: {apart(*lengths)}."
            if not near(*lengths, 1e-4)
            else f"with {training.title}, after step {first + 1} the weights moved by the right "
            f"length, {lengths[0]:.4g}, in another direction.",
            mistake,
        )
