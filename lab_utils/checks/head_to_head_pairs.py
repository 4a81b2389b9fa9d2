"""Checks of lesson 04: `paired_difference`."""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import scipy  # scipy.stats is slow to import: it is imported on first use
import torch

from lab_utils.checks.diagnosis import (
    expect_kept,
    nothing_returned,
    only_explanation,
    other_kind,
    roundings,
)
from lab_utils.checks.head_to_head import REFERENCE
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import call, check
from lab_utils.checks.values import apart, describe, near, number

PAIRS = "6. Is it luck?"


def _pairs(name: str, why: str) -> Mistake:
    return Mistake(name, why, PAIRS)


REVERSED = _pairs("difference reversed", "Take DoRA minus LoRA: below zero, DoRA is lower.")
ABSOLUTE = _pairs(
    "absolute differences", "The sign says which method is lower: leave abs() out of it."
)
MEDIAN = _pairs("median", "The estimate is the mean of the differences.")
SUMMED = _pairs("sum instead of mean", "Divide the sum of the differences by their number.")
RELATIVE = _pairs("relative difference", "Return the difference itself, in nats: do not divide it.")
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
    "The smallest and largest difference describe single seeds; the interval is that of the mean.",
)
PERCENTILES = _pairs(
    "percentiles of the differences",
    "They describe single seeds; the interval is that of the mean: mean ± t * s / sqrt(n).",
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
    "Both lists are in the same order: the first of one belongs to the first of the other.",
)
ANOTHER_WIDTH = _pairs(
    "interval twice or half as wide", "The half-width is t * s / sqrt(n), on each side of the mean."
)
ONE_METHOD = _pairs("losses of one method", "Take the differences, DoRA minus LoRA.")
BEST_SEEDS = _pairs(
    "the best of each method", "Compare seed by seed: which run is the best is luck as well."
)
WINS = _pairs("share of seeds", "Return by how much the losses differ, not how often.")
STATISTIC = _pairs(
    "a difference divided by its spread", "Return the mean itself, in nats, not a test's statistic."
)
WEIGHTED = _pairs("weighted mean", "Every seed counts the same.")
END_AT_MEAN = _pairs(
    "the mean as an end", "The interval reaches to both sides: mean - half and mean + half."
)
ONE_SEED = _pairs("the difference of one seed", "The estimate is the mean over the seeds.")
NULL_IF_UNDECIDED = _pairs(
    "zero where the interval contains it",
    "Return what was found, even if the interval contains zero.",
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


@check(forbids=REFERENCE, seeded=True, needs=["scipy"])
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
            found, given, after = [], [], []
            for case in [*cases, equal]:
                named = {} if case.confidence is None else {"confidence": case.confidence}
                called = call(paired_difference, case.lora, case.dora, reference=REFERENCE, **named)
                if not _is_triple(report, called.result, expected[0]):
                    break
                found.append([number(value) for value in called.result])
                given.append([case.lora, case.dora])
                after.append(called.after[:2])
            else:
                _check_triples(report, name, cases, expected, found[:-1])
                _check_equal(report, name, equal, found[-1])
                if name == "interval":
                    expect_kept(report, given, after, PAIRS)


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


class _Estimate:
    """What is computed on the way from the losses of a case to its interval."""

    def __init__(self, case: Pairs) -> None:
        self.lora, self.dora = (
            torch.tensor(losses, dtype=torch.float64) for losses in (case.lora, case.dora)
        )
        self.difference = self.dora - self.lora
        self.n, self.level = len(case.lora), case.level
        self.root = math.sqrt(self.n)
        self.mean, self.spread = self.difference.mean().item(), self.difference.std().item()
        self.error = self.spread / self.root  # of the mean
        self.t = scipy.stats.t.ppf((1 + self.level) / 2, self.n - 1)
        self.low, self.high = self.mean - self.t * self.error, self.mean + self.t * self.error

    def around(self, half: float, centre: float | None = None) -> list[float]:
        """Return the interval of a half-width, around the mean unless another centre is given."""
        centre = self.mean if centre is None else centre
        return [centre, centre - half, centre + half]

    def of(self, values: torch.Tensor, factor: float = 1.0) -> list[float]:
        """Return mean and interval of other values than the differences, times a factor."""
        half = self.t * values.std().item() / self.root
        return self.around(factor * half, factor * values.mean().item())

    def with_mean(self, mean: float) -> list[list[float]]:
        """Return another mean with an interval around it, and with the right one."""
        return [self.around(self.t * self.error, mean), [mean, self.low, self.high]]


def wrong_triples(case: Pairs) -> list[tuple[Mistake, list[float]]]:
    """Return what each known mistake makes of a case; the same number for all cases."""
    estimate = _Estimate(case)
    return [
        *_of_another_difference(estimate),
        *((LEFT_OUT, _of_some(case, part)) for part in (slice(1, None), slice(-1))),
        *_of_another_width(estimate),
        *_in_another_form(estimate),
    ]


def _of_another_difference(e: _Estimate) -> list[tuple[Mistake, list[float]]]:
    """Return mean and interval of what is not the difference of each seed."""
    a, b, d = e.lora, e.dora, e.difference
    ratios, logs = d / a, (b / a).log()
    relative = [value / a.mean().item() for value in (e.mean, e.low, e.high)]
    ordered, half = d.sort().values, e.n // 2
    rising = torch.arange(1.0, e.n + 1, dtype=torch.float64)
    weighted = [((w * d).sum() / w.sum()).item() for w in (rising, rising.flip(0))]
    median = ordered[half] if e.n % 2 else ordered[[half - 1, half]].mean()
    return [
        (REVERSED, [-e.mean, -e.high, -e.low]),
        (REVERSED, [-e.mean, e.low, e.high]),
        (ABSOLUTE, e.of(d.abs())),
        (ABSOLUTE, e.around(e.t * e.error, abs(e.mean))),
        *((MEDIAN, triple) for triple in e.with_mean(median.item())),
        *((MEDIAN, triple) for triple in e.with_mean((b.median() - a.median()).item())),
        *((SUMMED, triple) for triple in e.with_mean(e.mean * e.n)),
        *((BEST_SEEDS, triple) for triple in e.with_mean((b.min() - a.min()).item())),
        *((BEST_SEEDS, triple) for triple in e.with_mean((b.max() - a.max()).item())),
        *((WINS, e.around(0.0, won.double().mean().item())) for won in (d < 0, d > 0)),
        *((STATISTIC, e.around(0.0, e.mean / by)) for by in (e.spread, e.error)),
        *((WEIGHTED, e.around(0.0, mean)) for mean in weighted),
        (RELATIVE, relative),
        (RELATIVE, [relative[0], e.low, e.high]),
        (RELATIVE, [100 * value for value in relative]),
        (RELATIVE, e.of(ratios)),
        (RELATIVE, e.of(1 + ratios)),
        (RELATIVE, e.of(ratios, factor=100)),
        (RELATIVE, e.of(logs)),
        (SORTED, e.of(b.sort().values - a.sort().values)),
        (MISALIGNED, e.of(b - a.flip(0))),
        (MISALIGNED, e.of(b - a.roll(1))),
        *((ONE_METHOD, e.of(losses)) for losses in (a, b)),
        *(
            (ONE_SEED, triple)
            for one in (d.min(), d.max(), d[0], d[-1])
            for triple in e.with_mean(one.item())
        ),
    ]


def _of_another_width(e: _Estimate) -> list[tuple[Mistake, list[float]]]:
    """Return intervals around the right mean whose quantile, spread or root is another one."""
    n, level, t, z = e.n, e.level, scipy.stats.t.ppf, scipy.stats.norm.ppf
    unpaired = math.sqrt((e.lora.var() + e.dora.var()).item() / n)  # the error of the mean
    two_sided = (1 + level) / 2
    quantiles = [
        *((NORMAL, quantile) for quantile in (z(two_sided), z(0.975), 1.96, 2.0)),
        (CONFIDENCE_PER_CENT, t((1 + level / 100) / 2, n - 1)),
        (NO_QUANTILE, 1.0),
        (ONE_SIDED, t(level, n - 1)),
        (OUTSIDE_TAKEN, t(1 - level, n - 1)),
        *((OUTSIDE_TAKEN, sign * t(1 - level / 2, n - 1)) for sign in (1, -1)),
        (OUTSIDE_TAKEN, t(level / 2, n - 1)),
        *((DEGREES, t(two_sided, degrees)) for degrees in (n, max(n - 2, 1), 2 * n - 2, 4)),
        (FIXED_CONFIDENCE, t(0.975, n - 1)),
    ]
    errors = [
        (POPULATION, e.difference.std(correction=0).item() / e.root),
        (NOT_OF_THE_MEAN, e.spread),
        (DIVIDED_BY_N, e.spread / n),
        *((VARIANCE, e.spread**2 / divisor) for divisor in (e.root, n)),
        (ROOT_OF_LESS, e.spread / math.sqrt(n - 1)),
        *((UNPAIRED, error) for error in (unpaired, unpaired / math.sqrt(2))),
        *((UNPAIRED, losses.std().item() / e.root) for losses in (e.lora, e.dora)),
        (UNPAIRED, (e.lora.std() + e.dora.std()).item() / e.root),
        (NOT_OF_THE_MEAN, e.spread * math.sqrt(1 + 1 / n)),
    ]
    every = (e.dora[:, None] - e.lora).flatten()
    tests = [scipy.stats.ttest_ind(e.dora, e.lora, equal_var=equal) for equal in (False, True)]
    intervals = [test.confidence_interval(level) for test in tests]
    return [
        *((ANOTHER_WIDTH, e.around(factor * e.t * e.error)) for factor in (0.5, 2)),
        *((mistake, e.around(quantile * e.error)) for mistake, quantile in quantiles),
        (NO_QUANTILE, e.around(e.spread)),
        *((mistake, e.around(e.t * error)) for mistake, error in errors),
        (UNPAIRED, e.around(z(two_sided) * unpaired)),
        (UNPAIRED, e.around(t(two_sided, n * n - 1) * every.std().item() / n)),
        *((UNPAIRED, [e.mean, found.low, found.high]) for found in intervals),
    ]


def _in_another_form(e: _Estimate) -> list[tuple[Mistake, list[float]]]:
    """Return the right numbers in another order or precision, or others in place of ends."""
    right, half = [e.mean, e.low, e.high], e.t * e.error
    null_if_undecided = 0.0 if e.low < 0 < e.high else e.mean
    tails = torch.tensor([(1 - e.level) / 2, (1 + e.level) / 2], dtype=torch.float64)
    return [
        *((NARROW, torch.tensor(right).to(d).tolist()) for d in (torch.float16, torch.bfloat16)),
        *((NULL_IF_UNDECIDED, triple) for triple in e.with_mean(null_if_undecided)),
        (HALF_ONLY, [e.mean, half, half]),
        (AROUND_ZERO, [e.mean, -half, half]),
        *((ONE_END, [e.mean, end, end]) for end in (e.low, e.high)),
        *((END_AT_MEAN, ends) for ends in ([e.mean, e.mean, e.high], [e.mean, e.low, e.mean])),
        (ENDS_SWAPPED, [e.mean, e.high, e.low]),
        (IN_ORDER, [e.low, e.mean, e.high]),
        (IN_ORDER, [e.low, e.high, e.mean]),
        (RANGE, [e.mean, e.difference.min().item(), e.difference.max().item()]),
        (PERCENTILES, [e.mean, *e.difference.quantile(tails).tolist()]),
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
        return ONE_SIDED if all(max(pair) == math.inf for pair in ends) else None
    if not all(_same_triples(below, above) for below, above in ends):
        # not the last case: its two seeds, for one, lie at equal distances from their mean
        unequal = [not _same_triples(below, above) for below, above in ends[:-1]]
        return UNEQUAL_ENDS if all(unequal) else None
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
    why = functools.partial(_why_other_triples, name, cases, expected, found)
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
                why,
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
            why,
        )


def _why_other_triples(
    name: str, cases: list[Pairs], expected: list[list[float]], found: list[list[float]]
) -> Mistake | None:
    """Return the mistake that explains the triples of all cases."""
    of_cases = [wrong_triples(case) for case in cases]
    predicted = [
        (of_one[0][0], [triple for _, triple in of_one]) for of_one in zip(*of_cases, strict=True)
    ]
    mistake = (
        only_explanation(found, predicted, _same_triples)
        or (_fixed_quantile(cases, found) if name == "interval" else None)
        or _of_some_seeds(cases, expected, found)
    )
    if mistake is None:  # two faults, perhaps: one of the mean, one of the interval
        for part in (slice(0, 1),) if name == "mean" else (slice(1, 3), slice(0, 1)):
            # which of the three comes first is seen in all three
            parts = [
                (m, [t[part] for t in triples]) for m, triples in predicted if m is not IN_ORDER
            ]
            mistake = mistake or only_explanation(
                [triple[part] for triple in found], parts, _same_triples
            )
    if mistake is None and name == "interval":
        mistake = _of_the_width(cases, expected, found)
    return mistake


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
    odd = [value for value in found if number(value) is None] if triple else []
    if not triple:
        mistake = _why_no_triple(found, expected[0])
    else:
        mistake = other_kind(odd[0], "a number", PAIRS) if odd else None
    return report.expect(
        triple and not odd,
        "it returns three floats",
        "expected (mean, low, high) as three floats, found "
        + (f"{describe(odd[0])} among them." if odd else f"{describe(found)}."),
        mistake,
    )


def _why_no_triple(found: Any, mean: float) -> Mistake | None:
    if number(found) is not None and near(number(found), mean):
        return MEAN_ALONE
    if isinstance(found, str):
        return other_kind(found, "a number", PAIRS)
    return nothing_returned(found, PAIRS) or NO_TRIPLE
