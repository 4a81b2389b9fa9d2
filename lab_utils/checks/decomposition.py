"""Checks of lesson 03: `magnitude_change`, `direction_change` and `coupling`."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lab_utils import decomposition
from lab_utils.checks.report import Comparison, Mistake, Report, chosen, shown
from lab_utils.checks.subject import REFERENCE_MATHEMATICS, call, call_function, check

DELTA_M = "2. How far did the lengths move?"
DELTA_D = "3. How far did the vectors turn?"
COUPLING = "5. Do the two move together?"

WRONG_AXIS = "norm_dim is the dimension that the norm sums over: weight.norm(dim=norm_dim)."
SIGNED = Mistake(
    "signed differences",
    "Lengths that grew and lengths that shrank cancel out: take abs() before the mean.",
    DELTA_M,
)
NORM_OF_DIFFERENCE = Mistake(
    "norm of the difference",
    "||after - before|| is how far a vector moved, turns included; subtract the two lengths.",
    DELTA_M,
)
SUM_M = Mistake("sum instead of mean", "Average over the vectors.", DELTA_M)
SQUARED = Mistake(
    "squared differences", "Equation 3 averages absolute values, not squares.", DELTA_M
)
RELATIVE = Mistake("relative change", "Equation 3 does not divide by the length before.", DELTA_M)
WHOLE_M = Mistake("one norm for the whole matrix", "Each vector has a length of its own.", DELTA_M)
AXIS_M = Mistake("norm over the wrong axis", WRONG_AXIS, DELTA_M)
COSINE = Mistake(
    "cosine instead of one minus cosine", "A vector that did not turn counts as 0.", DELTA_D
)
NOT_NORMALISED = Mistake(
    "dot product of vectors that are not of length 1",
    "Divide both vectors by their norms.",
    DELTA_D,
)
ANGLE = Mistake("an angle", "Equation 4 takes one minus the cosine, not the angle.", DELTA_D)
SUM_D = Mistake("sum instead of mean", "Average over the vectors.", DELTA_D)
WHOLE_D = Mistake(
    "one cosine for the whole matrix", "Each vector turns by itself: one cosine a vector.", DELTA_D
)
AXIS_D = Mistake("norm over the wrong axis", WRONG_AXIS, DELTA_D)
ABSOLUTE = Mistake(
    "absolute cosine", "A vector that was reversed has turned: its cosine is -1.", DELTA_D
)
ZERO_DIVISION = Mistake(
    "division by a zero norm",
    "A vector of zeros has no direction, and 0/0 is NaN: divide by norm.clamp_min(1e-8).",
    DELTA_D,
)
COVARIANCE = Mistake(
    "covariance", "Divide by both standard deviations, so that the unit drops out.", COUPLING
)
NOT_CENTRED = Mistake("means not subtracted", "Correlate deviations from the mean.", COUPLING)
DETERMINATION = Mistake("squared correlation", "The square loses the sign.", COUPLING)
SLOPE = Mistake(
    "slope of a line", "The slope has a unit; the correlation lies between -1 and 1.", COUPLING
)
RANKS = Mistake("rank correlation", "The paper's is Pearson's: of values, not of ranks.", COUPLING)
MIXED = Mistake(
    "n and n - 1 mixed", "Take the same divisor in the covariance and the variances.", COUPLING
)
SIGN_LOST = Mistake("sign lost", "A falling line has a negative correlation.", COUPLING)
SIGN_SWAPPED = Mistake("sign swapped", "Lists that rise together have a positive one.", COUPLING)
ROUNDING = Mistake(
    "rounding taken for variation",
    "The mean of equal numbers is rounded, so that their deviations need not be 0: ask whether all "
    "are equal, for instance by max(values) == min(values).",
    COUPLING,
)
ZERO_FOR_NONE = Mistake(
    "0 in place of NaN", "Where there is no correlation, 0 would say that there is none.", COUPLING
)
LARGEST_M = Mistake("largest instead of mean", "Average over the vectors.", DELTA_M)
MEDIAN_M = Mistake("median instead of mean", "Average over the vectors.", DELTA_M)
ENTRIES = Mistake("entries compared", "Compare the lengths of vectors, not their entries.", DELTA_M)
LARGEST_D = Mistake("largest instead of mean", "Average over the vectors.", DELTA_D)
NEGATIVE = Mistake("sign swapped", "One minus the cosine, from 0 to 2.", DELTA_D)
DISTANCE = Mistake(
    "distance of the directions", "Equation 4 takes one minus the cosine, no distance.", DELTA_D
)
WITH_CHANGE = Mistake(
    "cosine with the change", "Compare after with before, not their difference.", DELTA_D
)
P_NORM_M = Mistake(
    "not the Euclidean length", "The length is the root of the sum of squares.", DELTA_M
)
DIM_AS_P_M = Mistake(
    "norm_dim taken as p",
    "The first argument of norm is its order: write weight.norm(dim=norm_dim).",
    DELTA_M,
)
HALF_TURN = Mistake("half of it", "One minus the cosine: 2 for a reversed vector.", DELTA_D)
SINE = Mistake("a sine", "Equation 4 takes one minus the cosine.", DELTA_D)
ZERO_LEFT_OUT = Mistake(
    "zeros left out", "A vector of zeros counts as a right angle, so as 1.", DELTA_D
)
ZERO_AS_NONE = Mistake(
    "zeros counted as no turn", "A vector of zeros counts as a right angle, so as 1.", DELTA_D
)


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_magnitude_change(magnitude_change: Callable, aspect: str | None = None, **sizes) -> None:
    """Check a `magnitude_change(before, after, norm_dim=1) -> float` (the paper's eq. 3).

    Args:
        aspect: `"rows"` (norm_dim=1) or `"columns"` (norm_dim=0); both if None.
        sizes: arguments of `weights`: `out_features`, `in_features`, `seed`, `dtype`.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("rows", "columns")):
        pairs = [weights(**sizes), weights(**_squared(sizes))]
        _check(magnitude_change, "magnitude_change", name, pairs, wrong_magnitude_changes, DELTA_M)


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_direction_change(direction_change: Callable, aspect: str | None = None, **sizes) -> None:
    """Check a `direction_change(before, after, norm_dim=1) -> float` (the paper's eq. 4).

    Args:
        aspect: `"rows"` (norm_dim=1), `"columns"` (norm_dim=0) or `"zeros"` (vectors of length 0
            before, after or both, each of which counts as a right angle); all if None.
        sizes: arguments of `weights`.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("rows", "columns", "zeros")):
        (before, after), square = weights(**sizes), weights(**_squared(sizes))
        pairs = [(before, after), (before, -after), square]
        if name == "zeros":
            pairs = [
                pair
                for pair in ((before, after), square)
                for pair in (_with_zeros(*pair, dim) for dim in (0, 1))
            ]
        _check(direction_change, "direction_change", name, pairs, wrong_direction_changes, DELTA_D)


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_coupling(
    coupling: Callable, aspect: str | None = None, *, points: int = 12, seed: int = 0
) -> None:
    """Check a `coupling(delta_m, delta_d) -> float`: Pearson's correlation of two lists.

    Args:
        aspect: `"correlation"` (rising and falling points) or `"constant"` (one list, or both,
            do not vary, so that there is no correlation: NaN); both if None.
        points, seed: of the random lists.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("correlation", "constant")):
        with Report(f"coupling · {name} · {points} points") as report:
            if name == "correlation":
                _expect_correlations(report, coupling, points, seed)
            else:
                _expect_none(report, coupling, points, seed)


def _expect_correlations(report: Report, coupling: Callable, points: int, seed: int) -> None:
    comparisons, mistakes, unchanged = [], [], True
    for word, delta_m, delta_d in draw_points(points, seed):
        called = call(coupling, delta_m.tolist(), delta_d.tolist())
        prop = f"points that {word}"
        if not _is_float(report, called.result, prop, COUPLING):
            return
        wrong = wrong_correlations(delta_m, delta_d)
        mistakes = [mistake for _, mistake in wrong]
        expected = decomposition.coupling(delta_m.tolist(), delta_d.tolist())
        comparisons.append(_compared(prop, called.result, expected, wrong))
        unchanged = unchanged and called.after == [delta_m.tolist(), delta_d.tolist()]
    report.expect_cases("points that rise, fall and scatter", comparisons, mistakes)
    _expect_unchanged(report, unchanged, COUPLING)


def _expect_none(report: Report, coupling: Callable, points: int, seed: int) -> None:
    (_, _, varying), *_ = draw_points(points, seed)
    varying = varying.tolist()
    found = {}
    for constant in draw_constants(seed):
        for which in ("delta_m", "delta_d"):
            lists = [[constant] * points, varying]
            value = call_function(coupling, *(lists if which == "delta_m" else lists[::-1]))
            if not _is_float(report, value, f"a constant {which}"):
                return
            found[constant, which] = float(value)
    value = call_function(coupling, [0.5] * points, [0.25] * points)
    if not _is_float(report, value, "two constant lists"):
        return
    found[0.5, "list of both"] = float(value)
    wrong = {key: number for key, number in found.items() if not math.isnan(number)}
    (constant, which), number = next(iter(wrong.items()), ((0.0, ""), 0.0))
    mistake = None
    if all(abs(value) < 1e-3 for value in wrong.values()):  # what rounding leaves is far less
        # A half has no rounding, nor has its mean.
        exact = [value for (constant, _), value in wrong.items() if constant == 0.5]
        mistake = ZERO_FOR_NONE if exact else ROUNDING
    report.expect(
        not wrong,
        "a list that does not vary has no correlation",
        f"expected NaN where {which} is {constant:.12g} throughout, found {number:.4g}.",
        mistake,
    )


def draw_points(points: int, seed: int) -> list[tuple[str, Tensor, Tensor]]:
    """Return lists of delta M and delta D that rise together, that fall, and that scatter."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, points, generator=generator, dtype=torch.float64)
    delta_d = 0.2 + 0.05 * noise[0]
    return [
        ("rise together", 1.0 + 0.3 * noise[0] + 0.2 * noise[1], delta_d),
        ("fall", 1.0 - 0.3 * noise[0] + 0.2 * noise[1], delta_d),
        ("scatter", 20.0 + 0.1 * noise[0] + 0.3 * noise[2], delta_d),
    ]


def draw_constants(seed: int) -> list[float]:
    """Return constants whose rounded means differ from them for some lengths, and plain ones."""
    drawn = torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [0.5, 0.0, 0.1, 0.7, *(round(value, 3) for value in drawn.tolist())]


def weights(
    out_features: int = 4,
    in_features: int = 7,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return a weight before and after a training that turned and stretched it, from one seed.

    Some lengths grow and some shrink, and one row is reversed. Rows and columns have lengths of
    all sizes.
    """
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(out_features, in_features, generator=generator)
    before[0] *= 0.2
    after = before + 0.4 * torch.randn(before.shape, generator=generator)
    after[0::2] *= 1.6
    after[1::2] *= 0.7
    after[-1] *= -1
    return before.to(dtype), after.to(dtype)


def _squared(sizes: dict) -> dict:
    """Return the arguments of `weights` for a square weight."""
    size = sizes.get("in_features", 7)
    return sizes | {"out_features": size, "in_features": size, "seed": sizes.get("seed", 0) + 1000}


def _with_zeros(before: Tensor, after: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return both with vectors of zeros: one before, one after, and one in both."""
    before, after = before.clone(), after.clone()
    for weight, indices in ((before, (0, 1)), (after, (1, 2))):
        for index in indices:
            weight.select(1 - dim, index).zero_()
    return before, after


def wrong_magnitude_changes(
    before: Tensor, after: Tensor, norm_dim: int
) -> list[tuple[Tensor, Mistake]]:
    """Return the change of lengths as each known mistake makes it; as many for all weights."""
    before, after = before.double(), after.double()
    a, b = (w.norm(dim=norm_dim) for w in (before, after))
    moved = after - before
    across = [w.norm(dim=1 - norm_dim) for w in (before, after)]

    def change(length: Callable[[Tensor], Tensor]) -> Tensor:
        return (length(after) - length(before)).abs().mean()

    return [
        ((b - a).mean(), SIGNED),
        ((a - b).mean(), SIGNED),
        ((b - a).mean().abs(), SIGNED),
        (moved.norm(dim=norm_dim).mean(), NORM_OF_DIFFERENCE),
        ((b - a).abs().sum(), SUM_M),
        ((b - a).abs().max(), LARGEST_M),
        ((b - a).abs().median(), MEDIAN_M),
        (moved.abs().mean(), ENTRIES),
        (moved.square().mean(), ENTRIES),
        (moved.abs().sum(), ENTRIES),
        ((b / a).mean(), RELATIVE),
        ((b / a - 1).mean(), RELATIVE),
        ((b - a).square().mean(), SQUARED),
        ((b - a).square().mean().sqrt(), SQUARED),
        ((b - a).square().sum(), SQUARED),
        ((b - a).norm(), SQUARED),
        (((b - a).abs() / a).mean(), RELATIVE),
        (((b - a).abs() / b).mean(), RELATIVE),
        ((b - a).abs().mean() / a.mean(), RELATIVE),
        (change(Tensor.norm), WHOLE_M),
        (moved.norm(), WHOLE_M),
        ((across[1] - across[0]).abs().mean(), AXIS_M),
        (change(lambda w: w.square().sum(norm_dim)), P_NORM_M),
        (change(lambda w: w.abs().sum(norm_dim)), P_NORM_M),
        (change(lambda w: w.abs().amax(norm_dim)), P_NORM_M),
        (change(lambda w: w.norm(p=norm_dim)), DIM_AS_P_M),
    ]


def wrong_direction_changes(
    before: Tensor, after: Tensor, norm_dim: int
) -> list[tuple[Tensor, Mistake]]:
    """Return the turn as each known mistake makes it; as many for all weights."""
    cosine = _cosine(before, after, norm_dim)
    zero = (before == 0).all(norm_dim) | (after == 0).all(norm_dim)
    nan = torch.tensor(math.nan) if zero.any() else (1 - cosine).mean()
    dot = (before * after).double().sum(dim=norm_dim)
    flat = _cosine(before.reshape(1, -1), after.reshape(1, -1), 1)
    turned = 1 - cosine
    directions = [torch.nn.functional.normalize(w.double(), dim=norm_dim) for w in (before, after)]
    distance = (directions[1] - directions[0]).norm(dim=norm_dim)
    with_change = _cosine(before, after - before, norm_dim)
    return [
        (nan, ZERO_DIVISION),
        (turned[~zero].mean(), ZERO_LEFT_OUT),
        (turned[~zero].sum() / len(turned), ZERO_AS_NONE),
        (cosine.mean(), COSINE),
        ((1 - dot).mean(), NOT_NORMALISED),
        (dot.mean(), NOT_NORMALISED),
        (cosine.arccos().mean(), ANGLE),
        (cosine.arccos().rad2deg().mean(), ANGLE),
        (turned.sum(), SUM_D),
        (turned.max(), LARGEST_D),
        (-turned.mean(), NEGATIVE),
        (distance.mean(), DISTANCE),
        (distance.square().mean(), DISTANCE),
        (with_change.mean(), WITH_CHANGE),
        ((1 - with_change).mean(), WITH_CHANGE),
        ((1 - cosine.mean().abs()), ABSOLUTE),
        ((1 - flat).mean(), WHOLE_D),
        ((1 - _cosine(before, after, 1 - norm_dim)).mean(), AXIS_D),
        ((1 - cosine.abs()).mean(), ABSOLUTE),
        (turned.mean() / 2, HALF_TURN),
        ((1 - cosine.square()).clamp_min(0).sqrt().mean(), SINE),
    ]


def _cosine(before: Tensor, after: Tensor, dim: int) -> Tensor:
    return torch.cosine_similarity(before.double(), after.double(), dim=dim)


def wrong_correlations(delta_m: Tensor, delta_d: Tensor) -> list[tuple[Tensor, Mistake]]:
    """Return what each known mistake would make of the points."""
    n = len(delta_m)
    rise = [(v[:, None] - v[None]).sign() for v in (delta_m, delta_d)]
    kendall = (rise[0] * rise[1]).sum() / (n * (n - 1))
    m, d = delta_m - delta_m.mean(), delta_d - delta_d.mean()
    right = (m * d).sum() / (m.norm() * d.norm())
    ranks = [values.argsort().argsort().double() for values in (m, d)]
    rank_m, rank_d = (values - values.mean() for values in ranks)
    return [
        ((m * d).mean(), COVARIANCE),
        ((m * d).sum() / (n - 1), COVARIANCE),
        ((m * d).sum(), COVARIANCE),
        ((delta_m * delta_d).sum() / (delta_m.norm() * delta_d.norm()), NOT_CENTRED),
        ((delta_m * delta_d).mean(), NOT_CENTRED),
        (right**2, DETERMINATION),
        (right.abs(), SIGN_LOST),
        (-right, SIGN_SWAPPED),
        ((m * d).sum() / d.square().sum(), SLOPE),
        ((m * d).sum() / m.square().sum(), SLOPE),
        ((rank_m * rank_d).sum() / (rank_m.norm() * rank_d.norm()), RANKS),
        (kendall, RANKS),
        (right * (n - 1) / n, MIXED),
        (right * n / (n - 1), MIXED),
    ]


def _check(
    function: Callable,
    name: str,
    aspect: str,
    pairs: Sequence[tuple[Tensor, Tensor]],
    wrong: Callable[[Tensor, Tensor, int], list[tuple[Tensor, Mistake]]],
    section: str,
) -> None:
    """Call the student's function on weights before and after, and compare with the lab's."""
    reference = getattr(decomposition, name)
    calls = {  # 1 is the default, so rows are asked for in both ways
        "rows": ({"norm_dim": 1}, {}),
        "columns": ({"norm_dim": 0},),
        "zeros": ({"norm_dim": 1}, {"norm_dim": 0}),
    }[aspect]
    before, _ = pairs[0]
    with Report(f"{name} · {aspect} · weight {tuple(before.shape)}, {before.dtype}") as report:
        comparisons, mistakes, unchanged = [], [], True
        for before, after in pairs:
            for named in calls:
                called = call(function, before, after, **named)
                norm_dim = named.get("norm_dim", 1)
                axis = f", norm_dim={norm_dim}" if named else ""
                prop = f"{name}(weights of {tuple(before.shape)}{axis})"
                if not _is_float(report, called.result, prop, section):
                    return
                expected = reference(before, after, norm_dim)
                found = wrong(before, after, norm_dim)
                mistakes = [mistake for _, mistake in found]
                comparisons.append(_compared(prop, called.result, expected, found))
                same = (
                    torch.equal(a, b) for a, b in zip(called.after, (before, after), strict=False)
                )
                unchanged = unchanged and all(same)
        report.expect_cases(f"{name} over {aspect}", comparisons, mistakes)
        _expect_unchanged(
            report, unchanged, DELTA_M if reference is decomposition.magnitude_change else DELTA_D
        )


def _compared(
    label: str, found: float, expected: float, wrong: Sequence[tuple[Tensor, Mistake]]
) -> Comparison:
    pair = (torch.tensor(float(value), dtype=torch.float64) for value in (found, expected))
    return Comparison(label, *pair, [value for value, _ in wrong])


def _expect_unchanged(report: Report, unchanged: bool, section: str) -> None:
    report.expect(
        unchanged,
        "the arguments stay as they were",
        "what was passed in has other values after the call.",
        Mistake(
            "in-place change of the argument",
            "Operators such as -=, and methods that end in _, write into the caller's values.",
            section,
        ),
    )


def _is_float(report: Report, found: object, prop: str, section: str = "") -> bool:
    """Expect a plain number, which NumPy's float64 is too, and no tensor.

    Args:
        section: of the lesson, where None can only be a forgotten return.
    """
    nothing = Mistake("nothing returned", "A function without return gives back None.", section)
    tensor = type(found).__name__ in ("Tensor", "Parameter", "ndarray")
    return isinstance(found, float) or report.expect(
        False,
        "the result is a float",
        f"{prop}: expected a float, found {shown(found)} of type {type(found).__name__}"
        f"{'; a tensor of one number becomes one by .item()' if tensor else ''}.",
        nothing if found is None and section else None,
    )
