"""Figures over the learning rate, all in the same style.

A line through the means has a point for each rate, and a bar from the lowest seed to the highest.
An outline marks the rate that is chosen; a triangle at the upper edge stands for a mean above it,
hollow where the line is dashed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from lab_utils.adapters import COLOURS, MARKERS, NAMES
from lab_utils.comparison import PairedDifference
from lab_utils.plots.rslora import RULE_LINES, RULES
from lab_utils.plots.style import STYLE, beyond_mark, layered_width, rate_axis


@dataclass(frozen=True)
class _Curve:
    method: str
    label: str
    by_rate: dict[float, list[float]]  # of each seed
    line: str = "-"


def loss_by_rate(curves: dict[str, dict[float, list[float]]], highest: float) -> Figure:
    """Draw the validation loss of each method over the learning rate.

    Args:
        curves: by method, then by learning rate, the loss of each seed.
        highest: where the axis ends.
    """
    found = [_Curve(method, NAMES[method], by_rate) for method, by_rate in curves.items()]
    return _losses(found, highest)


def loss_by_rate_and_rule(
    curves: dict[tuple[str, bool], dict[float, list[float]]], highest: float
) -> Figure:
    """Draw the validation loss of each method and scaling over the learning rate.

    Args:
        curves: by method and `rank_stabilized`, then by rate, the loss of each seed.
        highest: where the axis ends.
    """
    found = [
        _Curve(method, f"{NAMES[method]}, {RULES[stable]}", by_rate, RULE_LINES[stable])
        for (method, stable), by_rate in curves.items()
    ]
    return _losses(found, highest)


def _losses(curves: list[_Curve], highest: float) -> Figure:
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8.5, 4.2))
        _draw(ax, curves, min, highest)
        ax.set(ylim=(None, highest), xlabel="learning rate at the first step")
        rate_axis(ax, sorted(set().union(*(curve.by_rate for curve in curves))))
        ax.set_ylabel("validation loss (nats per byte)")
        _legend(ax, "lowest mean: chosen", above=True)
    return figure


def validation_by_rate(accuracies: dict[int, dict[str, dict[float, list[float]]]]) -> Figure:
    """Draw the validation accuracy over the learning rate, a panel for each rank.

    Args:
        accuracies: shares of right answers by rank, method and rate, those of every seed.
    """
    with plt.rc_context(STYLE):
        size = {"figsize": (9, 3.8), "sharey": True, "squeeze": False}
        figure, axes = plt.subplots(1, len(accuracies), **size)
        for ax, (rank, by_method) in zip(axes[0], accuracies.items(), strict=True):
            curves = [
                _Curve(method, NAMES[method], _in_per_cent(by_rate))
                for method, by_rate in by_method.items()
            ]
            _draw(ax, curves, max)
            ax.set(xlabel="learning rate", title=f"rank {rank}")
            rate_axis(ax, sorted(set().union(*by_method.values())))
        axes[0, 0].set_ylabel("validation accuracy (%)")
        _legend(axes[0, 0], "highest mean: chosen")
    return figure


def _in_per_cent(by_rate: dict[float, list[float]]) -> dict[float, list[float]]:
    return {rate: [100 * value for value in by_rate[rate]] for rate in sorted(by_rate)}


def _draw(ax: Axes, curves: Sequence[_Curve], best: Callable, highest: float = math.inf) -> None:
    above: dict[float, list[dict]] = {}
    for at, curve in enumerate(curves):
        means = {rate: fmean(values) for rate, values in curve.by_rate.items()}
        means = {rate: math.inf if math.isnan(mean) else mean for rate, mean in means.items()}
        style = {"color": COLOURS[curve.method], "marker": MARKERS[curve.method]}
        width = layered_width(at)
        ax.plot(means.keys(), means.values(), curve.line, label=curve.label, lw=width, **style)
        ends = ([end(values) for values in curve.by_rate.values()] for end in (min, max))
        ax.vlines(means.keys(), *ends, color=style["color"], alpha=0.5)
        chosen = best(means, key=means.get)
        outline = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.6}
        ax.plot(chosen, means[chosen], **style, **outline)
        for rate, mean in means.items():
            if mean > highest:
                face = style["color"] if curve.line == "-" else "white"
                look = {"color": style["color"], "markerfacecolor": face}
                above.setdefault(rate, []).append(look)
    for rate, looks in above.items():
        for at, look in enumerate(looks):  # side by side
            aside = (11 * (at - (len(looks) - 1) / 2) / 72, 0)
            moved = ax.transData + ScaledTranslation(*aside, ax.figure.dpi_scale_trans)
            beyond = {"markersize": 8, "clip_on": False, "transform": moved}
            ax.plot(rate, highest, "^", **look, **beyond)


def _legend(ax: Axes, chosen: str, above: bool = False) -> None:
    handles, names = ax.get_legend_handles_labels()
    outline = {"color": "0.3", "linestyle": "", "markerfacecolor": "none"}
    handles.append(Line2D([], [], marker="o", markersize=11, markeredgewidth=1.6, **outline))
    names.append(chosen)
    if above:
        handles.append(beyond_mark("mean"))
        names.append(handles[-1].get_label())
    ax.legend(handles, names, loc="best")


def accuracy_by_rate(
    accuracies: dict[int, dict[str, dict[float, dict[int, float]]]],
    differences: dict[int, dict[float, PairedDifference]],
) -> Figure:
    """Draw the test accuracy over the learning rate, and below it DoRA minus LoRA.

    Both panels compare the seeds that all methods were trained with. A run of another seed is a
    hollow point and has no part in a mean. An interval that reaches beyond five points ends in
    arrows, with its ends in figures.

    Args:
        accuracies: shares of right answers by rank, method, rate and seed.
        differences: by rank and rate, in shares.
    """
    with plt.rc_context(STYLE):
        size = {"figsize": (9, 5.6), "sharex": "col", "sharey": "row", "squeeze": False}
        figure, axes = plt.subplots(2, len(accuracies), height_ratios=[3, 2], **size)
        for (top, bottom), (rank, by_method) in zip(axes.T, accuracies.items(), strict=True):
            rates = sorted(set().union(*by_method.values()))
            paired = {
                rate: set.intersection(*(set(runs.get(rate, ())) for runs in by_method.values()))
                for rate in rates
            }
            for at, (method, by_rate) in enumerate(by_method.items()):
                colour, aside = COLOURS[method], 1.05 ** (2 * at - len(by_method) + 1)
                means = {
                    rate: 100 * fmean(by_rate[rate][seed] for seed in seeds)
                    for rate, seeds in paired.items()
                    if seeds
                }
                top.plot([aside * rate for rate in means], means.values(), color=colour)
                for rate, by_seed in by_rate.items():
                    for seed, accuracy in by_seed.items():
                        face = colour if seed in paired[rate] else "none"
                        shape = {"marker": MARKERS[method], "edgecolors": colour, "s": 18}
                        top.scatter(aside * rate, 100 * accuracy, facecolors=face, **shape)
            bottom.axhline(0, color="0.55", linewidth=1)
            for rate, d in differences[rank].items():
                _interval_in_points(bottom, rate, d, 5)
            top.set_title(f"rank {rank}")
            bottom.set(xlabel="learning rate", ylim=(-5, 5))
            rate_axis(bottom, rates)
        marks = [
            Line2D([], [], color=COLOURS[method], marker=MARKERS[method], label=NAMES[method])
            for method in dict.fromkeys(m for by_method in accuracies.values() for m in by_method)
        ]
        hollow = {"linestyle": "", "marker": "o", "color": "0.3", "markerfacecolor": "none"}
        marks.append(Line2D([], [], label="seed of one method only", **hollow))
        axes[0, 0].legend(handles=marks, loc="lower left")
        axes[0, 0].set_ylabel("test accuracy (%)\nof the seeds of both")
        axes[1, 0].set_ylabel("DoRA − LoRA\n(points)")
    return figure


def _interval_in_points(ax: Axes, rate: float, d: PairedDifference, furthest: float) -> None:
    mean, low, high = (100 * value for value in (d.mean, d.low, d.high))
    colour = COLOURS[d.other]
    ends = [[mean - low], [high - mean]]
    ax.errorbar(rate, mean, ends, capsize=4, color=colour, marker=MARKERS[d.other])
    for end, marker, edge in ((-low, "v", -furthest), (high, "^", furthest)):
        if end > furthest:
            ax.plot(rate, edge, marker, color=colour, clip_on=False, markersize=8)
    if max(-low, high) > furthest:
        said = f"{low:+.1f} to {high:+.1f}".replace("-", "−")
        at = rate, max(-furthest, min(mean, furthest))
        ax.annotate(said, at, (-9, 0), textcoords="offset points", ha="right", va="center")
