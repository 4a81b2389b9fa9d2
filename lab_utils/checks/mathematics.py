"""Checks of lesson 01: `decompose`, `recompose` and `count_trainable`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lab_utils import decomposition
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import REFERENCE_MATHEMATICS, call, call_function, check

DECOMPOSE = "3. Decompose a matrix that you can see"
COUNT = "5. What it costs: count the parameters"

WRONG_AXIS = Mistake(
    "norm over the wrong axis",
    "norm_dim is the dimension that the norm sums over: weight.norm(dim=norm_dim).",
    DECOMPOSE,
)
LOST_DIMENSION = Mistake(
    "summed dimension dropped",
    "Pass keepdim=True, so that the magnitude keeps two dimensions and scales the right vectors.",
    DECOMPOSE,
)
NOT_A_LENGTH = Mistake(
    "not the Euclidean length",
    "The magnitude is the square root of the sum of squares of each vector.",
    DECOMPOSE,
)
WHOLE_NORM = Mistake(
    "one norm for the whole matrix",
    "Each output neuron (norm_dim=1) or input feature (norm_dim=0) has a length of its own.",
    DECOMPOSE,
)
NO_NORMALISATION = Mistake(
    "no normalisation",
    "The direction is the weight divided by its magnitude, so that each vector has length 1.",
    DECOMPOSE,
)
SWAPPED = Mistake("the two results are swapped", "Return (magnitude, direction).", DECOMPOSE)
ZERO_DIVISION = Mistake(
    "division by a zero norm",
    "A vector of zeros has norm 0, and 0/0 is NaN: divide by norm.clamp_min(eps), or add eps.",
    DECOMPOSE,
)
IN_PLACE = Mistake(
    "in-place change of the argument",
    "Operators such as /= and methods that end in _ write into the caller's tensor.",
    DECOMPOSE,
)
ADDED = Mistake("added", "The weight is the product of magnitude and direction.", DECOMPOSE)
DIVIDED = Mistake("divided", "The direction has length 1 already: multiply it.", DECOMPOSE)
DIRECTION_ONLY = Mistake(
    "magnitude left out", "Multiply each vector by its own magnitude.", DECOMPOSE
)
NORMALISED_AGAIN = Mistake(
    "normalised again",
    "recompose multiplies what it is given: a direction is not divided by its norm there.",
    DECOMPOSE,
)
TRANSPOSED = Mistake(
    "transposed", "The weight has the shape of the direction, (out, in).", DECOMPOSE
)


def _count(name: str, why: str) -> Mistake:
    return Mistake(name, why, COUNT)


FROZEN_COUNTED = _count("the frozen weight counted", "W0 is frozen: only the adapter is trained.")
MULTIPLIED = _count("multiplied", "Sizes of separate matrices are added.")
WRONG_MAGNITUDE = {
    "lora": _count("magnitude counted for LoRA", "LoRA trains lora_A and lora_B only."),
    "dora": _count(
        "magnitude on the wrong axis", "With norm_dim=1 there is one for each output neuron."
    ),
    "dora-input": _count(
        "magnitude on the wrong axis", "With norm_dim=0 there is one for each input feature."
    ),
}


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_decompose(
    decompose: Callable,
    aspect: str | None = None,
    *,
    out_features: int = 3,
    in_features: int = 5,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Check a `decompose(weight, norm_dim=1, eps=1e-8) -> (magnitude, direction)`.

    Args:
        aspect: `"rows"` (norm_dim=1), `"columns"` (norm_dim=0) or `"zeros"` (a row of length 0);
            all of them if None.
        out_features, in_features, seed, dtype: of the random weight.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator).to(dtype)
    for name in chosen(aspect, ("rows", "columns", "zeros")):
        with Report(f"decompose · {name} · weight {tuple(weight.shape)}, {dtype}") as report:
            if name == "rows":
                _check_split(report, decompose, weight, {})
                _check_split(report, decompose, weight, {"norm_dim": 1})
            elif name == "columns":
                _check_split(report, decompose, weight, {"norm_dim": 0})
            else:
                with_zeros = weight.clone()
                with_zeros[1] = 0.0
                _check_split(report, decompose, with_zeros, {"norm_dim": 1})


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_recompose(
    recompose: Callable,
    aspect: str | None = None,
    *,
    out_features: int = 3,
    in_features: int = 5,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Check a `recompose(magnitude, direction) -> weight`.

    Args:
        aspect: `"rows"` (a magnitude of shape (out, 1)) or `"columns"` ((1, in)); both if None.
        out_features, in_features, seed, dtype: of the random weight.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator).to(dtype)
    for name in chosen(aspect, ("rows", "columns")):
        norm_dim = 1 if name == "rows" else 0
        magnitude, direction = decomposition.decompose(weight, norm_dim)
        direction = 0.9 * direction  # after training a "direction" need not have length 1
        with Report(f"recompose · {name} · magnitude {tuple(magnitude.shape)}, {dtype}") as report:
            called = call(recompose, magnitude, direction)
            found = called.result
            if not _is_tensor(report, "the weight", found):
                continue
            unit = direction / direction.norm(dim=norm_dim, keepdim=True)
            expected = magnitude * direction
            mistakes = [
                (magnitude + direction, ADDED),
                (direction / magnitude, DIVIDED),
                (direction, DIRECTION_ONLY),
                (magnitude * unit, NORMALISED_AGAIN),
                (unit, NORMALISED_AGAIN),
                (expected.T, TRANSPOSED),
            ]
            report.expect_close(found, expected, "weight = magnitude * direction", mistakes)
            _expect_unchanged(report, called.after, (magnitude, direction))


@check(forbids=REFERENCE_MATHEMATICS)
def check_count_trainable(
    count_trainable: Callable,
    aspect: str | None = None,
    *,
    in_features: int = 12,
    out_features: int = 5,
    rank: int = 2,
) -> None:
    """Check a `count_trainable(in_features, out_features, rank, method, norm_dim=1) -> int`.

    Args:
        aspect: `"lora"`, `"dora"` (one magnitude per output) or `"dora-input"`
            (`norm_dim=0`); all of them if None.
        in_features, out_features, rank: of the layer; choose different features, because a
            square layer hides the axis.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    size_a, size_b = rank * in_features, rank * out_features
    lora = size_a + size_b
    for name in chosen(aspect, ("lora", "dora", "dora-input")):
        method = name.removesuffix("-input")
        named = {"norm_dim": 0} if name == "dora-input" else {}
        magnitude = {"lora": 0, "dora": out_features, "dora-input": in_features}[name]
        with Report(
            f"count_trainable · {name} · {in_features} → {out_features}, rank {rank}"
        ) as report:
            found = call_function(count_trainable, in_features, out_features, rank, method, **named)
            is_int = isinstance(found, int) and not isinstance(found, bool)
            if not report.expect(
                is_int,
                "the count is an int",
                f"expected an int, found {found!r} of type {type(found).__name__}.",
            ):
                continue
            expected = lora + magnitude
            frozen = in_features * out_features
            other = in_features if name == "dora" else out_features
            wrong = [
                (lora, _count("magnitude left out", "DoRA trains m besides lora_A and lora_B.")),
                (lora + other, WRONG_MAGNITUDE[name]),
                (lora + in_features + out_features, WRONG_MAGNITUDE[name]),
                (lora + in_features, WRONG_MAGNITUDE[name]),
                (lora + 1, _count("a single magnitude", "Each vector of the weight has its own.")),
                (size_a + magnitude, _count("lora_B left out", "It is (out_features, rank).")),
                (size_b + magnitude, _count("lora_A left out", "It is (rank, in_features).")),
                *((n, FROZEN_COUNTED) for n in (frozen, frozen + lora, frozen + expected)),
                *((n + magnitude, MULTIPLIED) for n in (size_a * size_b, rank * frozen)),
            ]
            report.expect(
                found == expected,
                f"{method} trains {expected:,} numbers",
                f"expected {expected:,} trainable numbers, found {found:,}.",
                next((mistake for count, mistake in wrong if count == found), None),
            )


def _check_split(report: Report, decompose: Callable, weight: Tensor, named: dict) -> None:
    norm_dim = named.get("norm_dim", 1)
    called = call(decompose, weight, **named)
    result = called.result
    what = f"decompose(weight, norm_dim={norm_dim})" if named else "decompose(weight)"
    if not report.expect(
        isinstance(result, tuple) and len(result) == 2,
        f"{what} returns two things",
        f"expected a tuple (magnitude, direction), found a {type(result).__name__}.",
    ):
        return
    magnitude, direction = result
    if not _is_tensor(report, "magnitude", magnitude):
        return
    if not _is_tensor(report, "direction", direction):
        return
    length, unit = decomposition.decompose(weight, norm_dim)
    across, unit_across = decomposition.decompose(weight, 1 - norm_dim)
    whole = weight.norm()
    report.expect_close(
        magnitude,
        length,
        f"{what}: magnitude",
        [
            (across, WRONG_AXIS),
            (across.flatten(), WRONG_AXIS),
            (length.flatten(), LOST_DIMENSION),
            (length**2, NOT_A_LENGTH),
            (weight.abs().sum(norm_dim, keepdim=True), NOT_A_LENGTH),
            (weight.abs().amax(norm_dim, keepdim=True), NOT_A_LENGTH),
            (whole, WHOLE_NORM),
            (whole.view(1, 1), WHOLE_NORM),
            (unit, SWAPPED),
        ],
    )
    report.expect_close(
        direction,
        unit,
        f"{what}: direction",
        [
            (torch.where(length == 0, torch.nan, unit), ZERO_DIVISION),
            (weight, NO_NORMALISATION),
            (unit_across, WRONG_AXIS),
            (weight / whole, WHOLE_NORM),
            (weight / (length**2).clamp_min(1e-8), NOT_A_LENGTH),
            (length, SWAPPED),
        ],
    )
    _expect_unchanged(report, called.after[:1], (weight,))


def _is_tensor(report: Report, what: str, value: object) -> bool:
    return isinstance(value, Tensor) or report.expect(
        False, f"{what} is a tensor", f"expected {what} as a tensor, found {type(value).__name__}."
    )


def _expect_unchanged(report: Report, given: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    same = all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    problem = "the tensor that was passed in has other values after the call."
    report.expect(same, "the argument stays as it was", problem, IN_PLACE)
