"""Checks of lesson 03: `magnitude_change`, `direction_change` and `coupling`."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lab_utils import decomposition
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import REFERENCE_MATHEMATICS, call_function, check

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
        before, after = weights(**sizes)
        norm_dim = 1 if name == "rows" else 0
        a, b = (w.double().norm(dim=norm_dim) for w in (before, after))
        across = [w.double().norm(dim=1 - norm_dim) for w in (before, after)]
        moved = (after - before).double()
        mistakes = [
            ((b - a).mean(), SIGNED),
            ((b - a).mean().abs(), SIGNED),
            (moved.norm(dim=norm_dim).mean(), NORM_OF_DIFFERENCE),
            ((b - a).abs().sum(), SUM_M),
            ((b - a).square().mean(), SQUARED),
            ((b - a).square().mean().sqrt(), SQUARED),
            (((b - a).abs() / a).mean(), RELATIVE),
            ((after.double().norm() - before.double().norm()).abs(), WHOLE_M),
            (moved.norm(), WHOLE_M),
            ((across[1] - across[0]).abs().mean(), AXIS_M),
        ]
        _check(magnitude_change, "magnitude_change", name, before, after, mistakes)


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_direction_change(direction_change: Callable, aspect: str | None = None, **sizes) -> None:
    """Check a `direction_change(before, after, norm_dim=1) -> float` (the paper's eq. 4).

    Args:
        aspect: `"rows"` (norm_dim=1), `"columns"` (norm_dim=0) or `"zeros"` (a row of length 0
            before and after, which counts as a right angle); all if None.
        sizes: arguments of `weights`.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("rows", "columns", "zeros")):
        before, after = weights(**sizes)
        if name == "zeros":
            before[1] = after[1] = 0.0
        norm_dim = 0 if name == "columns" else 1
        cosine = _cosine(before, after, norm_dim)
        dot = (before * after).double().sum(dim=norm_dim)
        flat = _cosine(before.view(1, -1), after.view(1, -1), 1)
        mistakes = [
            (torch.tensor(math.nan), ZERO_DIVISION),
            (cosine.mean(), COSINE),
            ((1 - dot).mean(), NOT_NORMALISED),
            (dot.mean(), NOT_NORMALISED),
            (cosine.arccos().mean(), ANGLE),
            (cosine.arccos().rad2deg().mean(), ANGLE),
            ((1 - cosine).sum(), SUM_D),
            ((1 - flat).mean(), WHOLE_D),
            ((1 - _cosine(before, after, 1 - norm_dim)).mean(), AXIS_D),
            ((1 - cosine.abs()).mean(), ABSOLUTE),
        ]
        _check(direction_change, "direction_change", name, before, after, mistakes)


@check(forbids=REFERENCE_MATHEMATICS, seeded=True)
def check_coupling(
    coupling: Callable, aspect: str | None = None, *, points: int = 12, seed: int = 0
) -> None:
    """Check a `coupling(delta_m, delta_d) -> float`: Pearson's correlation of two lists.

    Args:
        aspect: `"correlation"` (rising and falling points) or `"constant"` (one list does not
            vary, so that there is no correlation: NaN); both if None.
        points, seed: of the random lists.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, points, generator=generator, dtype=torch.float64)
    delta_d = 0.2 + 0.05 * noise[0]
    for name in chosen(aspect, ("correlation", "constant")):
        with Report(f"coupling · {name} · {points} points") as report:
            if name == "correlation":
                for sign, word in ((1, "rise"), (-1, "fall")):
                    delta_m = 1.0 + sign * 0.3 * noise[0] + 0.2 * noise[1]
                    found = call_function(coupling, delta_m.tolist(), delta_d.tolist())
                    _expect_float(
                        report,
                        found,
                        decomposition.coupling(delta_m.tolist(), delta_d.tolist()),
                        f"points that {word} together",
                        _wrong_correlations(delta_m, delta_d),
                    )
            else:
                found = call_function(coupling, [0.5] * points, delta_d.tolist())
                if not _is_float(report, found, "constant magnitudes"):
                    continue
                report.expect(
                    math.isnan(found),
                    "constant magnitudes have no correlation",
                    f"expected NaN where one of the two does not vary, found {found:.4g}.",
                )


def weights(
    out_features: int = 4,
    in_features: int = 7,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return a weight before and after a training that turned and stretched it, from one seed.

    Some lengths grow and some shrink, and one row is reversed.
    """
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(out_features, in_features, generator=generator)
    after = before + 0.4 * torch.randn(before.shape, generator=generator)
    after[0::2] *= 1.6
    after[1::2] *= 0.7
    after[-1] *= -1
    return before.to(dtype), after.to(dtype)


def _cosine(before: Tensor, after: Tensor, dim: int) -> Tensor:
    return torch.cosine_similarity(before.double(), after.double(), dim=dim)


def _wrong_correlations(delta_m: Tensor, delta_d: Tensor) -> list[tuple[Tensor, Mistake]]:
    """Return what each known mistake would make of the points, likeliest first."""
    n = len(delta_m)
    m, d = delta_m - delta_m.mean(), delta_d - delta_d.mean()
    right = (m * d).sum() / (m.norm() * d.norm())
    ranks = [values.argsort().argsort().double() for values in (m, d)]
    rank_m, rank_d = (values - values.mean() for values in ranks)
    return [
        ((m * d).mean(), COVARIANCE),
        ((m * d).sum() / (n - 1), COVARIANCE),
        ((m * d).sum(), COVARIANCE),
        ((delta_m * delta_d).sum() / (delta_m.norm() * delta_d.norm()), NOT_CENTRED),
        (right**2, DETERMINATION),
        (right.abs(), SIGN_LOST),
        ((m * d).sum() / d.square().sum(), SLOPE),
        ((m * d).sum() / m.square().sum(), SLOPE),
        ((rank_m * rank_d).sum() / (rank_m.norm() * rank_d.norm()), RANKS),
        (right * (n - 1) / n, MIXED),
        (right * n / (n - 1), MIXED),
    ]


def _check(
    function: Callable,
    name: str,
    aspect: str,
    before: Tensor,
    after: Tensor,
    mistakes: list[tuple[Tensor, Mistake]],
) -> None:
    """Call the student's function on a weight before and after, and compare with the lab's."""
    reference = getattr(decomposition, name)
    norm_dim = 0 if aspect == "columns" else 1
    with Report(f"{name} · {aspect} · weight {tuple(before.shape)}, {before.dtype}") as report:
        # 1 is the default, so rows are asked for in both ways
        for named in ({"norm_dim": norm_dim}, {})[: 1 + norm_dim]:
            found = call_function(function, before.clone(), after.clone(), **named)
            call = f"{name}(before, after{f', norm_dim={norm_dim}' if named else ''})"
            _expect_float(report, found, reference(before, after, norm_dim), call, mistakes)


def _expect_float(
    report: Report,
    found: object,
    expected: float,
    prop: str,
    mistakes: list[tuple[Tensor, Mistake]],
) -> None:
    if _is_float(report, found, prop):
        pair = (torch.tensor(float(value), dtype=torch.float64) for value in (found, expected))
        report.expect_close(*pair, prop, mistakes)


def _is_float(report: Report, found: object, prop: str) -> bool:
    """Expect a plain number, which NumPy's float64 is too, and no tensor."""
    return report.expect(
        isinstance(found, float),
        f"{prop}: a float",
        f"{prop}: expected a float, found {found!r} of type {type(found).__name__}; a tensor of "
        "one number becomes one by .item().",
    )
