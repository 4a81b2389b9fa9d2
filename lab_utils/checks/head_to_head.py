"""Checks of lesson 04: `add_adapters_to_model`, `train_step` and `paired_difference`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import scipy  # and scipy.stats, which takes long, with its first use
import torch
from torch import Tensor, nn

import lab_utils.adapters
import lab_utils.comparison
import lab_utils.training
from lab_utils.checks.diagnosis import (
    apart,
    describe,
    differ,
    listed,
    near,
    nothing_returned,
    number,
    only_explanation,
    roundings,
    wrong_kind,
)
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import call_function, check, probe
from lab_utils.data import next_byte_loss
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.models import TinyLanguageModel, attention_layers
from lab_utils.questions.head_to_head import (
    ask_adapted,
    ask_defaults,
    ask_steps,
    ask_type,
    small_model,
)

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
NOT_COPIED = Mistake(
    "tensors shared with the base model",
    "Adapt copy.deepcopy(model), and wrap the copy's layers: what is done to one model must not "
    "reach the other.",
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
ARGUMENTS_SWAPPED = Mistake(
    "rank and alpha swapped", "The layers take rank before alpha: hand both on by their names.", ADD
)
STABILIZED = Mistake(
    "rank-stabilised scaling",
    "Leave rank_stabilized at its default: the scaling is alpha / rank.",
    ADD,
)
INSIDE_ANOTHER = Mistake(
    "an adapter inside another",
    "Wrap each projection once, the nn.Linear that was there before.",
    ADD,
)
MISPLACED = Mistake(
    "adapters where no layer was",
    "setattr(block, name, layer) puts a layer in the place of the one that has this name in the "
    "block.",
    ADD,
)
OTHER_PRECISION = Mistake(
    "another precision", "Leave the dtype of the copy as it is: no .half() or .double().", ADD
)
NOT_THE_MODEL_ALONE = Mistake(
    "more than the model returned", "Return the adapted model, and nothing beside it.", ADD
)
SCALING_AS_ALPHA = Mistake(
    "scaling applied twice", "The layer divides alpha by the rank itself: pass alpha=alpha.", ADD
)
OTHER_DEFAULTS = Mistake(
    "other defaults", "Without rank and alpha the adapters have rank=8 and alpha=16.0.", ADD
)
PER_INPUT = Mistake(
    "one magnitude per input feature",
    "Leave norm_dim at its default, 1: one magnitude per output neuron.",
    ADD,
)
DROPOUT = Mistake(
    "dropout added", "The adapters of this exercise have no dropout: leave it at 0.0.", ADD
)
ONE_FOR_ALL = Mistake(
    "one adapter for several layers",
    "Make a new layer for each projection of each block; else they share their parameters.",
    ADD,
)
NOT_DETACHED = Mistake(
    "norm not detached", "Leave detach_norm at its default: everything but rank and alpha.", ADD
)
NEW_BASE = Mistake(
    "a base of other weights", "Adapt a copy of the model that is given: copy.deepcopy(model).", ADD
)
STARTS_ELSEWHERE = Mistake(
    "lora_B not zero",
    "Leave the adapters as they are made: they start from the base's output.",
    ADD,
)
TYPE_UNCHECKED = Mistake(
    "unknown type accepted",
    'Anything but "lora" and "dora" is an error: compare with == or look it up in a dict.',
    ADD,
)
ERROR_RETURNED = Mistake(
    "error returned, not raised", "raise ValueError(...) ends the call; return hands it back.", ADD
)
OTHER_ERROR = Mistake(
    "another kind of error",
    "Look at the type first, whatever it is, and raise ValueError yourself.",
    ADD,
)
ALL_REFUSED = Mistake(
    "every type refused", 'Raise ValueError only if the type is neither "lora" nor "dora".', ADD
)


def _step(name: str, why: str) -> Mistake:
    return Mistake(name, why, STEP)


ACCUMULATED = _step(
    "gradients accumulated", "backward() adds to what is there: call optimizer.zero_grad() before."
)
ERASED = _step(
    "zero_grad between backward and step",
    "The gradients are gone when the optimiser comes: zero_grad() goes before backward(), or after "
    "step().",
)
STEP_FIRST = _step(
    "step before backward", "The optimiser needs the gradients of this batch: step() comes last."
)
NO_BACKWARD = _step(
    "no backward", "loss.backward() makes the gradients: without it the optimiser has none."
)
NO_STEP = _step("no step", "Call optimizer.step() after the gradients are clipped.")
TWO_STEPS = _step("more than one step", "Call optimizer.step() once a batch.")
BY_HAND = _step(
    "a step without the optimiser",
    "Call optimizer.step(): how far a parameter moves is the optimiser's business.",
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
    "max_norm is the most: gradients whose norm is below it stay as they are.",
)
EACH_CLIPPED = _step(
    "each parameter clipped by itself",
    "Hand all trained parameters to one call, so that their ratios stay.",
)
EACH_GROUP = _step(
    "each group clipped by itself",
    "Hand the parameters of all groups to one call: model.parameters() has them.",
)
ONE_GROUP = _step(
    "one parameter group only",
    "An optimiser may have several groups: model.parameters() has the parameters of all.",
)
ENTRIES_CLIPPED = _step(
    "entries clipped, not the norm",
    "clip_grad_value_ bounds each entry; clip_grad_norm_ bounds the length of all together.",
)
MAX_NORM_IGNORED = _step("max_norm ignored", "Hand max_norm on to clip_grad_norm_.")
OTHER_DEFAULT = _step("another default of max_norm", "Without max_norm, train_step takes 1.0.")
LARGEST_GRADIENT = _step(
    "largest gradient instead of the norm", "The norm is the root of the sum of all squares."
)
ABSOLUTE_SUM = _step(
    "sum of absolute values instead of the norm", "The norm is the root of the sum of all squares."
)
SQUARED_NORM = _step("squared norm", "The norm is the root of the sum of all squares.")
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
DIVIDED_LOSS = _step("loss divided", "next_byte_loss is a mean already: divide it by nothing.")
A_PART = _step(
    "a part of the batch only", "The loss is that of all windows and all of their positions."
)
FACTOR_RETURNED = _step(
    "factor in the place of the norm", "Return the norm that clip_grad_norm_ found."
)
CLIPPED_TWICE = _step("clipped to another length", "Hand max_norm on to clip_grad_norm_ as it is.")
RATE_CHANGED = _step(
    "another learning rate", "The settings of the optimiser are not train_step's to change."
)
NO_PAIR = _step("no pair", "Return two numbers: (loss, gradient_norm).")
THAWED = _step("frozen parameters thawed", "Leave requires_grad as it is: what is frozen stays so.")
LOSS_ALONE = _step("loss alone", "Return the norm, too: (loss, gradient_norm).")
LOSS_AFTER_STEP = _step(
    "loss after the step", "Return the loss that was differentiated: that before the step."
)
SUMMED_LOSS = _step("loss summed", "next_byte_loss is a mean: leave it as it is.")
TARGETS_LOST = _step(
    "inputs in the place of targets",
    "batch is (inputs, targets): the model reads inputs, the loss compares with targets.",
)
ORDER = _step("norm before loss", "Return (loss, gradient_norm), in this order.")
EVALUATION = _step(
    "model in evaluation mode", "Dropout rests in it: leave model.eval() out of a training step."
)
STEP_ROUNDED = _step("rounded", "Return the numbers themselves; round what you print.")


def _pairs(name: str, why: str) -> Mistake:
    return Mistake(name, why, PAIRS)


REVERSED = _pairs("difference reversed", "Take DoRA minus LoRA: below zero, DoRA is lower.")
ABSOLUTE = _pairs(
    "absolute differences", "The sign says which method is lower: leave abs() out of it."
)
MEDIAN = _pairs("median", "The estimate is the mean of the differences.")
SUMMED = _pairs("sum instead of mean", "Divide the sum of the differences by their number.")
RELATIVE = _pairs(
    "relative difference", "Return the difference itself, in nats; divide by nothing."
)
UNPAIRED = _pairs(
    "unpaired interval",
    "Take the difference of each seed first: what a seed adds to both runs drops out.",
)
NORMAL = _pairs(
    "normal instead of t",
    "With a handful of seeds the spread is itself uncertain: take stats.t with n - 1 degrees.",
)
POPULATION = _pairs(
    "spread divided by n", "Estimated from n differences, the variance divides by n - 1."
)
NOT_OF_THE_MEAN = _pairs(
    "spread of a run, not of the mean", "The mean's standard error is the spread / sqrt(n)."
)
DIVIDED_BY_N = _pairs(
    "spread / n", "The mean's standard error is the spread divided by the root of n."
)
VARIANCE = _pairs("variance for the spread", "s is the standard deviation, the variance's root.")
ROOT_OF_LESS = _pairs(
    "sqrt(n - 1)", "n - 1 is in the spread already; the standard error divides it by sqrt(n)."
)
NO_QUANTILE = _pairs("quantile left out", "Multiply the standard error by the quantile of t.")
ONE_SIDED = _pairs(
    "one-sided interval", "5 % outside are 2.5 % on each side: t.ppf((1 + confidence) / 2)."
)
OUTSIDE_TAKEN = _pairs(
    "quantile of what is outside", "t.ppf takes the share that lies below: (1 + confidence) / 2."
)
HALF_ONLY = _pairs("half-widths", "Return the ends of the interval: mean - half and mean + half.")
ENDS_SWAPPED = _pairs(
    "ends swapped",
    "The result is (mean, low, high); the quantile of (1 - confidence) / 2 is negative, too.",
)
IN_ORDER = _pairs("mean not first", "The result is (mean, low, high), in this order.")
NO_TRIPLE = _pairs("no triple", "Return three numbers: (mean, low, high).")
MEAN_ALONE = _pairs("mean alone", "Return the ends of the interval, too: (mean, low, high).")
FIXED_QUANTILE = _pairs(
    "one quantile for all", "t depends on the number of seeds and on the confidence: take t.ppf."
)
RANGE = _pairs(
    "range of the differences",
    "The smallest and largest difference tell of single seeds; the interval is that of the mean.",
)
PERCENTILES = _pairs(
    "percentiles of the differences",
    "They tell of single seeds; the interval is that of the mean: mean ± t * s / sqrt(n).",
)
FIXED_CONFIDENCE = _pairs(
    "confidence ignored", "The interval widens with the confidence that is asked for."
)
DEGREES = _pairs("degrees of freedom", "One is spent on the mean: n - 1 are left.")
SORTED = _pairs(
    "pairs broken up by sorting", "Leave both lists in their order: their items belong together."
)
LEFT_OUT = _pairs("a seed left out", "Take the differences of all seeds.")
CONFIDENCE_PER_CENT = _pairs(
    "confidence in per cent", "confidence is a share from 0 to 1: take (1 + confidence) / 2."
)
NULL_IF_UNDECIDED = _pairs(
    "zero where the interval contains it", "Return what was found, decided or not."
)
AROUND_ZERO = _pairs("interval around zero", "The interval lies around the mean difference.")
PAIRS_ROUNDED = _pairs("rounded", "Return the numbers themselves; round what you print.")


# ---- add_adapters_to_model

OURS = ("lora_A", "lora_B", "magnitude")
# Of each kind of what a too lenient comparison lets through.
UNKNOWN_TYPES = ("dorra", "full", "or", "LoRA", "DoRA", "dora-input", "lora ", "lora2", "", None, 3)
CLOSE = 1e-4  # relative: allows for rounding in float32
RATE = 0.5  # of the gradient descent that tells what is trained


def base_model(n_blocks: int, seed: int) -> TinyLanguageModel:
    """Return a language model of 16 features, the same for the same arguments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyLanguageModel(d_model=16, n_heads=2, n_blocks=n_blocks, context=8)


def state_of(model: TinyLanguageModel) -> dict[str, Tensor]:
    """Return copies of a model's tensors, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@check(forbids=REFERENCE, seeded=True)
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
        n_blocks, rank, alpha, seed: of the model and its adapters; rank is not 8, nor alpha 16.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("layers", "frozen", "types")):
        with Report(f"add_adapters_to_model · {name} · {n_blocks} blocks, rank {rank}") as report:
            if name == "types":
                _check_types(report, add_adapters_to_model, n_blocks, seed)
                continue
            for adapter_type in ("lora", "dora"):
                case = _adapted_case(adapter_type, n_blocks, rank, alpha, seed)
                found = probe(
                    ask_adapted,
                    add_adapters_to_model,
                    *(adapter_type, case.state, n_blocks, rank, alpha, case.inputs, case.targets),
                    *(case.values, RATE),
                    step=f"add_adapters_to_model(model, {adapter_type!r}, rank={rank}, "
                    f"alpha={alpha:g})",
                    reference=REFERENCE,
                )
                if not report.expect(
                    found["module"],
                    f"{adapter_type}: it returns a model",
                    "add_adapters_to_model must return the adapted model; found "
                    f"{describe(found.get('returned'))}.",
                    NOT_THE_MODEL_ALONE
                    if isinstance(found.get("returned"), tuple | list)
                    else nothing_returned(found.get("returned"), ADD),
                ):
                    break
                if name == "frozen":
                    _check_frozen(report, case, found)
                else:
                    _check_layers(report, case, found)
                    defaults = probe(
                        ask_defaults,
                        add_adapters_to_model,
                        *(adapter_type, case.state, n_blocks),
                        step=f"add_adapters_to_model(model, {adapter_type!r})",
                        reference=REFERENCE,
                    )
                    other = [pair for pair in defaults if pair != [8, 2.0]]
                    report.expect(
                        not other,
                        f"{adapter_type}: rank 8 and alpha 16 by default",
                        "expected rank 8 and scaling 16 / 8 = 2 without arguments, found rank and "
                        f"scaling {listed(other, 1)}.",
                        OTHER_DEFAULTS,
                    )


@dataclass(frozen=True)
class AdaptedCase:
    """A model, its adapters, and what a right answer makes of them."""

    adapter_type: str
    rank: int
    alpha: float
    state: dict[str, Tensor]  # of the base
    inputs: Tensor
    targets: Tensor
    layers: list[str]  # that are to be adapted
    values: dict[str, Tensor]  # that the adapters get
    start: Tensor  # output before that
    output: Tensor  # output with them
    after: dict[str, Tensor]  # the adapters' parameters after one step of gradient descent
    not_detached: dict[str, Tensor]  # the same, if the norm is differentiated, too


def _adapted_case(
    adapter_type: str, n_blocks: int, rank: int, alpha: float, seed: int
) -> AdaptedCase:
    base = base_model(n_blocks, seed)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(256, (2, 7), generator=generator)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    model = lab_utils.adapters.add_adapters_to_model(base, adapter_type, rank, alpha)
    trained = lab_utils.adapters.trainable_parameters(model)
    values = {}
    with torch.no_grad():
        start = base(inputs)
        for name, parameter in trained.items():
            value = 0.3 * torch.randn(parameter.shape, generator=generator)
            values[name] = value.abs() + 0.5 if name.endswith("magnitude") else value
            parameter.copy_(values[name])
    output = model(inputs).detach()

    def after_a_step() -> dict[str, Tensor]:
        model.zero_grad()
        next_byte_loss(model(inputs), targets).backward()
        return {name: values[name] - RATE * p.grad for name, p in trained.items()}

    after = after_a_step()
    for layer in lab_utils.adapters.adapter_layers(model).values():
        layer.detach_norm = False
    return AdaptedCase(
        adapter_type,
        rank,
        alpha,
        state_of(base),
        inputs,
        targets,
        attention_layers(base),
        values,
        start,
        output,
        after,
        after_a_step(),
    )


def _check_layers(report: Report, case: AdaptedCase, found: dict[str, Any]) -> None:
    kind, parameters = case.adapter_type, found["parameters"]
    adapted = [n.removesuffix(".lora_A") for n in parameters if n.endswith("lora_A")]
    missing = [name for name in case.layers if name not in adapted]
    extra = [name for name in adapted if name not in case.layers]
    of_the_base = [name.removesuffix(".weight") for name in case.state]
    unlike = _unlike_the_base(case, parameters)
    report.expect(
        not unlike,
        f"{kind}: the other parameters are those of the model that was given",
        f"expected a copy of the model that was given; {listed(unlike, 1)}.",
        OTHER_PRECISION if all("torch." in problem for problem in unlike) else NEW_BASE,
    )
    mistake = SOME_LEFT_OUT
    if not adapted and any(name.endswith("lora_A") for name in found["base"]):
        mistake = BASE_CHANGED
    elif extra and not any(name in of_the_base for name in adapted):
        mistake = MISPLACED
    report.expect(
        not missing,
        f"{kind}: every attention projection has an adapter",
        f"expected an adapter in {listed(missing)}, found none there.",
        mistake,
    )
    mistake = None
    if any(name.endswith(".original_layer") for name in extra):
        mistake = INSIDE_ANOTHER
    elif all(name in of_the_base for name in extra):
        mistake = TOO_MANY
    elif all(name not in of_the_base for name in extra):
        mistake = MISPLACED
    report.expect(
        not extra,
        f"{kind}: nothing else has one",
        f"found an adapter in {listed([name or 'the model itself' for name in extra])}.",
        mistake,
    )
    with_magnitude = [name for name in adapted if f"{name}.magnitude" in parameters]
    kinds = {"dora" if name in with_magnitude else "lora" for name in adapted}
    report.expect(
        kinds <= {kind},
        f"{kind}: the adapters are of this method",
        f"expected {kind} adapters, found {' and '.join(sorted(kinds))}.",
        WRONG_TYPE,
    )
    wide = [name for name in with_magnitude if parameters[f"{name}.magnitude"].shape[0] == 1]
    report.expect(
        not wide,
        f"{kind}: one magnitude per output neuron",
        f"expected magnitudes of the shape (16, 1), found (1, 16) in {listed(wide)}.",
        PER_INPUT,
    )
    shared = [f"{name} is that of {other}" for name, other in found["shared"].items()]
    report.expect(
        not shared,
        f"{kind}: each layer has parameters of its own",
        f"expected new parameters for every layer; {listed(shared, 1)}.",
        ONE_FOR_ALL,
    )
    _expect_arguments(report, case, found, adapted)
    report.expect(
        near(found["output"], case.output, CLOSE),
        f"{kind}: the output with known values in the adapters",
        f"{kind}: with known values in the adapters, the model's output: "
        f"{differ(found['output'], case.output)}.",
        _other_base(case, parameters),
    )
    dropped = not near(found["output in training"], found["output"], CLOSE)
    report.expect(
        not dropped,
        f"{kind}: the same output in training",
        "expected the same output in training as in evaluation, found another one.",
        DROPOUT,
    )
    after = {n: v for n, v in found["after a step"].items() if n in found["trainable"]}
    wrong = [
        name
        for name in case.after
        if name in after and not _moved_alike(name, after[name], case.values, case.after)
    ]
    report.expect(
        not wrong,
        f"{kind}: gradients are those of the loss",
        f"expected a step of gradient descent to change {listed(wrong)} by the gradient of the "
        "loss; found another change or none.",
        NOT_DETACHED
        if all(_moved_alike(n, after.get(n), case.values, case.not_detached) for n in case.after)
        else None,
    )


def _unlike_the_base(case: AdaptedCase, parameters: dict[str, Tensor]) -> list[str]:
    """Say which parameters that are no adapter's the base does not have, or not like this."""
    problems = []
    blocks = 1 + max(int(name.split(".")[1]) for name in case.layers)
    for full, value in parameters.items():
        name = full.replace(".original_layer", "")
        if name.split(".")[-1] in OURS:
            continue
        own = case.state.get(name)
        if own is None:
            place = name.split(".")
            if place[0] == "blocks" and place[1].isdigit() and int(place[1]) >= blocks:
                problems.append(f"it has {blocks} blocks, found {full}")
        elif value.shape != own.shape:
            problems.append(f"{full} has the shape {tuple(value.shape)}, not {tuple(own.shape)}")
        elif value.dtype != own.dtype:
            problems.append(f"{full} is {value.dtype}, not {own.dtype}")
    return problems


def _moved_alike(
    name: str, found: Tensor | None, start: dict[str, Tensor], end: dict[str, Tensor]
) -> bool:
    if found is None or found.shape != end[name].shape:
        return False
    return near(found - start[name], end[name] - start[name], 1e-3)


def _other_base(case: AdaptedCase, parameters: dict[str, Tensor]) -> Mistake | None:
    """Return whether what is not adapted has other values than the base has."""
    kept = [name for name in case.state if name in parameters]
    same = all(near(parameters[name], case.state[name], 0.0) for name in kept)
    return None if same else NEW_BASE


def _expect_arguments(
    report: Report, case: AdaptedCase, found: dict[str, Any], adapted: list[str]
) -> None:
    ranks = {name: len(found["parameters"][f"{name}.lora_A"]) for name in adapted if name}
    scalings = {name: found["scalings"].get(name, math.nan) for name in ranks}
    expected = case.alpha / case.rank
    wrong = [
        name
        for name in ranks
        if ranks[name] != case.rank or not math.isclose(scalings[name], expected)
    ]
    report.expect(
        not wrong,
        f"{case.adapter_type}: rank {case.rank} and scaling {expected:g}",
        f"expected rank {case.rank} and scaling alpha / rank = {case.alpha:g} / {case.rank} = "
        f"{expected:g} everywhere; "
        + listed([f"{n} has rank {ranks[n]} and scaling {scalings[n]:g}" for n in wrong], 1)
        + ".",
        _wrong_arguments(case, {(ranks[name], scalings[name]) for name in wrong}),
    )


def _wrong_arguments(case: AdaptedCase, found: set[tuple[int, float]]) -> Mistake | None:
    """Return what makes all these ranks and scalings of the rank and the alpha that were given."""
    if len(found) != 1:
        return None
    ((rank, scaling),) = found
    alpha = scaling * rank

    def like(value: float) -> bool:
        return math.isclose(alpha, value, rel_tol=1e-6)

    if rank == case.alpha and like(case.rank):
        return ARGUMENTS_SWAPPED
    if rank == case.rank:
        if like(case.alpha / case.rank):
            return SCALING_AS_ALPHA
        if like(case.alpha * math.sqrt(case.rank)):
            return STABILIZED
        constant = any(map(like, (1.0, 8.0, 16.0, 32.0, rank, 2.0 * rank)))
        return ARGUMENTS_LOST if constant else None
    # the defaults, of this exercise and of the layers, whatever was given
    given = rank in (4, 8, 16) and any(map(like, (16.0, case.alpha, 2.0 * rank, 2.0 * case.rank)))
    return ARGUMENTS_LOST if given else None


def _check_frozen(report: Report, case: AdaptedCase, found: dict[str, Any]) -> None:
    kind = case.adapter_type
    kept = not found["same object"] and near(found["base"], case.state, 0.0)
    trainable = set(found["base trainable"])
    lost = [name for name in case.state if name not in trainable]
    report.expect(
        kept and not lost,
        f"{kind}: the model that was passed in stays as it is, trainable too",
        "the model that was passed in has adapters, other values or frozen parameters now.",
        BASE_CHANGED,
    )
    if kept and not lost:
        report.expect(
            near(found["base at the end"], case.state, 0.0),
            f"{kind}: it shares nothing with the copy",
            "the model that was passed in changed when the copy's parameters were changed.",
            NOT_COPIED,
        )
    parameters = found["parameters"]
    adapters = [name for name in parameters if name.split(".")[-1] in OURS]
    others = [name for name in parameters if name not in adapters]
    if not report.expect(
        bool(adapters),
        f"{kind}: there are adapters",
        "the model that came back has no parameter named lora_A, so no adapter.",
        SOME_LEFT_OUT,
    ):
        return
    moved = [n for n in others if not torch.equal(found["after a step"][n], parameters[n])]
    loose = [name for name in others if name in set(found["trainable"]) | set(moved)]
    report.expect(
        not loose,
        f"{kind}: only the adapters are trainable",
        f"expected only adapters to be trainable, found also {listed(loose)}.",
        NOT_FROZEN,
    )
    frozen = [
        name
        for name in adapters
        if name not in found["trainable"]
        or (name in case.values and torch.equal(found["after a step"][name], case.values[name]))
    ]
    report.expect(
        not frozen,
        f"{kind}: the adapters are trainable",
        f"expected the adapters to be trainable; {listed(frozen)} cannot be trained.",
        ADAPTERS_FROZEN,
    )
    report.expect(
        near(found["at the start"], case.start, CLOSE),
        f"{kind}: the base's output before training",
        f"{kind}: before training, the output must be the base's: "
        f"{differ(found['at the start'], case.start)}.",
        _other_start(case, found),
    )
    report.expect(
        not found["shared"] and _works_as_it_says(case, found),
        f"{kind}: the adapters work and learn, whatever they are",
        "expected each adapter to change the output and to get the gradient of its own numbers; "
        "found another output or other gradients.",
        ONE_FOR_ALL if found["shared"] else None,
    )


def _works_as_it_says(case: AdaptedCase, found: dict[str, Any]) -> bool:
    """Return whether a model with the adapters that are there gives this output and gradients.

    Which adapters should be there is asked elsewhere. That what is there is trained cannot be told
    from a list of names: it is computed here, and has to be computed there.
    """
    parameters = found["parameters"]
    model = base_model(len(case.layers) // 4, 0)
    model.load_state_dict(case.state)
    model.requires_grad_(False)
    trained = {}
    for name in [n.removesuffix(".lora_A") for n in parameters if n.endswith(".lora_A")]:
        rank, wide = parameters[f"{name}.lora_A"].shape
        magnitude = parameters.get(f"{name}.magnitude")
        scaling = found["scalings"].get(name, math.nan)
        linear = dict(model.named_modules()).get(name)
        if not isinstance(linear, nn.Linear) or linear.in_features != wide or not scaling > 0:
            return False
        layer = LoRALayer(linear, rank, scaling * rank)
        if magnitude is not None:
            norm_dim = 1 if magnitude.shape == (linear.out_features, 1) else 0
            layer = DoRALayer(linear, rank, scaling * rank, norm_dim=norm_dim)
        model.set_submodule(name, layer)
        for key, parameter in lab_utils.adapters.trainable_parameters(layer).items():
            full = f"{name}.{key}"
            value = case.values.get(full)
            known = value is not None and value.numel() == parameters[full].numel()
            with torch.no_grad():
                parameter.copy_((value if known else parameters[full]).view_as(parameter))
            trained[full] = parameter
    output = model(case.inputs)
    if not near(found["output"], output.detach(), CLOSE):
        return False
    if not near(found["output in training"], found["output"], CLOSE):
        return True  # dropout: its gradients are those of chance
    start = {name: parameter.detach().clone() for name, parameter in trained.items()}
    for detached in (True, False):
        for layer in lab_utils.adapters.adapter_layers(model).values():
            layer.detach_norm = detached
        model.zero_grad()
        next_byte_loss(model(case.inputs), case.targets).backward()
        end = {name: start[name] - RATE * p.grad for name, p in trained.items()}
        if all(
            name not in found["trainable"]  # said above
            or _moved_alike(name, found["after a step"].get(name), start, end)
            for name in trained
        ):
            return True
    return False


def _other_start(case: AdaptedCase, found: dict[str, Any]) -> Mistake | None:
    """Return why the output before training is another one than the base's."""
    parameters = found["parameters"]
    if found["shared"]:
        return ONE_FOR_ALL
    if any(value.any() for name, value in parameters.items() if name.endswith("lora_B")):
        return STARTS_ELSEWHERE
    return _other_base(case, parameters)


def _check_types(report: Report, add_adapters_to_model: Callable, n_blocks: int, seed: int) -> None:
    base = base_model(n_blocks, seed)
    state = state_of(base)
    tokens = torch.randint(256, (2, 6), generator=torch.Generator().manual_seed(seed))

    def ask(adapter_type: object) -> dict[str, Any]:
        return probe(
            ask_type,
            add_adapters_to_model,
            *(adapter_type, state, n_blocks, tokens),
            step=f"add_adapters_to_model(model, {adapter_type!r})",
            reference=REFERENCE,
        )

    answers = {adapter_type: ask(adapter_type) for adapter_type in UNKNOWN_TYPES}
    accepted = [repr(t) for t, a in answers.items() if "output" in a]
    returned = [repr(t) for t, a in answers.items() if a.get("exception")]
    for adapter_type, found in answers.items():
        what = found["raised"] or ("a model" if "output" in found else describe(found["returned"]))
        mistake = None
        if accepted and repr(adapter_type) in accepted:
            mistake = TYPE_UNCHECKED
        elif repr(adapter_type) in returned:
            mistake = ERROR_RETURNED
        elif found["raised"]:
            mistake = OTHER_ERROR
        elif found["returned"] is None:
            mistake = TYPE_UNCHECKED
        report.expect(
            bool(found["raised"]) and found["ValueError"],
            f"{adapter_type!r} raises a ValueError",
            f"expected a ValueError for adapter_type={adapter_type!r}, found {what}.",
            mistake,
        )
    for adapter_type in ("lora", "dora"):
        found = ask(adapter_type)
        refused = bool(found["raised"]) and found["ValueError"]
        report.expect(
            not refused,
            f"{adapter_type!r} raises none",
            f"expected adapters for adapter_type={adapter_type!r}, found a {found['raised']}: "
            f"{found.get('text')}",
            ALL_REFUSED if refused else None,
        )


# ---- train_step


@dataclass(frozen=True)
class Training:
    """A few steps to take: a model, an optimiser, batches."""

    title: str
    state: dict[str, Tensor]
    frozen: list[str]
    optimizer: str
    groups: list[dict[str, Any]]  # with names in the place of parameters
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
    *((A_PART, Way(targets=part)) for part in ("first window", "last position")),
    (FACTOR_RETURNED, Way(norm="factor")),
    *((CLIPPED_TWICE, Way(limit=f"times {factor:g}")) for factor in (0.5, 0.1, 2.0, 10.0)),
    (TARGETS_LOST, Way(targets="inputs")),
    (TARGETS_LOST, Way(targets="swapped")),
    (TWICE_BACKWARD, Way(scale="twice")),
    (MAX_NORM_RETURNED, Way(norm="limit")),
    (MEAN_OF_NORMS, Way(norm="mean")),
    (ORDER, Way(swapped=True)),
]


@check(forbids=REFERENCE, seeded=True)
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


def _draw_trainings(max_norm: float, steps: int, seed: int) -> list[Training]:
    model = base_model(1, seed)
    names = [name for name, _ in model.named_parameters()]
    generator = torch.Generator().manual_seed(seed)
    matrices = [name for name in names if "proj" in name or "mlp" in name]
    matrices = [name for name in matrices if name.endswith("weight")]
    rest = [name for name in names if name not in matrices]
    some = [name for name in names if name not in ("position.weight", "blocks.0.norm2.bias")]

    def batches() -> list[list[Tensor]]:
        sizes = [(4, 2, 1)[step % 3] for step in range(steps)]
        tokens = [torch.randint(256, (size, 9), generator=generator) for size in sizes]
        return [[t[:, :-1].contiguous(), t[:, 1:].contiguous()] for t in tokens]

    two_groups = [
        {"params": matrices, "lr": 0.05, "weight_decay": 0.1},
        {"params": rest, "lr": 0.02, "weight_decay": 0.0},
    ]
    # eps is large, so that a gradient that is zero but for rounding moves nothing
    adam = ("AdamW", two_groups, {"eps": 1e-2})
    momentum = ("SGD", [{"params": names, "lr": 0.2, "momentum": 0.9}], {})
    # steps of a length that keeps rounding errors from growing
    plain = ("SGD", [{"params": some, "lr": 0.25 / min(max_norm, 12.0)}], {})
    slow = ("SGD", [{"params": some, "lr": 0.02}], {})
    state = state_of(model)
    frozen = [name for name in names if name not in some]
    return [
        Training("SGD", state, frozen, *plain, batches(), max_norm),
        Training("AdamW and two parameter groups", state, [], *adam, batches(), 0.3),
        Training("momentum and the default of max_norm", state, [], *momentum, batches(), None),
        Training("a max_norm that is never reached", state, frozen, *slow, batches(), 1000.0),
    ]


def _trainable(model: TinyLanguageModel, training: Training) -> dict[str, Tensor]:
    for name in training.frozen:
        model.get_parameter(name).requires_grad_(False)
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def _simulate(training: Training, way: Way) -> dict[str, Tensor]:
    """Return the norms and losses of each step, and how far the weights are from their start.

    All of shape `(steps,)`, but `weights`, which is `(steps, parameters)`.
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
    if way.limit != "given":
        limit = 1.0 if way.limit == "1" else limit * float(way.limit.removeprefix("times "))
    start = _flat(training.state)
    losses, norms, weights = [], [], []
    for inputs, targets in training.batches:
        if way.zero:
            optimizer.zero_grad()
        read, compared = {
            "targets": (inputs, targets),
            "inputs": (inputs, inputs),
            "swapped": (targets, inputs),
            "first window": (inputs[:1], targets[:1]),
            "last position": (inputs, targets),
        }[way.targets]
        logits = model(read)
        if way.targets == "last position":
            logits, compared = logits[:, -1:], compared[:, -1:]
        loss = next_byte_loss(logits, compared)
        factor = {"sum": targets.numel(), "batch": len(targets), "length": targets.shape[1]}
        factor |= {f"1 / {by}": 1 / value for by, value in factor.items()}
        (loss * factor.get(way.scale, 2 if way.scale == "twice" else 1)).backward()
        weights_before = _flat(dict(model.named_parameters())).norm().item()
        before = _norms(list(trained.values()), parameters)
        _clip(way.clip, list(trained.values()), parameters, limit)
        after = _norms(list(trained.values()), parameters)
        optimizer.step()
        if way.loss == "after":
            loss = next_byte_loss(model(inputs), targets)
        losses.append(loss.item() * factor.get(way.loss, factor.get(way.scale, 1)))
        now = _flat(dict(model.named_parameters()))
        others = {
            "after": after["before"],
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


def _norms(trained: list[Tensor], groups: list[list[Tensor]]) -> dict[str, float]:
    """Return the norm of all gradients, and what may be taken for it."""
    together = torch.cat([p.grad.flatten() for p in trained])
    each = torch.stack([p.grad.norm() for p in trained])
    first, last = (torch.cat([p.grad.flatten() for p in groups[i]]).norm().item() for i in (0, -1))
    return {
        "before": together.norm().item(),
        "squared": together.square().sum().item(),
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


def _clip(clip: str, trained: list[Tensor], groups: list[list[Tensor]], limit: float) -> None:
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
    elif clip in ("always", "squared"):
        together = torch.cat([p.grad.flatten() for p in trained]).norm()
        factor = limit / together if clip == "always" else min(1.0, limit / together.item() ** 2)
        for parameter in trained:
            parameter.grad.mul_(factor)


def _flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in state.values()])


def _trace(training: Training, rows: list[dict[str, Any]]) -> dict[str, Tensor | None]:
    """Return what was found in the form of `_simulate`; with None for what is not a number."""
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
    """Return what a number says, in a tensor too: to find a fault besides the wrong type."""
    if isinstance(part, Tensor) and part.numel() == 1 and part.is_floating_point():
        return float(part.detach())
    return number(part)


def _agree(found: list[dict], expected: list[dict], part: str) -> bool:
    return all(
        f[part] is not None and near(f[part], e[part], CLOSE)
        for f, e in zip(found, expected, strict=True)
    )


def _seen_fault(rows: list[list[dict[str, Any]]], found: list[dict]) -> Mistake | None:
    """Return a fault that was seen as it happened: what the optimiser was given, and how often."""
    calls = [row for of_one in rows for row in of_one]
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
    if all(of_one[0]["steps"] == [False] and of_one[0]["left"] for of_one in rows):
        return STEP_FIRST
    if all(row["steps"] == [False] for row in calls):
        return ERASED if all(row["backward"] for row in calls) else NO_BACKWARD
    return None


def _explain_steps(
    trainings: list[Training], expected: list[dict], found: list[dict]
) -> Mistake | None:
    """Return the mistake that explains all that is wrong; if none does, the first part of it."""
    wrong = [part for part in ("norm", "loss", "weights") if not _agree(found, expected, part)]
    alike = [
        all(_agree([f], [e], part) for part in ("norm", "loss", "weights"))
        for f, e in zip(found, expected, strict=True)
    ]
    if alike.count(False) == 1 and trainings[alike.index(False)].max_norm is None:
        return OTHER_DEFAULT
    simulated: dict[tuple[int, int, Way], dict] = {}

    def like(index: int, steps: int, way: Way, parts: tuple[str, ...]) -> bool:
        """Return whether the first steps of a training give what was found."""
        if (index, steps, way) not in simulated:
            training = replace(trainings[index], batches=trainings[index].batches[:steps])
            simulated[index, steps, way] = _simulate(training, way)
        beginning = {p: None if v is None else v[:steps] for p, v in found[index].items()}
        return all(_agree([beginning], [simulated[index, steps, way]], part) for part in parts)

    for parts in [("norm", "loss", "weights"), *((part,) for part in wrong)] if wrong else []:
        left = WRONG_WAYS
        for index in range(len(trainings)):
            for steps in (1, len(trainings[index].batches)):
                left = [(mistake, way) for mistake, way in left if like(index, steps, way, parts)]
        if len({mistake for mistake, _ in left}) == 1:
            return left[0][0]
    return None


def _are_rounded(found: list[dict], expected: list[dict]) -> bool:
    """Return whether the losses or the norms are the right ones, but for their last digits."""
    for part in ("norm", "loss"):
        if all(trace[part] is not None for trace in found):
            columns = [trace[part].tolist() for trace in found]
            rounded = roundings([trace[part].tolist() for trace in expected], STEP_ROUNDED)
            if only_explanation(columns, rounded, lambda a, b: near(a, b, 1e-12)):
                return True
    return False


def _check_numbers(
    report: Report,
    trainings: list[Training],
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
        else wrong_kind(returned, STEP),
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
        wrong_kind(odd, STEP),
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
    trainings: list[Training],
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


# ---- paired_difference


@dataclass(frozen=True)
class Pairs:
    """Losses of a few seeds, and the confidence to ask for (None: the default)."""

    title: str
    lora: list[float]
    dora: list[float]
    confidence: float | None

    @property
    def level(self) -> float:
        """The confidence of the interval."""
        return 0.95 if self.confidence is None else self.confidence


@check(forbids=REFERENCE, seeded=True)
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
        seeds: how many pairs; other calls have a few more or less.
        confidence: of the interval, asked for besides the default; not 0.95.
        seed: of the random losses.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    cases = _draw_pairs(seeds, confidence, seed)
    equal = _equal_pairs(seeds)
    expected = [interval(case.lora, case.dora, case.level) for case in cases]
    for name in chosen(aspect, ("mean", "interval")):
        with Report(f"paired_difference · {name} · {seeds} seeds") as report:
            found = []
            for case in [*cases, equal]:
                named = {} if case.confidence is None else {"confidence": case.confidence}
                answer = call_function(
                    paired_difference, case.lora, case.dora, reference=REFERENCE, **named
                )
                if not _is_triple(report, answer, expected[0]):
                    break
                found.append([number(value) for value in answer])
            else:
                _check_triples(report, name, cases, expected, found[:-1])
                _check_equal(report, name, equal, found[-1])


def _draw_pairs(seeds: int, confidence: float, seed: int) -> list[Pairs]:
    generator = torch.Generator().manual_seed(seed)

    def draw(title: str, n: int, sign: float, level: float | None) -> Pairs:
        """Return losses of `n` seeds; differences of one sign, or of both signs for 0."""
        while True:
            luck, noise = torch.randn(2, n, generator=generator, dtype=torch.float64)
            lora = 2.0 + (0.2 if sign else 0.05) * luck
            gap = 0.05 * noise
            both = gap - gap.mean() + 0.3 * gap.std()
            dora = lora + (sign * (0.01 + gap.abs()) if sign else both)
            # what sorts the lists has to break up pairs
            if sign or not torch.equal(lora.argsort(), dora.argsort()):
                return Pairs(title, lora.tolist(), dora.tolist(), level)

    return [
        draw(f"{seeds} seeds of both signs", seeds, 0.0, None),
        draw(f"{seeds + 2} seeds, DoRA lower in each", seeds + 2, -1.0, confidence),
        draw(f"{seeds + 1} seeds, DoRA higher in each", seeds + 1, 1.0, 0.8),
        draw("2 seeds", 2, 0.0, confidence),
    ]


def _equal_pairs(seeds: int) -> Pairs:
    lora = [2.0 + index / 16 for index in range(seeds)]  # exact, and so are the differences
    return Pairs("equal differences", lora, [loss - 0.25 for loss in lora], None)


def interval(lora: list[float], dora: list[float], confidence: float) -> list[float]:
    """Return mean, low and high of the paired difference, by Student's t."""
    differences = [other - baseline for baseline, other in zip(lora, dora, strict=True)]
    found = scipy.stats.ttest_1samp(differences, 0.0).confidence_interval(confidence)
    return [sum(differences) / len(differences), float(found.low), float(found.high)]


def wrong_triples(case: Pairs) -> list[tuple[Mistake, list[float]]]:
    """Return what each known mistake makes of a case."""
    a, b = (torch.tensor(losses, dtype=torch.float64) for losses in (case.lora, case.dora))
    difference, n, level = b - a, len(case.lora), case.level
    mean, spread = difference.mean().item(), difference.std().item()
    error = spread / math.sqrt(n)
    t = scipy.stats.t.ppf((1 + level) / 2, n - 1)
    right = [mean, mean - t * error, mean + t * error]

    def around(half: float, centre: float = mean) -> list[float]:
        return [centre, centre - half, centre + half]

    unpaired = math.sqrt((a.var().item() + b.var().item()) / n)
    welch = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(level)
    pooled = scipy.stats.ttest_ind(b, a).confidence_interval(level)
    sizes = difference.abs()
    median = difference.median().item() if n % 2 else difference.sort().values[[n // 2 - 1, n // 2]]
    median = float(median if n % 2 else median.mean())
    middle = median - mean
    relative = [v / a.mean().item() for v in right]
    ratios = difference / a
    quantiles = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = difference.quantile(quantiles).tolist()
    sizes_half = t * sizes.std().item() / math.sqrt(n)
    ratios_half = t * ratios.std().item() / math.sqrt(n)
    z = scipy.stats.norm.ppf((1 + level) / 2)
    return [
        (REVERSED, [-mean, -right[2], -right[1]]),
        (REVERSED, [-mean, right[1], right[2]]),
        (ABSOLUTE, around(sizes_half, sizes.mean().item())),
        (ABSOLUTE, around(t * error, abs(mean))),
        (MEDIAN, around(t * error, median)),
        (MEDIAN, [mean + middle, right[1], right[2]]),
        (SUMMED, around(t * error, mean * n)),
        (SUMMED, [mean * n, right[1], right[2]]),
        (RELATIVE, relative),
        (RELATIVE, [relative[0], right[1], right[2]]),
        (RELATIVE, [100 * value for value in relative]),
        (RELATIVE, around(ratios_half, ratios.mean().item())),
        (RELATIVE, around(ratios_half, 1 + ratios.mean().item())),
        (SORTED, around(t * (b.sort().values - a.sort().values).std().item() / math.sqrt(n))),
        *((LEFT_OUT, _of_some(case, part)) for part in (slice(1, None), slice(-1))),
        (
            CONFIDENCE_PER_CENT,
            around(scipy.stats.t.ppf((1 + level / 100) / 2, n - 1) * error),
        ),
        (
            NULL_IF_UNDECIDED,
            around(t * error, 0.0 if right[1] < 0 < right[2] else mean),
        ),
        (NULL_IF_UNDECIDED, [0.0 if right[1] < 0 < right[2] else mean, right[1], right[2]]),
        (NORMAL, around(z * error)),
        (NORMAL, around(1.96 * error)),
        (NORMAL, around(scipy.stats.norm.ppf(0.975) * error)),
        (NORMAL, around(2.0 * error)),
        (POPULATION, around(t * difference.std(correction=0).item() / math.sqrt(n))),
        (NOT_OF_THE_MEAN, around(t * spread)),
        (DIVIDED_BY_N, around(t * spread / n)),
        (VARIANCE, around(t * spread**2 / math.sqrt(n))),
        (VARIANCE, around(t * spread**2 / n)),
        (ROOT_OF_LESS, around(t * spread / math.sqrt(n - 1))),
        (NO_QUANTILE, around(error)),
        (NO_QUANTILE, around(spread)),
        (ONE_SIDED, around(scipy.stats.t.ppf(level, n - 1) * error)),
        (OUTSIDE_TAKEN, around(scipy.stats.t.ppf(1 - level, n - 1) * error)),
        (OUTSIDE_TAKEN, around(-scipy.stats.t.ppf(1 - level / 2, n - 1) * error)),
        (OUTSIDE_TAKEN, around(scipy.stats.t.ppf(1 - level / 2, n - 1) * error)),
        (OUTSIDE_TAKEN, around(scipy.stats.t.ppf(level / 2, n - 1) * error)),
        (DEGREES, around(scipy.stats.t.ppf((1 + level) / 2, n) * error)),
        (DEGREES, around(scipy.stats.t.ppf((1 + level) / 2, max(n - 2, 1)) * error)),
        (DEGREES, around(scipy.stats.t.ppf((1 + level) / 2, 2 * n - 2) * error)),
        (DEGREES, around(scipy.stats.t.ppf((1 + level) / 2, 4) * error)),
        (FIXED_CONFIDENCE, around(scipy.stats.t.ppf(0.975, n - 1) * error)),
        (UNPAIRED, around(t * unpaired)),
        (UNPAIRED, around(z * unpaired)),
        (UNPAIRED, around(t * a.std().item() / math.sqrt(n))),
        (UNPAIRED, around(t * b.std().item() / math.sqrt(n))),
        (UNPAIRED, around(t * (a.std() + b.std()).item() / math.sqrt(n))),
        (UNPAIRED, around(t * unpaired / math.sqrt(2))),
        (UNPAIRED, [mean, welch.low, welch.high]),
        (UNPAIRED, [mean, pooled.low, pooled.high]),
        (HALF_ONLY, [mean, t * error, t * error]),
        (AROUND_ZERO, [mean, -t * error, t * error]),
        (ENDS_SWAPPED, [mean, right[2], right[1]]),
        (IN_ORDER, [right[1], mean, right[2]]),
        (IN_ORDER, [right[1], right[2], mean]),
        (RANGE, [mean, difference.min().item(), difference.max().item()]),
        (PERCENTILES, [mean, low, high]),
    ]


def _of_some(case: Pairs, part: slice) -> list[float]:
    """Return mean, low and high of a part of the seeds; NaN where one alone is left."""
    lora, dora = case.lora[part], case.dora[part]
    if len(lora) > 1:
        return interval(lora, dora, case.level)
    return [dora[0] - lora[0], math.nan, math.nan]


def _check_triples(
    report: Report,
    name: str,
    cases: list[Pairs],
    expected: list[list[float]],
    found: list[list[float]],
) -> None:
    of_cases = [wrong_triples(case) for case in cases]
    predicted = [
        (of_one[0][0], [triple for _, triple in of_one]) for of_one in zip(*of_cases, strict=True)
    ]
    mistake = only_explanation(found, predicted, _same_triples) or _fixed_quantile(cases, found)
    if mistake is None:  # two faults, perhaps: one of the mean, one of the interval
        part = slice(0, 1) if name == "mean" else slice(1, 3)
        parts = [(m, [triple[part] for triple in triples]) for m, triples in predicted]
        mistake = only_explanation([triple[part] for triple in found], parts, _same_triples)
    rounded = only_explanation(
        found, roundings(expected, PAIRS_ROUNDED), lambda a, b: near(a, b, 1e-12)
    )
    report.expect(
        not rounded,
        "the numbers are not rounded",
        f"expected the numbers as they are, found rounded ones: {found[0]}.",
        PAIRS_ROUNDED,
    )
    for case, right, triple in zip(cases, expected, found, strict=True):
        if name == "mean":
            report.expect(
                _same_triples(triple[0], right[0]),
                f"mean of DoRA minus LoRA, {case.title}",
                f"mean of DoRA minus LoRA, {case.title}: {apart(right[0], triple[0])}.",
                mistake,
            )
            continue
        ends = ", ".join(
            f"{end}: {apart(r, f)}"
            for end, r, f in zip(("low", "high"), right[1:], triple[1:], strict=True)
            if not _same_triples(f, r)
        )
        report.expect(
            not ends,
            f"interval of {case.level:.0%}, {case.title}",
            f"interval of {case.level:.0%}, {case.title}: {ends}.",
            mistake,
        )


def _same_triples(found: Any, expected: Any) -> bool:
    """Compare numbers that were computed from losses of about 2, perhaps in float32."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_same_triples, found, expected))
    return near(found, expected) or abs(found - expected) < 2e-6


def _fixed_quantile(cases: list[Pairs], found: list[list[float]]) -> Mistake | None:
    """Return whether every interval is as wide as one and the same quantile makes it."""
    quantiles = []
    for case, (mean, low, high) in zip(cases, found, strict=True):
        difference = torch.tensor(case.dora) - torch.tensor(case.lora)
        error = difference.std().item() / math.sqrt(len(difference))
        quantiles.append((high - low) / 2 / error)
        if not _same_triples((low + high) / 2, mean):
            return None
    return FIXED_QUANTILE if near(quantiles, quantiles[:1] * len(quantiles), 1e-3) else None


def _check_equal(report: Report, name: str, case: Pairs, found: list[float]) -> None:
    """Look at differences without a spread. SciPy's interval is NaN there, and may be."""
    if name == "mean":
        report.expect(
            near(found[0], -0.25, 1e-5),
            f"mean of DoRA minus LoRA, {case.title}",
            f"mean of DoRA minus LoRA, {case.title} of -0.25: {apart(-0.25, found[0])}.",
        )
    else:
        report.expect(
            all(near(end, -0.25, 1e-5) or math.isnan(end) for end in found[1:]),
            f"interval of 95%, {case.title}",
            f"interval of 95%, {case.title} of -0.25: expected -0.25 for both ends, as there is no "
            f"spread, found {found[1]:.6g} and {found[2]:.6g}.",
        )


def _is_triple(report: Report, found: Any, expected: list[float]) -> bool:
    triple = isinstance(found, tuple | list) and len(found) == 3
    odd = next((value for value in found if number(value) is None), None) if triple else None
    numbers = triple and all(number(value) is not None for value in found)
    return report.expect(
        numbers,
        "it returns three floats",
        "expected (mean, low, high) as three floats, found "
        + (f"{describe(odd)} among them." if triple else f"{describe(found)}."),
        MEAN_ALONE
        if number(found) is not None and near(number(found), expected[0])
        else wrong_kind(odd, PAIRS)
        if triple
        else wrong_kind(found, PAIRS)
        if isinstance(found, str)
        else nothing_returned(found, PAIRS) or NO_TRIPLE,
    )
