"""Checks of lesson 01: `decompose`, `recompose` and `count_trainable`."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from numbers import Integral

import torch
from torch import Tensor

from lab_utils import decomposition
from lab_utils.checks.diagnosis import misfit, other_kind, returned_kind, roundings
from lab_utils.checks.report import CheckFailed, Comparison, Mistake, Report, chosen, named
from lab_utils.checks.subject import REFERENCE_MATHEMATICS, call, call_function, check
from lab_utils.checks.values import close, describe, shown
from lab_utils.questions.odd_tensors import odd_kind

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
    "Each output neuron (norm_dim=1) or input feature (norm_dim=0) has its own length.",
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
EPS_AS_ZERO = _split(
    "short vectors set to zero", "A vector shorter than eps is divided by eps: it is not lost."
)
SIGN_LOST = _split("sign lost", "The direction keeps the signs of the weight.")
DIVIDED_BY_SQUARE = _split(
    "divided by the squared norm", "Divide by the norm, once: then each vector has length 1."
)
SIGN_SWAPPED = _split("sign swapped", "The direction keeps the signs of the weight.")
ZERO_WITH_DIRECTION = _split(
    "a direction for zeros", "A vector of zeros has no direction: leave it at zero."
)
UPSIDE_DOWN = _split("magnitude upside down", "The magnitude is the norm, not 1 over it.")
WHOLE_NUMBERS = _split("whole numbers", "A length is seldom a whole number: keep the dtype.")
MORE_THAN_TWO = _split(
    "more than two returned", "Return both, and no more: (magnitude, direction)."
)
CENTRED = _split(
    "mean subtracted",
    "Length and direction are those of the weight itself: do not subtract its mean.",
)
SINGULAR = _split(
    "singular values and vectors",
    "The parts are lengths and directions of rows (norm_dim=0: columns), not of a decomposition of "
    "the whole matrix.",
)
LENGTH_FOR_ZEROS = _split(
    "a length for zeros",
    "A vector of zeros has magnitude 0: change what divides, and return the norm as it is.",
)
HALF_PRECISION = _split(
    "precision lost", "The result has fewer digits than the weight: keep the weight's dtype."
)
ROUNDED = _split("rounded", "Return all digits, and round only what you print.")
MAGNITUDE_TURNED = _split(
    "magnitude transposed",
    "The magnitude of rows is (out, 1), that of columns (1, in): keepdim=True leaves them so.",
)
EXTRA_DIMENSION = _split(
    "a dimension too many", "keepdim=True keeps the dimension: unsqueeze or None adds another."
)
ANOTHER_DEFAULT = _split(
    "another default", "norm_dim is 1 where it is not given: leave the first line as it is."
)
DIVIDED_BY_ROOT = _split(
    "divided by the root of the norm", "Divide by the norm itself: the root is taken already."
)
SIGNS_ALONE = _split("signs alone", "The direction is the weight divided by its norm.")
SUBTRACTED = _split("norm subtracted", "The direction is the weight divided by its norm.")
CUT_OFF = _split("negative entries cut off", "The direction keeps the signs of the weight.")
CLAMPED_ABOVE = _split(
    "clamped from above", "Divide by a norm that is never below eps: clamp_min, or clamp(min=eps)."
)
SOFTMAX = _split("softmax", "The direction is the weight divided by its norm: its length is 1.")
SHORT_KEPT = _split(
    "short vectors left as they are", "A vector shorter than eps is divided by eps."
)
EPS_SUBTRACTED = _split("eps subtracted", "Divide by the norm plus eps, or clamped at eps.")
NOT_FROM_WEIGHT = _split(
    "not computed from the weight",
    "Another weight gives the same: compute with the argument, not with a variable or numbers "
    "from above.",
)
VECTORS_LEFT_OUT = _split(
    "vectors left out",
    "Some vectors are still as long as in the weight: divide every one, the first and the last, "
    "too.",
)
ONE_OF_TWO = _split("one of two returned", "Return both: (magnitude, direction).")
ADDED = _split("added", "The weight is the product of magnitude and direction.")
DIVIDED = _split("divided", "The direction has length 1 already: multiply it.")
DIRECTION_ONLY = _split("magnitude left out", "Multiply each vector by its own magnitude.")
NORMALISED_AGAIN = _split(
    "normalised again",
    "recompose multiplies what it is given: do not divide the direction by its norm there.",
)
MATRIX_PRODUCT = _split(
    "matrix product", "Each vector is multiplied by its own number: with *, which broadcasts."
)
OUTER = _split("outer product", "Each vector is multiplied by its own number: with *.")
ONE_FOR_ALL = _split(
    "one magnitude for all", "Each vector has its own: multiply by the whole magnitude."
)
MAGNITUDE_CHANGED = _split(
    "magnitude changed before it is used",
    "Multiply by what you are given: no root, no exp, nothing added.",
)
ALWAYS_COLUMNS = _split(
    "magnitude always along columns",
    "(out, 1) scales rows and (1, in) columns: leave the shape of magnitude as it is.",
)
ALWAYS_ROWS = _split(
    "magnitude always along rows",
    "(out, 1) scales rows and (1, in) columns: leave the shape of magnitude as it is.",
)
POSITIVE_MAGNITUDE = _split(
    "magnitude made positive", "A magnitude may be negative: multiply by what you are given."
)
RESULT_POSITIVE = _split("sign lost", "Multiply what you are given, including its sign.")
DIRECTION_LEFT_OUT = _split("direction left out", "Multiply each vector by its own magnitude.")
MAGNITUDE_SQUARED = _split("magnitude multiplied twice", "Multiply by the magnitude once.")
SUMMED_UP = _split("summed up", "The weight has as many entries as the direction.")
TRANSPOSED = _split("transposed", "The weight has the shape of the direction, (out, in).")
AXIS_GUESSED = _split(
    "axis guessed by size",
    "The shape of magnitude, (out, 1) or (1, in), says what it scales: a square weight fits both.",
)


def _count(name: str, why: str) -> Mistake:
    return Mistake(name, why, COUNT)


FROZEN_COUNTED = _count("the frozen weight counted", "W0 is frozen: only the adapter is trained.")
WEIGHT_COUNTED = _count(
    "in times out counted",
    "W0 is frozen, and there is one magnitude per vector: nothing trained has in * out numbers.",
)
DOUBLED = _count("everything counted twice", "Count each number once, whatever its size.")
OFF_BY_ONE = _count(
    "off by one", "Count lora_A, lora_B and, for DoRA, one magnitude per vector; nothing else."
)
FACTORS_LEFT_OUT = _count("lora_A and lora_B left out", "DoRA trains them as well as m.")
SUBTRACTED_FROM = _count("magnitude subtracted", "DoRA trains m as well as lora_A and lora_B.")
BY_SIZE = _count("magnitude by size", "norm_dim says which axis it is on, whatever the sizes.")
THE_SAME = _count(
    "the same for every layer", "Compute it from the arguments, for layers of any sizes."
)
FULL_MATRIX = _count(
    "a full matrix counted", "W0 is frozen, and B A is never built: count lora_A and lora_B."
)
BRACKETS = _count("brackets left out", "Both sizes are multiplied by the rank: rank * (in + out).")
CORE_COUNTED = _count(
    "rank times rank",
    "lora_A has rank * in numbers and lora_B has out * rank; there is no third matrix.",
)
RANK_SQUARED = _count(
    "rank squared", "The rank appears once in each factor: rank * in and out * rank."
)
BYTES = _count("bytes counted", "Count numbers, whatever the size of each in memory.")
OUTPUTS_COUNTED = _count(
    "one number per output too many",
    "Only DoRA has magnitudes, one per vector; and the base's bias is frozen, like its weight.",
)
BOTH_AXES = _count(
    "inputs and outputs counted",
    "There is one magnitude for each output (norm_dim=0: each input), and the bias is frozen.",
)
MULTIPLIED = _count("multiplied", "Sizes of separate matrices are added.")
NO_MAGNITUDE = _count("magnitude left out", "DoRA trains m as well as lora_A and lora_B.")
ONE_MAGNITUDE = _count("a single magnitude", "Each vector of the weight has its own.")
A_LEFT_OUT = _count("lora_A left out", "It is (rank, in_features).")
B_LEFT_OUT = _count("lora_B left out", "It is (out_features, rank).")
A_TWICE = _count("lora_A counted twice", "lora_B is (out_features, rank).")
B_TWICE = _count("lora_B counted twice", "lora_A is (rank, in_features).")
MAGNITUDE_IN_LORA = _count("magnitude counted for LoRA", "LoRA trains lora_A and lora_B only.")
MAGNITUDE_TIMES_RANK = _count(
    "magnitude times rank", "There is one magnitude per vector, whatever the rank."
)
MAGNITUDE_PER_RANK = _count(
    "one magnitude for each rank", "There is one magnitude per vector, whatever the rank."
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
    """Check vectors of zeros and short ones, as rows and as columns.

    A measure that is wrong for every weight costs the points of rows and columns. Here it counts
    as the student has it, where it is a known one: what is done with zeros is asked.
    """
    for norm_dim in (1, 0):
        special = weight.clone() if norm_dim == 1 else weight.T.clone()
        special[:, 0], special[:, 1] = special[:, 0].abs(), -special[:, 1].abs()  # of both signs
        special[0] *= 1e-3 / special[0].norm()
        special[1] = 0.0
        special = special if norm_dim == 1 else special.T.contiguous()
        if _handles_zeros(decompose, weight, special, norm_dim):
            report.expect(True, f"zeros and short vectors with norm_dim={norm_dim}", "")
            continue
        calls = [(special, {"norm_dim": norm_dim})]
        _expect_splits(report, decompose, calls, and_unchanged=False)  # rows and columns check it
        if report.first_problem is None:
            _expect_eps(report, decompose, special, norm_dim)


# What students use as the length of a vector, given a weight and norm_dim; the first is right.
MEASURES: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda w, dim: w.norm(dim=dim, keepdim=True),
    lambda w, dim: w.norm(dim=1 - dim, keepdim=True),
    lambda w, dim: w.abs().sum(dim, keepdim=True),
    lambda w, dim: w.abs().amax(dim, keepdim=True),
    lambda w, dim: w.square().sum(dim, keepdim=True),
    lambda w, dim: w.square().mean(dim, keepdim=True).sqrt(),
    lambda w, dim: w.norm(keepdim=True),
)


def _handles_zeros(decompose: Callable, weight: Tensor, special: Tensor, norm_dim: int) -> bool:
    """Return whether an answer treats zeros and eps as asked, by a wrong measure of its own.

    The magnitude may have lost a dimension, and may be another measure than what divides.
    """
    lengths = divisors = set(range(len(MEASURES)))
    for given, eps in ((weight, 1e-8), (special, 1e-8), (special, 0.5)):
        try:
            found = call_function(decompose, given, norm_dim=norm_dim, eps=eps)
        except CheckFailed:
            return False
        if not isinstance(found, tuple | list) or len(found) != 2:
            return False
        if not all(isinstance(part, Tensor) and not odd_kind(part) for part in found):
            return False
        magnitude, direction = found
        sizes = [measure(given, norm_dim) for measure in MEASURES]
        lengths = {i for i in lengths if close(magnitude.flatten(), sizes[i].flatten())}
        divisors = {
            i
            for i in divisors
            if close(direction, given / sizes[i].clamp_min(eps), scale_dim=norm_dim)
            or close(direction, given / (sizes[i] + eps), scale_dim=norm_dim)
        }
    if 0 in lengths & divisors and magnitude.shape == sizes[0].shape:
        return False  # it is the right one
    return bool(lengths and divisors)


def _expect_splits(
    report: Report,
    decompose: Callable,
    calls: Sequence[tuple[Tensor, dict[str, int]]],
    and_unchanged: bool = True,
) -> None:
    """Expect magnitudes and directions of several calls; name what explains all of them."""
    magnitudes, directions, unchanged = [], [], True
    for weight, given in calls:
        norm_dim = given.get("norm_dim", 1)
        try:
            called = call(decompose, weight, **given)
        except CheckFailed as failure:
            dropped = _dropped_dimension(decompose, norm_dim)
            raise named(failure, dropped or misfit(failure, DECOMPOSE)) from failure
        shape = f"weight of {tuple(weight.shape)}"
        what = f"decompose({shape}, norm_dim={norm_dim})" if given else f"decompose({shape})"
        if not _is_pair(report, called.result, what, len(weight)):
            return
        magnitude, direction = called.result
        length, unit = decomposition.decompose(weight, norm_dim)
        for found, expected, name, wrong, cases in (
            (magnitude, length, "magnitude", _wrong_magnitudes, magnitudes),
            (direction, unit, "direction", _wrong_directions, directions),
        ):
            predict = functools.partial(wrong, weight, norm_dim, by_default=not given)
            label = f"{what}: {name}"
            cases.append(Comparison(label, found, expected, predict, scale_dim=norm_dim))
        unchanged = unchanged and torch.equal(called.after[0], weight)

    def unexplained() -> Mistake | None:
        if not unchanged:
            return IN_PLACE
        for mistake, is_made in ((ZERO_WITH_DIRECTION, _gives_zeros), (VECTORS_LEFT_OUT, _skips)):
            if all(
                is_made(case, weight) for case, (weight, _) in zip(directions, calls, strict=True)
            ):
                return mistake
        weight, given = calls[0]
        other = call_function(decompose, weight + 1.0, **given)
        cases = magnitudes[0], directions[0]
        same = [close(new, case.found) for new, case in zip(other, cases, strict=True)]
        return NOT_FROM_WEIGHT if all(same) else None

    which = "each row" if norm_dim == 1 else "each column"
    for prop, cases in (
        (f"magnitude: the length of {which}", magnitudes),
        (f"direction: {which} divided by its length", directions),
    ):
        if _expect_digits(report, prop, cases, HALF_PRECISION):
            report.expect_cases(prop, cases, unexplained)
    if and_unchanged:
        _expect_unchanged(report, unchanged)


def _gives_zeros(case: Comparison, weight: Tensor) -> bool:
    """Return whether a direction is right but for vectors of zeros, which have one."""
    if case.found.shape != case.expected.shape or not case.found.isfinite().all():
        return False
    zeros = weight.norm(dim=case.scale_dim, keepdim=True) == 0
    others = torch.where(zeros, 0.0, case.found.detach())
    return bool(zeros.any()) and replace(case, found=others).is_right()


def _skips(case: Comparison, weight: Tensor) -> bool:
    """Return whether a direction is right but for some vectors, which are those of the weight."""
    if case.found.shape != case.expected.shape:
        return False
    found = case.found.detach()
    same = (found == weight).all(case.scale_dim, keepdim=True)
    others = torch.where(same, case.expected.to(found.dtype), found)
    return bool(same.any()) and not same.all() and replace(case, found=others).is_right()


def _dropped_dimension(decompose: Callable, norm_dim: int) -> Mistake | None:
    """Return whether an answer that fails drops a dimension: it does not fail on a square one."""
    square = torch.arange(1.0, 10.0).view(3, 3)
    try:
        found = call_function(decompose, square, norm_dim=norm_dim)
    except CheckFailed:
        return None
    lengths = square.norm(dim=norm_dim)
    dropped = (
        isinstance(found, tuple | list)
        and isinstance(found[0], Tensor)
        and close(found[0], lengths)
    )
    return LOST_DIMENSION if dropped else None


def _expect_digits(
    report: Report, prop: str, cases: Sequence[Comparison], mistake: Mistake
) -> bool:
    """Expect results with as many digits as the arguments have."""
    if all(case.is_right() for case in cases) and (places := _places(cases)) is not None:
        problem = (
            f"{cases[0].label}: expected all digits, found numbers rounded to {places} decimals."
        )
        return report.expect(False, prop, problem, ROUNDED)
    coarse = [
        case
        for case in cases
        if case.found.dtype in (torch.float16, torch.bfloat16)
        and case.expected.dtype not in (torch.float16, torch.bfloat16)
        and close(case.found, case.expected, 0.02)
        and not case.is_right()
    ]
    return not coarse or report.expect(
        False, prop, f"{coarse[0].label}: {coarse[0].difference()}.", mistake
    )


def _places(cases: Sequence[Comparison]) -> int | None:
    """Return after how many decimals no number of any case has digits, if so few do not do so
    by chance."""

    def is_rounded(values: Tensor, places: int, slack: int) -> bool:
        gap = (values - values.round(decimals=places)).abs()
        return bool((gap <= slack * values.abs() * torch.finfo(torch.float32).eps).all())

    found, expected = (
        torch.cat([part(case).detach().double().flatten() for case in cases])
        for part in (lambda case: case.found, lambda case: case.expected)
    )
    exact = (torch.float32, torch.float64)
    if any(case.found.dtype not in exact for case in cases) or not found.isfinite().all():
        return None
    # With more slack for what is expected, no way of computing it makes the difference.
    rounded = (n for n in range(6) if is_rounded(found, n, 1) and not is_rounded(expected, n, 16))
    return next(rounded, None)


def _is_pair(report: Report, result: object, what: str, rows: int) -> bool:
    pair = isinstance(result, tuple | list) and len(result) == 2
    if not report.expect(
        pair,
        "it returns two things",
        f"expected {what} to return the pair (magnitude, direction), found {describe(result)}.",
        ONE_OF_TWO
        if isinstance(result, Tensor) and result.ndim == 2 and result.shape[0] in (1, rows)
        else MORE_THAN_TWO
        if isinstance(result, tuple | list) and len(result) > 2
        else returned_kind(result, "a pair", DECOMPOSE),
    ):
        return False
    names = ("magnitude", "direction")
    return all(
        report.expect_tensor(value, name, other_kind(value, "a tensor", DECOMPOSE))
        for value, name in zip(result, names, strict=True)
    )


EPSILONS = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # that people write


def _wrong_magnitudes(
    weight: Tensor, norm_dim: int, by_default: bool
) -> list[tuple[Tensor | None, Mistake]]:
    """Return the magnitude as each known mistake makes it; as many for every weight.

    Args:
        by_default: whether the call leaves `norm_dim` out.
    """
    length, unit = decomposition.decompose(weight, norm_dim)
    across, _ = decomposition.decompose(weight, 1 - norm_dim)
    whole, order = weight.norm(), weight.norm(p=norm_dim)
    taken = _that_lapack_takes(weight)
    singular = torch.linalg.svdvals(taken), torch.linalg.svd(taken).S
    along_rows = torch.full((1,), torch.nan)  # with norm_dim=1 that is one of the wrong lengths
    if norm_dim == 0:
        along_rows = weight.norm(p=0, dim=1, keepdim=True)
    return [
        (across, WRONG_AXIS),
        *((norm, DIM_AS_P) for norm in (along_rows, along_rows.flatten())),
        (across.flatten(), WRONG_AXIS),
        (length.flatten(), LOST_DIMENSION),
        (length.T, MAGNITUDE_TURNED),
        *((value, EXTRA_DIMENSION) for value in (length[..., None], length[None])),
        (across if by_default else None, ANOTHER_DEFAULT),
        (length.expand_as(weight), REPEATED),
        (length**2, NOT_A_LENGTH),
        (weight.abs().sum(norm_dim, keepdim=True), NOT_A_LENGTH),
        (weight.sum(norm_dim, keepdim=True), NOT_A_LENGTH),
        (weight.abs().amax(norm_dim, keepdim=True), NOT_A_LENGTH),
        (weight.abs().mean(norm_dim, keepdim=True), NOT_A_LENGTH),
        (length / weight.shape[norm_dim] ** 0.5, NOT_A_LENGTH),
        *((weight.std(norm_dim, correction=n, keepdim=True), NOT_A_LENGTH) for n in (0, 1)),
        ((weight - weight.mean(norm_dim, keepdim=True)).norm(dim=norm_dim, keepdim=True), CENTRED),
        *((form, SINGULAR) for s in singular for form in (s, s[:, None], s[None])),
        (torch.where(length == 0, 1.0, length), LENGTH_FOR_ZEROS),
        *(
            (form, WHOLE_NORM)
            for norm in (whole, whole / weight.numel() ** 0.5, torch.linalg.norm(weight, 2))
            for form in (norm, norm.view(1), norm.view(1, 1), norm.expand_as(length))
        ),
        *((norm, DIM_AS_P) for norm in (order, order.view(1), order.view(1, 1))),
        *((u, SWAPPED) for u in (unit, torch.where(length == 0, torch.nan, unit))),
        *((weight.norm(p=p, dim=norm_dim, keepdim=True), NOT_A_LENGTH) for p in (3, 4)),
        (1 / length.clamp_min(1e-8), UPSIDE_DOWN),
        (length.trunc(), WHOLE_NUMBERS),
        *((value, mistake) for mistake, value in roundings(length, ROUNDED, range(1, 4))),
        ((length**2 + 1e-8).sqrt(), EPS_IN_ROOT),
        *((length.clamp_min(eps), EPS_IN_MAGNITUDE) for eps in EPSILONS),
        *((length + eps, EPS_IN_MAGNITUDE) for eps in EPSILONS),
        ((weight + 1e-8).norm(dim=norm_dim, keepdim=True), EPS_IN_MAGNITUDE),
    ]


def _wrong_directions(
    weight: Tensor, norm_dim: int, by_default: bool
) -> list[tuple[Tensor | None, Mistake]]:
    """Return the direction as each known mistake makes it; as many for every weight.

    Args:
        by_default: whether the call leaves `norm_dim` out.
    """
    length, unit = decomposition.decompose(weight, norm_dim)
    _, unit_across = decomposition.decompose(weight, 1 - norm_dim)
    size = weight.abs().sum(norm_dim, keepdim=True)
    largest = weight.abs().amax(norm_dim, keepdim=True)
    root_mean_square = length / weight.shape[norm_dim] ** 0.5
    mean_size = size / weight.shape[norm_dim]
    divisors = (size, largest, root_mean_square, mean_size)
    centred = weight - weight.mean(norm_dim, keepdim=True)
    left, _, right = torch.linalg.svd(_that_lapack_takes(weight), full_matrices=False)
    spreads = [weight.std(norm_dim, correction=n, keepdim=True).clamp_min(1e-8) for n in (0, 1)]
    return [
        (unit_across if by_default else None, ANOTHER_DEFAULT),
        (weight / length.sqrt().clamp_min(1e-8), DIVIDED_BY_ROOT),
        (weight.sign(), SIGNS_ALONE),
        (weight - length, SUBTRACTED),
        *((weight.clamp_min(low) / length.clamp_min(1e-8), CUT_OFF) for low in (0, 1e-8)),
        (weight / length.clamp_max(1e-8), CLAMPED_ABOVE),
        (weight.softmax(norm_dim), SOFTMAX),
        *((form, SINGULAR) for form in (right, left, left @ right)),
        *((centred / spread, CENTRED) for spread in spreads),
        (unit.abs(), SIGN_LOST),
        (-unit, SIGN_SWAPPED),
        (unit.T, TRANSPOSED),
        (torch.where(length == 0, 1.0, unit), ZERO_WITH_DIRECTION),
        (weight / length.max(), WHOLE_NORM),
        *((value, mistake) for mistake, value in roundings(unit, ROUNDED, range(1, 4))),
        (weight / (length**2).clamp_min(1e-8), DIVIDED_BY_SQUARE),
        (weight / length.clamp_min(1e-8) ** 2, DIVIDED_BY_SQUARE),
        (centred / length.clamp_min(1e-8), CENTRED),
        (decomposition.decompose(centred, norm_dim)[1], CENTRED),
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


def _that_lapack_takes(weight: Tensor) -> Tensor:
    """Return a weight as it is if it can be decomposed so: digits depend on the precision."""
    return weight if weight.dtype in (torch.float32, torch.float64) else weight.float()


def _expect_eps(report: Report, decompose: Callable, weight: Tensor, norm_dim: int) -> None:
    """Expect vectors shorter than `eps` to be divided by it, or by their length plus it."""
    eps = 0.5
    what = f"decompose(weight, norm_dim={norm_dim}, eps={eps})"
    result = call(decompose, weight, norm_dim=norm_dim, eps=eps).result
    if not _is_pair(report, result, what, len(weight)):
        return
    length, unit = decomposition.decompose(weight, norm_dim)
    clamped, added = weight / length.clamp_min(eps), weight / (length + eps)
    kept = close(result[0], length, scale_dim=norm_dim)
    report.expect(
        kept,
        "eps leaves the magnitude as it is",
        f"{what}: expected the magnitude not to depend on eps, but it does.",
        EPS_IN_MAGNITUDE,
    )
    if not close(result[1], added, scale_dim=norm_dim):
        prop = "a vector shorter than eps is divided by eps"
        wrong = [
            (unit, EPS_IGNORED),
            (torch.where(length == 0, torch.nan, unit), ZERO_DIVISION),
            (torch.where(length < eps, 0.0, unit), EPS_AS_ZERO),
            (torch.where(length < eps, weight, unit), SHORT_KEPT),
            (weight / (length - eps), EPS_SUBTRACTED),
            (weight / length.clamp_max(eps), CLAMPED_ABOVE),
            (weight / (length**2 + eps).sqrt(), EPS_IN_ROOT),
            *((weight / length.clamp_min(other), EPS_IGNORED) for other in EPSILONS),
            *((weight / (length + other), EPS_IGNORED) for other in EPSILONS),
            *((value, mistake) for mistake, value in roundings(clamped, ROUNDED)),
        ]
        comparison = Comparison(f"{what}: direction", result[1], clamped, lambda: wrong, norm_dim)
        report.expect_cases(prop, [comparison])


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
            comparisons, unchanged = [], True
            for weight in weights:
                magnitude, direction = decomposition.decompose(weight, norm_dim)
                direction = 0.9 * direction  # after training a "direction" need not have length 1
                magnitude.view(-1)[0] *= -1  # and a magnitude may be negative
                try:
                    called = call(recompose, magnitude, direction)
                except CheckFailed as failure:
                    mistake = _wrong_broadcast(recompose, failure) or misfit(failure, DECOMPOSE)
                    raise named(failure, mistake) from failure
                kind = returned_kind(called.result, "a tensor", DECOMPOSE)
                if not report.expect_tensor(called.result, "the weight", kind):
                    return
                label = f"recompose({tuple(magnitude.shape)}, {tuple(direction.shape)})"
                comparisons.append(
                    Comparison(
                        label,
                        called.result,
                        magnitude * direction,
                        functools.partial(_wrong_products, magnitude, direction, norm_dim),
                        scale_dim=norm_dim,
                    )
                )
                given = zip(called.after, (magnitude, direction), strict=False)
                unchanged = unchanged and all(torch.equal(now, before) for now, before in given)
            prop = "weight = magnitude * direction"
            if _expect_digits(report, prop, comparisons, HALF_PRECISION):
                report.expect_cases(
                    prop, comparisons, lambda same=unchanged: None if same else IN_PLACE
                )
            _expect_unchanged(report, unchanged)


def _wrong_broadcast(recompose: Callable, failure: CheckFailed) -> Mistake | None:
    """Return why an answer failed: on a square direction, on which it need not, it may show."""
    if "cannot be multiplied" in str(failure):  # only matrix products say this
        return MATRIX_PRODUCT
    direction = torch.arange(1.0, 10.0).view(3, 3)
    numbers = torch.tensor([2.0, 3.0, 5.0])
    try:
        found = [call_function(recompose, m, direction) for m in (numbers[:, None], numbers[None])]
    except CheckFailed:
        return None
    if not all(isinstance(product, Tensor) for product in found):
        return None
    rows, columns = numbers[:, None] * direction, numbers * direction
    for expected, mistake in (
        ((columns, columns), ALWAYS_COLUMNS),
        ((rows, rows), ALWAYS_ROWS),
        ((columns, rows), MAGNITUDE_TURNED),
    ):
        if all(close(product, e) for product, e in zip(found, expected, strict=True)):
            return mistake
    return None


def _wrong_products(
    magnitude: Tensor, direction: Tensor, norm_dim: int
) -> list[tuple[Tensor | None, Mistake]]:
    unit = direction / direction.norm(dim=norm_dim, keepdim=True)
    right = magnitude * direction
    rows, columns = direction.shape
    square = rows == columns
    few = columns >= rows if norm_dim == 0 else True
    return [
        (torch.outer(magnitude.flatten(), direction.flatten()), OUTER),
        *(
            (one * direction, ONE_FOR_ALL)
            for one in (
                *(magnitude.mean(), magnitude.norm(), magnitude.sum(), magnitude.max()),
                *(magnitude.abs().max(), magnitude.flatten()[0]),
            )
        ),
        *(
            (changed * direction, MAGNITUDE_CHANGED)
            for changed in (
                *(magnitude.sqrt(), magnitude.abs().sqrt(), magnitude.exp(), 1 + magnitude),
                *(magnitude + eps for eps in (1e-4, 1e-3, 1e-2, 0.1)),
                *(magnitude.sigmoid(), magnitude.tanh(), torch.nn.functional.softplus(magnitude)),
            )
        ),
        (-right, SIGN_SWAPPED),
        (right.trunc(), WHOLE_NUMBERS),
        *((magnitude.clamp_min(eps) * direction, POSITIVE_MAGNITUDE) for eps in (1e-8, 1e-6)),
        (
            magnitude.flatten()[:rows, None] * direction if few else torch.tensor(torch.nan),
            ALWAYS_ROWS,
        ),
        (magnitude + direction, ADDED),
        (direction / magnitude, DIVIDED),
        (direction, DIRECTION_ONLY),
        (magnitude * unit, NORMALISED_AGAIN),
        (unit, NORMALISED_AGAIN),
        (right.T, TRANSPOSED),
        (magnitude.abs() * direction, POSITIVE_MAGNITUDE),
        (magnitude.clamp_min(0) * direction, POSITIVE_MAGNITUDE),
        (right.abs(), RESULT_POSITIVE),
        (right / direction.norm(), NORMALISED_AGAIN),
        (magnitude, DIRECTION_LEFT_OUT),
        (magnitude * magnitude * direction, MAGNITUDE_SQUARED),
        *((sums, SUMMED_UP) for sums in (right.sum(), right.sum(0), right.sum(1))),
        *((right.sum(dim, keepdim=True), SUMMED_UP) for dim in (0, 1)),
        *((value, mistake) for mistake, value in roundings(right, ROUNDED, range(4))),
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
        with Report(
            f"count_trainable · {name} · {in_features} → {out_features}, rank {rank}"
        ) as report:
            comparisons = []
            layers = ((in_features, out_features, rank), *draw_sizes(seed))
            for sizes, given in _asked(name, layers):
                found = call_function(count_trainable, *sizes, method, **given)
                # NumPy's integers are integers, too
                is_int = isinstance(found, Integral) and not isinstance(found, bool)
                if not report.expect(
                    is_int,
                    "the count is an int",
                    f"expected an int, found {shown(found)} of type {type(found).__name__}.",
                    returned_kind(found, "an int", COUNT),
                ):
                    break
                wrong = wrong_counts(name, *sizes, norm_dim=given.get("norm_dim", 1))
                counts = [int(found), right_count(name, *sizes), *(count for count, _ in wrong)]
                found, expected, *counts = torch.tensor(counts, dtype=torch.float64)
                predicted = [(n, mistake) for n, (_, mistake) in zip(counts, wrong, strict=True)]
                label = f"{sizes[0]} → {sizes[1]}, rank {sizes[2]}"
                comparisons.append(
                    Comparison(label, found, expected, lambda said=predicted: said, tolerance=0.0)
                )
            else:
                ask = functools.partial(_ignored, count_trainable, comparisons, layers[0], method)
                prop = f"{method} trains so many numbers"
                report.expect_cases(prop, comparisons, ask)


def _ignored(
    count_trainable: Callable,
    comparisons: Sequence[Comparison],
    sizes: tuple[int, int, int],
    method: str,
) -> Mistake | None:
    """Return which size the count does not depend on, if it is all of them or one."""
    if len({case.found.item() for case in comparisons}) == 1:
        return THE_SAME
    larger = [[*sizes[:i], sizes[i] + 1, *sizes[i + 1 :]] for i in range(len(sizes))]
    try:
        first, *others = (call_function(count_trainable, *s, method) for s in (sizes, *larger))
    except CheckFailed:
        return None
    names = ("in_features", "out_features", "rank")
    ignored = [name for name, count in zip(names, others, strict=True) if count == first]
    if len(ignored) != 1:
        return None
    why = f"The count does not depend on {ignored[0]}: compute with the argument."
    return _count(f"{ignored[0]} ignored", why)


def _asked(
    name: str, layers: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[tuple[int, int, int], dict[str, int]]]:
    """Yield the sizes and the named argument of each call; LoRA has no norm, whatever norm_dim."""
    for sizes in layers:
        if name != "dora-input":
            yield sizes, {}
        if name != "dora":
            yield sizes, {"norm_dim": 0}


def draw_sizes(seed: int) -> list[tuple[int, int, int]]:
    """Return in_features, out_features and rank of two layers that differ in all of them.

    The first has more outputs than inputs, the second fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randperm(40, generator=generator)[:4] + 20
    ranks = torch.randperm(7, generator=generator)[:2] + 3
    (a, b, c, d), (r, s) = sizes.tolist(), ranks.tolist()
    return [(min(a, b), max(a, b), r), (max(c, d), min(c, d), s)]


def right_count(name: str, in_features: int, out_features: int, rank: int) -> int:
    """Return how many numbers an adapter trains; `name` is an aspect of `check_count_trainable`."""
    magnitude = {"lora": 0, "dora": out_features, "dora-input": in_features}[name]
    return rank * (in_features + out_features) + magnitude


def wrong_counts(
    name: str, in_features: int, out_features: int, rank: int, norm_dim: int = 1
) -> list[tuple[int, Mistake]]:
    """Return the count that each known mistake gives; the same number for all sizes.

    Args:
        norm_dim: as it was passed where LoRA is asked for.
    """
    size_a, size_b, frozen = rank * in_features, rank * out_features, in_features * out_features
    lora, right = size_a + size_b, right_count(name, in_features, out_features, rank)
    magnitude = right - lora
    wrong = [
        (size_a + magnitude, B_LEFT_OUT),
        (size_b + magnitude, A_LEFT_OUT),
        (2 * size_a + magnitude, A_TWICE),
        (2 * size_b + magnitude, B_TWICE),
        (frozen + right, FROZEN_COUNTED),
        (2 * right, DOUBLED),
        (2 * lora + magnitude, DOUBLED),
        *((right + one, OFF_BY_ONE) for one in (1, -1)),
        *((count, FULL_MATRIX) for count in (frozen, frozen + magnitude)),
        (size_a + out_features + magnitude, BRACKETS),
        (in_features + size_b + magnitude, BRACKETS),
        (right + rank * rank, CORE_COUNTED),
        (right - rank * rank, CORE_COUNTED),
        (rank * lora + magnitude, RANK_SQUARED),
        *((size * right, BYTES) for size in (4, 8)),
        *((count + magnitude, MULTIPLIED) for count in (size_a * size_b, rank * frozen)),
        *((count, MULTIPLIED) for count in (size_a * size_b, rank * frozen)),
    ]
    if name == "lora":
        of_norm_dim = out_features if norm_dim == 1 else in_features
        return [
            *wrong,
            *((lora + extra, MAGNITUDE_IN_LORA) for extra in (of_norm_dim, in_features)),
            (lora + out_features, OUTPUTS_COUNTED),
            (lora + in_features + out_features, BOTH_AXES),
        ]
    other = in_features if name == "dora" else out_features
    return [
        *wrong,
        (lora, NO_MAGNITUDE),
        (lora + 1, ONE_MAGNITUDE),
        (lora + frozen, WEIGHT_COUNTED),
        (magnitude, FACTORS_LEFT_OUT),
        (lora - magnitude, SUBTRACTED_FROM),
        *((lora + size(in_features, out_features), BY_SIZE) for size in (min, max)),
        (lora + other, MAGNITUDE_AXIS[name]),
        (lora + in_features + out_features, BOTH_AXES),
        *([(right + out_features, OUTPUTS_COUNTED)] if name == "dora" else []),
        (lora + rank * magnitude, MAGNITUDE_TIMES_RANK),
        *((lora + number * rank, MAGNITUDE_PER_RANK) for number in (1, 2)),
    ]
