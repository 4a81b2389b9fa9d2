"""Figures of runs and weights draw the numbers that they are given."""

import base64
import io
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Text

from lab_utils import adapters, plots
from lab_utils.comparison import PairedDifference
from lab_utils.plots.rslora import SHADES
from lab_utils.plots.style import DIVERGING
from lab_utils.published import TASKS


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def difference(mean, half=0.01, other="dora"):
    return PairedDifference("lora", other, mean, mean - half, mean + half, mean, 10, 0.95)


def ends(container):
    """The low and high ends of an errorbar's lines, (x, y) each."""
    (lines,) = container.lines[2]
    return [tuple(segment.flatten().tolist()) for segment in lines.get_segments()]


def named(ax):
    """What a panel's legend names."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_improvement_is_in_per_cent_of_loras_loss():
    losses = {"lora": {4: 2.0, 8: 1.0}, "dora": {4: 1.9, 8: 1.02}}
    bars = plots.improvement_by_rank(losses).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([5.0, -2.0])


def test_bars_of_parameters_say_what_dora_adds():
    ax = plots.parameters({4: {"lora": 8000, "dora": 9000}}, "a layer").axes[0]
    assert [bar.get_height() for bar in ax.patches] == [8.0, 9.0]
    assert "+12.5%" in [text.get_text() for text in ax.texts]


def test_differences_have_their_intervals():
    panels = {"test": {"a": difference(-0.02), "b": difference(0.01)}}
    panels["training"] = {"a": difference(0.03), "b": difference(0.0)}
    left, right = plots.differences(panels).axes
    assert ends(left.containers[0]) == [pytest.approx((-0.03, 0, -0.01, 0))]
    assert ends(right.containers[0]) == [pytest.approx((0.02, 0, 0.04, 0))]
    by_rank = {"dora": {4: difference(-0.02), 8: difference(-0.01)}}
    (ax,) = plots.differences_by_rank(by_rank).axes
    assert [y for _, low, _, high in ends(ax.containers[0]) for y in (low, high)] == pytest.approx(
        [-0.03, -0.01, -0.02, 0.0]
    )


def test_shares_have_a_line_for_chance():
    shares = {m: {"q": share} for m, share in (("lora", 0.12), ("dora", 0.03))}
    (ax,) = plots.magnitude_shares(shares, {m: {"q": 0.1} for m in shares}).axes
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([12, 3])
    lines = [s for c in ax.collections for s in c.get_segments()]
    assert [segment[0, 1] for segment in lines] == pytest.approx([10, 10])


def test_a_row_with_an_update_across_it_lies_on_the_dashed_line():
    before = torch.eye(3)[:2]
    after = before + torch.tensor([[0.0, 0.0, 0.75], [0.0, 0.0, 0.75]])
    axes = plots.rows_moved(before, {"lora": after, "dora": after}).axes
    line = next(line for line in axes[0].lines if line.get_linestyle() == "--")
    (points,) = axes[0].collections
    for turn, growth in points.get_offsets():
        assert growth == pytest.approx(25, abs=1e-4)  # sqrt(1 + 0.75**2)
        x, y = (torch.tensor(values) for values in line.get_data())
        assert y[(x - turn).abs().argmin()] == pytest.approx(growth, abs=1)


def test_rings_are_the_random_updates():
    points = [
        {"layer": "a", "step": s, "delta_m": s, "delta_d": s}
        | {"random": {"delta_m": 2 * s, "delta_d": s}}
        for s in (1.0, 2.0)
    ]
    ax = plots.couplings({m: points for m in ("lora", "dora")}, {"lora": 0.8, "dora": -0.3}).axes[0]
    rings = [c for c in ax.collections if c.get_label() == "random"]
    assert rings[0].get_offsets().tolist() == [[1.0, 2.0], [2.0, 4.0]]
    assert "random +1.00" in ax.get_title()


def test_a_step_has_a_marker_for_each_form_and_way_in_its_methods_colour():
    records = [
        {"form": form, "way": way, "milliseconds": time}
        for form, times in {"frozen layer": (1.0, 2.0), "DoRA, PEFT's layer": (3.0, 4.0)}.items()
        for way, time in zip(("plain", "compiled"), times, strict=True)
    ]
    ax = plots.step_times(records, {"plain": "as it is", "compiled": "compiled"}).axes[0]
    drawn = {
        (line.get_xdata()[0], round(line.get_ydata()[0]), line.get_color(), line.get_marker())
        for line in ax.lines
        if line.get_marker() != "None" and len(line.get_xdata())
    }
    frozen, dora = plots.COLOURS["frozen"], plots.COLOURS["dora"]
    assert drawn == {
        (1.0, 0, frozen, "o"),
        (2.0, 0, frozen, "s"),
        (3.0, 1, dora, "o"),
        (4.0, 1, dora, "s"),
    }
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "frozen layer",
        "DoRA, PEFT's layer",
    ]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["as it is", "compiled"]


def test_lessons_call_only_figures_that_exist():
    lessons = sorted((Path(__file__).parents[2] / "solutions").rglob("*.py"))
    asked = {name for path in lessons for name in re.findall(r"\bplots\.(\w+)", path.read_text())}
    assert lessons and asked <= set(plots.__all__)


NARROW = 810  # pixels that JupyterLab gives a figure at 1280, with the list of files beside it


def drawn():
    """Every kind of figure, of numbers that need not mean anything."""
    weight = torch.eye(3, 4)
    runs = [{"step_losses": [2.0, 1.9], "validation_losses": [2.0, 1.9], "n_epochs": 1}] * 2
    runs = [run | {"gradient_norms": [1.0, 0.5]} for run in runs]
    by_rate, by_rank = {0.00006: [0.5, 0.6], 0.012: [0.6, 0.7]}, {4: [2.0, 2.1], 8: [1.9, 2.0]}
    tasks = {"BoolQ": 1, "PIQA": 1, "SIQA": 1, "HellaSwag": 1, "WinoGrande": 1} | dict.fromkeys(
        ("ARC-e", "ARC-c", "OBQA"), 1
    )
    row = tasks | {"model": "LLaMA-7B", "rank": 8, "method": "LoRA"}
    point = {"layer": "blocks.0.q_proj", "step": 1, "delta_m": 0.01, "delta_d": 0.1}
    points = [point | {"random": {"delta_m": 0.1, "delta_d": 0.1}}, point | {"random": point}]
    three = ("full", "lora", "dora")
    kinds = {kind: 0.1 for kind in ("q_proj", "k_proj", "v_proj", "o_proj")}
    yield plots.decomposition(weight)
    yield plots.decomposition(weight, norm_dim=0)
    yield plots.one_vector(1.0, 70.0, 2.0)
    yield plots.sketch()
    yield plots.lengths_and_turns(weight, weight, 0.5, 1.0)
    yield plots.saved_memory({"LoRA": 1.0, "DoRA": 2.0})
    yield plots.weight_changes(weight, dict.fromkeys(three, 2 * weight))
    yield plots.rows_moved(weight, {"lora": 2 * weight, "dora": weight})
    yield plots.couplings(dict.fromkeys(three, points), dict.fromkeys(three, 0.5))
    yield plots.magnitude_maps(dict.fromkeys(kinds, torch.rand(3, 4) + 1), [0, 3, 6])
    yield plots.magnitude_shares(dict.fromkeys(three, kinds), dict.fromkeys(three, kinds))
    yield plots.loss_curves({"lora": runs, "dora": runs})
    yield plots.live_losses({"lora": [2.0] * 12}, 93)
    yield plots.loss_by_rate({"lora": by_rate}, highest=2.2)
    yield plots.final_losses({"lora": [1.0, 2.0], "dora": [1.0, 2.0]}, [difference(-0.1)])
    yield plots.narrowing_interval([1.0, 1.1, 1.3], [1.0, 1.0, 1.2], 3)
    yield plots.loss_by_rank({"lora": by_rank}, limits=(1.5, 1.95))
    yield plots.differences_by_rank({"dora": {4: difference(-0.1), 8: difference(-0.2)}})
    yield plots.differences({title: {"a": difference(0.1)} for title in ("test", "training")})
    yield plots.improvement_by_rank({"lora": {4: 2.0}, "dora": {4: 1.9}})
    yield plots.parameters({4: {"lora": 8000, "dora": 9000}}, "a layer")
    yield plots.published_by_rank({"lora": {4: 70.0, 8: 71.0}})
    yield plots.scaling_rules(64, 16.0, False)
    yield plots.loss_by_rule({"alpha / rank": by_rank})
    yield plots.training_by_rule({r: {("lora", s): runs for s in (0, 1)} for r in (4, 64)}, 2)
    yield plots.loss_by_rate_and_rule({("lora", True): by_rate}, 2.2)
    yield plots.published_gains(row, row)
    rerun = [{"rank": 8, "published": 70.0, "rerun": 60.0}]
    yield plots.published_and_rerun({"LLaMA-7B, DoRA rank 16, LoRA own run": 1.0}, rerun, 75.0)
    both = {rank: {"lora": by_rate, "dora": by_rate} for rank in (8, 32)}
    yield plots.validation_by_rate(both)
    by_seed = {rate: dict(enumerate(values)) for rate, values in by_rate.items()}
    both = {rank: {"lora": by_seed, "dora": by_seed} for rank in (8, 32)}
    yield plots.accuracy_by_rate(both, {r: dict.fromkeys(by_rate, difference(0)) for r in (8, 32)})


@pytest.mark.slow
def test_no_text_is_small():
    """At the width that a laptop's page gives it, and at the least to which a page shrinks it."""
    for figure in drawn():
        width, dpi = figure.get_figwidth() * figure.dpi, figure.dpi
        least = plots.Picture(figure, "").least_width
        for text in figure.findobj(Text):
            if text.get_text() and text.get_visible():
                pixels = text.get_fontsize() * dpi / 72
                said = f"{text.get_text()!r}"
                assert pixels * min(1, NARROW / width) >= 10, said
                assert pixels * least / width >= 10, said
                assert "mathdefault{10^" not in text.get_text(), f"{said}: its exponent is small"


def linear(colours):
    """Return sRGB colours, from 0 to 1 in the last dimension, in linear light."""
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def test_the_start_pages_picture_stands_out_from_white_and_from_black():
    """By a contrast of 3, which WCAG 2.2 (1.4.3, 1.4.11) wants of large letters and of lines."""
    png = base64.b64decode(plots.Picture(plots.sketch(), "").png)
    pixels = torch.from_numpy(plt.imread(io.BytesIO(png))).flatten(0, 1).double()
    assert (pixels[:, 3] == 0).double().mean() > 0.8, "it has no ground of its own"
    inks, often = pixels[pixels[:, 3] == 1].unique(dim=0, return_counts=True)
    luminance = linear(inks[often > 100][:, :3]) @ torch.tensor([0.2126, 0.7152, 0.0722]).double()
    assert len(luminance) >= 4
    for ground in (1.0, 0.0056):  # white, and the #111 of JupyterLab's dark pages
        high, low = torch.maximum(luminance, luminance * 0 + ground), luminance.clamp_max(ground)
        assert ((high + 0.05) / (low + 0.05)).min() >= 3


# What is left of linear RGB where one kind of cones is missing: Machado, Oliveira and Fernandes, A
# Physiologically-based Model for Simulation of Color Vision Deficiency, 2009, table 1, severity 1.
SEEN = {
    "all cones": torch.eye(3),
    "protanopia": torch.tensor(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": torch.tensor(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
TO_XYZ = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / torch.tensor([[0.9505], [1.0], [1.0888]])


def cielab(colours):
    xyz = linear(colours) @ TO_XYZ.T
    root = torch.where(xyz > 0.008856, xyz.clamp_min(0) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def turned_over(colours):
    """Return colours as `IN_THE_DARK` shows them: invert(93.3%) hue-rotate(180deg)."""
    hue = torch.tensor([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
    return ((0.933 - 0.866 * colours) @ hue.T).clamp(0, 1)


def contrast(colours, ground):
    """Return the contrasts of colours to a ground as WCAG 2.2 defines them."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722])
    ink, paper = linear(colours) @ weights, linear(torch.full((3,), ground)) @ weights
    return (torch.maximum(ink, paper) + 0.05) / (torch.minimum(ink, paper) + 0.05)


def inks(figure):
    """Yield the opaque colours of what a figure draws, without what helps the eye: grids, bands."""
    for ax in figure.axes:
        for line in ax.lines:
            across = line.get_linewidth() < 1 and set(line.get_xdata()) == {0, 1}  # between rows
            if line.get_alpha() is None and not across:
                yield line.get_color()
        for collection in ax.collections:
            if collection.get_alpha() is None:
                for colours in (collection.get_facecolors(), collection.get_edgecolors()):
                    yield from (colour[:3] for colour in colours)
        for patch in ax.patches:
            yield patch.get_facecolor()[:3] if patch.get_fill() else patch.get_edgecolor()[:3]


def test_what_is_drawn_stands_out_from_light_pages_and_from_dark():
    """By a contrast of 3, which WCAG 2.2 (1.4.11) wants of what one needs to see."""
    found = [*plots.COLOURS.values(), *SHADES]
    found += [ink for figure in drawn() for ink in inks(figure)]
    found = sorted({to_hex(ink) for ink in found})
    colours = torch.tensor([to_rgb(ink) for ink in found])
    assert len(colours) >= 12
    for shown, ground in ((colours, 1.0), (turned_over(colours), 0x11 / 255)):
        stands_out = contrast(shown, ground)
        assert not [
            (ink, round(float(c), 2)) for ink, c in zip(found, stands_out, strict=True) if c < 3
        ]


@pytest.mark.parametrize("seen", SEEN)
def test_methods_in_one_figure_look_different_to_everybody(seen):
    """In CIELAB, where 2 can just be told apart side by side, on light and on dark pages."""
    names = ("lora", "dora", "dora-input", "full")
    colours = torch.tensor([to_rgb(plots.COLOURS[name]) for name in names])
    for shown in (colours, turned_over(colours)):
        light = (linear(shown) @ SEEN[seen].T).clamp(0, 1)
        rgb = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        apart = torch.pdist(cielab(rgb))
        assert apart.min() > 20, apart


def test_a_rate_is_written_without_an_exponent():
    assert [plots.rate_text(rate) for rate in (6e-5, 0.0077, 0.03, 1.0)] == [
        "0.00006",
        "0.0077",
        "0.03",
        "1",
    ]


def test_a_mean_that_is_too_high_is_a_triangle_at_the_edge():
    losses = {"lora": {4: [1.8, 1.8], 8: [3.0, 3.1]}}
    (ax,) = plots.loss_by_rank(losses, limits=(1.6, 2.2)).axes
    (above,) = (line for line in ax.lines if line.get_marker() == "^")
    assert above.get_xydata().tolist() == [[8, 2.2]] and not above.get_clip_on()
    assert "mean above the figure" in named(ax), "a reader of the figure alone knows"
    (ax,) = plots.loss_by_rank(losses, limits=(1.6, 4.0)).axes
    assert named(ax) == ["LoRA"]


def test_no_line_strikes_a_label_through():
    shares = {"lora": {"q": 0.12, "k": 0.12, "v": 0.12}}
    (ax,) = plots.magnitude_shares(shares, {"lora": {"q": 0.125, "k": 0.2, "v": 0.1}}).axes
    assert [text.xy[1] for text in ax.texts] == pytest.approx([12.5, 12, 12])
    (ax,) = plots.improvement_by_rank({"lora": {4: 2.0, 8: 1.0}, "dora": {4: 1.9, 8: 1.02}}).axes
    assert [text.get_va() for text in ax.texts] == ["bottom", "top"]


def test_methods_differ_in_more_than_colour_and_maps_use_no_methods_colour():
    markers = list(adapters.MARKERS.values())
    assert len(set(markers)) == len(markers) and "^" not in markers
    assert set(markers) <= set(Line2D.markers), "an entry of METHODS has its arguments in order"
    assert len(set(plots.COLOURS.values())) == len(markers)
    hues = {name: rgb_to_hsv(to_rgb(colour))[0] for name, colour in plots.COLOURS.items()}
    del hues["frozen"]  # it is grey
    for end in (0.0, 0.15, 0.85, 1.0):
        hue = rgb_to_hsv(DIVERGING(end)[:3])[0]
        apart = {name: min(abs(hue - h), 1 - abs(hue - h)) for name, h in hues.items()}
        assert apart["lora"] > 0.1 and apart["dora"] > 0.08 and apart["full"] > 0.1, apart


def test_every_rate_has_its_point_and_what_lies_above_its_own_triangle():
    by_rate = {0.002: [1.8, 1.9], 0.012: [1.7, 1.7], 0.03: [3.0, float("nan")]}
    figure = plots.loss_by_rate({"lora": by_rate, "dora": by_rate}, highest=2.2)
    (ax,) = figure.axes
    outlines = [line for line in ax.lines if line.get_markersize() == 12]
    assert [line.get_xydata().tolist() for line in outlines] == [[[0.012, 1.7]]] * 2
    assert [line.get_marker() for line in outlines] == ["o", "s"]
    above = [line for line in ax.lines if line.get_marker() == "^"]
    figure.draw_without_rendering()
    places = [line.get_transform().transform(line.get_xydata())[0] for line in above]
    assert [line.get_color() for line in above] == [plots.COLOURS[m] for m in ("lora", "dora")]
    assert places[1][0] - places[0][0] > above[0].get_markersize() and places[0][1] == places[1][1]


def test_both_panels_compare_the_seeds_of_both_methods():
    accuracies = {"lora": {0.006: {0: 0.4, 1: 0.5, 2: 0.9}}, "dora": {0.006: {0: 0.5, 1: 0.6}}}
    gap = difference(0.1, half=0.2)
    top, bottom = plots.accuracy_by_rate({8: accuracies}, {8: {0.006: gap}}).axes
    lora, dora = (line.get_ydata()[0] for line in top.lines)
    assert dora - lora == pytest.approx(100 * gap.mean)
    hollow = [c.get_offsets()[0, 1] for c in top.collections if not c.get_facecolors().size]
    assert hollow == pytest.approx([90])
    assert [text.get_text() for text in bottom.texts] == ["−10.0 to +30.0"]
    assert {line.get_marker() for line in bottom.lines} >= {"^", "v"}


def test_an_interval_beyond_the_axis_ends_in_arrows_and_figures():
    (ax,) = plots.narrowing_interval([1.0, 1.1, 1.3], [1.0, 1.0, 1.2], 2).axes
    assert [line.get_marker() for line in ax.lines].count("<") == 2
    assert "−0.6853 to +0.5853" in ax.get_yticklabels()[0].get_text()


def test_the_average_of_published_gains_is_named():
    row = dict.fromkeys(TASKS, 1.0) | {"model": "LLaMA-7B", "rank": 8, "method": "LoRA"}
    (ax,) = plots.published_gains(dict.fromkeys(TASKS, 3.0) | row | {"PIQA": 9.0}, row).axes
    assert "average\n+1.0" in [text.get_text() for text in ax.texts]


def test_times_that_are_equal_do_not_cover_each_other():
    ways = dict.fromkeys(("plain", "compiled"), "")
    records = [{"form": "LoRA", "way": way, "milliseconds": 1.0} for way in ways]
    (ax,) = plots.step_times(records, ways).axes
    heights = [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert len(set(heights)) == 2


def test_a_row_beyond_the_axis_is_a_triangle_at_its_edge():
    before = torch.eye(2)
    after = torch.tensor([[1.5, 0.0], [0.0, 4.0]])
    ax, last = plots.rows_moved(before, {"lora": after, "dora": before}).axes
    points, beyond = (collection.get_offsets().tolist() for collection in ax.collections)
    assert points == [[0.0, 50.0]] and beyond == [[0.0, 110.0]]
    assert named(last) == ["an update across the row", "row above the figure"]
    inside = plots.rows_moved(before, {"lora": before, "dora": before}).axes
    assert named(inside[-1]) == ["an update across the row"]


@pytest.mark.parametrize("angle", [-150, -60, 0, 60, 150, 180])
def test_names_of_vectors_stand_apart(angle):
    for ax in plots.one_vector(1.5, angle, 2.0).axes:
        figure = ax.figure
        figure.draw_without_rendering()
        names = [text for text in ax.texts if text.get_text() in ("w'", "w0", "u")]
        assert len(names) == 3
        boxes = [text.get_window_extent() for text in names]
        for at, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[at + 1 :])


@pytest.mark.parametrize("rank", [4, 8, 64])
@pytest.mark.parametrize("grows", [False, True])
def test_both_values_of_the_scalings_can_be_read(rank, grows):
    figure = plots.scaling_rules(rank, 64.0, grows)
    figure.draw_without_rendering()
    for ax in figure.axes:
        lower, upper = (text.get_window_extent() for text in ax.texts)
        assert not lower.overlaps(upper)
