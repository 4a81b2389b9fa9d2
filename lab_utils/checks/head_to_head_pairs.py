"""Checks of lesson 04: `paired_difference`."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import scipy  # scipy.stats is slow to import: it is imported on first use
import torch

from lab_utils.checks.diagnosis import (
    apart,
    describe,
    near,
    nothing_returned,
    number,
    only_explanation,
    other_kind,
    roundings,
)
from lab_utils.checks.head_to_head import REFERENCE
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import call_function, check

PAIRS = "6. Is it luck?"


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
    "one-sided interval", "5% outside are 2.5% on each side: t.ppf((1 + confidence) / 2)."
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
MISALIGNED = _pairs(
    "pairs broken up",
    "The lists have one order: the first of one belongs to the first of the other.",
)
ANOTHER_WIDTH = _pairs(
    "interval twice or half as wide", "The half-width is t * s / sqrt(n), on each side of the mean."
)
ONE_METHOD = _pairs("losses of one method", "Take the differences, DoRA minus LoRA.")
ONE_SEED = _pairs("the difference of one seed", "The estimate is the mean over the seeds.")
NULL_IF_UNDECIDED = _pairs(
    "zero where the interval contains it", "Return what was found, decided or not."
)
AROUND_ZERO = _pairs("interval around zero", "The interval lies around the mean difference.")
OTHER_QUANTILE = _pairs(
    "another quantile", "The quantile is stats.t.ppf((1 + confidence) / 2, n - 1)."
)
OTHER_SPREAD = _pairs(
    "another measure of the spread", "s is the standard deviation of the differences."
)
ONE_END = _pairs("one end twice", "The result is (mean, low, high): mean - half and mean + half.")
OTHER_WIDTH = _pairs(
    "another half-width",
    "The interval lies around the mean, but is not t * s / sqrt(n) wide on each side: look at each "
    "of the three.",
)
UNEQUAL_ENDS = _pairs(
    "ends at unequal distances", "Both ends are t * s / sqrt(n) away from the mean."
)
NARROW = _pairs("precision lost", "Compute with plain floats: float16 has three digits.")
PAIRS_ROUNDED = _pairs("rounded", "Return the numbers themselves; round what you print.")


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
    ratios, logs = difference / a, (b / a).log()
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
        (RELATIVE, around(100 * ratios_half, 100 * ratios.mean().item())),
        (SORTED, around(t * (b.sort().values - a.sort().values).std().item() / math.sqrt(n))),
        (MISALIGNED, around(t * (b - a.flip(0)).std().item() / math.sqrt(n))),
        (MISALIGNED, around(t * (b - a.roll(1)).std().item() / math.sqrt(n))),
        (ANOTHER_WIDTH, around(t * error / 2)),
        (ANOTHER_WIDTH, around(2 * t * error)),
        *((ONE_METHOD, around(t * x.std().item() / math.sqrt(n), x.mean().item())) for x in (a, b)),
        *(
            (ONE_SEED, triple)
            for one in (difference.min(), difference.max(), difference[0], difference[-1])
            for triple in (around(t * error, one.item()), [one.item(), right[1], right[2]])
        ),
        (
            RELATIVE,
            around(t * logs.std().item() / math.sqrt(n), logs.mean().item()),
        ),
        *((LEFT_OUT, _of_some(case, part)) for part in (slice(1, None), slice(-1))),
        *((NARROW, torch.tensor(right).to(d).tolist()) for d in (torch.float16, torch.bfloat16)),
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
        *((ONE_END, [mean, end, end]) for end in right[1:]),
        (ENDS_SWAPPED, [mean, right[2], right[1]]),
        (IN_ORDER, [right[1], mean, right[2]]),
        (IN_ORDER, [right[1], right[2], mean]),
        (RANGE, [mean, difference.min().item(), difference.max().item()]),
        (PERCENTILES, [mean, low, high]),
    ]


def _of_some(case: Pairs, part: slice) -> list[float]:
    """Return mean, low and high of a part of the seeds; NaN if only one is left."""
    lora, dora = case.lora[part], case.dora[part]
    if len(lora) > 1:
        return interval(lora, dora, case.level)
    return [dora[0] - lora[0] if lora else math.nan, math.nan, math.nan]


def _of_some_seeds(
    cases: list[Pairs], expected: list[list[float]], found: list[list[float]]
) -> Mistake | None:
    """Return whether the numbers are those of the first few seeds, the last, or every second."""
    few = range(2, max(len(case.lora) for case in cases))
    parts = [slice(k) for k in few] + [slice(-k, None) for k in few] + [slice(k, None) for k in few]
    for part in [*parts, slice(0, None, 2), slice(1, None, 2)]:
        triples = [_of_some(case, part) for case in cases]
        if _same_triples(found, triples) and not _same_triples(triples, expected):
            return LEFT_OUT
    return None


def _half_widths(case: Pairs) -> dict[tuple[Mistake, ...], list[float]]:
    """Return the half-widths of any wrong quantile, spread and root, by their mistakes.

    Only of two mistakes or three at once: what one makes is known.
    """
    a, b = (torch.tensor(losses, dtype=torch.float64) for losses in (case.lora, case.dora))
    d, n, level = b - a, len(case.lora), case.level
    t, z = scipy.stats.t.ppf, scipy.stats.norm.ppf
    quantiles = [
        ((), t((1 + level) / 2, n - 1)),
        *(((NORMAL,), q) for q in (z((1 + level) / 2), z(0.975), 1.96, 2.0)),
        ((ONE_SIDED,), t(level, n - 1)),
        ((NORMAL, ONE_SIDED), z(level)),
        *(((DEGREES,), t((1 + level) / 2, max(df, 1))) for df in (n, n - 2, 2 * n - 2)),
        ((ONE_SIDED, DEGREES), t(level, n)),
        ((FIXED_CONFIDENCE,), t(0.975, n - 1)),
        ((OUTSIDE_TAKEN,), t(1 - level / 2, n - 1)),
        ((OUTSIDE_TAKEN,), t(1 - level, n - 1)),
        ((NO_QUANTILE,), 1.0),
        *(
            ((OTHER_QUANTILE,), q)
            for q in (
                t(1 - (1 - level) / 4, n - 1),
                level,
                scipy.stats.t.cdf((1 + level) / 2, n - 1),
                scipy.stats.t.pdf((1 + level) / 2, n - 1),
                scipy.stats.t.cdf(level, n - 1),
            )
        ),
    ]
    off = (d - d.mean()).abs()
    spreads = [
        ((), d.std().item()),
        ((POPULATION,), d.std(correction=0).item()),
        ((VARIANCE,), d.var().item()),
        ((VARIANCE, POPULATION), d.var(correction=0).item()),
        ((UNPAIRED,), math.sqrt((a.var() + b.var()).item())),
        ((UNPAIRED,), math.sqrt((a.var() + b.var()).item() / 2)),
        ((UNPAIRED,), (a.std() - b.std()).abs().item()),
        ((UNPAIRED,), (b[:, None] - a).std().item()),
        ((UNPAIRED,), (b[:, None] - a).std(correction=0).item()),
        *(((UNPAIRED, POPULATION), x.std(correction=0).item()) for x in (a, b)),
        *(((UNPAIRED,), x.std().item()) for x in (a, b)),
        *(((OTHER_SPREAD,), x) for x in (off.mean().item(), off.median().item())),
        ((OTHER_SPREAD,), (d.max() - d.min()).item()),
        ((OTHER_SPREAD,), ((d.max() - d.min()) / 2).item()),
        ((OTHER_SPREAD,), d.norm().item()),
        ((OTHER_SPREAD,), d.square().mean().sqrt().item()),
    ]
    roots = [((), math.sqrt(n)), ((NOT_OF_THE_MEAN,), 1.0), ((DIVIDED_BY_N,), float(n))]
    roots.append(((ROOT_OF_LESS,), math.sqrt(n - 1)))
    made: dict[tuple[Mistake, ...], list[float]] = {}
    for (of_q, q), (of_s, s), (of_r, r) in itertools.product(quantiles, spreads, roots):
        made.setdefault((*of_q, *of_s, *of_r), []).append(float(q * s / r))
    return made


def _of_the_width(
    cases: list[Pairs], expected: list[list[float]], found: list[list[float]]
) -> Mistake | None:
    """Return what is wrong with intervals around the right means, if it is the half-width."""
    ends = [(mean - low, high - mean) for mean, low, high in found]
    if not _same_triples([mean for mean, *_ in found], [mean for mean, *_ in expected]):
        return None
    if not all(map(math.isfinite, itertools.chain(*ends))):
        return None
    if not all(_same_triples(below, above) for below, above in ends):
        apart_ = [
            not _same_triples(below, above) for below, above in ends[:-1]
        ]  # the last: 2 seeds
        return UNEQUAL_ENDS if all(apart_) else None
    halves = [below for below, _ in ends]
    tables = [_half_widths(case) for case in cases]
    fitting = [
        mistakes
        for mistakes, first in tables[0].items()
        if any(
            _same_triples(halves, [table[mistakes][i] for table in tables])
            for i in range(len(first))
        )
    ]
    common = [m for m in fitting[0] if all(m in others for others in fitting)] if fitting else []
    return common[0] if common else OTHER_WIDTH


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
    mistake = mistake or _of_some_seeds(cases, expected, found)
    if mistake is None:  # two faults, perhaps: one of the mean, one of the interval
        part = slice(0, 1) if name == "mean" else slice(1, 3)
        parts = [(m, [triple[part] for triple in triples]) for m, triples in predicted]
        mistake = only_explanation([triple[part] for triple in found], parts, _same_triples)
    if mistake is None and name == "interval":
        mistake = _of_the_width(cases, expected, found)
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
    """Check differences without spread. SciPy's interval is NaN there, which is accepted."""
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
        else other_kind(odd, "a number", PAIRS)
        if triple
        else other_kind(found, "a number", PAIRS)
        if isinstance(found, str)
        else nothing_returned(found, PAIRS) or NO_TRIPLE,
    )
