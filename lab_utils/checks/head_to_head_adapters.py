"""Checks of lesson 04: `add_adapters_to_model`."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lab_utils.adapters
from lab_utils.checks.diagnosis import nothing_returned
from lab_utils.checks.head_to_head import CLOSE, REFERENCE, base_model, state_of
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import check, probe
from lab_utils.checks.values import describe, differ, listed, near
from lab_utils.data import next_byte_loss
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.models import attention_layers
from lab_utils.questions.head_to_head import (
    ask_adapted,
    ask_defaults,
    ask_type,
)

ADD = "2. The same model twice"

BASE_CHANGED = Mistake(
    "in-place change of the base model",
    "Adapt copy.deepcopy(model): the next method has to start from the same base.",
    ADD,
)
MODE_CHANGED = Mistake(
    "mode of the base model changed",
    "Call train() or eval() on the copy, if at all: the model that is given stays in its mode.",
    ADD,
)
EARLIER_MODEL = Mistake(
    "the model of an earlier call",
    "Copy and adapt the model that is given at every call: another call may have other arguments.",
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
    "rank or alpha not passed on", "Pass both to every layer, by their names.", ADD
)
ANOTHER_RANK = Mistake(
    "another rank", "Both methods are given the rank and the alpha as they are.", ADD
)
ARGUMENTS_SWAPPED = Mistake(
    "rank and alpha swapped", "The layers take rank before alpha: pass both on by their names.", ADD
)
STABILIZED = Mistake(
    "rank-stabilised scaling",
    "Leave rank_stabilized at its default: the scaling is alpha / rank.",
    ADD,
)
WRAPPED_TWICE = Mistake(
    "one layer in two adapters",
    "Each adapter wraps the projection that it replaces: getattr(block, name).",
    ADD,
)
NOT_RANDOM = Mistake(
    "lora_A not random", "Leave the adapters as they are made: lora_A starts random.", ADD
)
INSIDE_ANOTHER = Mistake(
    "an adapter inside another",
    "Wrap each projection once, the nn.Linear that was there before.",
    ADD,
)
MISPLACED = Mistake(
    "adapters where no layer was",
    "setattr(block, name, layer) replaces the layer that has this name in the block. A name with "
    "dots in it replaces none: model.set_submodule finds its way.",
    ADD,
)
OTHER_PRECISION = Mistake(
    "another precision", "Leave the dtype of the copy as it is: no .half() or .double().", ADD
)
NOT_THE_MODEL = Mistake("not the model returned", "Return the adapted copy itself.", ADD)
NOT_THE_MODEL_ALONE = Mistake(
    "more than the model returned", "Return the adapted model, and nothing else.", ADD
)
SCALING_AS_ALPHA = Mistake(
    "scaling applied twice", "The layer divides alpha by the rank itself: pass alpha=alpha.", ADD
)
ALPHA_ROUNDED = Mistake(
    "alpha rounded", "alpha may be any number above 0: pass it on as it is.", ADD
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
    "norm not detached",
    "Leave everything but rank and alpha at its default, including detach_norm.",
    ADD,
)
NEW_BASE = Mistake(
    "a base with other weights",
    "Adapt a copy of the model that is given: copy.deepcopy(model).",
    ADD,
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
    "Look at the type first, whatever it is, and raise the ValueError yourself.",
    ADD,
)
ALL_REFUSED = Mistake(
    "every type refused", 'Raise ValueError only if the type is neither "lora" nor "dora".', ADD
)


OURS = ("lora_A", "lora_B", "magnitude")
# Of each kind of what a too lenient comparison lets through.
UNKNOWN_TYPES = ("dorra", "full", "or", "LoRA", "DoRA", "dora-input", "lora ", "lora2", "", None, 3)
RATE = 0.5  # of the gradient descent that tells what is trained


@check(forbids=REFERENCE, seeded=True, needs=["optimizers", "scipy"])
def check_add_adapters(
    add_adapters_to_model: Callable,
    aspect: str | None = None,
    *,
    n_blocks: int = 3,
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
            # a whole alpha first: with it rank and alpha can be swapped
            for adapter_type, given in (("lora", alpha), ("dora", alpha + 0.5)):
                case = _adapted_case(adapter_type, n_blocks, rank, given, seed)
                found = probe(
                    ask_adapted,
                    add_adapters_to_model,
                    *(adapter_type, case.state, n_blocks, rank, given, case.inputs, case.targets),
                    *(case.values, RATE),
                    step=f"add_adapters_to_model(model, {adapter_type!r}, rank={rank}, "
                    f"alpha={given:g})",
                    reference=REFERENCE,
                )
                if not report.expect(
                    found["module"],
                    f"{adapter_type}: it returns a model",
                    "add_adapters_to_model must return the adapted model; found "
                    f"{describe(found.get('returned'))}.",
                    NOT_THE_MODEL_ALONE
                    if isinstance(found.get("returned"), tuple | list)
                    else nothing_returned(found.get("returned"), ADD) or NOT_THE_MODEL,
                ):
                    break
                if name == "frozen":
                    _check_passed_in(report, case, found)
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
                        EARLIER_MODEL
                        if all(pair == [rank, given / rank] for pair in other)
                        else OTHER_DEFAULTS,
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


@functools.lru_cache(maxsize=16)  # the same for every answer
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
    """Expect the adapters that are asked for, where they are asked for, and what they compute."""
    adapted = [n.removesuffix(".lora_A") for n in found["parameters"] if n.endswith("lora_A")]
    _expect_the_base(report, case, found)
    _expect_places(report, case, found, adapted)
    _expect_parameters(report, case, found, adapted)
    _expect_arguments(report, case, found, adapted)
    _expect_outputs(report, case, found)


def _expect_the_base(report: Report, case: AdaptedCase, found: dict[str, Any]) -> None:
    unlike = _unlike_the_base(case, found["parameters"])
    report.expect(
        not unlike,
        f"{case.adapter_type}: the other parameters are those of the model that was given",
        f"expected a copy of the model that was given; {listed(unlike, 1)}.",
        OTHER_PRECISION if all("torch." in problem for problem in unlike) else NEW_BASE,
    )


def _expect_places(
    report: Report, case: AdaptedCase, found: dict[str, Any], adapted: list[str]
) -> None:
    kind = case.adapter_type
    missing = [name for name in case.layers if name not in adapted]
    extra = [name for name in adapted if name not in case.layers]
    of_the_base = [name.removesuffix(".weight") for name in case.state]
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


def _expect_parameters(
    report: Report, case: AdaptedCase, found: dict[str, Any], adapted: list[str]
) -> None:
    kind, parameters = case.adapter_type, found["parameters"]
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
        f"{kind}: each layer has its own parameters",
        f"expected new parameters for every layer; {listed(shared, 1)}.",
        _what_is_shared(found["shared"], parameters),
    )
    constant = [n for n in adapted if n and parameters[f"{n}.lora_A"].unique().numel() == 1]
    report.expect(
        not constant,
        f"{kind}: lora_A starts random",
        f"expected random numbers in lora_A, found one number everywhere in {listed(constant)}.",
        NOT_RANDOM,
    )


def _expect_outputs(report: Report, case: AdaptedCase, found: dict[str, Any]) -> None:
    kind = case.adapter_type
    report.expect(
        near(found["output"], case.output, CLOSE),
        f"{kind}: the output with known values in the adapters",
        f"{kind}: with known values in the adapters, the model's output: "
        f"{differ(found['output'], case.output)}.",
        _other_base(case, found["parameters"]),
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


def _beside_the_layers(parameters: dict[str, Tensor]) -> bool:
    """Return whether adapters stand beside what they wrap: under a name with dots, of setattr."""
    names = [name.removesuffix(".lora_A") for name in parameters if name.endswith(".lora_A")]
    return any(f"{name}.weight" in parameters for name in names)


def _what_is_shared(shared: dict[str, str], parameters: dict[str, Tensor]) -> Mistake | None:
    """Return the mistake of parameters that have several names."""
    if not shared:
        return None
    if _beside_the_layers(parameters):
        return MISPLACED
    of_adapters = any(name.split(".")[-1] in OURS for name in shared)
    return ONE_FOR_ALL if of_adapters else WRAPPED_TWICE


def _unlike_the_base(case: AdaptedCase, parameters: dict[str, Tensor]) -> list[str]:
    """Say which parameters outside adapters are missing in the base, or differ from it in form."""
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
    kept = {name.replace(".original_layer", ""): value for name, value in parameters.items()}
    same = all(near(kept[name], value, 0.0) for name, value in case.state.items() if name in kept)
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
        if like(math.trunc(case.alpha)) or like(round(case.alpha)):
            return ALPHA_ROUNDED
        constant = any(map(like, (1.0, 8.0, 16.0, 32.0, rank, 2.0 * rank)))
        return ARGUMENTS_LOST if constant else None
    # the defaults, of this exercise and of the layers, whatever was given
    given = rank in (4, 8, 16) and any(map(like, (16.0, case.alpha, 2.0 * rank, 2.0 * case.rank)))
    return ARGUMENTS_LOST if given else ANOTHER_RANK


def _check_passed_in(report: Report, case: AdaptedCase, found: dict[str, Any]) -> None:
    """Expect the model that was passed in to be as it was."""
    kind = case.adapter_type
    kept = not found["same object"] and near(found["base"], case.state, 0.0)
    trainable = set(found["base trainable"])
    lost = [name for name in case.state if name not in trainable]
    report.expect(
        kept and not lost,
        f"{kind}: the model that was passed in is unchanged, and still trainable",
        "the model that was passed in has adapters, other values or frozen parameters now.",
        BASE_CHANGED,
    )
    if kept and not lost:
        report.expect(
            found["base keeps its mode"],
            f"{kind}: the model that was passed in keeps its mode",
            "the model that was passed in is in another mode after the call: training or "
            "evaluation.",
            MODE_CHANGED,
        )
        report.expect(
            near(found["base at the end"], case.state, 0.0),
            f"{kind}: it shares nothing with the copy",
            "the model that was passed in changed when the copy's parameters were changed.",
            NOT_COPIED,
        )


def _check_frozen(report: Report, case: AdaptedCase, found: dict[str, Any]) -> None:
    """Expect the returned model to train its adapters, and nothing else."""
    kind = case.adapter_type
    parameters = found["parameters"]
    adapters = [name for name in parameters if name.split(".")[-1] in OURS]
    others = [name for name in parameters if name not in adapters]
    if not report.expect(
        bool(adapters),
        f"{kind}: there are adapters",
        "the returned model has no parameter named lora_A, so it has no adapter.",
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
        MISPLACED if _beside_the_layers(parameters) else ADAPTERS_FROZEN,
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
        _what_is_shared(found["shared"], parameters),
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
            name not in found["trainable"]  # reported above
            or _moved_alike(name, found["after a step"].get(name), start, end)
            for name in trained
        ):
            return True
    return False


def _other_start(case: AdaptedCase, found: dict[str, Any]) -> Mistake | None:
    """Return why the output before training is another one than the base's."""
    parameters = found["parameters"]
    if found["shared"]:
        return _what_is_shared(found["shared"], parameters)
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
            f"{adapter_type!r} raises no error",
            f"expected adapters for adapter_type={adapter_type!r}, found a {found['raised']}: "
            f"{found.get('text')}",
            ALL_REFUSED if refused else None,
        )
