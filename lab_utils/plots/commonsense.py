"""Figures of lesson 06: what others published."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lab_utils.adapters import COLOURS
from lab_utils.plots.style import STYLE, label_bars
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
        figure, ax = plt.subplots(figsize=(10, 3.8))
        colours = ["0.55" if task == left_out else COLOURS["dora"] for task in TASKS]
        bars = ax.bar(TASKS, gains.values(), color=colours)
        labels = [f"{g:+.1f}" + "\nleft out" * (t == left_out) for t, g in gains.items()]
        label_bars(ax, bars, labels)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.axhline(mean, color="0.4", linestyle="--", zorder=0)
        end = ax.get_yaxis_transform()
        ax.text(1.01, mean, f"average\n{mean:+.1f}", va="center", color="0.3", transform=end)
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
            right.plot(
                [x, x], [row["published"], row["rerun"]], color="0.55", linewidth=1, zorder=1
            )
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
