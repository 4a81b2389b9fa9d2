"""Figures of runs: losses over training, seeds and ranks."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import scipy  # scipy.stats is slow to import: it is imported on first use
import torch
from matplotlib.figure import Figure

from lab_utils.adapters import COLOURS, MARKERS, NAMES
from lab_utils.comparison import PairedDifference
from lab_utils.plots.style import STYLE, beyond_mark, label_bars, layered_width, rank_axis


def loss_curves(records: dict[str, list[dict]]) -> Figure:
    """Draw the losses of each method over the training: means over seeds.

    A band goes from the lowest validation loss to the highest. Training losses have none: much of
    their spread is that of the batches, which all methods share.

    Args:
        records: by method, a run for each seed (see `lab_utils.comparison.as_record`).
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        for at, (method, runs) in enumerate(records.items()):
            style = {"color": COLOURS[method], "label": NAMES[method], "lw": layered_width(at)}
            losses = torch.tensor([run["step_losses"] for run in runs]).mean(dim=0)
            share = (torch.arange(len(losses)) + 0.5) / len(losses)
            left.plot(runs[0]["n_epochs"] * share, losses, **style)
            validation = torch.tensor([run["validation_losses"] for run in runs])
            epochs = torch.arange(validation.shape[1])
            right.plot(epochs, validation.mean(dim=0), marker=MARKERS[method], **style)
            ends = validation.amin(dim=0), validation.amax(dim=0)
            right.fill_between(epochs, *ends, color=COLOURS[method], alpha=0.25, linewidth=0)
            right.set_xticks(epochs)
        left.set(title="training", ylabel="loss (nats per byte)")
        right.set(title="validation")
        for ax in (left, right):
            ax.set_xlabel("epoch")
        right.legend()
    return figure


def live_losses(losses: dict[str, list[float]], steps: int) -> Figure:
    """Draw the training losses so far: each step as a point, and a mean over ten steps as a line.

    Args:
        losses: by method, of each step.
        steps: of the whole training, where the axis ends from the start on.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 3.4))
        for place, (method, found) in enumerate(losses.items()):
            at = torch.arange(1, len(found) + 1)
            points = {"marker": MARKERS[method], "markersize": 4, "alpha": 0.25}
            ax.plot(at, found, color=COLOURS[method], linestyle="", **points)
            smooth = torch.tensor(found).unfold(0, 10, 1).mean(dim=1) if len(found) >= 10 else []
            style = {"color": COLOURS[method], "label": NAMES[method]}
            ax.plot(at[9:], smooth, linewidth=layered_width(place), **style)
        ax.set(xlabel="step", ylabel="training loss (nats per byte)")
        ax.set(xlim=(0, 1.01 * steps), ylim=(1.5, 3.1))
        if losses:
            ax.legend(loc="upper right")
    return figure


def final_losses(losses: dict[str, list[float]], differences: list[PairedDifference]) -> Figure:
    """Draw the final loss of every seed, and the paired differences with their intervals.

    Args:
        losses: by method, the loss of each seed, the seeds in the same order.
        differences: what to compare.
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=[1.1, 1])
        names = [NAMES[method] for method in losses]
        by_seed = zip(*losses.values(), strict=True)
        for one_seed in by_seed:
            left.plot(one_seed, range(len(names)), color="0.55", linewidth=0.8, zorder=0)
        for at, (method, values) in enumerate(losses.items()):
            style = {"marker": MARKERS[method], "alpha": 0.8}
            left.scatter(values, [at] * len(values), 40, COLOURS[method], **style)
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        left.locator_params(axis="x", nbins=5)
        left.set(xlabel="test loss (nats per byte)", title="each seed (a grey line is one seed)")
        labels = []
        for at, d in enumerate(differences):
            ends = [[d.mean - d.low], [d.high - d.mean]]
            style = {"color": COLOURS[d.other], "fmt": MARKERS[d.other], "markersize": 7}
            right.errorbar(d.mean, at, xerr=ends, capsize=5, **style)
            labels.append(f"{NAMES[d.other]}\n− {NAMES[d.baseline]}")
        right.axvline(0, color="0.4", linewidth=1)
        right.set_yticks(range(len(labels)), labels)
        right.locator_params(axis="x", nbins=5)
        right.set_ylim(len(labels) - 0.5, -0.5)
        right.set(
            xlabel="difference of test losses",
            title=f"paired, {differences[0].confidence:.0%} interval",
        )
    return figure


def narrowing_interval(baseline: Sequence[float], other: Sequence[float], seeds: int) -> Figure:
    """Draw the interval of a difference for the first seeds: paired, and as if unpaired.

    Args:
        baseline, other: the loss of each seed, in the same order.
        seeds: how many of them to use, 2 or more.
    """
    a, b = torch.tensor(baseline[:seeds]), torch.tensor(other[:seeds])
    paired = scipy.stats.ttest_rel(b, a).confidence_interval(0.95)
    unpaired = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 2.4))
        furthest = 0.045
        names = []
        for at, (name, (low, high)) in enumerate((("paired", paired), ("unpaired", unpaired))):
            style = {"color": COLOURS["dora"], "linewidth": 3, "solid_capstyle": "butt"}
            ax.plot([low, high], [at, at], **style)
            names.append(f"{name}\n{low:+.4f} to {high:+.4f}".replace("-", "−"))
            for end, marker, edge in ((-low, "<", -furthest), (high, ">", furthest)):
                if end > furthest:
                    ax.plot(edge, at, marker, color=COLOURS["dora"], clip_on=False, markersize=9)
        ax.plot((b - a).numpy(), [0] * seeds, "o", color="0.3", markersize=5, zorder=3)
        ax.axvline(0, color="0.4", linewidth=1)
        ax.set_yticks([0, 1], names)
        ax.set(ylim=(1.5, -0.5), xlim=(-furthest, furthest))
        ax.set_xlabel("DoRA − LoRA, test loss (nats per byte)")
        ax.set_title(f"{seeds} seeds: 95% interval, and each seed's difference")
    return figure


def loss_by_rank(
    losses: dict[str, dict[int, list[float]]],
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw the test loss of each method over the rank: means with 95% intervals over seeds.

    Args:
        losses: by method, then by rank, the loss of each seed.
        title: of the figure.
        limits: of the vertical axis, or None for what the losses need. A mean above it is drawn
            at its end, as a triangle.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 3.9))
        for method, by_rank in losses.items():
            means = [sum(values) / len(values) for values in by_rank.values()]
            half = [
                scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
                for values in by_rank.values()
            ]
            style = {"color": COLOURS[method], "marker": MARKERS[method], "label": NAMES[method]}
            ax.errorbar(list(by_rank), means, half, capsize=4, **style)
            beyond = {"color": COLOURS[method], "markersize": 8, "clip_on": False}
            for rank, mean in zip(by_rank, means, strict=True):
                if limits and mean > limits[1]:
                    ax.plot(rank, limits[1], "^", **beyond)
        rank_axis(ax, sorted(set().union(*losses.values())))
        ax.set(ylabel="test loss (nats per byte)", title=title, ylim=limits)
        handles, _ = ax.get_legend_handles_labels()
        above = any(line.get_marker() == "^" for line in ax.lines)
        ax.legend(handles=[*handles, *([beyond_mark("mean")] if above else [])])
    return figure


def differences_by_rank(
    differences: dict[str, dict[int, PairedDifference]], title: str = ""
) -> Figure:
    """Draw what each method's loss differs from the baseline's, over the rank, with intervals.

    Args:
        differences: by method, then by rank.
        title: of the figure.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 3.4))
        ax.axhline(0, color="0.4", linewidth=1)
        for i, (method, by_rank) in enumerate(differences.items()):
            ends = [[d.mean - d.low for d in by_rank.values()]]
            ends.append([d.high - d.mean for d in by_rank.values()])
            at = [rank * 1.04 ** (2 * i - len(differences) + 1) for rank in by_rank]
            style = {"color": COLOURS[method], "fmt": MARKERS[method], "label": NAMES[method]}
            ax.errorbar(at, [d.mean for d in by_rank.values()], ends, capsize=4, **style)
        first = next(iter(next(iter(differences.values())).values()))
        rank_axis(ax, sorted(set().union(*differences.values())))
        ax.set(ylabel=f"test loss minus that of {NAMES[first.baseline]}", title=title)
        ax.legend()
    return figure


def differences(panels: dict[str, dict[str, PairedDifference]]) -> Figure:
    """Draw differences with their intervals, a panel for each loss and a line for each pair.

    Colours and markers are those of the methods, which the names of the pairs say.

    Args:
        panels: by the name of a loss, then by that of a pair; the same pairs in each.
    """
    with plt.rc_context(STYLE):
        names = list(next(iter(panels.values())))
        size = {"figsize": (10, 1.2 + 0.42 * len(names)), "sharey": True}
        figure, axes = plt.subplots(1, len(panels), **size)
        for ax, (title, found) in zip(axes, panels.items(), strict=True):
            ax.axvline(0, color="0.4", linewidth=1)
            for at, d in enumerate(found.values()):
                ends = [[d.mean - d.low], [d.high - d.mean]]
                style = {"color": COLOURS[d.other], "fmt": MARKERS[d.other], "markersize": 7}
                ax.errorbar(d.mean, at, xerr=ends, capsize=4, **style)
            ax.set(title=title, xlabel=f"minus that of {NAMES[d.baseline]} (nats per byte)")
            ax.locator_params(axis="x", nbins=5)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def improvement_by_rank(losses: dict[str, dict[int, float]]) -> Figure:
    """Draw by how many per cent DoRA's loss is below LoRA's, over the rank.

    Args:
        losses: by method, `"lora"` and `"dora"`, then by rank.
    """
    lora, dora = losses["lora"], losses["dora"]
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(6, 3.2))
        names = [str(rank) for rank in lora]
        gains = [100 * (1 - dora[rank] / lora[rank]) for rank in lora]
        bars = ax.bar(names, gains, 0.6, color=COLOURS["dora"])
        label_bars(ax, bars, [f"{gain:+.1f}" for gain in gains])
        ax.axhline(0, color="0.4", linewidth=1)
        ax.margins(y=0.2)
        ax.set(xlabel="rank", ylabel="DoRA below LoRA (%)")
    return figure


def parameters(counts: dict[int, dict[str, int]], title: str) -> Figure:
    """Draw how many numbers each method trains, and above DoRA's bars what it adds to LoRA's.

    Args:
        counts: by rank, then by method, `"lora"` and `"dora"`.
        title: which layer it is.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 3.2))
        for i, method in enumerate(("lora", "dora")):
            at = [k + 0.4 * i - 0.2 for k in range(len(counts))]
            values = [by_method[method] / 1000 for by_method in counts.values()]
            bars = ax.bar(at, values, 0.38, color=COLOURS[method], label=NAMES[method])
        added = [f"{c['dora'] / c['lora'] - 1:+.1%}" for c in counts.values()]
        label_bars(ax, bars, added)
        ax.set_xticks(range(len(counts)), list(counts))
        ax.margins(y=0.15)
        ax.set(xlabel="rank", ylabel="trained (thousands)", title=title)
        ax.legend()
    return figure


def published_by_rank(accuracies: dict[str, dict[int, float]]) -> Figure:
    """Draw published accuracies over the rank, as they stand.

    Args:
        accuracies: by method, then by rank, the average accuracy in per cent.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 3.5))
        for method, by_rank in accuracies.items():
            style = {"color": COLOURS[method], "marker": MARKERS[method], "label": NAMES[method]}
            ax.plot(by_rank.keys(), by_rank.values(), **style)
        rank_axis(ax, sorted(set().union(*accuracies.values())))
        ax.set(ylabel="average accuracy (%)", title="the paper's table 15 (LLaMA-7B, 8 tasks)")
        ax.legend()
    return figure
