"""Figures of runs and weights draw the numbers that they are given."""

import matplotlib.pyplot as plt
import pytest
import torch

from lab_utils import plots
from lab_utils.comparison import PairedDifference


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
        (line.get_xdata()[0], line.get_ydata()[0], line.get_color(), line.get_marker())
        for line in ax.lines
        if len(line.get_xdata())
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
