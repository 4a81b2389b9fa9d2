"""The explorers of the lessons: sliders over the figures of `lab_utils.plots`."""

from ipywidgets import Checkbox, Dropdown, FloatSlider, SelectionSlider, VBox, interactive_output
from torch import Tensor

from lab_utils import plots
from lab_utils.published import TASKS, commonsense_table, find


def vector_explorer() -> VBox:
    """Return sliders for one weight vector: an update for LoRA and DoRA, and DoRA's length m."""
    sliders = {
        "update_length": _slider("length of u", 1.0, 0.0, 2.0, 0.05),
        "update_angle": _slider("angle of u (°)", 70.0, -180.0, 180.0, 5.0),
        "magnitude": _slider("m (DoRA only)", 2.0, 0.5, 3.0, 0.05),
    }

    def draw(**values: float) -> None:
        alt = (
            "Two panels with the same weight vector w0 and update u. Left, LoRA: the sum has "
            "another length and another angle. Right, DoRA: the same angle, and the length m."
        )
        plots.show(plots.one_vector(**values), alt)

    return VBox([*sliders.values(), interactive_output(draw, sliders)])


def matrix_explorer(weight: Tensor, update: Tensor) -> VBox:
    """Return sliders over the rows of a weight: strength of the update, and DoRA's magnitude.

    Args:
        weight: W0, `(out_features, in_features)`.
        update: scaling * B A, of the same shape.
    """
    sliders = {
        "strength": _slider("strength of B A", 0.5, 0.0, 1.0, 0.05),
        "magnitude_factor": _slider("m / ||W0||", 1.0, 0.5, 1.5, 0.05),
    }

    def draw(strength: float, magnitude_factor: float) -> None:
        alt = (
            "Bars for each row of a weight. Left, its length: LoRA's differ from the frozen ones "
            "as the update grows, DoRA's are m. Right, its turn in degrees: the same for both."
        )
        plots.show(plots.lengths_and_turns(weight, update, strength, magnitude_factor), alt)

    return VBox([*sliders.values(), interactive_output(draw, sliders)])


def _slider(name: str, start: float, low: float, high: float, step: float) -> FloatSlider:
    # continuous_update=False: a figure takes longer to draw than a handle takes to move
    return FloatSlider(
        value=start,
        min=low,
        max=high,
        step=step,
        description=name,
        continuous_update=False,
        style={"description_width": "9em"},
        layout={"width": "28em"},
    )


def scaling_explorer() -> VBox:
    """Return a slider over the rank and one over alpha, for LoRA's two scalings."""
    controls = {
        "rank": SelectionSlider(value=64, options=[4, 8, 16, 32, 64], description="rank"),
        "alpha": _slider("alpha", 16.0, 4.0, 64.0, 4.0),
        "grows": Checkbox(value=False, description="alpha = 2 * rank instead"),
    }
    controls["rank"].layout, controls["rank"].style = {"width": "28em"}, controls["alpha"].style

    def draw(rank: int, alpha: float, grows: bool) -> None:
        alt = (
            "Two panels over the rank. Left, the scaling: alpha / rank falls faster than "
            "alpha / sqrt(rank). Right, the first gradient relative to rank 4: with a fixed alpha "
            "it falls under alpha / rank and stays the same under alpha / sqrt(rank)."
        )
        plots.show(plots.scaling_rules(rank, alpha, grows), alt)

    return VBox([*controls.values(), interactive_output(draw, controls)])


def published_explorer() -> VBox:
    """Return controls over the published table: the pair to compare, and a task to leave out."""
    table = commonsense_table()
    pairs = {
        f"{model}, DoRA rank {rank} against {method}": (model, rank, method)
        for model, rank, method in (
            ("LLaMA-7B", 32, "LoRA"),
            ("LLaMA-7B", 32, "LoRA (own run)"),
            ("LLaMA-7B", 16, "LoRA (own run)"),
            ("LLaMA-13B", 32, "LoRA"),
            ("LLaMA2-7B", 32, "LoRA"),
            ("LLaMA2-7B", 16, "LoRA"),
            ("LLaMA3-8B", 32, "LoRA"),
        )
    }
    wide = {"layout": {"width": "36em"}, "style": {"description_width": "9em"}}
    controls = {
        "pair": Dropdown(options=list(pairs), description="compare", **wide),
        "left_out": SelectionSlider(
            options=["nothing", *TASKS], description="leave out", continuous_update=False, **wide
        ),
    }

    def draw(pair: str, left_out: str) -> None:
        model, rank, method = pairs[pair]
        dora, lora = find(table, model, "DoRA", rank), find(table, model, method, 32)
        figure = plots.published_gains(dora, lora, None if left_out == "nothing" else left_out)
        alt = f"Bars of DoRA's gain on eight tasks: {figure.axes[0].get_title()}."
        plots.show(figure, alt)

    return VBox([*controls.values(), interactive_output(draw, controls)])
