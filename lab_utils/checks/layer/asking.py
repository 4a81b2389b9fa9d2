"""Build a layer of the student's, take it through steps, and compare what comes of them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lab_utils.checks.diagnosis import misfit, returned_kind
from lab_utils.checks.layer.case import Case, apply
from lab_utils.checks.layer.mistakes import (
    BIAS_ASSUMED,
    DIM_AS_P,
    FACTOR_TRANSPOSED,
    FACTORS_SWAPPED,
    HIDDEN,
    IN_PLACE,
    INNER_MODULE,
    LORA,
    MAGNITUDE_TURNED,
    NO_PARAMETER,
    NO_SUPER,
    OTHER_NAME,
    RANK_IGNORED,
    REPEATED,
    SIZES_MIXED_UP,
    WHOLE_NORM,
    WRONG_AXIS,
)
from lab_utils.checks.report import CheckFailed, Comparison, Mistake, Report, named
from lab_utils.checks.subject import REFERENCE_LAYERS, name_of, probe
from lab_utils.checks.values import close, describe
from lab_utils.questions.layers import HELD_INSIDE, ask_layer
from lab_utils.questions.odd_tensors import odd_kind

MODES = ("evaluation", "training")


class Answers:
    """What came of each step that a layer was taken through, by the names of the steps."""

    def __init__(self, name: str, replies: dict[str, dict[str, Any]]) -> None:
        self.name = name  # of the student's class
        self._replies = replies

    def __getitem__(self, step: str) -> Any:
        """Return what came of a step.

        Raises:
            CheckFailed: the student's code failed in it.
        """
        reply = self._replies[step]
        if "failed" in reply:
            failure = CheckFailed(str(reply["failed"]), [str(line) for line in reply["lines"]])
            raise named(failure, reply.get("mistake") or misfit(failure, LORA))
        return reply["result"]

    def fails(self, step: str) -> bool:
        return "failed" in self._replies[step]

    def output(self, step: str) -> Tensor:
        """Return the output of a step `forward`.

        Raises:
            CheckFailed: it is not a tensor.
        """
        return self.tensor(self[step]["output"], "forward")

    def tensor(self, value: Any, method: str) -> Tensor:
        if not isinstance(value, Tensor) or odd_kind(value):
            failure = CheckFailed(
                f"{self.name}.{method} must return a tensor of real numbers; found "
                f"{describe(value)}."
            )
            raise named(failure, returned_kind(value, "a tensor", LORA))
        return value


def ask(
    layer_type: Any,
    case: Case,
    steps: dict[str, list[Any]],
    *,
    dropout: float = 0.0,
    seed: int = 0,
) -> Answers:
    """Build a layer of the student's on the case's base, and take it through the steps.

    Args:
        steps: by a name of our own, the name of a step of `lab_utils.questions.layers` and its
            arguments.
    """
    replies = _ask(layer_type, case, case.bias, steps, dropout, seed)
    failed = [reply for reply in replies.values() if "failed" in reply]
    for reply in failed:
        if "before Module.__init__() call" in reply["failed"]:
            reply["mistake"] = NO_SUPER
    if case.bias is None and any("NoneType" in reply["failed"] for reply in failed):
        zeros = torch.zeros(len(case.weight))
        with_bias = _ask(layer_type, case, zeros, steps, dropout, seed)
        for name, reply in replies.items():
            if "failed" in reply and "failed" not in with_bias[name]:
                reply["mistake"] = BIAS_ASSUMED
    return Answers(name_of(layer_type), replies)


def _ask(
    layer_type: Any,
    case: Case,
    bias: Tensor | None,
    steps: dict[str, list[Any]],
    dropout: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    replies = probe(
        ask_layer,
        layer_type,
        {"weight": case.weight, "bias": bias},
        case.given | ({"dropout": dropout} if case.given else {}),
        case.dtype,
        seed,
        list(steps.values()),
        step=name_of(layer_type),
        reference=REFERENCE_LAYERS,
    )
    return {name: dict(reply) for name, reply in zip(steps, replies, strict=True)}


def trained_names(method: str) -> tuple[str, ...]:
    return ("lora_A", "lora_B") + (("magnitude",) if method == "dora" else ())


def trained_values(method: str, case: Case) -> dict[str, Tensor]:
    return {name: getattr(case, name) for name in trained_names(method)}


def ask_trained(
    layer_type: Any,
    method: str,
    case: Case,
    steps: dict[str, list[Any]],
    dropout: float = 0.0,
) -> Answers:
    """Build the layer, give it the case's arrays as if it was trained, and take the steps."""
    names = trained_names(method)
    steps = {
        "kinds": ["kinds", names],
        "parameters": ["parameters"],
        "held": ["held", names],
        "change": ["change", trained_values(method, case)],
        **steps,
    }
    answers = ask(layer_type, case, steps, dropout=dropout)
    found = answers["held"]
    for name in names:
        if found[name] is None:
            expect_parameters(answers, case, [name])
    for name in ("lora_A", "lora_B"):
        if found[name].shape != getattr(case, name).T.shape:
            expect_shape(answers.name, name, found[name], case)
    if method == "dora" and found["magnitude"].numel() != case.magnitude.numel():
        across = found["magnitude"].numel() == case.weight.shape[case.norm_dim]
        failure = CheckFailed(
            f"{answers.name}.magnitude with norm_dim={case.norm_dim} must have the shape "
            f"{tuple(case.magnitude.shape)}; found {tuple(found['magnitude'].shape)}."
        )
        raise named(failure, WRONG_AXIS if across else other_shape(found["magnitude"], case))
    answers["change"]
    return answers


def expect_parameters(answers: Answers, case: Case, names: Collection[str]) -> dict[str, Tensor]:
    """Return all parameters of the layer, or fail if one of these names is not among them."""
    kinds, found = answers["kinds"], answers["parameters"]
    for name in names:
        if name in found:
            continue
        inner = [other for other in found if name in other.split(".")]
        what, mistake = f"a {kinds[name]}" if kinds[name] else "nothing", None
        if inner:
            what, mistake = f"the parameter {inner[0]} of an inner module", INNER_MODULE
        elif kinds[name] in ("Tensor", "list", "tuple", "ndarray", "Buffer"):
            mistake = NO_PARAMETER
        elif kinds[name] == HELD_INSIDE:
            what, mistake = f"{HELD_INSIDE} alone", HIDDEN
        elif not kinds[name]:
            shape = getattr(case, name).shape
            like = [n for n, p in found.items() if p.shape == shape and n not in names]
            if like:
                what, mistake = f"nothing, but a parameter {like[0]} of its shape", OTHER_NAME
        raise named(
            CheckFailed(
                f"{answers.name}.{name} must be an nn.Parameter of the layer itself, so that an "
                f"optimiser finds it by this name; found {what}."
            ),
            mistake,
        )
    return found


def expect_shape(layer: str, name: str, found: Tensor, case: Case) -> None:
    expected = getattr(case, name)
    if found.shape != expected.shape:
        sizes = {"lora_A": "(rank, in_features)", "lora_B": "(out_features, rank)"}[name]
        along = {"lora_A": 0, "lora_B": 1}[name]  # the dimension that is the rank
        transposed = found.shape == expected.T.shape
        by_default = [*expected.shape]
        by_default[along] = 8
        failure = CheckFailed(
            f"{layer}.{name} must have the shape {sizes} = {tuple(expected.shape)}; "
            f"found {tuple(found.shape)}."
        )
        other = {"lora_A": case.lora_B, "lora_B": case.lora_A}[name]
        swapped = FACTORS_SWAPPED if found.shape == other.shape else None
        ignored = RANK_IGNORED if [*found.shape] == by_default else swapped
        mixed_up = [*expected.shape]
        mixed_up[1 - along] = case.weight.shape[along]
        if ignored is None and [*found.shape] == mixed_up:
            ignored = SIZES_MIXED_UP
        raise named(failure, FACTOR_TRANSPOSED if transposed else ignored)


def other_shape(found: Tensor, case: Case) -> Mistake | None:
    """Return the mistake that gives a magnitude its shape, or makes it one number."""
    if found.shape == case.weight.shape:
        return REPEATED
    if found.shape == case.start_magnitude().T.shape:
        return MAGNITUDE_TURNED
    for p, mistake in ((2, WHOLE_NORM), (case.norm_dim, DIM_AS_P)):
        if found.numel() == 1 and close(found.flatten(), case.weight.norm(p=p).flatten()):
            return mistake
    return None


def with_x_that_is_taken(layer_type: Any, case: Case) -> Case:
    """Return the case with x in a shape that the layer takes, if there is one.

    That a layer takes any shape is asked once, with its output.
    """
    shapes = {"three": ["forward", case.x, False, 0], "two": ["forward", case.x[0], False, 0]}
    shapes["one"] = ["forward", case.x[0, 0], False, 0]
    answers = ask(layer_type, case, shapes)
    if answers.fails("three") and not answers.fails("two"):
        return case.shaped(-1)
    if answers.fails("three") and not answers.fails("one"):
        return case.shaped()
    return case


def with_its_axis(layer_type: Any, case: Case) -> Case:
    """Return the case along the axis that the layer has: a wrong one costs the points of others."""
    answers = ask(layer_type, case, {"held": ["held", ["magnitude"]]})
    found = None if answers.fails("held") else answers["held"]["magnitude"]
    across = case.weight.shape[case.norm_dim]
    if found is None or found.numel() != across or across == case.magnitude.numel():
        return case
    return case.along(1 - case.norm_dim, given=case.given_norm_dim)


def own_weight(layer_type: Any, method: str, case: Case) -> Tensor | None:
    """Return the weight by which a trained layer multiplies x, bias apart, if it takes a batch."""
    rows = torch.eye(case.weight.shape[1])
    given = {"rows": rows, "nothing": 0 * rows}
    steps = {name: ["forward", x, False, 0] for name, x in given.items()}
    answers = ask_trained(layer_type, method, case, steps)
    if any(map(answers.fails, given)):
        return None
    weight = (answers.output("rows") - answers.output("nothing")).T
    return weight if weight.shape == case.weight.shape else None


def as_answered(
    layer_type: Any, output: Tensor, method: str, case: Case
) -> tuple[Case | None, Tensor]:
    """Return the case as the layer has it, and its output: with another scaling, or its bias lost.

    Those cost the points of forward. What else the layer does can be told all the same; in place
    of the case None says that it cannot.
    """
    twice = None if case.bias is None else 2 * case.bias

    def scalings() -> Iterator[float]:
        yield case.scaling
        yield from (scaling for scaling, _ in case.scalings())
        weight = own_weight(layer_type, method, case)
        if weight is not None and (scaling := case.scaling_that_gives(weight, method)) is not None:
            yield scaling

    for scaling in scalings():
        for bias in (case.bias, None, twice):
            expected = apply(case.x, case.merged(method, scaling), bias)
            if close(output, expected):
                answered = case.scaled(scaling)
                answered.bias = bias
                return answered, expected
    return None, output


def compare(
    report: Report,
    prop: str,
    cases: Sequence[Case],
    look: Callable[[Case], list[Comparison]],
    otherwise: Callable[[], Mistake | None] = lambda: None,
) -> None:
    """Expect what `look` compares in every case, and name what explains the differences of all.

    Where the student's code fails in a later case, what the earlier ones show comes first.
    """
    comparisons: list[Comparison] = []
    for case in cases:
        try:
            comparisons += look(case)
        except CheckFailed:
            if all(comparison.is_right() for comparison in comparisons):
                raise
            break
    report.expect_cases(prop, comparisons, otherwise)


def is_as_before(now: Tensor, before: Tensor) -> bool:
    return torch.equal(now.float(), before)


def expect_base_unchanged(report: Report, now: dict, case: Case, after: str) -> None:
    same = torch.equal(now["weight"].float(), case.weight) and (
        case.bias is None or torch.equal(now["bias"].float(), case.bias)
    )
    problem = f"the base layer's weight or bias has other values after {after} than before."
    report.expect(same, f"the base layer stays as it was after {after}", problem, IN_PLACE)
