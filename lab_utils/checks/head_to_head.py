"""Checks of lesson 04: `add_adapters_to_model`, `train_step` and `paired_difference`."""

import math
from collections.abc import Callable
from typing import Any

import scipy  # and scipy.stats, which takes long, with its first use
import torch
from torch import Tensor, nn

import lab_utils.adapters
import lab_utils.comparison
import lab_utils.training
from lab_utils.checks.report import CheckFailed, Mistake, Report, chosen
from lab_utils.checks.subject import call_function, probe
from lab_utils.data import next_byte_loss
from lab_utils.models import TinyLanguageModel, attention_layers

REFERENCE = (
    lab_utils.adapters.__file__,
    lab_utils.training.__file__,
    lab_utils.comparison.__file__,
)

ADD = "2. The same model twice"
STEP = "3. One step of training"
PAIRS = "6. Is it luck?"

BASE_CHANGED = Mistake(
    "in-place change of the base model",
    "Adapt copy.deepcopy(model): the next method has to start from the same base.",
    ADD,
)
NOT_FROZEN = Mistake(
    "other layers trainable",
    "Freeze the whole copy with requires_grad_(False) before the adapters go in, "
    "or their parameters are frozen too.",
    ADD,
)
ADAPTERS_FROZEN = Mistake(
    "adapters frozen",
    "requires_grad_(False) comes before the adapters go in, not after.",
    ADD,
)
SOME_LEFT_OUT = Mistake(
    "layers left out",
    "Adapt q_proj, k_proj, v_proj and o_proj of every block: model.named_modules() finds them all.",
    ADD,
)
TOO_MANY = Mistake(
    "more than the attention adapted",
    "Only q_proj, k_proj, v_proj and o_proj are adapted; the MLP stays as it is.",
    ADD,
)
WRONG_TYPE = Mistake(
    "the other method's layer",
    'adapter_type "dora" takes layers.DoRALayer, "lora" takes layers.LoRALayer.',
    ADD,
)
ARGUMENTS_LOST = Mistake(
    "rank or alpha not passed on", "Hand both to every layer, by their names.", ADD
)
TYPE_UNCHECKED = Mistake(
    "unknown type accepted", 'Anything but "lora" and "dora" is an error: raise ValueError.', ADD
)
ACCUMULATED = Mistake(
    "gradients accumulated",
    "backward() adds to what is there: call optimizer.zero_grad() before it.",
    STEP,
)
NOT_CLIPPED = Mistake(
    "no clipping", "torch.nn.utils.clip_grad_norm_ goes between backward() and step().", STEP
)
NORM_AFTER_CLIPPING = Mistake(
    "norm after clipping",
    "clip_grad_norm_ returns the norm that it found; after it no norm is above max_norm.",
    STEP,
)
NO_STEP = Mistake("no step", "Call optimizer.step() after the gradients are clipped.", STEP)
LOSS_AFTER_STEP = Mistake(
    "loss after the step", "Return the loss that was differentiated: that before the step.", STEP
)
EACH_CLIPPED = Mistake(
    "each parameter clipped by itself",
    "Hand all trained parameters to one call, so that their ratios stay.",
    STEP,
)
LARGEST_GRADIENT = Mistake(
    "largest gradient instead of the norm", "clip_grad_norm_ returns the norm of all.", STEP
)
REVERSED = Mistake("difference reversed", "Take DoRA minus LoRA: below zero, DoRA is lower.", PAIRS)
UNPAIRED = Mistake(
    "unpaired interval",
    "Take the difference of each seed first: what a seed adds to both runs drops out.",
    PAIRS,
)
NORMAL = Mistake(
    "normal instead of t",
    "With a handful of seeds the spread is itself uncertain: take stats.t with n - 1 degrees.",
    PAIRS,
)
POPULATION = Mistake(
    "spread divided by n", "Estimated from n differences, the variance divides by n - 1.", PAIRS
)
NOT_OF_THE_MEAN = Mistake(
    "spread of a run, not of the mean", "The mean's standard error is the spread / sqrt(n).", PAIRS
)
ONE_SIDED = Mistake(
    "one-sided interval", "5 % outside are 2.5 % on each side: t.ppf((1 + confidence) / 2).", PAIRS
)
FIXED_CONFIDENCE = Mistake(
    "confidence ignored", "The interval widens with the confidence that is asked for.", PAIRS
)
DEGREES = Mistake("n degrees of freedom", "One is spent on the mean: n - 1 are left.", PAIRS)


# ---- add_adapters_to_model


def base_model(n_blocks: int, seed: int) -> TinyLanguageModel:
    """Return a language model of 16 features, the same for the same arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyLanguageModel(d_model=16, n_heads=2, n_blocks=n_blocks, context=8).eval()


def ask_adapted(
    add_adapters_to_model: Callable,
    adapter_type: str,
    n_blocks: int,
    seed: int,
    rank: int,
    alpha: float,
    tokens: Tensor,
) -> dict[str, Any]:
    """Adapt a model with the student's function, and say what came out."""
    model = base_model(n_blocks, seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = add_adapters_to_model(model, adapter_type, rank=rank, alpha=alpha)
    if not isinstance(adapted, nn.Module):
        return {"type": type(adapted).__name__}
    now = model.state_dict()
    kept = now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)
    parameters = dict(adapted.named_parameters())
    layers = {}
    for name, _ in model.named_modules() if kept else ():
        found = adapted.get_submodule(name)
        if name and hasattr(found, "lora_A"):
            kind = "dora" if hasattr(found, "magnitude") else "lora"
            layers[name] = [kind, found.lora_A.shape[0], float(found.scaling)]
    return {
        "type": "nn.Module",
        "base kept": kept and adapted is not model,
        "base trainable": all(p.requires_grad for p in model.parameters()),
        "layers": layers,
        "trainable": [name for name, p in parameters.items() if p.requires_grad],
        "output": adapted.eval()(tokens).detach(),
    }


def ask_unknown_type(add_adapters_to_model: Callable, adapter_type: str) -> str:
    """Return the name of the error that an unknown type raises, or what came back."""
    try:
        return type(add_adapters_to_model(base_model(1, 0), adapter_type)).__name__
    except NotImplementedError:  # not an answer: the exercise is not written yet
        raise
    except Exception as error:
        return type(error).__name__


def check_add_adapters(
    add_adapters_to_model: Callable,
    aspect: str | None = None,
    *,
    n_blocks: int = 2,
    rank: int = 3,
    alpha: float = 12.0,
    seed: int = 0,
) -> None:
    """Check an `add_adapters_to_model(model, adapter_type, rank=8, alpha=16.0) -> model`.

    Args:
        aspect: `"layers"` (which are adapted, and how), `"frozen"` (base kept, the rest frozen)
            or `"types"` (an unknown one is refused); all if None.
        n_blocks, rank, alpha, seed: of the model and its adapters.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    model = base_model(n_blocks, seed)
    tokens = torch.randint(256, (2, 6), generator=torch.Generator().manual_seed(seed))
    expected_layers = attention_layers(model)
    for name in chosen(aspect, ("layers", "frozen", "types")):
        with Report(f"add_adapters_to_model · {name} · {n_blocks} blocks, rank {rank}") as report:
            if name == "types":
                _check_types(report, add_adapters_to_model)
                continue
            for adapter_type in ("lora", "dora"):
                found = probe(
                    ask_adapted,
                    add_adapters_to_model,
                    *(adapter_type, n_blocks, seed, rank, alpha, tokens),
                    step=f"add_adapters_to_model(model, {adapter_type!r})",
                    reference=REFERENCE,
                )
                if found["type"] != "nn.Module":
                    raise CheckFailed(
                        f"add_adapters_to_model must return the adapted model; found a "
                        f"{found['type']}."
                    )
                if name == "frozen":
                    with torch.no_grad():
                        frozen = model(tokens)
                    _check_frozen(report, adapter_type, found, frozen)
                else:
                    _check_layers(report, adapter_type, found, expected_layers, rank, alpha / rank)


def _check_layers(
    report: Report, adapter_type: str, found: dict, expected: list[str], rank: int, scaling: float
) -> None:
    if not report.expect(
        found["base kept"],
        f"{adapter_type}: the model that was passed in stays as it is",
        "the model that was passed in has adapters or other values after the call.",
        BASE_CHANGED,
    ):
        return
    layers = found["layers"]
    missing = [name for name in expected if name not in layers]
    extra = [name for name in layers if name not in expected]
    report.expect(
        not missing,
        f"{adapter_type}: every attention projection has an adapter",
        f"expected an adapter in {', '.join(missing[:3])}, found none.",
        SOME_LEFT_OUT,
    )
    report.expect(
        not extra,
        f"{adapter_type}: nothing else has one",
        f"found an adapter in {', '.join(extra[:3])}.",
        TOO_MANY,
    )
    kinds = {kind for kind, _, _ in layers.values()}
    report.expect(
        kinds <= {adapter_type},
        f"{adapter_type}: the adapters are of this method",
        f"expected {adapter_type} adapters, found {' and '.join(sorted(kinds))}.",
        WRONG_TYPE,
    )
    wrong = [
        f"{name} has rank {r} and scaling {s:g}"
        for name, (_, r, s) in layers.items()
        if r != rank or not math.isclose(s, scaling)
    ]
    report.expect(
        not wrong,
        f"{adapter_type}: rank {rank} and scaling {scaling:g}",
        f"expected rank {rank} and scaling {scaling:g} everywhere; {' '.join(wrong[:1])}.",
        ARGUMENTS_LOST,
    )


def _check_frozen(report: Report, adapter_type: str, found: dict, output: Tensor) -> None:
    report.expect(
        found["base kept"] and found["base trainable"],
        f"{adapter_type}: the model that was passed in stays as it is, trainable too",
        "the model that was passed in has adapters, other values or frozen parameters now.",
        BASE_CHANGED,
    )
    ours = ("lora_A", "lora_B", "magnitude")
    others = [name for name in found["trainable"] if not name.endswith(ours)]
    report.expect(
        not others,
        f"{adapter_type}: only the adapters are trainable",
        f"expected only adapters to be trainable, found also {', '.join(others[:3])}.",
        NOT_FROZEN,
    )
    kinds = {name.split(".")[-1] for name in found["trainable"]}
    expected = {"lora_A", "lora_B"} | ({"magnitude"} if adapter_type == "dora" else set())
    missing = sorted(expected - kinds)
    report.expect(
        not missing,
        f"{adapter_type}: {', '.join(sorted(expected))} are trainable",
        f"{', '.join(missing)} of the adapters are not trainable.",
        ADAPTERS_FROZEN,
    )
    report.expect_close(
        found["output"], output, f"{adapter_type}: the base's output before training", []
    )


def _check_types(report: Report, add_adapters_to_model: Callable) -> None:
    for adapter_type in ("dorra", "full"):
        found = probe(
            ask_unknown_type,
            add_adapters_to_model,
            adapter_type,
            step=f"add_adapters_to_model(model, {adapter_type!r})",
            reference=REFERENCE,
        )
        report.expect(
            found == "ValueError",
            f"{adapter_type!r} raises a ValueError",
            f"expected a ValueError for adapter_type={adapter_type!r}, found {found}.",
            None if found.endswith("Error") else TYPE_UNCHECKED,
        )


# ---- train_step


def ask_steps(
    train_step: Callable, seed: int, batches: list[list[Tensor]], max_norm: float, rate: float
) -> dict[str, Any]:
    """Take the student's step on each batch; return what it returned, and the weights after."""
    model = base_model(1, seed)
    model.position.requires_grad_(False)  # a model that is trained in part, as an adapted one
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate)
    answers, returned = [], []
    for inputs, targets in batches:
        answer = train_step(model, (inputs, targets), optimizer, max_norm=max_norm)
        answers.append(answer)
        pair = isinstance(answer, tuple | list) and len(answer) == 2
        returned.append([type(part).__name__ for part in answer] if pair else None)
    numbers = [
        [float(part) for part in answer] if kinds else None
        for answer, kinds in zip(answers, returned, strict=True)
    ]
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return {"types": returned, "numbers": numbers, "weights": weights}


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
        max_norm, steps, seed: of the training; gradients are longer than `max_norm`.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(256, (steps, 4, 9), generator=generator)
    batches = [[batch[:, :-1].contiguous(), batch[:, 1:].contiguous()] for batch in tokens]
    rate = 0.5
    for name in chosen(aspect, ("numbers", "weights")):
        with Report(f"train_step · {name} · {steps} steps, max_norm {max_norm:g}") as report:
            found = probe(
                ask_steps,
                train_step,
                *(seed, batches, max_norm, rate),
                step="train_step(model, batch, optimizer)",
                reference=REFERENCE,
            )
            for types in found["types"][:1]:
                _expect_two_floats(report, types)
            expected = _textbook_steps(seed, batches, max_norm, rate)
            wrong = {
                mistake: _textbook_steps(seed, batches, max_norm, rate, mistake)
                for mistake in WRONG_STEPS
            }
            if name == "numbers":
                numbers = torch.tensor(found["numbers"], dtype=torch.float64)
                for column, what in enumerate(("loss", "gradient norm")):
                    report.expect_close(
                        numbers[:, column],
                        expected["numbers"][:, column],
                        f"{what} of each step",
                        [(w["numbers"][:, column], mistake) for mistake, w in wrong.items()],
                    )
            else:
                start = torch.cat([p.detach().flatten() for p in base_model(1, seed).parameters()])
                report.expect_close(
                    found["weights"] - start,
                    expected["weights"] - start,
                    f"how far {steps} steps moved the weights",
                    [(w["weights"] - start, mistake) for mistake, w in wrong.items()],
                )


def _expect_two_floats(report: Report, types: list[str] | None) -> None:
    if types is None:
        raise CheckFailed("train_step must return two numbers, (loss, gradient_norm).")
    report.expect(
        all(kind in ("float", "float64") for kind in types),
        "it returns two floats",
        f"expected (loss, gradient_norm) as floats, found {' and '.join(types)}; a tensor keeps "
        "its graph and memory alive: .item() makes a number of it.",
    )


WRONG_STEPS = (
    NO_STEP,
    ACCUMULATED,
    NOT_CLIPPED,
    NORM_AFTER_CLIPPING,
    LOSS_AFTER_STEP,
    EACH_CLIPPED,
    LARGEST_GRADIENT,
)


def _textbook_steps(
    seed: int,
    batches: list[list[Tensor]],
    max_norm: float,
    rate: float,
    mistake: Mistake | None = None,
) -> dict[str, Tensor]:
    """Return losses, norms and weights of plain gradient descent, or with a mistake in it."""
    model = base_model(1, seed)
    model.position.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate)
    numbers = []
    for inputs, targets in batches:
        if mistake is not ACCUMULATED:
            optimizer.zero_grad()
        loss = next_byte_loss(model(inputs), targets)
        loss.backward()
        norms = [p.grad.norm() for p in trained]
        norm = torch.stack(norms).norm()
        if mistake is EACH_CLIPPED:
            for parameter in trained:
                nn.utils.clip_grad_norm_([parameter], max_norm)
        elif mistake is not NOT_CLIPPED:
            nn.utils.clip_grad_norm_(trained, max_norm)
        if mistake is NORM_AFTER_CLIPPING:
            norm = norm.clamp_max(max_norm)
        if mistake is LARGEST_GRADIENT:
            norm = torch.stack(norms).max()
        if mistake is not NO_STEP:
            optimizer.step()
        if mistake is LOSS_AFTER_STEP:
            with torch.no_grad():
                loss = next_byte_loss(model(inputs), targets)
        numbers.append([loss.item(), norm.item()])
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return {"numbers": torch.tensor(numbers, dtype=torch.float64), "weights": weights}


# ---- paired_difference


def check_paired_difference(
    paired_difference: Callable,
    aspect: str | None = None,
    *,
    seeds: int = 5,
    confidence: float = 0.9,
    seed: int = 0,
) -> None:
    """Check a `paired_difference(lora_losses, dora_losses, confidence=0.95)`.

    It returns `(mean, low, high)` of DoRA minus LoRA.

    Args:
        aspect: `"mean"` or `"interval"`; both if None.
        seeds: how many pairs.
        confidence: of the interval, asked for besides the default.
        seed: of the random losses.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)
    luck, noise = torch.randn(2, seeds, generator=generator, dtype=torch.float64)
    lora = (2.0 + 0.2 * luck).tolist()
    dora = (1.95 + 0.2 * luck + 0.05 * noise).tolist()
    for name in chosen(aspect, ("mean", "interval")):
        with Report(f"paired_difference · {name} · {seeds} seeds") as report:
            for named in ({}, {"confidence": confidence}):
                found = call_function(paired_difference, lora, dora, reference=REFERENCE, **named)
                if not _is_triple(report, found):
                    break
                level = named.get("confidence", 0.95)
                expected = interval(lora, dora, level)
                mistakes = wrong_intervals(lora, dora, level)
                if name == "mean":
                    report.expect_close(
                        *(torch.tensor(v[:1], dtype=torch.float64) for v in (found, expected)),
                        "mean of DoRA minus LoRA",
                        [(torch.tensor([-expected[0]], dtype=torch.float64), REVERSED)],
                    )
                    break
                report.expect_close(
                    *(torch.tensor(v[1:], dtype=torch.float64) for v in (found, expected)),
                    f"interval of {level:.0%}",
                    [(torch.tensor(w[1:], dtype=torch.float64), m) for w, m in mistakes],
                )


def interval(lora: list[float], dora: list[float], confidence: float) -> tuple[float, float, float]:
    """Return mean, low and high of the paired difference, by Student's t."""
    difference = torch.tensor(dora, dtype=torch.float64) - torch.tensor(lora, dtype=torch.float64)
    mean, n = difference.mean().item(), len(lora)
    half = scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * difference.std().item() / math.sqrt(n)
    return mean, mean - half, mean + half


def wrong_intervals(
    lora: list[float], dora: list[float], confidence: float
) -> list[tuple[tuple[float, float, float], Mistake]]:
    """Return the interval as each known mistake would make it, likeliest first."""
    a, b = (torch.tensor(losses, dtype=torch.float64) for losses in (lora, dora))
    difference, n = b - a, len(lora)
    mean, spread = difference.mean().item(), difference.std().item()
    t = scipy.stats.t.ppf((1 + confidence) / 2, n - 1)
    unpaired = math.sqrt((a.var().item() + b.var().item()) / n)
    welch = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(confidence)
    pooled = scipy.stats.ttest_ind(b, a).confidence_interval(confidence)
    error = spread / math.sqrt(n)
    halves = [
        (scipy.stats.norm.ppf((1 + confidence) / 2) * error, NORMAL),
        (1.96 * error, NORMAL if confidence == 0.95 else FIXED_CONFIDENCE),
        (2.0 * error, NORMAL if confidence == 0.95 else FIXED_CONFIDENCE),
        (t * difference.std(correction=0).item() / math.sqrt(n), POPULATION),
        (t * spread, NOT_OF_THE_MEAN),
        (scipy.stats.t.ppf(confidence, n - 1) * error, ONE_SIDED),
        (scipy.stats.t.ppf((1 + confidence) / 2, n) * error, DEGREES),
        (scipy.stats.t.ppf(0.975, n - 1) * error, FIXED_CONFIDENCE),
        (t * unpaired, UNPAIRED),
    ]
    wrong = [((mean, mean - half, mean + half), mistake) for half, mistake in halves]
    wrong += [((mean, w.low, w.high), UNPAIRED) for w in (welch, pooled)]
    _, low, high = interval(lora, dora, confidence)
    return [*wrong, ((-mean, -high, -low), REVERSED)]


def _is_triple(report: Report, found: Any) -> bool:
    triple = isinstance(found, tuple | list) and len(found) == 3
    numbers = triple and all(isinstance(value, float) for value in found)
    return report.expect(
        numbers,
        "it returns three floats",
        f"expected (mean, low, high) as three floats, found {found!r}.",
    )
