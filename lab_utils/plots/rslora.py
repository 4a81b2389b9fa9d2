"""Figures of lesson 07: both scalings over ranks and the training."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from lab_utils.adapters import COLOURS, NAMES
from lab_utils.plots.style import STYLE, decimal_axis, layered_width, rank_axis

RULES = {False: "alpha / rank", True: "alpha / sqrt(rank)"}
RULE_LINES = {False: "--", True: "-"}  # a rule keeps its line, as a method keeps its colour
SHADES = (COLOURS["lora"], "#00263c", "#4C95C2")  # of LoRA's colour, for its rules


def scaling_rules(rank: int, alpha: float, grows: bool) -> Figure:
    """Draw both scalings over the rank, and what they make of the first gradient.

    Args:
        rank: the rank to mark, from 4 to 64.
        alpha: the fixed alpha; of no use if `grows`.
        grows: take alpha = 2 * rank instead.
    """
    ranks = torch.tensor([4, 8, 16, 32, 64])
    alphas = 2.0 * ranks if grows else torch.full((len(ranks),), alpha)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        for stabilized, name in RULES.items():
            scaling = alphas / (ranks.sqrt() if stabilized else ranks)
            gradient = scaling * ranks.sqrt()
            at = int((ranks == rank).nonzero())
            style = {"linestyle": RULE_LINES[stabilized], "color": COLOURS["lora"]}
            for ax, values in ((left, scaling), (right, gradient / gradient[0])):
                ax.plot(ranks, values, label=name, **style)
                ax.plot(ranks[at], values[at], "o", color=COLOURS["lora"], markersize=8)
                ax.annotate(  # the larger above, the smaller below: they can be close together
                    f"{values[at]:.3g}",
                    (ranks[at], values[at]),
                    (0, 9 if stabilized else -9),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if stabilized else "top",
                )
        left.set(ylabel="scaling", ylim=(0.03, 70), title="what B A is multiplied by")
        right.set(ylabel="relative to rank 4", ylim=(0.1, 30), title="first gradient of lora_B")
        for ax in (left, right):
            rank_axis(ax, ranks.tolist())
            ax.set_yscale("log")
            decimal_axis(ax.yaxis)
        # Outside the panels: inside, it would move to avoid the lines.
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def loss_by_rule(losses: dict[str, dict[int, list[float]]]) -> Figure:
    """Draw the test loss over the rank: a point for every seed, a line through the means.

    Args:
        losses: by the name of a rule for alpha, then by rank, those of every seed.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 3.8))
        looks = zip(("--", "-", ":"), "osv", SHADES, strict=True)
        for aside, (name, by_rank), look in zip((-1, 0, 1), losses.items(), looks, strict=False):
            line, marker, colour = look
            ranks = sorted(by_rank)
            beside = [rank * 1.05**aside for rank in ranks]  # points that coincide are side by side
            means = [sum(by_rank[rank]) / len(by_rank[rank]) for rank in ranks]
            style = {"linestyle": line, "marker": marker, "color": colour, "linewidth": 2}
            ax.plot(beside, means, label=name, **style)
            for x, rank in zip(beside, ranks, strict=True):
                points = {"color": colour, "marker": marker, "s": 14, "alpha": 0.5}
                ax.scatter([x] * len(by_rank[rank]), by_rank[rank], **points)
        rank_axis(ax, sorted(set().union(*losses.values())))
        ax.set_ylabel("test loss (nats per byte)")
        ax.legend()
    return figure


def training_by_rule(runs: dict[int, dict[tuple[str, bool], list[dict]]], steps: int) -> Figure:
    """Draw loss and gradient norm over the training, a column for each rank.

    Args:
        runs: by rank, then by method and `rank_stabilized`, the records of every seed.
        steps: how many the training has.
    """
    with plt.rc_context(STYLE):
        size = {"figsize": (5 * len(runs), 6), "sharex": True, "sharey": "row", "squeeze": False}
        figure, axes = plt.subplots(2, len(runs), **size)
        for (above, below), (rank, by_rule) in zip(axes.T, runs.items(), strict=True):
            for place, ((method, stabilized), records) in enumerate(by_rule.items()):
                style = {
                    "linewidth": layered_width(place),
                    "linestyle": RULE_LINES[stabilized],
                    "color": COLOURS[method],
                    "label": f"{NAMES[method]}, {RULES[stabilized]}",
                }
                for ax, key in ((above, "step_losses"), (below, "gradient_norms")):
                    mean = torch.tensor([record[key] for record in records]).mean(dim=0)
                    part = steps / len(mean)
                    ax.plot((torch.arange(len(mean)) + 0.5) * part, mean, **style)
            above.set_title(f"rank {rank}")
            above.legend()
            below.set(xlabel="step", yscale="log")
            below.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
            below.minorticks_off()
        axes[0, 0].set_ylabel("training loss (nats per byte)")
        axes[1, 0].set_ylabel("gradient norm before clipping")
    return figure
