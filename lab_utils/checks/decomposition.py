"""Checks of lesson 03: `magnitude_change`, `direction_change` and `coupling`."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import scipy  # scipy.stats is slow to import: it is imported on first use
import torch
from torch import Tensor

from lab_utils import decomposition
from lab_utils.checks.diagnosis import earlier_result, misfit, returned_kind, roundings
from lab_utils.checks.report import CheckFailed, Comparison, Mistake, Report, chosen, named
from lab_utils.checks.subject import REFERENCE_MATHEMATICS, call, call_function, check
from lab_utils.checks.values import shown

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
WEIGHTED_BY_LENGTH = Mistake(
    "turns weighted by length", "Every vector counts alike, whether it is long or short.", DELTA_D
)
FISHER = Mistake("Fisher's z", "atanh is for intervals: return the correlation itself.", COUPLING)
RELATIVE = Mistake("relative change", "Equation 3 does not divide by the length before.", DELTA_M)
WHOLE_M = Mistake("one norm for the whole matrix", "Each vector has its own length.", DELTA_M)
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
    "one cosine for the whole matrix",
    "Each vector turns separately: one cosine per vector.",
    DELTA_D,
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
    "n and n - 1 mixed", "Use the same divisor in the covariance and in the variances.", COUPLING
)
SIGN_LOST = Mistake("sign lost", "A falling line has a negative correlation.", COUPLING)
SIGN_SWAPPED = Mistake("sign swapped", "Lists that rise together have a positive one.", COUPLING)
ROUNDING = Mistake(
    "rounding taken for variation",
    "The mean of equal numbers is rounded, so their deviations need not be 0: check whether all "
    "are equal, for instance by max(values) == min(values).",
    COUPLING,
)
ZERO_FOR_NONE = Mistake(
    "0 in place of NaN",
    "Where the correlation is undefined, 0 would claim that the two are uncorrelated.",
    COUPLING,
)
LARGEST_M = Mistake("largest instead of mean", "Average over the vectors.", DELTA_M)
MEDIAN_M = Mistake("median instead of mean", "Average over the vectors.", DELTA_M)
ENTRIES = Mistake("entries compared", "Compare the lengths of vectors, not their entries.", DELTA_M)
LARGEST_D = Mistake("largest instead of mean", "Average over the vectors.", DELTA_D)
NEGATIVE = Mistake("sign swapped", "One minus the cosine, from 0 to 2.", DELTA_D)
DISTANCE = Mistake(
    "distance of the directions", "Equation 4 takes one minus the cosine, not a distance.", DELTA_D
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
COUNT_M = Mistake(
    "another number to divide by", "Divide the sum by the number of vectors that it has.", DELTA_M
)
SPREAD_M = Mistake(
    "standard deviation", "Equation 3 averages absolute values; it asks for no spread.", DELTA_M
)
LOGARITHM_M = Mistake("logarithm of the ratio", "Equation 3 subtracts the lengths.", DELTA_M)
GROWTH_M = Mistake(
    "growth alone", "A vector that became shorter has changed, too: take abs().", DELTA_M
)
ALL_PAIRS_M = Mistake(
    "every vector with every other",
    "Subtract the length of the same vector: both need the same shape, with keepdim or without.",
    DELTA_M,
)
DEFAULT_M = Mistake(
    "another default",
    "norm_dim is 1 where it is not given: leave the first line as it is.",
    DELTA_M,
)
DEFAULT_D = Mistake(
    "another default",
    "norm_dim is 1 where it is not given: leave the first line as it is.",
    DELTA_D,
)
TURN_FOR_LENGTH = Mistake(
    "a turn, not a length",
    "Equation 3 is about lengths; equation 4, which comes next, is not.",
    DELTA_M,
)
LENGTH_FOR_TURN = Mistake(
    "a length, not a turn", "Equation 4 is about cosines; equation 3 was about lengths.", DELTA_D
)
PRECISION_M = Mistake(
    "precision lost", "Compute in the weights' dtype: half precision has three digits.", DELTA_M
)
PRECISION_D = Mistake(
    "precision lost", "Compute in the weights' dtype: half precision has three digits.", DELTA_D
)
WHOLE_NORM_D = Mistake(
    "one norm for the whole matrix", "Each vector is divided by its own length.", DELTA_D
)
ONE_NORM_TWICE = Mistake(
    "one norm taken twice", "Divide by the norm before and by the norm after.", DELTA_D
)
SUMMED_ACROSS = Mistake(
    "summed along the other axis", "Sum the products over norm_dim, as in the norms.", DELTA_D
)
ONE_LENGTH_M = Mistake("one length alone", "Subtract the length before from that after.", DELTA_M)
HALF_M = Mistake("half of it", "Equation 3 has no factor of one half.", DELTA_M)
ONE_VECTOR_M = Mistake("one vector alone", "Average over all of the vectors.", DELTA_M)
ONE_VECTOR_D = Mistake("one vector alone", "Average over all of the vectors.", DELTA_D)
MEAN_VECTORS = Mistake(
    "mean of the vectors compared",
    "Compare vector by vector, and average the results.",
    DELTA_D,
)
PERCENT_M = Mistake("percent", "Equation 3 has no factor of 100.", DELTA_M)
ROUNDED_M = Mistake("rounded", "Return all digits, and round only what you print.", DELTA_M)
ROUNDED_D = Mistake("rounded", "Return all digits, and round only what you print.", DELTA_D)
ROUNDED_C = Mistake("rounded", "Return all digits, and round only what you print.", COUPLING)
SQUARED_TURN = Mistake("squared turn", "Equation 4 averages the turns as they are.", DELTA_D)
MEDIAN_D = Mistake("median instead of mean", "Average over the vectors.", DELTA_D)
NOT_A_LENGTH_D = Mistake(
    "not the Euclidean length", "Divide by the root of the sum of squares of each vector.", DELTA_D
)
PLUS = Mistake("plus in place of minus", "One minus the cosine: 0 where nothing turned.", DELTA_D)
SQUARED_COSINE = Mistake("squared cosine", "Equation 4 has the cosine itself.", DELTA_D)
ONE_NORMALISED = Mistake(
    "one of the vectors not divided by its norm", "Divide both vectors by their norms.", DELTA_D
)
CUT_OFF = Mistake(
    "negative cosines cut off", "A vector may turn by more than a right angle.", DELTA_D
)
ANOTHER_EPS = Mistake(
    "another eps",
    "The number that prevents a division by zero must be far smaller than any norm.",
    DELTA_D,
)
ALL_PAIRS = Mistake(
    "every vector with every other", "Compare each vector with itself before training.", DELTA_D
)
ENTRIES_D = Mistake(
    "mean over entries", "The cosine is the sum of the products: one per vector.", DELTA_D
)
OTHER_UNITS = Mistake(
    "divided along the other axis",
    "Divide by norms over norm_dim: F.normalize(w, dim=norm_dim).",
    DELTA_D,
)
CENTRED = Mistake("mean subtracted", "Equation 4 compares the vectors as they are.", DELTA_D)
ZERO_REVERSED = Mistake(
    "zeros counted as reversed", "A vector of zeros counts as a right angle, so as 1.", DELTA_D
)
ZERO_FOR_ALL = Mistake(
    "one vector of zeros decides for all", "It counts as 1, and the others count as usual.", DELTA_D
)
SAME_ZEROS = Mistake(
    "zeros before and after counted as no turn",
    "A vector of zeros counts as a right angle, so as 1, whether one is or both.",
    DELTA_D,
)
EQUAL = Mistake(
    "equal weights counted as no turn",
    "A vector of zeros counts as a right angle, so as 1, also where nothing has changed.",
    DELTA_D,
)
DIFFERENCES = Mistake(
    "differences correlated", "Correlate the values, not how they change along a list.", COUPLING
)
REVERSED = Mistake("one list reversed", "The two values of a layer belong together.", COUPLING)
NUMBER_FOR_NONE = Mistake(
    "a number in place of NaN",
    "Where the correlation is undefined, no number is right: return math.nan.",
    COUPLING,
)
ONE_CENTRED = Mistake(
    "one mean not subtracted", "Both lists lose their mean before they are squared.", COUPLING
)
NO_ROOT = Mistake("root left out", "Divide by the root of the product of both sums.", COUPLING)
SORTED = Mistake(
    "lists sorted", "The two values of a layer belong together: keep the order.", COUPLING
)
ALWAYS_ONE = Mistake(
    "always 1", "1 is the correlation of a list with itself: compare the two lists.", COUPLING
)
ERROR_FOR_NONE = Mistake(
    "an error in place of NaN", "Check whether a list varies before you divide.", COUPLING
)
NONE_FOR_NAN = Mistake("None in place of NaN", "Return math.nan.", COUPLING)
ONE_LIST_ASKED = Mistake(
    "only one of the lists looked at", "Either of them may be constant.", COUPLING
)
ONE_ROOT = Mistake(
    "root of one sum only", "Divide by the root of the product of both sums of squares.", COUPLING
)
POINT_LEFT_OUT = Mistake("a point left out", "Correlate all points.", COUPLING)
P_VALUE = Mistake(
    "p-value", "The correlation is the first of the two numbers that pearsonr gives.", COUPLING
)
MEDIANS = Mistake("medians subtracted", "Subtract the means.", COUPLING)
ONE_MINUS = Mistake("one minus the correlation", "Return the correlation itself.", COUPLING)
VARIES = Mistake(
    "NaN for a list that varies",
    "Only a list whose values are all equal does not vary: compare max(values) with min(values).",
    COUPLING,
)
HALF_DISTANCE = Mistake(
    "half the squared distance",
    "It is one minus the cosine only of vectors of length 1. A vector of zeros counts as 1.",
    DELTA_D,
)
SINGULAR = Mistake(
    "singular vectors",
    "The directions of eq. 4 are those of rows (norm_dim=0: columns), not of a decomposition of "
    "the whole matrix.",
    DELTA_D,
)
SHRINKING_M = Mistake(
    "shrinking alone", "A vector that became longer has changed, too: take abs().", DELTA_M
)
CLAMPED_M = Mistake(
    "differences clamped", "Equation 3 takes each difference as it is, however large.", DELTA_M
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
        if name != "zeros":
            pairs.append((_shortened(before, dim=1 if name == "rows" else 0), after))
        else:
            usual, pairs = (
                pairs,
                [
                    pair
                    for pair in ((before, after), square)
                    for pair in (_with_zeros(*pair, dim) for dim in (0, 1))
                ],
            )
            own = {dim: _own_measures(direction_change, usual, dim) for dim in (0, 1)}
        _check(
            direction_change,
            "direction_change",
            name,
            pairs,
            wrong_direction_changes,
            DELTA_D,
            own if name == "zeros" else {},
        )


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_coupling(
    coupling: Callable, aspect: str | None = None, *, points: int = 12, seed: int = 0
) -> None:
    """Check a `coupling(delta_m, delta_d) -> float`: Pearson's correlation of two lists.

    Args:
        aspect: `"correlation"` (rising and falling points) or `"constant"` (one list, or both,
            do not vary, so that the correlation is undefined: NaN); both if None.
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
    comparisons, unchanged = [], True
    for word, delta_m, delta_d in draw_points(points, seed):
        called = call(coupling, delta_m.tolist(), delta_d.tolist())
        prop = f"points that {word}"
        if not _is_float(report, called.result, prop, COUPLING):
            return
        wrong = functools.partial(wrong_correlations, delta_m, delta_d)
        expected = decomposition.coupling(delta_m.tolist(), delta_d.tolist())
        comparisons.append(_compared(prop, called.result, expected, wrong))
        unchanged = unchanged and called.after == [delta_m.tolist(), delta_d.tolist()]

    def unexplained() -> Mistake | None:
        if not unchanged:
            return _in_place(COUPLING)
        drawn = [(m, d) for _, m, d in draw_points(points, seed)]
        p_values = [float(scipy.stats.pearsonr(m, d).pvalue) for m, d in drawn]
        found = [case.found.item() for case in comparisons]
        same = [math.isclose(f, p, rel_tol=1e-4) for f, p in zip(found, p_values, strict=True)]
        return P_VALUE if all(same) else _earlier(comparisons, COUPLING)

    prop = "points that rise, fall and scatter"
    report.expect_cases(prop, comparisons, unexplained)
    _expect_unchanged(report, unchanged, COUPLING)


def _expect_none(report: Report, coupling: Callable, points: int, seed: int) -> None:
    """Expect NaN exactly where a list does not vary."""
    (_, other, varying), *_ = draw_points(points, seed)
    other, varying = other.tolist(), varying.tolist()
    found: dict[tuple[float, str], object] = {}
    for constant in draw_constants(seed):
        for which in ("delta_m", "delta_d"):
            lists = [[constant] * points, varying]
            lists = lists if which == "delta_m" else lists[::-1]
            try:
                found[constant, which] = call_function(coupling, *lists)
            except CheckFailed as failure:
                found[constant, which] = failure
    if call_function(coupling, other, varying) is None:
        _is_float(report, None, "two lists that vary", COUPLING)
        return
    try:
        found[0.5, "list of both"] = call_function(coupling, [0.5] * points, [0.25] * points)
    except CheckFailed as failure:
        found[0.5, "list of both"] = failure
    wrong = {key: value for key, value in found.items() if not _is_nan(value)}
    prop = "a list that does not vary has no correlation"
    if not wrong:
        report.expect(True, prop, "")
        _expect_numbers(report, coupling, points, seed)
        return
    failed = [key for key, value in wrong.items() if isinstance(value, CheckFailed)]
    constant, which = (failed or list(wrong))[0]
    value = wrong[constant, which]
    mistake = _why_not_nan(found, wrong)
    if isinstance(value, CheckFailed):
        raise named(value, mistake)
    if value is not None and not _is_float(report, value, f"a constant {which}", COUPLING):
        return
    shows = "None" if value is None else f"{value:.4g}"
    problem = f"expected NaN where {which} is {constant:.12g} throughout, found {shows}."
    report.expect(False, prop, problem, mistake)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _why_not_nan(
    found: dict[tuple[float, str], object], wrong: dict[tuple[float, str], object]
) -> Mistake | None:
    """Return why constants give no NaN.

    Args:
        found: what came back, or the failure, for each constant and the list that it fills.
        wrong: those of it that are no NaN.
    """
    lists = {which for _, which in wrong} - {"list of both"}
    asked = {key: value for key, value in found.items() if key[1] in lists}
    if len(lists) == 1 and all(key in wrong for key in asked):
        return ONE_LIST_ASKED
    values = list(wrong.values())
    if any(isinstance(value, CheckFailed) for value in values):
        return ERROR_FOR_NONE
    if values[0] is None:
        return NONE_FOR_NAN
    # What rounding leaves is far less than this; and a half has no rounding, nor has its mean.
    if all(isinstance(value, float) and abs(value) < 1e-3 for value in values):
        exact = any(constant == 0.5 for constant, _ in wrong)
        return ZERO_FOR_NONE if exact else ROUNDING
    if all(isinstance(value, float) for value in values) and len(set(values)) == 1:
        return NUMBER_FOR_NONE
    return None


def _expect_numbers(report: Report, coupling: Callable, points: int, seed: int) -> None:
    """Expect a number where a list varies, but little, or only in some places."""
    (_, delta_m, delta_d), *_ = draw_points(points, seed)
    lists = delta_m.tolist(), delta_d.tolist()
    found, right = call_function(coupling, *lists), decomposition.coupling(*lists)
    # What is wrong for many points may be nothing for two, and has cost its points.
    measured = isinstance(found, float) and math.isclose(found, right, rel_tol=1e-4)
    ends_alike, starts_alike = delta_m.clone(), delta_m.clone()
    ends_alike[-1] = ends_alike[0]
    starts_alike[1] = starts_alike[0]
    one_differs = torch.full_like(delta_m, 0.5)
    one_differs[points // 2] = 0.75
    for what, values in (
        (
            "varies by a few parts in 10,000",
            0.02 + 1e-5 * (delta_m - delta_m.mean()) / delta_m.std(),
        ),
        ("starts with two equal values", starts_alike),
        ("ends with its first value", ends_alike),
        ("differs in one value", one_differs),
        *([("has two values", delta_m[:2])] if measured else []),
    ):
        other = delta_d[: len(values)]
        for which, lists in (("delta_m", (values, other)), ("delta_d", (other, values))):
            found = call_function(coupling, *(part.tolist() for part in lists))
            report.expect(
                not _is_nan(found),
                "a list that varies has one",
                f"expected a number where {which} {what}, found NaN.",
                VARIES,
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


def _shortened(weight: Tensor, dim: int) -> Tensor:
    """Return a weight with one short row (dim=1) or column, which has a direction all the same."""
    weight = weight.clone()
    vector = weight.select(1 - dim, 1)
    vector *= 0.008 / vector.norm()
    return weight


def _own_measures(
    function: Callable, pairs: Sequence[tuple[Tensor, Tensor]], norm_dim: int
) -> set[int]:
    """Return which known mistakes, by their indices, explain the turns where nothing is zero.

    They cost the points of rows and columns. Where zeros are asked for, they count as right.
    """
    compared = []
    for before, after in pairs:
        try:
            found = call_function(function, before, after, norm_dim=norm_dim)
        except CheckFailed:
            return set()
        if not isinstance(found, float):
            return set()
        expected = decomposition.direction_change(before, after, norm_dim)
        wrong = functools.partial(wrong_direction_changes, before, after, norm_dim)
        compared.append(_compared("", found, expected, wrong))
    if all(case.is_right() for case in compared):
        return set()
    count = len(compared[0].wrong)
    return {i for i in range(count) if all(case.is_explained_by(i) for case in compared)}


def _with_zeros(before: Tensor, after: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return both weights with vectors of zeros: one before, one after, and one in both."""
    before, after = before.clone(), after.clone()
    for weight, indices in ((before, (0, 1)), (after, (1, 2))):
        for index in indices:
            weight.select(1 - dim, index).zero_()
    return before, after


def wrong_magnitude_changes(
    before: Tensor, after: Tensor, norm_dim: int
) -> list[tuple[Tensor, Mistake]]:
    """Return the change of lengths that each known mistake gives; as many for all weights."""
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
        ((after.abs() - before.abs()).abs().mean(), ENTRIES),
        ((after.abs().mean() - before.abs().mean()).abs(), ENTRIES),
        ((after.mean() - before.mean()).abs(), ENTRIES),
        *(((one - other[:, None]).abs().mean(), ALL_PAIRS_M) for one, other in ((a, b), (b, a))),
        ((1 - _cosine(before, after, norm_dim)).mean(), TURN_FOR_LENGTH),
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
        *((100 * ((b - a).abs() / lengths).mean(), RELATIVE) for lengths in (a, b)),
        ((b - a).abs().mean() / a.mean(), RELATIVE),
        (change(Tensor.norm), WHOLE_M),
        (moved.norm(), WHOLE_M),
        ((b - a).abs().sum() / before.shape[norm_dim], COUNT_M),
        ((b - a).abs().sum() / before.numel(), COUNT_M),
        *(((b - a).std(correction=n), SPREAD_M) for n in (0, 1)),
        *(((b - a).abs().std(correction=n), SPREAD_M) for n in (0, 1)),
        ((b - a).abs().sum() / (len(a) - 1), COUNT_M),
        ((b / a).log().abs().mean(), LOGARITHM_M),
        *(((b - a).clamp(0, most).mean(), GROWTH_M) for most in (1, math.inf)),
        *(((a - b).clamp(0, most).mean(), SHRINKING_M) for most in (1, math.inf)),
        ((b - a).abs().clamp_max(1).mean(), CLAMPED_M),
        *((lengths.mean(), ONE_LENGTH_M) for lengths in (a, b)),
        ((b - a).sum(), SIGNED),  # and others with two faults, one of which is named
        ((b - a).sum().abs(), SIGNED),
        ((across[1] - across[0]).mean(), AXIS_M),
        ((across[1] - across[0]).mean().abs(), AXIS_M),
        ((across[1] - across[0]).abs().sum(), AXIS_M),
        ((after.abs() - before.abs()).norm(dim=norm_dim).mean(), NORM_OF_DIFFERENCE),
        ((b - a).abs().mean() / 2, HALF_M),
        (100 * (b - a).abs().mean(), PERCENT_M),
        *((value, m) for m, value in roundings((b - a).abs().mean(), ROUNDED_M, range(4))),
        ((across[1] - across[0]).abs().mean(), AXIS_M),
        (change(lambda w: w.square().sum(norm_dim)), P_NORM_M),
        (change(lambda w: w.abs().sum(norm_dim)), P_NORM_M),
        (change(lambda w: w.abs().amax(norm_dim)), P_NORM_M),
        (change(lambda w: w.abs().mean(norm_dim)), P_NORM_M),
        (change(lambda w: w.square().mean(norm_dim)), P_NORM_M),
        (change(lambda w: w.square().mean(norm_dim).sqrt()), P_NORM_M),
        (change(lambda w: w.mean(norm_dim)), P_NORM_M),
        (change(lambda w: w.sum(norm_dim)), P_NORM_M),
        *((change(lambda w, n=n: w.std(norm_dim, correction=n)), P_NORM_M) for n in (0, 1)),
        # norm(0) counts entries that are not 0. No training changes that: 0, as other ways give it.
        (change(lambda w: w.norm(p=norm_dim)) if norm_dim else torch.tensor(math.nan), DIM_AS_P_M),
    ]


def wrong_direction_changes(
    before: Tensor, after: Tensor, norm_dim: int
) -> list[tuple[Tensor, Mistake]]:
    """Return the turn that each known mistake gives; the same number for all weights."""
    cosine = _cosine(before, after, norm_dim)
    zero = (before == 0).all(norm_dim) | (after == 0).all(norm_dim)
    nan = torch.tensor(math.nan) if zero.any() else (1 - cosine).mean()
    dot = (before * after).double().sum(dim=norm_dim)
    flat = _cosine(before.reshape(1, -1), after.reshape(1, -1), 1)
    turned = 1 - cosine
    directions = [torch.nn.functional.normalize(w.double(), dim=norm_dim) for w in (before, after)]
    distance = (directions[1] - directions[0]).norm(dim=norm_dim)
    with_change = _cosine(before, after - before, norm_dim)
    both = (before == 0).all(norm_dim) & (after == 0).all(norm_dim)
    lengths = [w.double().norm(dim=norm_dim) for w in (before, after)]
    lengths.append(lengths[0] * lengths[1])
    u, v = directions
    across = [torch.nn.functional.normalize(w.double(), dim=1 - norm_dim) for w in (before, after)]
    centred = [(w - w.mean(norm_dim, keepdim=True)).double() for w in (before, after)]
    pairs = u @ v.T if norm_dim == 1 else u.T @ v
    return [
        ((1 + cosine).mean(), PLUS),
        ((1 - dot / (before.norm() * after.norm())).mean(), WHOLE_NORM_D),
        *(
            (
                (1 - dot / w.double().norm(dim=norm_dim).square().clamp_min(1e-8)).mean(),
                ONE_NORM_TWICE,
            )
            for w in (before, after)
        ),
        ((v - u).abs().mean(), DISTANCE),
        ((1 - (u * v).sum(1 - norm_dim)).mean(), SUMMED_ACROSS),
        (_cosine(before, after, 1 - norm_dim).arccos().mean(), ANGLE),
        (
            (v.new_tensor(0) + after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean(),
            LENGTH_FOR_TURN,
        ),
        (turned.square().mean(), SQUARED_TURN),
        (turned.square().mean().sqrt(), SQUARED_TURN),
        (turned.median(), MEDIAN_D),
        (
            1 - _cosine(*(w.mean(1 - norm_dim)[None].double() for w in (before, after)), 1)[0],
            MEAN_VECTORS,
        ),
        *(((turned * w).sum() / w.sum(), WEIGHTED_BY_LENGTH) for w in lengths),
        *(((turned * w**2).sum() / (w**2).sum(), WEIGHTED_BY_LENGTH) for w in lengths),
        *(((turned * w).mean(), WEIGHTED_BY_LENGTH) for w in lengths),
        (cosine.arccos().mean() / math.pi, ANGLE),
        *((_turn(before, after, norm_dim, size), NOT_A_LENGTH_D) for size in OTHER_LENGTHS),
        ((1 - cosine.square()).mean(), SQUARED_COSINE),
        *(
            ((1 - (one * other).sum(norm_dim)).mean(), ONE_NORMALISED)
            for one, other in ((u, after.double()), (before.double(), v))
        ),
        (turned.clamp(0, 1).mean(), CUT_OFF),
        *(((1 - each).mean(), ALL_PAIRS) for each in (pairs, u @ v.T)),
        ((1 - u * v).mean(), ENTRIES_D),
        ((1 - (across[0] * across[1]).sum(norm_dim)).mean(), OTHER_UNITS),
        ((1 - _cosine(*centred, norm_dim)).mean(), CENTRED),
        *((_turn(before, after, norm_dim, size), ANOTHER_EPS) for size in WITH_EPS),
        *((value, m) for m, value in roundings(turned.mean(), ROUNDED_D, range(4))),
        (turned[~zero].sum() / len(turned) + 2 * zero.double().mean(), ZERO_REVERSED),
        (torch.where(zero.any(), 1.0, turned.mean()), ZERO_FOR_ALL),
        (torch.where(zero.any(), 0.0, turned.mean()), ZERO_FOR_ALL),
        (turned.masked_fill(both, 0.0).mean(), SAME_ZEROS),
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
        (distance.square().mean() / 2, HALF_DISTANCE),
        *((value, SINGULAR) for value in _of_singular_vectors(before, after)),
        (with_change.mean(), WITH_CHANGE),
        ((1 - with_change).mean(), WITH_CHANGE),
        ((1 - cosine.mean().abs()), ABSOLUTE),
        ((1 - flat).mean(), WHOLE_D),
        ((1 - _cosine(before, after, 1 - norm_dim)).mean(), AXIS_D),
        ((1 - cosine.abs()).mean(), ABSOLUTE),
        (turned.mean() / 2, HALF_TURN),
        ((1 - cosine.square()).clamp_min(0).sqrt().mean(), SINE),
    ]


CLAMPS = (1.0, 0.5, 0.1, 0.05, 0.02, 0.01)  # of a norm, that people write
# With an epsilon that is visible in the result.
WITH_EPS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    *(lambda w, dim, eps=eps: w.norm(dim=dim, keepdim=True).clamp_min(eps) for eps in CLAMPS),
    lambda w, dim: w.norm(dim=dim, keepdim=True) + 1,
    lambda w, dim: w.norm(dim=dim, keepdim=True) + 0.1,
    lambda w, dim: w.norm(dim=dim, keepdim=True) + 1e-2,
    lambda w, dim: w.norm(dim=dim, keepdim=True) + 1e-3,
    lambda w, dim: w.norm(dim=dim, keepdim=True) + 1e-4,
)
OTHER_LENGTHS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda w, dim: w.abs().sum(dim, keepdim=True).clamp_min(1e-12),
    lambda w, dim: w.square().sum(dim, keepdim=True).clamp_min(1e-12),
    lambda w, dim: w.abs().amax(dim, keepdim=True).clamp_min(1e-12),
    lambda w, dim: w.square().mean(dim, keepdim=True).sqrt().clamp_min(1e-12),
    lambda w, dim: w.abs().mean(dim, keepdim=True).clamp_min(1e-12),
)


def _turn(
    before: Tensor, after: Tensor, dim: int, length: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Return the turn of vectors that are divided by another length."""
    u, v = (w.double() / length(w.double(), dim) for w in (before, after))
    return (1 - (u * v).sum(dim)).mean()


def _of_singular_vectors(before: Tensor, after: Tensor) -> list[Tensor]:
    """Return the mean turn of right and of left singular vectors, whose signs are arbitrary."""
    left, _, right = zip(
        *(torch.linalg.svd(w.double(), full_matrices=False) for w in (before, after)), strict=True
    )
    turns = []
    for one, other in (right, (left[0].T, left[1].T)):
        cosines = (one * other).sum(1)
        turns += [(1 - cosines.abs()).mean(), (1 - cosines).mean()]
    return turns


def _cosine(before: Tensor, after: Tensor, dim: int) -> Tensor:
    return torch.cosine_similarity(before.double(), after.double(), dim=dim)


def _pearson(one: Tensor, other: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([one, other]))[0, 1]


def wrong_correlations(delta_m: Tensor, delta_d: Tensor) -> list[tuple[Tensor, Mistake]]:
    """Return what each known mistake would give for the points."""
    n = len(delta_m)
    rise = [(v[:, None] - v[None]).sign() for v in (delta_m, delta_d)]
    kendall = (rise[0] * rise[1]).sum() / (n * (n - 1))
    m, d = delta_m - delta_m.mean(), delta_d - delta_d.mean()
    right = (m * d).sum() / (m.norm() * d.norm())
    ranks = [values.argsort().argsort().double() for values in (m, d)]
    rank_m, rank_d = (values - values.mean() for values in ranks)
    over = [values - values.median() for values in (delta_m, delta_d)]
    return [
        ((over[0] * over[1]).sum() / (over[0].norm() * over[1].norm()), MEDIANS),
        (1 - right, ONE_MINUS),
        (1 - right.abs(), ONE_MINUS),
        ((m * d).mean(), COVARIANCE),
        ((m * d).sum() / (n - 1), COVARIANCE),
        ((m * d).sum(), COVARIANCE),
        ((delta_m * delta_d).sum() / (delta_m.norm() * delta_d.norm()), NOT_CENTRED),
        ((delta_m * delta_d).mean(), NOT_CENTRED),
        ((m * delta_d).sum() / (m.norm() * delta_d.norm()), ONE_CENTRED),
        ((delta_m * d).sum() / (delta_m.norm() * d.norm()), ONE_CENTRED),
        ((m * d).sum() / (delta_m.norm() * delta_d.norm()), NOT_CENTRED),
        (_pearson(delta_m.diff(), delta_d.diff()), DIFFERENCES),
        (_pearson(delta_m, delta_d.flip(0)), REVERSED),
        ((m * d).sum() / (m.square().sum() * d.square().sum()), NO_ROOT),
        ((m * d).mean() / (m.square().mean() * d.square().mean()), NO_ROOT),
        ((m * d).sum() / (m.norm() * d.square().sum()), ONE_ROOT),
        ((m * d).sum() / (m.square().sum() * d.norm()), ONE_ROOT),
        *(
            (_pearson(delta_m[part], delta_d[part]), POINT_LEFT_OUT)
            for part in (slice(1, None), slice(-1))
        ),
        ((m.sort()[0] * d.sort()[0]).sum() / (m.norm() * d.norm()), SORTED),
        (torch.tensor(1.0), ALWAYS_ONE),
        *((value, mistake) for mistake, value in roundings(right, ROUNDED_C, range(1, 4))),
        (right**2, DETERMINATION),
        (right.atanh(), FISHER),
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
    own: Mapping[int, set[int]] = MappingProxyType({}),
) -> None:
    """Call the student's function on weights before and after, and compare with the lab's.

    Args:
        own: for a norm_dim the indices of mistakes that count as right, see `_own_measures`.
    """
    reference = getattr(decomposition, name)
    calls = {  # 1 is the default, so rows are asked for in both ways
        "rows": ({"norm_dim": 1}, {}),
        "columns": ({"norm_dim": 0},),
        "zeros": ({"norm_dim": 1}, {"norm_dim": 0}),
    }[aspect]

    def predict(
        before: Tensor, after: Tensor, norm_dim: int, is_given: bool
    ) -> list[tuple[Tensor | None, Mistake]]:
        across = None if is_given else torch.tensor(reference(before, after, 1 - norm_dim))
        other_default = DEFAULT_M if section == DELTA_M else DEFAULT_D
        return [*wrong(before, after, norm_dim), (across, other_default)]

    before, _ = pairs[0]
    with Report(f"{name} · {aspect} · weight {tuple(before.shape)}, {before.dtype}") as report:
        comparisons, unchanged = [], True
        for before, after in pairs:
            for given in calls:
                try:
                    called = call(function, before, after, **given)
                except CheckFailed as failure:
                    raise named(failure, misfit(failure, section)) from failure
                norm_dim = given.get("norm_dim", 1)
                axis = f", norm_dim={norm_dim}" if given else ""
                prop = f"{name}(weights of {tuple(before.shape)}{axis})"
                if not _is_float(report, called.result, prop, section):
                    return
                expected = reference(before, after, norm_dim)
                predicted = functools.partial(predict, before, after, norm_dim, bool(given))
                asked = _compared(prop, called.result, expected, predicted)
                for index in own.get(norm_dim, ()):
                    if asked.is_explained_by(index):
                        asked = replace(asked, expected=asked.found)
                comparisons.append(asked)
                same = (
                    torch.equal(a, b) for a, b in zip(called.after, (before, after), strict=False)
                )
                unchanged = unchanged and all(same)

        def unexplained() -> Mistake | None:
            if not unchanged:
                return _in_place(section)
            one = _of_one_vector(comparisons, pairs, [c.get("norm_dim", 1) for c in calls], section)
            return (digits if near else None) or _earlier(comparisons, section) or one

        digits = _lost_digits(comparisons, before.dtype, section)
        near = all(torch.isclose(c.found, c.expected, rtol=1e-2) for c in comparisons)
        lucky = all(case.is_right() for case in comparisons)
        if digits and lucky and aspect != "zeros":  # rows and columns ask it
            what = comparisons[0]
            problem = f"{what.label}: expected all digits, found {what.found.item()!r}."
            report.expect(False, "the result has all digits", problem, digits)
        report.expect_cases(f"{name} over {aspect}", comparisons, unexplained)
        if aspect == "zeros":  # rows and columns have checked that the arguments stay
            if report.first_problem is None and not any(own.values()):
                _expect_zeros_of_equal(report, function, *pairs[0])
            return
        _expect_unchanged(
            report, unchanged, DELTA_M if reference is decomposition.magnitude_change else DELTA_D
        )


def _of_one_vector(
    comparisons: Sequence[Comparison],
    pairs: Sequence[tuple[Tensor, Tensor]],
    norm_dims: Sequence[int],
    section: str,
) -> Mistake | None:
    """Return whether all results are those of the first vector, or of the last.

    Args:
        norm_dims: of the calls for each pair.
    """

    def measured(before: Tensor, after: Tensor, dim: int) -> Tensor:
        if section == DELTA_M:
            return (after.double().norm(dim=dim) - before.double().norm(dim=dim)).abs()
        return 1 - _cosine(before, after, dim)

    each = [measured(*pair, dim) for pair in pairs for dim in norm_dims]
    for index in (0, -1):
        if all(
            replace(case, expected=values[index]).is_right()
            for case, values in zip(comparisons, each, strict=True)
        ):
            return ONE_VECTOR_M if section == DELTA_M else ONE_VECTOR_D
    return None


def _earlier(comparisons: Sequence[Comparison], section: str) -> Mistake | None:
    """Return whether the function gives again what it gave for other weights or points."""
    found, expected = (
        [getattr(c, part).item() for c in comparisons] for part in ("found", "expected")
    )
    return earlier_result(found, expected, section)


def _lost_digits(
    comparisons: Sequence[Comparison], dtype: torch.dtype, section: str
) -> Mistake | None:
    """Return which digits all results lack, none of which would do so by chance."""
    of_lengths = section == DELTA_M
    found = [case.found.item() for case in comparisons]
    if not all(map(math.isfinite, found)):
        return None
    if any(all(value == round(value, n) for value in found) for n in range(5)):
        return ROUNDED_M if of_lengths else ROUNDED_D
    halves = torch.tensor(found, dtype=torch.float64)
    if dtype in (torch.float32, torch.float64) and torch.equal(halves.half().double(), halves):
        return PRECISION_M if of_lengths else PRECISION_D
    return None


def _expect_zeros_of_equal(
    report: Report, function: Callable, before: Tensor, after: Tensor
) -> None:
    """Expect zeros to count where the weight is the same before and after, too."""
    _, weight = _with_zeros(*_with_zeros(before, after, 0), 1)
    for norm_dim in (1, 0):
        found = call_function(function, weight, weight, norm_dim=norm_dim)
        expected = (weight == 0).all(norm_dim).double().mean().item()
        what = f"direction_change(w, w, norm_dim={norm_dim}), where w has vectors of zeros"
        report.expect(
            isinstance(found, float) and abs(found - expected) < 1e-3,
            "zeros of a weight that stays as it was",
            f"{what}: expected {expected:.4g}, found {shown(found)}.",
            EQUAL if found == 0 else None,
        )


def _compared(
    label: str,
    found: float,
    expected: float,
    wrong: Callable[[], Sequence[tuple[Tensor | None, Mistake]]],
) -> Comparison:
    pair = (torch.tensor(float(value), dtype=torch.float64) for value in (found, expected))
    few_digits = math.isfinite(found) and any(found == round(found, n) for n in range(4))
    nothing = torch.tensor(-math.inf)  # explains no number

    def predict() -> Iterator[tuple[Tensor | None, Mistake]]:
        for value, mistake in wrong():
            is_possible = few_digits or mistake not in (ROUNDED_M, ROUNDED_D, ROUNDED_C)
            yield value if is_possible else nothing, mistake

    return Comparison(label, *pair, predict)


def _expect_unchanged(report: Report, unchanged: bool, section: str) -> None:
    report.expect(
        unchanged,
        "the arguments stay as they were",
        "what was passed in has other values after the call.",
        _in_place(section),
    )


def _in_place(section: str) -> Mistake:
    return Mistake(
        "in-place change of the argument",
        "Operators such as -=, and methods that end in _, write into the caller's values.",
        section,
    )


def _is_float(report: Report, found: object, prop: str, section: str) -> bool:
    """Expect a plain number, which NumPy's float64 is too, and no tensor."""
    return isinstance(found, float) or report.expect(
        False,
        "the result is a float",
        f"{prop}: expected a float, found {shown(found)} of type {type(found).__name__}.",
        returned_kind(found, "a float", section),
    )
