"""Checks of lesson 01: `decompose`, `recompose` and `count_trainable`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lab_utils import decomposition
from lab_utils.checks.report import Comparison, Mistake, Report, chosen, close, kind_of, shown
from lab_utils.checks.subject import REFERENCE_MATHEMATICS, call, call_function, check

DECOMPOSE = "3. Decompose a matrix that you can see"
COUNT = "5. What it costs: count the parameters"


def _split(name: str, why: str) -> Mistake:
    return Mistake(name, why, DECOMPOSE)


WRONG_AXIS = _split(
    "norm over the wrong axis",
    "norm_dim is the dimension that the norm sums over: weight.norm(dim=norm_dim).",
)
LOST_DIMENSION = _split(
    "summed dimension dropped",
    "Pass keepdim=True, so that the magnitude keeps two dimensions and scales the right vectors.",
)
NOT_A_LENGTH = _split(
    "not the Euclidean length",
    "The magnitude is the square root of the sum of squares of each vector.",
)
DIM_AS_P = _split(
    "norm_dim taken as p",
    "The first argument of norm is its order: write weight.norm(dim=norm_dim, keepdim=True).",
)
WHOLE_NORM = _split(
    "one norm for the whole matrix",
    "Each output neuron (norm_dim=1) or input feature (norm_dim=0) has its length.",
)
REPEATED = _split(
    "one magnitude per entry", "Each vector has one: the shape is (out, 1) or (1, in)."
)
NO_NORMALISATION = _split(
    "no normalisation",
    "The direction is the weight divided by its magnitude, so that each vector has length 1.",
)
MULTIPLIED_BY_NORM = _split("multiplied by the norm", "The direction is the weight divided by it.")
SWAPPED = _split("the two results are swapped", "Return (magnitude, direction).")
ZERO_DIVISION = _split(
    "division by a zero norm",
    "A vector of zeros has norm 0, and 0/0 is NaN: divide by norm.clamp_min(eps), or add eps.",
)
EPS_IN_ROOT = _split(
    "eps under the root",
    "Under the root eps counts as its root, 1e-4: clamp the norm that divides, not the squares.",
)
EPS_IN_MAGNITUDE = _split(
    "eps in the magnitude",
    "A vector of zeros has magnitude 0: clamp what divides, and return the norm as it is.",
)
EPS_TOO_LARGE = _split(
    "another eps", "A vector longer than eps has a direction of length 1: clamp at eps itself."
)
EPS_IGNORED = _split("eps ignored", "Divide by the norm, but by eps where the norm is below it.")
IN_PLACE = _split(
    "in-place change of the argument",
    "Operators such as /= and methods that end in _ write into the caller's tensor.",
)
NO_RETURN = _split("nothing returned", "A function without return gives back None.")
ADDED = _split("added", "The weight is the product of magnitude and direction.")
DIVIDED = _split("divided", "The direction has length 1 already: multiply it.")
DIRECTION_ONLY = _split("magnitude left out", "Multiply each vector by its own magnitude.")
NORMALISED_AGAIN = _split(
    "normalised again",
    "recompose multiplies what it is given: a direction is not divided by its norm there.",
)
TRANSPOSED = _split("transposed", "The weight has the shape of the direction, (out, in).")
AXIS_GUESSED = _split(
    "axis guessed by size",
    "The shape of magnitude, (out, 1) or (1, in), says what it scales: a square weight fits both.",
)


def _count(name: str, why: str) -> Mistake:
    return Mistake(name, why, COUNT)


FROZEN_COUNTED = _count("the frozen weight counted", "W0 is frozen: only the adapter is trained.")
MULTIPLIED = _count("multiplied", "Sizes of separate matrices are added.")
NO_MAGNITUDE = _count("magnitude left out", "DoRA trains m besides lora_A and lora_B.")
ONE_MAGNITUDE = _count("a single magnitude", "Each vector of the weight has its own.")
BIAS_COUNTED = _count("bias counted", "The base's bias is frozen, like its weight.")
A_LEFT_OUT = _count("lora_A left out", "It is (rank, in_features).")
B_LEFT_OUT = _count("lora_B left out", "It is (out_features, rank).")
A_TWICE = _count("lora_A counted twice", "lora_B is (out_features, rank).")
B_TWICE = _count("lora_B counted twice", "lora_A is (rank, in_features).")
MAGNITUDE_IN_LORA = _count("magnitude counted for LoRA", "LoRA trains lora_A and lora_B only.")
MAGNITUDE_TIMES_RANK = _count(
    "magnitude times rank", "There is one magnitude a vector, whatever the rank."
)
MAGNITUDE_AXIS = {
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
        aspect: `"rows"` (norm_dim=1), `"columns"` (norm_dim=0) or `"zeros"` (rows and columns of
            zeros, short ones, and `eps`); all of them if None.
        out_features, in_features, seed, dtype: of the random weight; a square one is looked at
            besides.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    weight, square = draw(out_features, in_features), draw(in_features, in_features)
    for name in chosen(aspect, ("rows", "columns", "zeros")):
        with Report(f"decompose · {name} · weight {tuple(weight.shape)}, {dtype}") as report:
            if name == "rows":
                calls = [(weight, {}), (weight, {"norm_dim": 1}), (square, {"norm_dim": 1})]
                _expect_splits(report, decompose, calls)
            elif name == "columns":
                calls = [(weight, {"norm_dim": 0}), (square, {"norm_dim": 0})]
                _expect_splits(report, decompose, calls)
            else:
                _expect_zeros(report, decompose, weight)


def _expect_zeros(report: Report, decompose: Callable, weight: Tensor) -> None:
    for norm_dim in (1, 0):
        special = weight.clone() if norm_dim == 1 else weight.T.clone()
        special[0] *= 1e-3 / special[0].norm()
        special[1] = 0.0
        special = special if norm_dim == 1 else special.T.contiguous()
        _expect_splits(report, decompose, [(special, {"norm_dim": norm_dim})])
        if report.first_problem is None:
            _expect_eps(report, decompose, special, norm_dim)


def _expect_splits(
    report: Report, decompose: Callable, calls: Sequence[tuple[Tensor, dict[str, int]]]
) -> None:
    """Expect magnitudes and directions of several calls; name what explains all of them."""
    magnitudes, directions, unchanged = [], [], True
    for weight, named in calls:
        called = call(decompose, weight, **named)
        norm_dim = named.get("norm_dim", 1)
        shape = f"weight of {tuple(weight.shape)}"
        what = f"decompose({shape}, norm_dim={norm_dim})" if named else f"decompose({shape})"
        if not _is_pair(report, called.result, what):
            return
        magnitude, direction = called.result
        wrong_magnitudes = _wrong_magnitudes(weight, norm_dim)
        wrong_directions = _wrong_directions(weight, norm_dim)
        length, unit = decomposition.decompose(weight, norm_dim)
        magnitudes.append(
            Comparison(
                f"{what}: magnitude",
                magnitude,
                length,
                [wrong for wrong, _ in wrong_magnitudes],
                scale_dim=norm_dim,
            )
        )
        directions.append(
            Comparison(
                f"{what}: direction",
                direction,
                unit,
                [wrong for wrong, _ in wrong_directions],
                scale_dim=norm_dim,
            )
        )
        unchanged = unchanged and torch.equal(called.after[0], weight)
    which = "each row" if norm_dim == 1 else "each column"
    report.expect_cases(
        f"magnitude: the length of {which}", magnitudes, [m for _, m in wrong_magnitudes]
    )
    report.expect_cases(
        f"direction: {which} divided by its length", directions, [m for _, m in wrong_directions]
    )
    _expect_unchanged(report, unchanged)


def _is_pair(report: Report, result: object, what: str) -> bool:
    pair = isinstance(result, tuple) and len(result) == 2
    if not report.expect(
        pair,
        "it returns two things",
        f"expected {what} to return a tuple (magnitude, direction), found {kind_of(result)}.",
        NO_RETURN if result is None else None,
    ):
        return False
    names = ("magnitude", "direction")
    return all(report.expect_tensor(v, n) for v, n in zip(result, names, strict=True))


EPSILONS = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # that people write


def _wrong_magnitudes(weight: Tensor, norm_dim: int) -> list[tuple[Tensor, Mistake]]:
    """Return the magnitude as each known mistake makes it; as many for every weight."""
    length, unit = decomposition.decompose(weight, norm_dim)
    across, _ = decomposition.decompose(weight, 1 - norm_dim)
    whole, order = weight.norm(), weight.norm(p=norm_dim)
    return [
        (across, WRONG_AXIS),
        (across.flatten(), WRONG_AXIS),
        (length.flatten(), LOST_DIMENSION),
        (length.T, LOST_DIMENSION),
        (length.expand_as(weight), REPEATED),
        (length**2, NOT_A_LENGTH),
        (weight.abs().sum(norm_dim, keepdim=True), NOT_A_LENGTH),
        (weight.sum(norm_dim, keepdim=True), NOT_A_LENGTH),
        (weight.abs().amax(norm_dim, keepdim=True), NOT_A_LENGTH),
        (weight.abs().mean(norm_dim, keepdim=True), NOT_A_LENGTH),
        (length / weight.shape[norm_dim] ** 0.5, NOT_A_LENGTH),
        *((weight.std(norm_dim, correction=n, keepdim=True), NOT_A_LENGTH) for n in (0, 1)),
        *((norm, WHOLE_NORM) for norm in (whole, whole.view(1), whole.view(1, 1))),
        (whole.expand_as(length), WHOLE_NORM),
        *((norm, DIM_AS_P) for norm in (order, order.view(1), order.view(1, 1))),
        (unit, SWAPPED),
        ((length**2 + 1e-8).sqrt(), EPS_IN_ROOT),
        *((length.clamp_min(eps), EPS_IN_MAGNITUDE) for eps in EPSILONS),
        *((length + eps, EPS_IN_MAGNITUDE) for eps in EPSILONS),
    ]


def _wrong_directions(weight: Tensor, norm_dim: int) -> list[tuple[Tensor, Mistake]]:
    """Return the direction as each known mistake makes it; as many for every weight."""
    length, unit = decomposition.decompose(weight, norm_dim)
    _, unit_across = decomposition.decompose(weight, 1 - norm_dim)
    size = weight.abs().sum(norm_dim, keepdim=True)
    largest = weight.abs().amax(norm_dim, keepdim=True)
    divisors = (length**2, size, largest)
    return [
        (torch.where(length == 0, torch.nan, unit), ZERO_DIVISION),
        (weight, NO_NORMALISATION),
        (weight * length, MULTIPLIED_BY_NORM),
        (unit_across, WRONG_AXIS),
        (weight / weight.norm(), WHOLE_NORM),
        *((weight / divisor.clamp_min(1e-8), NOT_A_LENGTH) for divisor in divisors),
        (weight / weight.norm(p=norm_dim), DIM_AS_P),
        (length, SWAPPED),
        (weight / (length**2 + 1e-8).sqrt(), EPS_IN_ROOT),
        *((weight / length.clamp_min(eps), EPS_TOO_LARGE) for eps in (0.1, 0.01, 1.0)),
        *((weight / (length + eps), EPS_TOO_LARGE) for eps in (1e-4, 1e-3, 0.01, 0.1)),
    ]


def _expect_eps(report: Report, decompose: Callable, weight: Tensor, norm_dim: int) -> None:
    """Expect vectors shorter than `eps` to be divided by it, or by their length plus it."""
    eps = 0.5
    what = f"decompose(weight, norm_dim={norm_dim}, eps={eps})"
    result = call(decompose, weight, norm_dim=norm_dim, eps=eps).result
    if not _is_pair(report, result, what):
        return
    length, unit = decomposition.decompose(weight, norm_dim)
    clamped, added = weight / length.clamp_min(eps), weight / (length + eps)
    kept = close(result[0], length, scale_dim=norm_dim)
    report.expect(
        kept,
        "eps leaves the magnitude as it is",
        f"{what}: expected the same magnitude as with any eps, found another one.",
        EPS_IN_MAGNITUDE,
    )
    if not close(result[1], added, scale_dim=norm_dim):
        prop = "a vector shorter than eps is divided by eps"
        wrong = [unit, torch.where(length == 0, torch.nan, unit)]
        comparison = Comparison(f"{what}: direction", result[1], clamped, wrong, norm_dim)
        report.expect_cases(prop, [comparison], [EPS_IGNORED, ZERO_DIVISION])


def _expect_unchanged(report: Report, unchanged: bool) -> None:
    problem = "the tensor that was passed in has other values after the call."
    report.expect(unchanged, "the argument stays as it was", problem, IN_PLACE)


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
        out_features, in_features, seed, dtype: of the random weight; a square one is looked at
            besides.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = ((out_features, in_features), (in_features, in_features))
    weights = [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]
    for name in chosen(aspect, ("rows", "columns")):
        norm_dim = 1 if name == "rows" else 0
        shape = "(out, 1)" if norm_dim else "(1, in)"
        with Report(f"recompose · {name} · magnitude {shape}, {dtype}") as report:
            comparisons, unchanged, mistakes = [], True, []
            for weight in weights:
                magnitude, direction = decomposition.decompose(weight, norm_dim)
                direction = 0.9 * direction  # after training a "direction" need not have length 1
                magnitude.view(-1)[0] *= -1  # and a magnitude may be negative
                called = call(recompose, magnitude, direction)
                if not report.expect_tensor(called.result, "the weight", NO_RETURN):
                    return
                wrong = _wrong_products(magnitude, direction, norm_dim)
                mistakes = [mistake for _, mistake in wrong]
                label = f"recompose({tuple(magnitude.shape)}, {tuple(direction.shape)})"
                comparisons.append(
                    Comparison(
                        label,
                        called.result,
                        magnitude * direction,
                        [value for value, _ in wrong],
                        scale_dim=norm_dim,
                    )
                )
                given = zip(called.after, (magnitude, direction), strict=False)
                unchanged = unchanged and all(torch.equal(now, before) for now, before in given)
            report.expect_cases("weight = magnitude * direction", comparisons, mistakes)
            _expect_unchanged(report, unchanged)


def _wrong_products(
    magnitude: Tensor, direction: Tensor, norm_dim: int
) -> list[tuple[Tensor | None, Mistake]]:
    unit = direction / direction.norm(dim=norm_dim, keepdim=True)
    right = magnitude * direction
    square = direction.shape[0] == direction.shape[1]
    return [
        (magnitude + direction, ADDED),
        (direction / magnitude, DIVIDED),
        (direction, DIRECTION_ONLY),
        (magnitude * unit, NORMALISED_AGAIN),
        (unit, NORMALISED_AGAIN),
        (right.T, TRANSPOSED),
        (magnitude.T * direction if square else None, AXIS_GUESSED),
    ]


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_count_trainable(
    count_trainable: Callable,
    aspect: str | None = None,
    *,
    in_features: int = 12,
    out_features: int = 5,
    rank: int = 2,
    seed: int = 0,
) -> None:
    """Check a `count_trainable(in_features, out_features, rank, method, norm_dim=1) -> int`.

    Args:
        aspect: `"lora"`, `"dora"` (one magnitude per output) or `"dora-input"`
            (`norm_dim=0`); all of them if None.
        in_features, out_features, rank: of the first layer; choose different features, because
            a square layer hides the axis.
        seed: of the sizes of two more layers.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("lora", "dora", "dora-input")):
        method = name.removesuffix("-input")
        named = {"norm_dim": 0} if name == "dora-input" else {}
        with Report(
            f"count_trainable · {name} · {in_features} → {out_features}, rank {rank}"
        ) as report:
            comparisons, mistakes = [], []
            for sizes in ((in_features, out_features, rank), *draw_sizes(seed)):
                found = call_function(count_trainable, *sizes, method, **named)
                is_int = isinstance(found, int) and not isinstance(found, bool)
                if not report.expect(
                    is_int,
                    "the count is an int",
                    f"expected an int, found {shown(found)} of type {type(found).__name__}.",
                ):
                    break
                wrong = wrong_counts(name, *sizes)
                mistakes = [mistake for _, mistake in wrong]
                numbers = [found, right_count(name, *sizes), *(count for count, _ in wrong)]
                found, expected, *counts = torch.tensor(numbers, dtype=torch.float64)
                label = f"{sizes[0]} → {sizes[1]}, rank {sizes[2]}"
                comparisons.append(Comparison(label, found, expected, counts, tolerance=0.0))
            else:
                report.expect_cases(f"{method} trains so many numbers", comparisons, mistakes)


def draw_sizes(seed: int) -> list[tuple[int, int, int]]:
    """Return in_features, out_features and rank of two layers that differ in all of them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randperm(40, generator=generator)[:4] + 20
    ranks = torch.randperm(7, generator=generator)[:2] + 3
    (a, b, c, d), (r, s) = sizes.tolist(), ranks.tolist()
    return [(a, b, r), (c, d, s)]


def right_count(name: str, in_features: int, out_features: int, rank: int) -> int:
    """Return what an adapter trains; `name` is an aspect of `check_count_trainable`."""
    magnitude = {"lora": 0, "dora": out_features, "dora-input": in_features}[name]
    return rank * (in_features + out_features) + magnitude


def wrong_counts(
    name: str, in_features: int, out_features: int, rank: int
) -> list[tuple[int, Mistake]]:
    """Return the count as each known mistake makes it; as many for all sizes."""
    size_a, size_b, frozen = rank * in_features, rank * out_features, in_features * out_features
    lora, right = size_a + size_b, right_count(name, in_features, out_features, rank)
    magnitude = right - lora
    wrong = [
        (size_a + magnitude, B_LEFT_OUT),
        (size_b + magnitude, A_LEFT_OUT),
        (2 * size_a + magnitude, A_TWICE),
        (2 * size_b + magnitude, B_TWICE),
        *((count, FROZEN_COUNTED) for count in (frozen, frozen + lora, frozen + right)),
        *((count + magnitude, MULTIPLIED) for count in (size_a * size_b, rank * frozen)),
        *((count, MULTIPLIED) for count in (size_a * size_b, rank * frozen)),
    ]
    if name == "lora":
        axes = (in_features, out_features, in_features + out_features)
        return [*wrong, *((lora + extra, MAGNITUDE_IN_LORA) for extra in axes)]
    other = in_features if name == "dora" else out_features
    return [
        *wrong,
        (lora, NO_MAGNITUDE),
        (lora + 1, ONE_MAGNITUDE),
        (lora + other, MAGNITUDE_AXIS[name]),
        (lora + in_features + out_features, MAGNITUDE_AXIS[name]),
        (lora + rank * magnitude, MAGNITUDE_TIMES_RANK),
        (lora + rank, MAGNITUDE_TIMES_RANK),
    ]
