"""The figures of the lessons, in one style, and how a lesson shows one with an alternative text.

Every function returns a matplotlib `Figure`, which `show` puts into the notebook.
"""

import math

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lab_utils.decomposition import decompose
from lab_utils.published import TASKS

# A method keeps its colour in every figure. The colours are those of Okabe and Ito, which stay
# apart in the common forms of colour blindness; the diverging map does too.
COLOURS = {
    "lora": "#0072B2",
    "dora": "#D55E00",
    "dora-input": "#CC79A7",
    "full": "#009E73",
    "frozen": "#666666",
}
NAMES = {"lora": "LoRA", "dora": "DoRA"}
DIVERGING = "PuOr"
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def show(figure: Figure, alt: str) -> None:
    """Display a figure with a text for those who cannot see it, and close it."""
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def decomposition(weight: Tensor, norm_dim: int = 1) -> Figure:
    """Draw a small weight as the product of its magnitude and its direction.

    Args:
        weight: `(out_features, in_features)`, small enough to print every number.
        norm_dim: 1 for one magnitude per row (output neuron), 0 for one per column.
    """
    magnitude, direction = decompose(weight, norm_dim)
    columns = weight.shape[1]
    with plt.rc_context(STYLE):
        widths = [columns, magnitude.shape[1], columns]
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=widths)
        limit = weight.abs().max().item()
        _matrix(axes[0], weight, limit, "weight")
        _matrix(axes[1], magnitude, limit, "=  magnitude  ×")
        _matrix(axes[2], direction, 1.0, "direction")
        axes[0].set_ylabel("output neuron")
        for ax in (axes[0], axes[2]):
            ax.set_xlabel("input feature")
    return figure


def _matrix(ax: Axes, matrix: Tensor, limit: float, title: str) -> None:
    ax.imshow(matrix, cmap=DIVERGING, vmin=-limit, vmax=limit)
    ax.set_title(title)
    rows, columns = matrix.shape
    ax.set_xticks(range(columns))
    ax.set_yticks(range(rows))
    ax.tick_params(length=0)
    for i in range(rows):
        for j in range(columns):
            value = matrix[i, j].item()
            dark = abs(value) > 0.6 * limit
            ax.text(
                j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black"
            )


def one_vector(update_length: float, update_angle: float, magnitude: float) -> Figure:
    """Draw what LoRA and what DoRA make of one weight vector and the same update.

    Args:
        update_length: length of the update, in the unit of the weight.
        update_angle: angle between the weight vector and the update, in degrees.
        magnitude: DoRA's trained length m, in the unit of the weight.
    """
    origin = torch.zeros(2)
    w0 = 2.0 * _unit(20.0)
    update = update_length * _unit(20.0 + update_angle)
    updated = w0 + update
    norm = updated.norm().clamp_min(1e-8)
    results = {"lora": ("LoRA: w0 + u", updated)}
    results["dora"] = ("DoRA: m (w0 + u) / ||w0 + u||", magnitude * updated / norm)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.9), sharex=True, sharey=True)
        for ax, (method, (title, vector)) in zip(axes, results.items(), strict=True):
            ax.add_patch(plt.Circle((0, 0), 2.0, fill=False, linestyle=":", color="0.6"))
            if method == "dora":
                ax.plot(*zip((0, 0), updated.tolist(), strict=True), ":", color="0.4")
            _arrow(ax, origin, vector, COLOURS[method], "w'")
            _arrow(ax, origin, w0, COLOURS["frozen"], "w0", side=-1)
            _arrow(ax, w0, update, "0.55", "u", side=-1)
            turn = math.degrees(_angle(w0, vector))
            ax.set_title(
                f"{title}\nlength {w0.norm():.2f} → {vector.norm():.2f}, turned by {turn:.0f}°"
            )
            ax.set(aspect="equal", xlim=(-2.6, 4.2), ylim=(-2.6, 3.4))
            ax.set_xlabel("weight on input 1")
        axes[0].set_ylabel("weight on input 2")
    return figure


def _unit(degrees: float) -> Tensor:
    return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def _angle(a: Tensor, b: Tensor) -> float:
    """Return the angle between two vectors of the plane, in radians; 0 if one has no length."""
    cross = a[0] * b[1] - a[1] * b[0]
    return abs(math.atan2(cross.item(), (a @ b).item()))


def _arrow(ax: Axes, start: Tensor, vector: Tensor, colour: str, name: str, side: int = 1) -> None:
    """Draw a vector with its name beside the middle of the shaft, left (1) or right (-1)."""
    end, middle = start + vector, start + 0.55 * vector
    shape = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end.tolist(), start.tolist(), arrowprops=shape)
    offset = 11 * side * torch.stack([-vector[1], vector[0]]) / vector.norm().clamp_min(1e-8)
    style = {"textcoords": "offset points", "ha": "center", "va": "center", "color": colour}
    ax.annotate(name, middle.tolist(), offset.tolist(), **style)


def lengths_and_turns(
    weight: Tensor, update: Tensor, strength: float, magnitude_factor: float
) -> Figure:
    """Draw, row by row, the lengths and turns that LoRA and DoRA give a whole weight.

    Args:
        weight: W0, `(out_features, in_features)`.
        update: scaling * B A at full strength, of the same shape.
        strength: how much of the update is applied, from 0 to 1.
        magnitude_factor: DoRA's m as a multiple of ||W0||.
    """
    length, direction = decompose(weight)
    _, updated_direction = decompose(weight + strength * update)
    merged = {
        "lora": weight + strength * update,
        "dora": magnitude_factor * length * updated_direction,
    }
    rows = torch.arange(len(weight))
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
        frozen = {"color": "black", "label": "frozen W0", "zorder": 3}
        left.hlines(length.flatten(), rows - 0.42, rows + 0.42, **frozen)
        for i, (method, after) in enumerate(merged.items()):
            after_length, after_direction = decompose(after)
            cosine = (direction * after_direction).sum(dim=1).clamp(-1, 1)
            style = {"width": 0.38, "color": COLOURS[method], "label": NAMES[method]}
            left.bar(rows + 0.4 * i - 0.2, after_length.flatten(), **style)
            right.bar(rows + 0.4 * i - 0.2, cosine.arccos().rad2deg(), **style)
        highest = 1.25 * max(decompose(weight + update)[0].max(), 1.5 * length.max()).item()
        left.set(xlabel="output neuron (row)", ylabel="length of the row", ylim=(0, highest))
        right.set(xlabel="output neuron (row)", ylabel="turn of the row (degrees)", ylim=(0, 90))
        left.legend(loc="upper right", ncols=3, fontsize=9)
    return figure


def saved_memory(megabytes: dict[str, float]) -> Figure:
    """Draw what each form of a layer keeps for its backward pass.

    Args:
        megabytes: name of the form to its MB; names that start with LoRA or DoRA get its colour.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 0.9 + 0.5 * len(megabytes)))
        colours = [COLOURS[name[:4].lower()] for name in megabytes]
        bars = ax.barh(list(megabytes), list(megabytes.values()), color=colours)
        ax.bar_label(bars, fmt="%.1f", padding=4)
        ax.invert_yaxis()
        ax.set_xlabel("kept for the backward pass besides W0 (MB)")
    return figure


RULES = {False: "alpha / rank", True: "alpha / sqrt(rank)"}
RULE_LINES = {False: "--", True: "-"}  # a rule keeps its line, as a method keeps its colour


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
                ax.annotate(
                    f"{values[at]:.3g}",
                    (ranks[at], values[at]),
                    (0, 9),
                    textcoords="offset points",
                    ha="center",
                )
        left.set(ylabel="scaling", ylim=(0.05, 40), title="what B A is multiplied by")
        right.set(ylabel="relative to rank 4", ylim=(0.1, 30), title="first gradient of lora_B")
        for ax in (left, right):
            _rank_axis(ax, ranks.tolist())
            ax.set_yscale("log")
        left.legend(fontsize=9)
    return figure


def _rank_axis(ax: Axes, ranks: list[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, ranks)
    ax.minorticks_off()
    ax.set_xlabel("rank")


def loss_by_rank(losses: dict[str, dict[int, list[float]]]) -> Figure:
    """Draw the test loss over the rank: a point for every seed, a line through the means.

    Args:
        losses: by the name of a rule for alpha, then by rank, those of every seed.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 3.8))
        lines = dict(zip(losses, ("--", "-", ":"), strict=False))
        for name, by_rank in losses.items():
            ranks = sorted(by_rank)
            means = [sum(by_rank[rank]) / len(by_rank[rank]) for rank in ranks]
            ax.plot(ranks, means, lines[name], color=COLOURS["lora"], label=name)
            for rank in ranks:
                points = {"color": COLOURS["lora"], "s": 14, "alpha": 0.6}
                ax.scatter([rank] * len(by_rank[rank]), by_rank[rank], **points)
        _rank_axis(ax, ranks)
        ax.set_ylabel("test loss (nats a byte)")
        ax.legend(fontsize=9)
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
            for (method, stabilized), records in by_rule.items():
                style = {
                    "linestyle": RULE_LINES[stabilized],
                    "color": COLOURS[method],
                    "label": f"{NAMES[method]}, {RULES[stabilized]}",
                }
                for ax, key in ((above, "step_losses"), (below, "gradient_norms")):
                    mean = torch.tensor([record[key] for record in records]).mean(dim=0)
                    part = steps / len(mean)
                    ax.plot((torch.arange(len(mean)) + 0.5) * part, mean, **style)
            above.set_title(f"rank {rank}")
            above.legend(fontsize=9)
            below.set(xlabel="step", yscale="log")
            below.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
            below.minorticks_off()
        axes[0, 0].set_ylabel("training loss (nats a byte)")
        axes[1, 0].set_ylabel("gradient norm before clipping")
    return figure


def loss_by_learning_rate(
    losses: dict[tuple[str, bool], dict[float, list[float]]], highest: float
) -> Figure:
    """Draw the validation loss over the learning rate: mean, and range of the seeds.

    Args:
        losses: by method and `rank_stabilized`, then by rate, those of every seed.
        highest: what is above it is drawn at the edge, with an arrow.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 3.8))
        for (method, stabilized), by_rate in losses.items():
            rates = sorted(by_rate)
            means = [sum(by_rate[rate]) / len(by_rate[rate]) for rate in rates]
            style = {"color": COLOURS[method], "linestyle": RULE_LINES[stabilized]}
            ax.plot(rates, means, label=f"{NAMES[method]}, {RULES[stabilized]}", **style)
            for rate, mean in zip(rates, means, strict=True):
                low, high = min(by_rate[rate]), max(by_rate[rate])
                ax.vlines(rate, low, high, color=COLOURS[method], alpha=0.6)
                if mean > highest:
                    ax.plot(rate, highest, "^", color=COLOURS[method], clip_on=False)
        ax.set(xscale="log", xlabel="learning rate at the first step", ylim=(None, highest))
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.minorticks_off()
        ax.set_ylabel("validation loss (nats a byte)")
        ax.legend(fontsize=9)
    return figure


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
        ax.bar_label(bars, fmt="%+.1f", padding=2, fontsize=9)
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
        size = {"figsize": (11, 3.9), "width_ratios": (1.1, 1)}
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
        right.set(xlabel="rank (LLaMA-7B)", ylabel="average accuracy (%)", ylim=(50, 82))
        right.legend(fontsize=9, loc="lower right")
    return figure


def commonsense(summary: dict, rank: int) -> Figure:
    """Draw the accuracy of each commonsense task, and below it DoRA minus LoRA.

    Args:
        summary: from `lab_utils.commonsense.measurement.summarise`.
        rank: which of its ranks. Bars are standard errors over test rows above, and confidence
            intervals over paired seeds below.
    """
    columns = [*summary["tasks"], "average"]
    base = {"adapter_type": "frozen", **summary["zero_shot"]}
    rows = [base, *(row for row in summary["methods"] if row["rank"] == rank)]
    differences = [summary["differences"][rank][name] for name in columns]
    with plt.rc_context(STYLE):
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=(9, 5.4), sharex=True, height_ratios=[2, 1]
        )
        for i, row in enumerate(rows):
            accuracy = row["accuracy"] | {"average": row["average"]}
            error = row["standard_error"] | {"average": row["average_standard_error"]}
            top.bar(
                [x + 0.27 * (i - 1) for x in range(len(columns))],
                [100 * accuracy[name] for name in columns],
                0.25,
                yerr=[100 * error[name] for name in columns],
                color=COLOURS[row["adapter_type"]],
                label=NAMES.get(row["adapter_type"], "before training"),
            )
        means = [100 * d.mean for d in differences]
        ends = [100 * (d.high - d.mean) for d in differences]
        bottom.axhline(0, color="0.6", linewidth=1)
        bottom.errorbar(columns, means, ends, fmt="o", color=COLOURS["dora"], capsize=4)
        top.set(ylabel="accuracy (%)", ylim=(0, 100), title=f"rank {rank}")
        top.legend(loc="upper left", ncols=3, fontsize=9)
        bottom.set_ylabel("DoRA − LoRA\n(points)")
        bottom.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in columns])
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
            ax.set(xscale="log", xlabel="learning rate", title=f"rank {rank}")
            ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
            ax.minorticks_off()
        axes[0, 0].set_ylabel("validation accuracy (%)")
        axes[0, 0].legend(fontsize=9)
    return figure
