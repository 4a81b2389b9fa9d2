"""Figures of lesson 06: published gains, and accuracies on commonsense tasks."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lab_utils.adapters import COLOURS, NAMES
from lab_utils.comparison import PairedDifference
from lab_utils.plots.style import STYLE, label_bars, rate_axis
from lab_utils.published import TASKS


def published_gains(dora: dict, lora: dict, left_out: str | None = None) -> Figure:
    """Draw what DoRA gains on each commonsense task, and on average, in published numbers.

    Args:
        dora, lora: rows of `lab_utils.published.commonsense_table`.
        left_out: a task that does not count in the average, or None.
    """
    gains = {task: dora[task] - lora[task] for task in TASKS}
    counted = [gain for task, gain in gains.items() if task != left_out]
    mean = sum(counted) / len(counted)
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(9, 3.6))
        colours = ["0.8" if task == left_out else COLOURS["dora"] for task in TASKS]
        bars = ax.bar(TASKS, gains.values(), color=colours)
        label_bars(ax, bars, [f"{gain:+.1f}" for gain in gains.values()])
        ax.axhline(0, color="black", linewidth=0.8)
        ax.axhline(mean, color="0.4", linestyle="--", zorder=0)
        ax.set(ylim=(-5, 16), ylabel="DoRA minus LoRA (points)")
        ax.set_title(
            f"{dora['model']}: DoRA, rank {dora['rank']}, minus {lora['method']}, rank "
            f"{lora['rank']}: {mean:+.1f} on average of {len(counted)} tasks"
        )
    return figure


def published_and_rerun(gains: dict[str, float], reruns: list[dict], lora: float) -> Figure:
    """Draw the published gains of every model, and how re-runs of DoRA came out.

    Args:
        gains: DoRA's average minus LoRA's, in points, by the name of the comparison.
        reruns: from `lab_utils.published.reruns`.
        lora: average of the authors' own LoRA run, for a line to compare with.
    """
    with plt.rc_context(STYLE):
        size = {"figsize": (10, 4.4), "width_ratios": (1.1, 1)}
        figure, (left, right) = plt.subplots(1, 2, **size)
        bars = left.barh(list(gains), list(gains.values()), color=COLOURS["dora"])
        left.bar_label(bars, fmt="%+.1f", padding=3)
        left.invert_yaxis()
        left.set(xlabel="DoRA minus LoRA, published averages (points)", xlim=(0, 5.4))
        ranks = sorted({row["rank"] for row in reruns})
        for row in reruns:
            x = ranks.index(row["rank"])
            right.plot([x, x], [row["published"], row["rerun"]], color="0.8", zorder=1)
            style = {"color": COLOURS["dora"], "zorder": 2}
            right.scatter(x, row["published"], marker="o", **style)
            right.scatter(x, row["rerun"], marker="x", **style)
        right.scatter([], [], color=COLOURS["dora"], marker="o", label="DoRA, published")
        right.scatter([], [], color=COLOURS["dora"], marker="x", label="DoRA, run again")
        right.axhline(lora, color=COLOURS["lora"], linestyle="--", label="LoRA, rank 32")
        right.set_xticks(range(len(ranks)), ranks)
        right.set(xlabel="rank (LLaMA-7B)", ylabel="average accuracy (%)", ylim=(40, 82))
        right.legend(loc="lower right")
    return figure


def validation_by_rate(accuracies: dict[int, dict[str, dict[float, list[float]]]]) -> Figure:
    """Draw the validation accuracy over the learning rate: a point for every seed.

    Args:
        accuracies: shares of right answers by rank, method and rate, those of every seed.
    """
    with plt.rc_context(STYLE):
        size = {"figsize": (9, 3.6), "sharey": True, "squeeze": False}
        figure, axes = plt.subplots(1, len(accuracies), **size)
        for ax, (rank, by_method) in zip(axes[0], accuracies.items(), strict=True):
            for method, by_rate in by_method.items():
                rates = sorted(by_rate)
                means = [100 * sum(by_rate[rate]) / len(by_rate[rate]) for rate in rates]
                ax.plot(rates, means, color=COLOURS[method], label=NAMES[method])
                for rate in rates:
                    values = [100 * value for value in by_rate[rate]]
                    ax.scatter([rate] * len(values), values, color=COLOURS[method], s=16)
            ax.set(xlabel="learning rate", title=f"rank {rank}")
            rate_axis(ax, rates)
        axes[0, 0].set_ylabel("validation accuracy (%)")
        axes[0, 0].legend(loc="lower left")
    return figure


def accuracy_by_rate(
    accuracies: dict[int, dict[str, dict[float, list[float]]]],
    differences: dict[int, dict[float, PairedDifference]],
) -> Figure:
    """Draw the test accuracy over the learning rate, and below it DoRA minus LoRA.

    An interval that reaches beyond five points runs out of the figure.

    Args:
        accuracies: shares of right answers by rank, method and rate, those of every seed.
        differences: by rank and rate, in shares.
    """
    with plt.rc_context(STYLE):
        size = {"figsize": (9, 5.4), "sharex": "col", "sharey": "row", "squeeze": False}
        figure, axes = plt.subplots(2, len(accuracies), height_ratios=[3, 2], **size)
        for (top, bottom), (rank, by_method) in zip(axes.T, accuracies.items(), strict=True):
            for method, by_rate in by_method.items():
                rates = sorted(by_rate)
                values = [[100 * accuracy for accuracy in by_rate[rate]] for rate in rates]
                means = [sum(of_rate) / len(of_rate) for of_rate in values]
                top.plot(rates, means, color=COLOURS[method], label=NAMES[method])
                for rate, of_rate in zip(rates, values, strict=True):
                    top.scatter([rate] * len(of_rate), of_rate, color=COLOURS[method], s=12)
            found = differences[rank]
            means = [100 * d.mean for d in found.values()]
            ends = [100 * (d.high - d.mean) for d in found.values()]
            bottom.axhline(0, color="0.6", linewidth=1)
            style = {"fmt": "o", "color": COLOURS["dora"], "capsize": 4}
            bottom.errorbar(list(found), means, ends, **style)
            top.set_title(f"rank {rank}")
            bottom.set(xlabel="learning rate", ylim=(-5, 5))
            rate_axis(bottom, rates)
        axes[0, 0].set_ylabel("test accuracy (%)")
        axes[0, 0].legend(loc="lower left")
        axes[1, 0].set_ylabel("DoRA − LoRA\n(points)")
    return figure
