"""Figures of weights: their parts, and what LoRA and DoRA do to them."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from lab_utils.adapters import COLOURS, MARKERS, NAMES
from lab_utils.decomposition import coupling, decompose, direction_change, magnitude_change
from lab_utils.plots.style import DIVERGING, STYLE, beyond_mark, decimal_axis, label_bars

UPDATE = "#AA3377"  # distinct from the colours of the methods


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
        figure, axes = plt.subplots(1, 3, figsize=(10, 3.0), width_ratios=widths)
        limit = weight.abs().max().item()
        _matrix(axes[0], weight, limit, "weight W")
        _matrix(axes[1], magnitude, limit, "magnitude m")
        _matrix(axes[2], direction, limit, "direction V")
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
    nothing = updated.norm() < 1e-6  # exactly opposite and equally long: no direction is left
    updated = torch.zeros(2) if nothing else updated
    norm = updated.norm().clamp_min(1e-8)
    # Names stand outside the triangle of the three, whichever way the update turns.
    side = 1 if w0[0] * updated[1] >= w0[1] * updated[0] else -1
    results = {"lora": ("LoRA: w0 + u", updated)}
    results["dora"] = ("DoRA: m (w0 + u) / ||w0 + u||", magnitude * updated / norm)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.9), sharex=True, sharey=True)
        for ax, (method, (title, vector)) in zip(axes, results.items(), strict=True):
            ax.add_patch(plt.Circle((0, 0), 2.0, fill=False, linestyle=":", color="0.5"))
            if method == "dora":
                ax.plot(*zip((0, 0), updated.tolist(), strict=True), ":", color="0.4")
            # The result is drawn first and wider, so that all three show where they are collinear.
            _arrow(ax, origin, vector, COLOURS[method], "w'", side, 0.85, width=6.0)
            _arrow(ax, origin, w0, COLOURS["frozen"], "w0", -side, width=4.0)
            _arrow(ax, w0, update, UPDATE, "u", -side)
            if nothing:
                said = "w0 + u = 0 has no direction:\nm has nothing to stretch"
                said = said if method == "dora" else "w0 + u = 0"
                ax.text(0.8, 3.2, said, ha="center", va="top")
            turn = f"turned by {math.degrees(_angle(w0, vector)):.0f}°"
            turn = "no direction" if nothing else turn
            ax.set_title(f"{title}\nlength {w0.norm():.2f} → {vector.norm():.2f}, {turn}")
            ax.set(aspect="equal", xlim=(-2.6, 4.2), ylim=(-2.6, 3.4))
            ax.set_xlabel("weight on input 1")
        axes[0].set_ylabel("weight on input 2")
        said = {"ha": "right", "color": "0.35", "fontsize": 10}
        axes[0].text(4.1, -2.5, "dotted: as long as w0", **said)
    return figure


def sketch() -> Figure:
    """Draw in few strokes what LoRA and DoRA make of one weight vector, for the start page.

    A page that has not been run cannot turn its pictures over in a dark theme. So this one has no
    ground of its own, and colours and letters that stand out from white and from black alike.
    """
    w0 = 2.0 * _unit(20.0)
    update = _unit(90.0)
    updated = w0 + update
    with plt.rc_context(STYLE | {"font.size": 20, "font.weight": "bold"}):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), facecolor="none")
        for ax, method in zip(axes, ("lora", "dora"), strict=True):
            result = updated if method == "lora" else 2.0 * updated / updated.norm()
            ax.add_patch(plt.Circle((0, 0), 2.0, fill=False, ls=":", lw=2, color=COLOURS["frozen"]))
            _arrow(ax, torch.zeros(2), result, COLOURS[method], "w'", 1, 0.55, width=7.0, aside=20)
            _arrow(ax, torch.zeros(2), w0, COLOURS["frozen"], "w0", -1, width=5.0, aside=20)
            _arrow(ax, w0, update, UPDATE, "u", -1, width=4.0, aside=20)
            ax.text(-2.4, 2.1, NAMES[method], color=COLOURS[method])
            ax.set(aspect="equal", xlim=(-2.5, 3.3), ylim=(-0.35, 2.5))
            ax.axis("off")
    return figure


def _unit(degrees: float) -> Tensor:
    return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def _angle(a: Tensor, b: Tensor) -> float:
    """Return the angle between two vectors of the plane, in radians; 0 if one has no length."""
    cross = a[0] * b[1] - a[1] * b[0]
    return abs(math.atan2(cross.item(), (a @ b).item()))


def _arrow(
    ax: Axes,
    start: Tensor,
    vector: Tensor,
    colour: str,
    name: str,
    side: int,
    part: float = 0.5,
    width: float = 2.5,
    aside: float = 13,
) -> None:
    """Draw a vector, its name `aside` points from a part of the shaft, left (1) or right (-1)."""
    if vector.norm() < 1e-6:
        return
    end, beside = start + vector, start + part * vector
    shape = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end.tolist(), start.tolist(), arrowprops=shape)
    offset = aside * side * torch.stack([-vector[1], vector[0]]) / vector.norm().clamp_min(1e-8)
    style = {"textcoords": "offset points", "ha": "center", "va": "center", "color": colour}
    ax.annotate(name, beside.tolist(), offset.tolist(), **style)


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
        left.legend(loc="upper right", ncols=3)
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


def step_times(records: Sequence[dict], ways: dict[str, str], markers: str = "os^D") -> Figure:
    """Draw how long a step of one layer takes in some forms, each way of running it a marker.

    Args:
        records: of `benchmarks/layers.py`, one shape on one device. `form` is the row, in the
            order of the records; its first word names the method, whose colour it gets.
        ways: how steps were run, `way` of the records, to what the legend calls it.
        markers: of the ways, in their order.
    """
    forms = list(dict.fromkeys(record["form"] for record in records))
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 1.4 + 0.75 * len(forms)))
        looks = zip(ways.items(), markers, strict=False)
        for place, ((way, label), marker) in enumerate(looks):
            aside = 0.18 * (place - (len(ways) - 1) / 2)  # no two points of one time coincide
            for record in (record for record in records if record["way"] == way):
                colour = COLOURS[record["form"].replace(",", "").split()[0].lower()]
                height = forms.index(record["form"]) + aside
                ax.plot(record["milliseconds"], height, marker, color=colour, markersize=8)
            ax.plot([], [], marker, color="0.4", markersize=8, label=label)
        ax.set_yticks(range(len(forms)), forms)
        ax.set_ylim(len(forms) - 0.5, -0.5)
        ax.grid(axis="x", color="0.9")
        for between in range(1, len(forms)):
            ax.axhline(between - 0.5, color="0.8", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.set(xlabel="time of a training step of the layer (ms)", xlim=(0, None))
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def weight_changes(before: Tensor, after: dict[str, Tensor]) -> Figure:
    """Draw a weight and what it is made of, and below, for each method, what training changed.

    Args:
        before: the weight before training, `(out_features, in_features)`.
        after: by method, the merged weight after training.
    """
    length, direction = decompose(before)
    rows = torch.arange(len(before))
    with plt.rc_context(STYLE):
        size = (11, 2.5 * (1 + len(after)))
        figure, axes = plt.subplots(1 + len(after), 3, figsize=size, sharex="col")
        figure.get_layout_engine().set(w_pad=0.12)  # room for the numbers of the colour bars
        _heat_map(axes[0, 0], before, "weight W0")
        axes[0, 1].plot(rows, length.flatten(), color=COLOURS["frozen"])
        axes[0, 1].set(title="magnitude of each row", ylim=(0, None))
        _heat_map(axes[0, 2], direction, "direction: rows of length 1")
        for method, (left, middle, right) in zip(after, axes[1:], strict=True):
            new_length, new_direction = decompose(after[method])
            name, colour = NAMES[method], COLOURS[method]
            delta_m = magnitude_change(before, after[method])
            delta_d = direction_change(before, after[method])
            _heat_map(left, after[method] - before, f"{name}: update")
            middle.bar(rows, (new_length - length).flatten(), width=1.0, color=colour)
            middle.axhline(0, color="0.55", linewidth=0.8)
            middle.set_title(f"change of magnitude, ΔM = {delta_m:.3f}")
            turn = 1 - (direction * new_direction).sum(dim=1)
            right.bar(rows, turn, width=1.0, color=colour)
            right.set_title(f"1 − cosine, ΔD = {delta_d:.4f}")
        axes[0, 2].set_xlabel("input feature")
        for column, label in enumerate(("input feature", "output neuron", "output neuron")):
            axes[-1, column].set_xlabel(label)
        for ax in axes[:, 0]:
            ax.set_ylabel("output neuron")
    return figure


def _heat_map(ax: Axes, matrix: Tensor, title: str) -> None:
    limit = matrix.abs().quantile(0.999).item()
    image = ax.imshow(
        matrix, DIVERGING, aspect="auto", interpolation="nearest", vmin=-limit, vmax=limit
    )
    ax.set_title(title)
    ax.figure.colorbar(image, ax=ax)


def rows_moved(before: Tensor, after: dict[str, Tensor]) -> Figure:
    """Draw each row of a weight as a point: how far it turned, and how its length changed.

    A row that more than doubled its length is a triangle at the upper edge.

    A dashed line shows what an update across a row does to it, as a random one nearly does: a turn
    by an angle t makes it 1 / cos t as long.

    Args:
        before: the weight before training, `(out_features, in_features)`.
        after: by method, the merged weight.
    """
    length, direction = decompose(before)
    above = False
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(after), figsize=(4.8 * len(after), 3.9), sharey=True)
        for ax, (method, weight) in zip(axes, after.items(), strict=True):
            new_length, new_direction = decompose(weight)
            turn = (direction * new_direction).sum(dim=1).clamp(-1, 1).arccos().rad2deg()
            growth = 100 * (new_length / length - 1).flatten()
            ax.axhline(0, color="0.55", linewidth=0.8)
            angle = torch.linspace(0, 61, 100)
            chance = 100 * (1 / angle.deg2rad().cos() - 1)
            ax.plot(angle, chance, "--", color="0.3", label="an update across the row")
            points = {"marker": MARKERS[method], "alpha": 0.7}
            inside = growth <= 110
            ax.scatter(turn[inside], growth[inside], s=14, color=COLOURS[method], **points)
            if not inside.all():
                above = True
                beyond = {"marker": "^", "alpha": 0.7, "clip_on": False}
                at_edge = torch.full_like(turn[~inside], 110)
                ax.scatter(turn[~inside], at_edge, s=30, color=COLOURS[method], **beyond)
            ax.set_title(
                f"{NAMES[method]}: ΔM = {magnitude_change(before, weight):.3f}, "
                f"ΔD = {direction_change(before, weight):.3f}"
            )
            ax.set(xlabel="turn of the row (degrees)", xlim=(0, 95), ylim=(-40, 110))
        axes[0].set_ylabel("change of its length (%)")
        handles, _ = axes[-1].get_legend_handles_labels()
        if above:
            handles.append(beyond_mark("row"))
        axes[-1].legend(handles=handles, loc="upper left")
    return figure


def couplings(points: dict[str, list[dict]], published: dict[str, float]) -> Figure:
    """Draw figure 2 of the paper for our own runs: delta M against delta D.

    Args:
        points: by method, a `delta_m`, a `delta_d`, a `layer` and a `step` for each point, and
            under `random` the first two for a random update of the same size, drawn as rings.
        published: by method, the paper's correlation.
    """
    with plt.rc_context(STYLE):
        size = {"figsize": (3.0 * len(points), 4.0), "sharex": True, "sharey": True}
        figure, axes = plt.subplots(1, len(points), **size)
        for ax, (method, found) in zip(axes, points.items(), strict=True):
            for marker, layer in zip("os^D", sorted({p["layer"] for p in found}), strict=False):
                of_layer = [p for p in found if p["layer"] == layer]
                x, y = ([p[key] for p in of_layer] for key in ("delta_d", "delta_m"))
                sizes = [12 + 60 * p["step"] / max(q["step"] for q in found) for p in of_layer]
                ax.plot(x, y, color="0.55", linewidth=0.8, zorder=0)
                ax.scatter(x, y, sizes, COLOURS[method], marker=marker, alpha=0.75, label=layer)
            random = [p["random"] for p in found]
            ring = {"facecolors": "none", "edgecolors": "0.4", "zorder": 0}
            x, y = ([p[key] for p in random] for key in ("delta_d", "delta_m"))
            ax.scatter(x, y, 16, **ring, label="random")
            r, chance = (
                coupling([p["delta_m"] for p in some], [p["delta_d"] for p in some])
                for some in (found, random)
            )
            ax.set_title(
                f"{NAMES[method]}: r = {r:+.2f}\n(random {chance:+.2f}, "
                f"paper {published[method]:+.2f})"
            )
            ax.set(xlabel="ΔD (1 − cosine)", xscale="log", yscale="log")
            decimal_axis(ax.xaxis)
            decimal_axis(ax.yaxis)
        axes[0].set_ylabel("ΔM (unit of the weights)")
        style = {"linestyle": "", "color": "0.3"}
        names = sorted({point["layer"] for found in points.values() for point in found})
        shapes = zip("os^D", names, strict=False)
        marks = [Line2D([], [], marker=marker, label=name, **style) for marker, name in shapes]
        ring = Line2D([], [], marker="o", markerfacecolor="none", label="random", **style)
        marks.append(ring)
        place = {"loc": "outside lower center", "ncols": len(marks), "fontsize": 11}
        place |= {"columnspacing": 1.0, "handletextpad": 0.2, "frameon": False}
        figure.legend(handles=marks, **place)
    return figure


def magnitude_maps(histories: dict[str, Tensor], steps: Sequence[int]) -> Figure:
    """Draw how every magnitude moved over the training, in per cent of where it started.

    Args:
        histories: by layer, `(len(steps), magnitudes)`.
        steps: of the training, from 0.
    """
    changes = {name: 100 * (h / h[0] - 1) for name, h in histories.items()}
    limit = max(change.abs().quantile(0.995).item() for change in changes.values())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(changes), figsize=(2.5 * len(changes), 3.4), sharey=True)
        for ax, (name, change) in zip(axes, changes.items(), strict=True):
            order = change[-1].argsort()
            image = ax.imshow(
                change[:, order].T,
                cmap=DIVERGING,
                vmin=-limit,
                vmax=limit,
                aspect="auto",
                extent=(steps[0], steps[-1], len(order), 0),
                interpolation="nearest",
            )
            ax.set(title=name, xlabel="step")
        axes[0].set_ylabel("magnitude (sorted by its end)")
        figure.colorbar(image, ax=axes, label="change of m (%)")
    return figure


def magnitude_shares(
    shares: dict[str, dict[str, float]], random: dict[str, dict[str, float]]
) -> Figure:
    """Draw how much of a weight's change is change of length, for each method and kind of layer.

    Args:
        shares: by method, then by kind of layer, from 0 to 1 (see
            `lab_utils.decomposition.magnitude_share`).
        random: the same for random updates of the same size, drawn as lines.
    """
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8.5, 3.6))
        for i, (method, by_kind) in enumerate(shares.items()):
            at = [k + 0.27 * (i - (len(shares) - 1) / 2) for k in range(len(by_kind))]
            values = [100 * share for share in by_kind.values()]
            bars = ax.bar(at, values, 0.25, color=COLOURS[method], label=NAMES[method])
            chance = [100 * share for share in random[method].values()]
            # A line just above the end of a bar would cross its label.
            over = [
                line if 0 <= line - v < 1.5 else v for v, line in zip(values, chance, strict=True)
            ]
            label_bars(ax, bars, [f"{value:.0f}" for value in values], above=over)
            ends = [[x + side for x in at] for side in (-0.12, 0.12)]
            label = None if i else "a random update of that size"
            ax.hlines(chance, *ends, color="black", linewidth=2, label=label)
        ax.set_xticks(range(len(by_kind)), list(by_kind))
        ax.set_ylabel("length's share of the change (%)")
        ax.margins(y=0.25)  # room for the legend
        ax.legend(ncols=4, loc="upper center")
    return figure
