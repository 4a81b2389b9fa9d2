"""Checks of lesson 07: `lora_scaling` and `gradient_norms_by_rank`."""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

import lab_utils.adapters
from lab_utils.adapters import ATTENTION, adapter_layers, add_adapters_to_model
from lab_utils.checks.diagnosis import (
    earlier_result,
    expect_numbers,
    nothing_returned,
    only_explanation,
    other_kind,
    returned_kind,
    roundings,
    so_far,
    tell_apart,
)
from lab_utils.checks.report import CheckFailed, Mistake, Report, chosen
from lab_utils.checks.subject import (
    REFERENCE_MATHEMATICS,
    call_function,
    call_watched,
    check,
)
from lab_utils.checks.values import apart, describe, listed, near, number
from lab_utils.data import language_task
from lab_utils.questions.runs import ask_models

SCALING = "1. What the rank does to the scaling"
FIXED = "2. A fixed alpha, or nothing to see"
GRADIENTS = "3. The gradient before the first step"

OTHER_RULE = Mistake(
    "the two rules are swapped",
    "rank_stabilized=True divides alpha by the square root of the rank, False by the rank.",
    SCALING,
)
ALWAYS_RANK = Mistake(
    "rank_stabilized ignored", "With rank_stabilized=True divide by sqrt(rank).", SCALING
)
ROOT_OF_ALPHA = Mistake(
    "square root over alpha", "Only the rank is under the root: alpha / sqrt(rank).", SCALING
)
ALPHA_LEFT_OUT = Mistake("alpha left out", "The scaling is proportional to alpha.", SCALING)
ALPHA_RAISED = Mistake("another power of alpha", "The scaling is proportional to alpha.", SCALING)
RANK_LEFT_OUT = Mistake("rank left out", "Divide alpha by the rank, or by its root.", SCALING)
UPSIDE_DOWN = Mistake("upside down", "alpha is above the line, the rank below it.", SCALING)
MULTIPLIED = Mistake("multiplied", "Divide alpha by the rank, or by its root.", SCALING)
SQUARED = Mistake("rank squared", "Take the root of the rank, not its square.", SCALING)
ALWAYS_ROOT = Mistake(
    "rank_stabilized always on", "With rank_stabilized=False divide by the rank.", SCALING
)
WHOLE_ROOT = Mistake(
    "whole-number root", "math.isqrt and int() cut the root off: use math.sqrt.", SCALING
)
OTHER_POWER = Mistake(
    "another power of the rank", "Divide by the rank, or by its square root: rank**0.5.", SCALING
)
HALF = Mistake(
    "half in place of root",
    "Write rank**0.5 or math.sqrt(rank): rank**1/2 is (rank**1) / 2, half of it and not its root.",
    SCALING,
)
A_FACTOR = Mistake(
    "multiplied by a number", "The scaling is alpha / rank, or alpha / sqrt(rank), alone.", SCALING
)
LOGARITHM = Mistake("logarithm", "Divide by the square root of the rank.", SCALING)
SCALING_ROUNDED = Mistake("rounded", "Return the number itself; round what you print.", SCALING)
NARROW = Mistake("precision lost", "Compute with plain floats: float16 has three digits.", SCALING)
OFF_BY_ONE = Mistake("rank plus or minus one", "Divide by the rank itself, or its root.", SCALING)
WHOLE = Mistake(
    "whole-number division", "Use / and neither // nor int(): a scaling may be a fraction.", SCALING
)

GROWING_ALPHA = Mistake(
    "alpha grows with the rank",
    "Hold alpha at 16 for every rank: alpha = 2 * rank hides what the rank does.",
    FIXED,
)
RULE_IGNORED = {
    True: Mistake(
        "rank_stabilized ignored",
        "Pass rank_stabilized on to add_adapters_to_model.",
        GRADIENTS,
    ),
    False: Mistake(
        "rank_stabilized always on", "False asks for the usual rule, alpha / rank.", GRADIENTS
    ),
}
OTHER_ALPHA = Mistake(
    "another alpha", "Pass alpha=16.0, at every rank and for both rules.", GRADIENTS
)
TWICE = Mistake(
    "twice the gradient",
    "Either alpha is 32, or backward() was called twice for one model: it adds to what is there.",
    GRADIENTS,
)
RANK_LOST = Mistake("rank not passed on", "Make a model for each rank: pass rank on.", GRADIENTS)
ONE_GENERATOR = Mistake(
    "one generator for all ranks",
    "Make a new one for every model: torch.Generator().manual_seed(0).",
    GRADIENTS,
)
KEPT_FROM_EARLIER = Mistake(
    "kept from an earlier call",
    "A call must not depend on those before it: make lists, models and generators anew.",
    GRADIENTS,
)
ACCUMULATED = Mistake(
    "gradients added up over the ranks", "Each rank needs a newly adapted model.", GRADIENTS
)
OTHER_SEED = Mistake(
    "another seed", "lora_A comes from torch.Generator().manual_seed(0).", GRADIENTS
)
OTHER_BATCH = Mistake(
    "another batch",
    "Take the first eight windows of the training part, as in the cell above.",
    GRADIENTS,
)
NO_GENERATOR = Mistake(
    "no generator",
    "Pass generator=torch.Generator().manual_seed(0), a new one for each rank.",
    GRADIENTS,
)
OTHER_SETTING = Mistake(
    "another model",
    "Make the model of step 1: without dropout, and with adapters in the attention alone.",
    GRADIENTS,
)
MISPLACED = Mistake(
    "norms under other ranks",
    "The norms are right, but each stands under another rank's key.",
    GRADIENTS,
)
OTHER_GRADIENT = Mistake(
    "another gradient",
    "The model read the right inputs, but the gradient is not that of task.loss(model(inputs), "
    "targets) before the first step, with the model as it was made.",
    GRADIENTS,
)
GRADIENT_SCALED = Mistake(
    "gradient scaled",
    "The gradient goes the right way, but has another length than that of task.loss(model(inputs), "
    "targets): leave the loss as it is, call backward() once, and do not clip.",
    GRADIENTS,
)
ANOTHER_MEASURE = Mistake(
    "another measure of the gradient",
    "The gradient is right: return its norm as it is, over all trained parameters and no others.",
    GRADIENTS,
)
OF_SEVERAL = Mistake(
    "norms of several ranks together",
    "Each rank has the norm that was measured for it, not a mean over several.",
    GRADIENTS,
)
RELATIVE = Mistake(
    "relative to another rank", "Return each rank's norm itself: do not divide it.", GRADIENTS
)
LOSS_RETURNED = Mistake(
    "loss in place of the gradient",
    "Call backward() on it, and take the norm of .grad.",
    GRADIENTS,
)
RULES_SWAPPED = Mistake(
    "the two rules are swapped",
    "Pass rank_stabilized on to add_adapters_to_model as it is.",
    GRADIENTS,
)
FORMULA = Mistake(
    "not measured at each rank",
    "The norms follow the table of section 1 to the last digit, or are all the same; the table is "
    "what is to be tested: measure the gradient at each rank.",
    GRADIENTS,
)
ROOT_MEAN_SQUARE = Mistake(
    "root mean square", "Do not divide by the number of entries: take the norm.", GRADIENTS
)
ABSOLUTE_SUM = Mistake(
    "sum of absolute values", "The norm is the root of the sum of all squares.", GRADIENTS
)
NORM_OF_WEIGHTS = Mistake(
    "norm of the weights", "Take the norm of parameter.grad, not of the parameter.", GRADIENTS
)
RANKS_AS_TEXT = Mistake(
    "ranks as text", "The keys are the ranks themselves, whole numbers.", GRADIENTS
)
NO_DICT = Mistake(
    "a list of norms", "Return a dict from each rank to its norm: {rank: norm, ...}.", GRADIENTS
)
RANKS_LEFT_OUT = Mistake(
    "ranks left out", "Measure at every rank; return comes after the loop.", GRADIENTS
)
OTHER_LOSS = Mistake(
    "inputs in place of targets",
    "The model reads inputs, the loss compares with targets: task.loss(model(inputs), targets).",
    GRADIENTS,
)
RANK_TOO_MUCH = Mistake(
    "a power of the rank too much",
    "alpha is 16 at every rank, and the norm is returned as it is measured.",
    GRADIENTS,
)
WITHOUT_SCALING = Mistake(
    "scaling divided out", "Return the norm as it is measured, including the scaling.", GRADIENTS
)
ONE_FACTOR = Mistake(
    "one factor at every rank",
    "Every norm is off by the same factor: look at alpha, at the loss, which is a mean, and at "
    "what you divide the norm by.",
    GRADIENTS,
)
OTHER_RANKS = Mistake("other ranks than those given", "Go through the argument ranks.", GRADIENTS)
NORMS_ROUNDED = Mistake("rounded", "Return the norms themselves; round what you print.", GRADIENTS)
CLIPPED = Mistake(
    "the norm of clipped gradients",
    "clip_grad_norm_ returns the norm that it found; measure before it shortens the gradients.",
    GRADIENTS,
)
NOT_THE_ROOT = Mistake("squared norm", "The norm is the root of the sum of all squares.", GRADIENTS)
SUM_OF_NORMS = Mistake(
    "norms added up",
    "The norm of all gradients together is the root of the sum of their squared norms.",
    GRADIENTS,
)
MEAN_OF_NORMS = Mistake(
    "mean of the norms", "Take the norm of all gradients together, as one long vector.", GRADIENTS
)
ONE_ENTRY = Mistake(
    "largest entry",
    "The norm is the length of the whole gradient, not its largest entry.",
    GRADIENTS,
)
ONE_LAYER = Mistake(
    "one layer only",
    "This is the gradient of a single parameter, such as the last or the one with the largest: all "
    "trained parameters together are one vector.",
    GRADIENTS,
)
SUMMED_LOSS = Mistake(
    "loss summed over the batch", "task.loss is a mean: do not multiply or sum it.", GRADIENTS
)
WITH_MAGNITUDE = Mistake(
    "DoRA in place of LoRA", 'This exercise asks for adapter_type="lora".', GRADIENTS
)
ONLY_A = Mistake(
    "lora_A only",
    "Before the first step lora_B is zero, so the gradient of lora_A is zero: only lora_B has one.",
    GRADIENTS,
)
SCALED_TWICE = Mistake(
    "scaling applied twice",
    "add_adapters_to_model divides by the rank itself: pass it alpha=16.0, not the scaling, and "
    "return the norm as it is measured.",
    GRADIENTS,
)

DORA = ("dora", "dora-input")
ALPHA = 16.0
BATCH = 8
CLOSE = 1e-5  # relative: the exercise fixes the batch and the generator; this allows for rounding


# A layer knows its scaling.
REFERENCE = (*REFERENCE_MATHEMATICS, lab_utils.adapters.__file__)


@check(forbids=REFERENCE, seeded=True)
def check_lora_scaling(
    lora_scaling: Callable,
    aspect: str | None = None,
    *,
    alpha: float = 12.0,
    rank: int = 9,
    seed: int = 0,
) -> None:
    """Check a `lora_scaling(alpha, rank, rank_stabilized) -> float`.

    Args:
        aspect: `"usual"` (alpha / rank) or `"stabilized"` (alpha / sqrt(rank)); both if None.
        alpha, rank: of the first call, above 1 and different.
        seed: of the other calls, whose ranks are not squares.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    cases = _draw_scalings(alpha, rank, seed)
    for name in chosen(aspect, ("usual", "stabilized")):
        stabilized = name == "stabilized"
        rule = "alpha / sqrt(rank)" if stabilized else "alpha / rank"
        with Report(f"lora_scaling · {name} · alpha {alpha:g}, rank {rank}") as report:
            answers = [
                call_function(lora_scaling, *case, stabilized, reference=REFERENCE)
                for case in cases
            ]
            why = functools.partial(returned_kind, wanted="a number", section=SCALING)
            found = expect_numbers(report, answers, "the scaling", why)
            if found is None:
                continue
            expected = [_scaling(*case, stabilized) for case in cases]
            mistake = None
            if not near(found, expected):
                mistake = only_explanation(found, _wrong_scalings(cases, stabilized))
                factors = [value / right for value, right in zip(found, expected, strict=True)]
                if mistake is None and near(factors, factors[:1] * len(factors)):
                    mistake = A_FACTOR
                mistake = mistake or earlier_result(found, expected, SCALING)
            if mistake in (ALWAYS_ROOT, ALWAYS_RANK):
                mistake = _which_rule(lora_scaling, cases, stabilized, mistake)
            for (a, r), right, value in zip(cases, expected, found, strict=True):
                report.expect(
                    near(value, right),
                    f"alpha {a:g}, rank {r}, rank_stabilized={stabilized}: {rule}",
                    f"alpha {a:g}, rank {r}, rank_stabilized={stabilized}: {rule} is {right:.6g}; "
                    f"{apart(right, value)}.",
                    mistake,
                )


def _draw_scalings(alpha: float, rank: int, seed: int) -> list[tuple[float, int]]:
    """Return pairs of alpha and rank, the given one first, for which all mistakes differ."""
    generator = torch.Generator().manual_seed(seed)

    def pick(values: Sequence[float]) -> Any:
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    for _ in range(1000):
        cases = [
            (alpha, rank),
            (pick((5.0, 7.0, 11.0, 13.0)), pick((2, 3, 6, 8, 12))),
            (pick((17, 19, 23, 29)), pick((5, 7, 10, 14, 15))),
            (pick((0.3, 0.7, 2.6)), pick((24, 48, 96, 160))),
        ]
        if all(
            tell_apart([_scaling(*case, rule) for case in cases], _wrong_scalings(cases, rule))
            for rule in (False, True)
        ):
            break
    return cases


def _scaling(alpha: float, rank: int, stabilized: bool) -> float:
    return alpha / (math.sqrt(rank) if stabilized else rank)


def _wrong_scalings(
    cases: list[tuple[float, int]], stabilized: bool
) -> list[tuple[Mistake, list[float]]]:
    """Return what each known mistake makes of the cases."""

    def rule(function: Callable[[float, int], float]) -> list[float]:
        return [float(function(a, r)) for a, r in cases]

    def divisor(rank: int) -> float:
        return math.sqrt(rank) if stabilized else rank

    other = ALWAYS_RANK if stabilized else ALWAYS_ROOT
    return [
        (other, rule(lambda a, r: _scaling(a, r, not stabilized))),
        (ROOT_OF_ALPHA, rule(lambda a, r: math.sqrt(a / r))),
        (ROOT_OF_ALPHA, rule(lambda a, r: math.sqrt(a) / r)),
        (ALPHA_LEFT_OUT, rule(lambda a, r: 1 / divisor(r))),
        (ALPHA_LEFT_OUT, rule(lambda a, r: ALPHA / divisor(r))),
        *((ALPHA_LEFT_OUT, rule(lambda a, r, k=k: k * r / divisor(r))) for k in (1, 2)),
        *((ALPHA_RAISED, rule(lambda a, r, p=p: a**p / divisor(r))) for p in (1.5, 2)),
        *((ALPHA_RAISED, rule(lambda a, r: a**1.5 / r)) for _ in range(stabilized)),
        (RANK_LEFT_OUT, rule(lambda a, r: a)),
        (UPSIDE_DOWN, rule(lambda a, r: divisor(r) / a)),
        (MULTIPLIED, rule(lambda a, r: a * divisor(r))),
        (SQUARED, rule(lambda a, r: a / r**2)),
        (WHOLE, rule(lambda a, r: a // divisor(r))),
        (WHOLE, rule(lambda a, r: int(a / divisor(r)))),
        (WHOLE, rule(lambda a, r: int(a) / divisor(r))),
        (WHOLE_ROOT, rule(lambda a, r: a / math.isqrt(r))),
        (WHOLE_ROOT, rule(lambda a, r: a // math.isqrt(r))),
        (WHOLE_ROOT, rule(lambda a, r: a / round(math.sqrt(r)))),
        (WHOLE_ROOT, rule(lambda a, r: a / math.ceil(math.sqrt(r)))),
        *((OTHER_POWER, rule(lambda a, r, p=p: a / r**p)) for p in (0.25, 1 / 3, 2 / 3, 1.5)),
        *((HALF, rule(lambda a, r: a / r / 2)) for _ in range(stabilized)),
        (LOGARITHM, rule(lambda a, r: a / math.log(r))),
        (LOGARITHM, rule(lambda a, r: a / math.log2(r))),
        *roundings(rule(lambda a, r: a / divisor(r)), SCALING_ROUNDED),
        *(
            (SCALING_ROUNDED, rule(lambda a, r, d=digits: a / round(math.sqrt(r), d)))
            for digits in range(1, 5)
            if stabilized
        ),
        (NARROW, rule(lambda a, r: torch.tensor(a / divisor(r), dtype=torch.float16).item())),
        (NARROW, rule(lambda a, r: torch.tensor(a / divisor(r), dtype=torch.bfloat16).item())),
        (OFF_BY_ONE, rule(lambda a, r: a / divisor(r + 1))),
        (OFF_BY_ONE, rule(lambda a, r: a / divisor(r - 1))),
    ]


def _which_rule(
    lora_scaling: Callable, cases: list[tuple[float, int]], stabilized: bool, ignored: Mistake
) -> Mistake | None:
    """Return why the scaling follows the other rule, judging by what it gives under that rule."""
    try:
        answers = [
            call_function(lora_scaling, *case, not stabilized, reference=REFERENCE)
            for case in cases
        ]
    except CheckFailed:
        return None
    found = [number(value) for value in answers]
    if None in found:
        return None
    if near(found, [_scaling(*case, not stabilized) for case in cases]):
        return ignored
    swapped = near(found, [_scaling(*case, stabilized) for case in cases])
    return OTHER_RULE if swapped else None


@check(forbids=(), needs=["optimizers"])
def check_gradient_norms_by_rank(
    gradient_norms_by_rank: Callable,
    aspect: str | None = None,
    *,
    ranks: Sequence[int] = (16, 4, 64),
) -> None:
    """Check a `gradient_norms_by_rank(ranks, rank_stabilized) -> dict`.

    Args:
        aspect: `"usual"` (alpha / rank) or `"stabilized"` (alpha / sqrt(rank)); both if None.
        ranks: whole numbers from 4 to 128 in any order, without 8, where alpha = 2 * rank is right.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("usual", "stabilized")):
        stabilized = name == "stabilized"
        with Report(f"gradient_norms_by_rank · {name} · ranks {tuple(ranks)}") as report:
            # nothing is forbidden: the exercise is to measure the lab's own layers
            seen = call_watched(ask_models, gradient_norms_by_rank, tuple(ranks), stabilized)
            values = _norms_found(report, seen["result"], ranks)
            if values is not None:
                ask = functools.partial(_norms_with, gradient_norms_by_rank, ranks)
                _expect_norms(report, values, ranks, stabilized, ask, seen["models"])
                if report.first_problem is None:
                    other = next(rank for rank in (5, 7, 9, 11) if rank not in ranks)
                    _expect_norm_alone(report, gradient_norms_by_rank, other, stabilized)


def _norms_found(report: Report, found: Any, ranks: Sequence[int]) -> list[float] | None:
    """Return the norms in the order of the ranks, or None where the result is of another form."""
    if not report.expect(
        isinstance(found, dict),
        "the result is a dict",
        f"expected a dict from each rank to its gradient norm, found {describe(found)}.",
        NO_DICT if isinstance(found, list | tuple) else nothing_returned(found, GRADIENTS),
    ):
        return None
    keys = list(found)
    mistake = None
    if sorted(map(str, keys)) == sorted(map(str, ranks)):
        mistake = RANKS_AS_TEXT
    elif keys and all(isinstance(key, int) for key in keys):
        mistake = RANKS_LEFT_OUT if set(keys) < set(ranks) else OTHER_RANKS
    shown = listed([repr(k) if isinstance(k, int | float | str) else describe(k) for k in keys], 6)
    if not report.expect(
        all(isinstance(key, int) for key in keys) and sorted(keys) == sorted(ranks),
        f"its keys are the ranks {tuple(ranks)}",
        f"expected the ranks {tuple(ranks)} as keys, whole numbers, found [{shown}].",
        mistake,
    ):
        return None
    values = [found[rank] for rank in ranks]
    odd = next((v for v in values if number(v) is None or isinstance(v, int)), None)
    if not report.expect(
        not any(number(v) is None or isinstance(v, int) for v in values),
        "its values are floats",
        f"expected floats as values, found {describe(odd)}.",
        other_kind(odd, "a number", GRADIENTS),
    ):
        return None
    return [float(value) for value in values]


def _expect_norms(
    report: Report,
    found: list[float],
    ranks: Sequence[int],
    stabilized: bool,
    ask: Callable[[bool], list[float] | None],
    models: list[dict[str, Any]],
) -> None:
    expected = [_measured(rank, stabilized) for rank in ranks]
    rule = "alpha / sqrt(rank)" if stabilized else "alpha / rank"
    mistake = None
    if not near(found, expected, CLOSE):
        wrong = _wrong_norms(ranks, stabilized, expected)
        mistake = (
            _model_at_fault(models, ranks)
            or only_explanation(found, wrong, lambda a, b: near(a, b, CLOSE))
            or _by_both_rules(found, wrong, ranks, stabilized, ask)
            or _by_formula(found, ranks, stabilized)
            or _other_run(found, ranks, stabilized)
            or _gradient_at_fault(models, ranks, stabilized)
            or _off_by_a_factor(found, expected)
        )
        if mistake is RULE_IGNORED[stabilized]:
            mistake = _which_rule_of_norms(ranks, stabilized, ask(not stabilized))
    for rank, right, value in zip(ranks, expected, found, strict=True):
        factor = value / right
        report.expect(
            near(value, right, CLOSE),
            f"rank {rank}: the gradient's norm with {rule}",
            f"rank {rank}, {rule}: the gradient's norm: {apart(right, value)} ({factor:.4g} times "
            "that).",
            mistake,
        )


def _expect_norm_alone(
    report: Report, gradient_norms_by_rank: Callable, rank: int, stabilized: bool
) -> None:
    """Expect one rank to be measured that is asked for by itself, after others."""
    found = call_function(gradient_norms_by_rank, (rank,), stabilized, reference=())
    if isinstance(found, dict) and rank in found and len(found) > 1:
        problem = f"expected only rank {rank} in a second call, found {len(found)} ranks."
        report.expect(False, "a second call starts anew", problem, KEPT_FROM_EARLIER)
        return
    values = _norms_found(report, found, (rank,))
    right = _measured(rank, stabilized)
    if values is not None:
        report.expect(
            near(values[0], right, CLOSE),
            f"rank {rank} in a second call",
            f"rank {rank}, in a second call: the gradient's norm: {apart(right, values[0])}.",
            KEPT_FROM_EARLIER,
        )


def _norms_with(
    gradient_norms_by_rank: Callable, ranks: Sequence[int], stabilized: bool
) -> list[float] | None:
    """Return the student's norms under a rule, or None if they cannot be read."""
    try:
        found = call_function(gradient_norms_by_rank, tuple(ranks), stabilized, reference=())
    except CheckFailed:
        return None
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        return _norms_found(Report("the other rule"), found, ranks)


def _which_rule_of_norms(
    ranks: Sequence[int], stabilized: bool, other: list[float] | None
) -> Mistake | None:
    """Return why the norms are those of the other rule, judging by those under that rule."""

    def measured(rule: bool) -> list[float]:
        return [_measured(rank, rule) for rank in ranks]

    if other is None:
        return None
    if near(other, measured(not stabilized), CLOSE):
        return RULE_IGNORED[stabilized]
    if near(other, measured(stabilized), CLOSE):
        return RULES_SWAPPED
    power = -0.5 if stabilized else 0.5  # the one that makes a rule of the other
    again = [n * r**power for n, r in zip(measured(not stabilized), ranks, strict=True)]
    return RANK_TOO_MUCH if near(other, again, CLOSE) else None


def _wrong_norms(
    ranks: Sequence[int], stabilized: bool, expected: list[float]
) -> list[tuple[Mistake, list[float]]]:
    """Return what each known mistake gives at the ranks."""
    unit = [_unit_gradients(rank) for rank in ranks]
    windows = BATCH * language_task().base.context

    def scaled(norms: list[float], alpha: Callable[[int], float], root: bool) -> list[float]:
        """Return norms at a scaling of 1 as they are with an alpha at each rank, and a rule."""
        return [n * _scaling(alpha(r), r, root) for n, r in zip(norms, ranks, strict=True)]

    def by_rule(measure: Callable[[list[Tensor]], Tensor]) -> list[float]:
        return scaled([measure(g).item() for g in unit], lambda rank: ALPHA, stabilized)

    def each(gradients: list[Tensor]) -> Tensor:
        return torch.stack([g.norm() for g in gradients])

    def entries(gradients: list[Tensor]) -> Tensor:
        return torch.cat([g.flatten() for g in gradients])

    together = [_norm(gradients) for gradients in unit]
    sums = [math.sqrt(sum(n**2 for n in expected[: i + 1])) for i in range(len(ranks))]
    wrong = [
        (ONLY_A, [0.0] * len(ranks)),
        (CLIPPED, [min(1.0, norm) for norm in expected]),
        (CLIPPED, [norm * min(1.0, 1.0 / (norm + 1e-6)) for norm in expected]),
        (GROWING_ALPHA, scaled(together, lambda rank: 2.0 * rank, stabilized)),
        (GROWING_ALPHA, scaled(together, lambda rank: float(rank), stabilized)),
        (RULE_IGNORED[stabilized], scaled(together, lambda rank: ALPHA, not stabilized)),
        (SCALED_TWICE, scaled(together, lambda rank: ALPHA / rank, stabilized)),
        (NOT_THE_ROOT, [norm**2 for norm in expected]),
        (SUM_OF_NORMS, by_rule(lambda g: each(g).sum())),
        (MEAN_OF_NORMS, by_rule(lambda g: each(g).mean())),
        (MEAN_OF_NORMS, by_rule(lambda g: each(g).mean() / 2)),  # with lora_A's
        *((ONE_LAYER, by_rule(lambda g, i=i: g[i].norm())) for i in range(len(unit[0]))),
        (ONE_ENTRY, by_rule(lambda g: entries(g).abs().max())),
        (ONE_LAYER, by_rule(lambda g: each(g).max())),
        (ABSOLUTE_SUM, by_rule(lambda g: entries(g).abs().sum())),
        (ROOT_MEAN_SQUARE, by_rule(lambda g: entries(g).square().mean().sqrt())),
        (SUMMED_LOSS, [norm * BATCH for norm in expected]),
        (SUMMED_LOSS, [norm * windows for norm in expected]),
        *((WITH_MAGNITUDE, _with_magnitude(kind, ranks, stabilized)) for kind in DORA),
        (NORM_OF_WEIGHTS, [_norm_of_weights(rank) for rank in ranks]),
        (LOSS_RETURNED, [_first_loss()] * len(ranks)),
        (TWICE, [2 * norm for norm in expected]),
        (RANK_LOST, [_measured(8, stabilized)] * len(ranks)),
        (ACCUMULATED, sums),
        *zip((ACCUMULATED, OF_SEVERAL), so_far(expected)[:2], strict=True),
        (RELATIVE, [norm / expected[0] for norm in expected]),
        (RELATIVE, [norm / expected[-1] for norm in expected]),
        (SCALED_TWICE, scaled(expected, lambda rank: ALPHA, stabilized)),
        (
            ROOT_MEAN_SQUARE,
            by_rule(lambda g: torch.stack([p.square().mean() for p in g]).sum().sqrt()),
        ),
        (RANK_TOO_MUCH, [n * r for n, r in zip(expected, ranks, strict=True)]),
        (WITHOUT_SCALING, together),
        *((FORMULA, [expected[i]] * len(ranks)) for i in (0, -1)),
        *((OTHER_ALPHA, [n * a / ALPHA for n in expected]) for a in (1.0, 4.0, 8.0, 64.0)),
        *roundings(expected, NORMS_ROUNDED),
    ]
    places = dict(zip(ranks, expected, strict=True))
    orders = (sorted(ranks), sorted(ranks, reverse=True), [*ranks[1:], ranks[0]], ranks[::-1])
    wrong += [(MISPLACED, [places[r] for r in o]) for o in orders if tuple(o) != tuple(ranks)]
    root_mean = [n / math.sqrt(_trained(rank)) for n, rank in zip(expected, ranks, strict=True)]
    if not stabilized:  # else it is what alpha / rank gives
        scalings = scaled(together, lambda rank: ALPHA / math.sqrt(rank), False)
        wrong.append((SCALED_TWICE, scalings))
    return [*wrong, (ROOT_MEAN_SQUARE, root_mean)]


def _by_formula(found: list[float], ranks: Sequence[int], stabilized: bool) -> Mistake | None:
    """Return whether the norms fall exactly as the table says; measured ones scatter a little."""
    products = [f * (1 if stabilized else math.sqrt(r)) for f, r in zip(found, ranks, strict=True)]
    exact = len(ranks) > 2 and products[0] > 0 and near(products, [products[0]] * len(ranks))
    return FORMULA if exact else None


def _other_run(found: list[float], ranks: Sequence[int], stabilized: bool) -> Mistake | None:
    """Return the one setting that differed, if the first rank measured with it gives the same."""

    def scaled(measure: Callable[[int], float]) -> list[float]:
        return [measure(rank) * _scaling(ALPHA, rank, stabilized) for rank in ranks]

    def like(measure: Callable[[int], float]) -> bool:
        first = measure(ranks[0]) * _scaling(ALPHA, ranks[0], stabilized)
        return near(found[0], first, CLOSE) and near(found, scaled(measure), CLOSE)

    generators = _shared_generator(tuple(ranks))
    if near(found, scaled(generators.__getitem__), CLOSE):
        return ONE_GENERATOR
    for batch in ((8, 16), (0, 4), (0, 16), (0, 1)):
        if like(lambda rank, batch=batch: _norm(_unit_gradients(rank, 0, *batch))):
            return OTHER_BATCH
    if like(lambda rank: _norm(_unit_gradients(rank, swapped=True))):
        return OTHER_LOSS
    for seed in (1, 42):
        if like(lambda rank, seed=seed: _norm(_unit_gradients(rank, seed))):
            return OTHER_SEED
    if like(lambda rank: _norm(_unit_gradients(rank, rank))):
        return OTHER_SEED
    return None


def _by_both_rules(
    found: list[float],
    wrong: list[tuple[Mistake, list[float]]],
    ranks: Sequence[int],
    stabilized: bool,
    ask: Callable[[bool], list[float] | None],
) -> Mistake | None:
    """Return which of several mistakes that give the same under one rule fits the other, too."""
    fitting = {mistake for mistake, norms in wrong if near(found, norms, CLOSE)}
    other = ask(not stabilized) if fitting else None
    if other is None:
        return None
    expected = [_measured(rank, not stabilized) for rank in ranks]
    again = _wrong_norms(ranks, not stabilized, expected)
    left = [(mistake, norms) for mistake, norms in again if mistake in fitting]
    return only_explanation(other, left, lambda a, b: near(a, b, CLOSE))


def _off_by_a_factor(found: list[float], expected: list[float]) -> Mistake | None:
    """Return whether every norm is off by one and the same factor."""
    factors = [value / right for value, right in zip(found, expected, strict=True)]
    return ONE_FACTOR if near(factors, factors[:1] * len(factors), CLOSE) else None


def _model_at_fault(models: list[dict[str, Any]], ranks: Sequence[int]) -> Mistake | None:
    """Return what is wrong with the models that were made, as it was seen; not by which rule."""
    if not models:  # made in another way, or not at all
        return None
    train = language_task().train
    faults = []
    for rank in ranks:
        made = [model for model in models if model["rank"] == rank]
        if not made:
            return RANK_LOST if len(models) >= len(ranks) else None
        per_model = []
        for model in made:
            alpha, read = model["alpha"], model["inputs"]
            grows = all(m["alpha"] in (m["rank"], 2 * m["rank"]) for m in models)
            per_model.append(
                WITH_MAGNITUDE
                if model["adapter_type"] in DORA
                else OTHER_SETTING
                if model["dropout"]
                or set(model["target_modules"]) != set(ATTENTION)
                or model["adapter_type"] != "lora"
                else (GROWING_ALPHA if grows else OTHER_ALPHA)
                if alpha not in (ALPHA, ALPHA / rank, ALPHA / math.sqrt(rank))
                else NO_GENERATOR
                if model["seed"] is None
                else OTHER_SEED
                if model["seed"] != 0
                else ONE_GENERATOR
                if not model["fresh"]
                else OTHER_BATCH
                if read and not any(_within(batch, train.inputs[:BATCH], train) for batch in read)
                else None
            )
        if None not in per_model:
            faults.append(per_model[0])
    return faults[0] if faults else None


def _within(batch: Tensor, inputs: Tensor, train: Any) -> bool:
    """Return whether a model read the windows of the exercise: all at once, or one by one.

    Targets in place of inputs are a mistake of their own.
    """
    if batch.shape == inputs.shape:
        return torch.equal(batch, inputs) or torch.equal(batch, train.targets[:BATCH])
    return len(batch) == 1 and any(torch.equal(batch[0], window) for window in inputs[1:])


def _gradient_at_fault(
    models: list[dict[str, Any]], ranks: Sequence[int], stabilized: bool
) -> Mistake | None:
    """Return whether the gradients are wrong that the right models were left with, or the norm."""
    if [model["rank"] for model in models] != list(ranks):
        return None
    if any(model["rank_stabilized"] != stabilized for model in models):
        return None
    factors = []
    for model in models:
        own = [g for name, g in model["gradients"].items() if name.endswith("lora_B")]
        right = [
            g * _scaling(ALPHA, model["rank"], stabilized) for g in _unit_gradients(model["rank"])
        ]
        if len(own) != len(right):
            return None
        one, other = (torch.cat([g.flatten() for g in gradients]) for gradients in (own, right))
        factors.append((one.norm() / other.norm()).item())
        if not near(one, other * factors[-1], 1e-4):
            return OTHER_GRADIENT
    if near(factors, [1.0] * len(factors), CLOSE):
        return ANOTHER_MEASURE
    return GRADIENT_SCALED


def _measured(rank: int, stabilized: bool) -> float:
    return _norm(_unit_gradients(rank)) * _scaling(ALPHA, rank, stabilized)


def _norm(gradients: list[Tensor]) -> float:
    return torch.stack([g.norm() for g in gradients]).norm().item()


@cache
def _unit_gradients(
    rank: int, seed: int = 0, first: int = 0, last: int = BATCH, swapped: bool = False
) -> list[Tensor]:
    """Return the gradient of each layer's `lora_B` at a scaling of 1, before the first step.

    `lora_B` is zero, so the scaling is not in the output, and the gradient is proportional to it.
    That of `lora_A` is zero. Random state is that of the exercise, but for the arguments.
    """
    model = _after_backward("lora", rank, torch.Generator().manual_seed(seed), first, last, swapped)
    return [layer.lora_B.grad for layer in adapter_layers(model).values()]


@cache
def _shared_generator(ranks: tuple[int, ...]) -> dict[int, float]:
    """Return the norms at a scaling of 1 where one generator draws for all ranks, in order."""
    generator, norms = torch.Generator().manual_seed(0), {}
    for rank in ranks:
        model = _after_backward("lora", rank, generator)
        norms[rank] = _norm([layer.lora_B.grad for layer in adapter_layers(model).values()])
    return norms


def _with_magnitude(kind: str, ranks: Sequence[int], stabilized: bool) -> list[float]:
    """Return the norms of DoRA: what its magnitude adds does not depend on the rank."""
    norms = []
    for rank in ranks:
        low_rank, magnitude = _dora_gradients(kind, rank)
        norms.append(math.hypot(low_rank * _scaling(ALPHA, rank, stabilized), magnitude))
    return norms


@cache
def _dora_gradients(kind: str, rank: int) -> tuple[float, float]:
    """Return the gradient's norm of `lora_B`, at a scaling of 1, and of the magnitude."""
    model = _after_backward(kind, rank, torch.Generator().manual_seed(0))
    layers = adapter_layers(model).values()
    return _norm([p.lora_B.grad for p in layers]), _norm([p.magnitude.grad for p in layers])


@cache
def _first_loss() -> float:
    """Return the loss before the first step, which is the base's."""
    task = language_task()
    with torch.no_grad():
        return task.loss(task.base(task.train.inputs[:BATCH]), task.train.targets[:BATCH]).item()


@cache
def _norm_of_weights(rank: int) -> float:
    model = add_adapters_to_model(
        language_task().base, "lora", rank, generator=torch.Generator().manual_seed(0)
    )
    return _norm([layer.lora_A.detach() for layer in adapter_layers(model).values()])


def _trained(rank: int) -> int:
    """Return how many numbers are trained at a rank."""
    layers = _unit_gradients(rank)
    return sum(g.numel() + rank * g.shape[0] for g in layers)  # the layers are square


def _after_backward(
    adapter_type: str,
    rank: int,
    generator: torch.Generator,
    first: int = 0,
    last: int = BATCH,
    swapped: bool = False,
) -> torch.nn.Module:
    task = language_task()
    model = add_adapters_to_model(task.base, adapter_type, rank, alpha=rank, generator=generator)
    batch = task.train.inputs[first:last], task.train.targets[first:last]
    inputs, targets = batch[::-1] if swapped else batch
    loss = task.loss(model(inputs), targets)
    loss.backward()
    return model
