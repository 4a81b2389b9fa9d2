"""The explorers: a widget, and the picture that stands for it where no kernel runs."""

import base64

import pytest
from IPython.core.formatters import DisplayFormatter
from ipywidgets import IntSlider
from matplotlib import pyplot as plt

from lab_utils import plots, widgets
from lab_utils.comparison import RESULTS, read_results
from lab_utils.plots.style import IN_THE_DARK

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def explorer():
    """An explorer of a line, and the list of slopes that were drawn."""
    drawn = []

    def draw(slope):
        drawn.append(slope)
        figure, ax = plt.subplots()
        ax.plot([0, 1], [0, slope])
        return figure, f"A line with slope {slope}."

    slider = IntSlider(value=3, min=0, max=9, description="slope")
    return widgets.Explorer({"slope": slider}, draw), drawn


def shown(explorer):
    """Return what IPython sends to the page, and its metadata."""
    return DisplayFormatter().format(explorer)


def test_it_is_a_widget_and_a_picture_with_an_alternative_text(explorer):
    data, metadata = shown(explorer[0])
    assert data[VIEW]["model_id"] == explorer[0].model_id
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata == {"image/png": {"alt": "A line with slope 3."}}
    assert data["text/plain"] == (
        "A line with slope 3.\nIn JupyterLab it follows these controls: slope."
    )
    assert data["text/html"].endswith("<p>Run this cell to get its controls: slope.</p>")
    assert not plt.get_fignums(), "a figure that stays open is shown a second time"


def test_a_figure_has_an_alternative_text_wherever_it_is_shown():
    figure, _ = plt.subplots()
    data, metadata = shown(plots.Picture(figure, 'a "line" & more'))
    assert data["text/plain"] == 'a "line" & more'
    assert metadata == {"image/png": {"alt": 'a "line" & more'}}
    assert data["text/html"] == (
        f'{IN_THE_DARK}<img class="lab-figure" src="data:image/png;base64,{data["image/png"]}" '
        'alt="a &quot;line&quot; &amp; more" style="min-width: 422px">'
    )
    assert not plt.get_fignums()


def test_the_picture_is_that_of_the_controls(explorer):
    explorer, drawn = explorer
    before, _ = shown(explorer)
    explorer.children[0].value = 5
    after, metadata = shown(explorer)
    assert drawn == [3, 3, 5, 5]  # each time for the widget and for its picture
    assert before["image/png"] != after["image/png"]
    assert metadata["image/png"]["alt"] == "A line with slope 5."


def test_the_same_controls_give_the_same_picture():
    first, second = (shown(widgets.scaling_explorer())[0] for _ in range(2))
    assert first["image/png"] == second["image/png"]


def test_a_readout_has_the_decimals_of_its_steps():
    explorer = widgets.vector_explorer()
    formats = {name: control.readout_format for name, control in explorer.controls.items()}
    assert formats == {"update_length": ".2f", "update_angle": ".0f", "magnitude": ".2f"}
    assert explorer.said("update_angle", 70.0) == "70"
    scaling = widgets.scaling_explorer()
    assert scaling.said("grows", True) == "yes" and scaling.said("rank", 64) == "64"


def test_rates_are_said_as_the_lessons_write_them():
    found = read_results(RESULTS / "head-to-head.jsonl")
    explorer = widgets.rank_explorer(found)
    said = [explorer.said("rate", value) for value in explorer.choices(99)["rate"]]
    assert said[:2] == ["chosen for each rank", "0.0003"] and not any("e-" in it for it in said)
    _, alt = explorer.drawn(rate="chosen")
    assert "LoRA and DoRA at the rate chosen for each rank" in alt and "(rank 32)" in alt
