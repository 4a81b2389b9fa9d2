"""The explorers of the lessons: sliders over the figures of `lab_utils.plots`."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from statistics import fmean

from IPython.display import display
from ipywidgets import (
    Checkbox,
    Dropdown,
    FloatSlider,
    IntSlider,
    Output,
    SelectionSlider,
    VBox,
    Widget,
    interactive_output,
)
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor, nn

from lab_utils import plots
from lab_utils.adapters import ADAPTERS
from lab_utils.comparison import RESULTS, choose_learning_rate, of_the_search, select
from lab_utils.data import language_task
from lab_utils.models import load_pretrained
from lab_utils.published import TASKS, commonsense_table, pairs
from lab_utils.training import Settings

# See benchmarks/weight_changes.py, which recorded it.
RECORDED_LAYER = "blocks.1.q_proj"

Drawing = tuple[Figure, str]  # and its alternative text

# For screen readers: ipywidgets gives the handle of a slider no name and, in a slider over
# choices, the index of the choice as its value; and what one can type a value into, no name either.
NAME_SLIDERS = """
const name = explorer => {
    for (const slider of explorer.querySelectorAll('.widget-slider')) {
        const handle = slider.querySelector('[role=slider]');
        const text = of => slider.querySelector(of)?.textContent ?? '';
        handle?.setAttribute('aria-label', text('.widget-label'));
        handle?.setAttribute('aria-valuetext', text('.widget-readout'));
        const typed = slider.querySelector('.widget-readout[contenteditable=true]');
        typed?.setAttribute('role', 'textbox');
        typed?.setAttribute('aria-label', text('.widget-label') + ', type a value');
    }
};
const start = tries => {  // the page runs this before it shows what surrounds it
    const explorer = element.closest('.widget-vbox');
    if (!explorer) {
        if (tries) setTimeout(start, 100, tries - 1);
        return;
    }
    name(explorer);
    const changes = {childList: true, characterData: true, subtree: true};
    new MutationObserver(() => name(explorer)).observe(explorer, changes);
};
start(100);
"""


class Explorer(VBox):
    """Controls above a figure that is drawn again when they change.

    The output also holds a picture. Where no kernel runs (GitHub, a static page), a stored
    notebook shows it instead of the widget; JupyterLab prefers the widget.

    Args:
        controls: by the name of the argument of `draw` that gets their value.
        draw: returns the figure for these values, and its alternative text.
    """

    def __init__(self, controls: dict[str, Widget], draw: Callable[..., Drawing]) -> None:
        self.controls, self._draw = controls, draw

        def show(**values: object) -> None:
            plots.show(*draw(**values))

        script = {"data": {"application/javascript": NAME_SLIDERS}, "metadata": {}}
        names = Output(outputs=[{"output_type": "display_data", **script}])
        super().__init__([*controls.values(), names, interactive_output(show, controls)])

    def choices(self, most: int) -> dict[str, list]:
        """Return at most `most` values of each control, the current one included."""
        return {name: _values(control, most) for name, control in self.controls.items()}

    def said(self, name: str, value: object) -> str:
        """Return the text of a value as the control's readout shows it."""
        control = self.controls[name]
        if isinstance(control, Checkbox):
            return "yes" if value else "no"
        if isinstance(control, FloatSlider):
            return format(value, control.readout_format)
        options = getattr(control, "options", ())
        labels = {o[1]: o[0] for o in options if isinstance(o, tuple)}
        return str(labels.get(value, value))

    def drawn(self, **values: object) -> tuple[bytes, str]:
        """Return the PNG file of the figure for some values, and its alternative text."""
        figure, alt = self._draw(**values)
        return base64.b64decode(plots.Picture(figure, alt).png), alt

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        figure, alt = self._draw(**{name: c.value for name, c in self.controls.items()})
        names = ", ".join(control.description for control in self.controls.values())
        data = super()._repr_mimebundle_(**kwargs)
        data["text/plain"] = f"{alt}\nIn JupyterLab it follows these controls: {names}."
        picture, metadata = plots.Picture(figure, alt)._repr_mimebundle_()
        # Shown when the notebook is reopened: the new kernel does not have the sliders.
        picture["text/html"] += f"<p>Run this cell to get its controls: {escape(names)}.</p>"
        return data | picture, metadata


def _values(control: Widget, most: int) -> list:
    """Return at most `most` values of a control, evenly spread: its ends and its own value too."""
    if isinstance(control, Checkbox):
        return [False, True]
    if isinstance(control, FloatSlider | IntSlider):
        steps = round((control.max - control.min) / control.step)
        all_of_them = [control.min + i * control.step for i in range(steps + 1)]
        if isinstance(control, FloatSlider):
            all_of_them = [round(value, 6) for value in all_of_them]
    else:
        all_of_them = [
            option[1] if isinstance(option, tuple) else option for option in control.options
        ]
    last = len(all_of_them) - 1
    kept = (
        {round(i * last / (most - 1)) for i in range(most)}
        if last >= most
        else set(range(last + 1))
    )
    present = all_of_them.index(control.value)
    if present not in kept:  # it replaces its nearest neighbour, except the ends
        kept.remove(min(kept - {0, last}, key=lambda index: abs(index - present)))
        kept.add(present)
    return [all_of_them[index] for index in sorted(kept)]


def vector_explorer() -> Explorer:
    """Return sliders for one weight vector: an update for LoRA and DoRA, and DoRA's length m."""
    sliders = {
        "update_length": _slider("length of u", 1.0, 0.0, 2.0, 0.05),
        "update_angle": _slider("angle of u (°)", 70.0, -180.0, 180.0, 5.0),
        "magnitude": _slider("m (DoRA only)", 2.0, 0.5, 3.0, 0.05),
    }

    def draw(**values: float) -> Drawing:
        figure = plots.one_vector(**values)
        lora, dora = (ax.get_title().replace("\n", ", ") for ax in figure.axes)
        return figure, (
            f"Two panels with the same weight vector w0 and update u. Left, {lora}. Right, {dora}."
        )

    return Explorer(sliders, draw)


def matrix_explorer(weight: Tensor, update: Tensor) -> Explorer:
    """Return sliders over the rows of a weight: strength of the update, and DoRA's magnitude.

    Args:
        weight: W0, `(out_features, in_features)`.
        update: scaling * B A, of the same shape.
    """
    sliders = {
        "strength": _slider("strength of B A", 0.5, 0.0, 1.0, 0.05),
        "magnitude_factor": _slider("m / ||W0||", 1.0, 0.5, 1.5, 0.05),
    }

    def draw(strength: float, magnitude_factor: float) -> Drawing:
        alt = (
            "Bars for each row of a weight. Left, its length: LoRA's differ from the frozen ones "
            "as the update grows, DoRA's are m. Right, its turn in degrees: the same for both."
        )
        return plots.lengths_and_turns(weight, update, strength, magnitude_factor), alt

    return Explorer(sliders, draw)


def training_explorer() -> Explorer:
    """Return sliders over recorded trainings of one layer: rank, step, strength of the update."""
    recorded = load_file(RESULTS / "one-layer.safetensors")
    weight = load_pretrained().get_submodule(RECORDED_LAYER).weight.detach()
    ranks, steps = (sorted({int(key.split("/")[part]) for key in recorded}) for part in (1, 2))
    sliders = {
        "rank": _choice("rank", ranks, 8),
        "step": _choice("step of the training", steps, steps[-1]),
        "strength": _slider("strength of B A", 1.0, 0.1, 2.0, 0.1),
    }

    def merged(method: str, rank: int, step: int, strength: float) -> Tensor:
        base = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        base.load_state_dict({"weight": weight})
        layer = ADAPTERS[method](base, rank, alpha=2 * rank * strength)
        trained = {n: recorded[f"{method}/{rank}/{step}/{n}"] for n in _trained(layer)}
        layer.load_state_dict(trained, strict=False)
        return layer.merged_weight().detach()

    def draw(**values: float) -> Drawing:
        after = {method: merged(method, **values) for method in ("lora", "dora")}
        figure = plots.rows_moved(weight, after)
        lora, dora = (ax.get_title() for ax in figure.axes)
        return figure, (
            "A point for each row of a layer, its turn against the change of its length. "
            f"Left, {lora}: rows that turn further grow longer. Right, {dora}."
        )

    return Explorer(sliders, draw)


def _trained(layer: nn.Module) -> list[str]:
    return [name for name, parameter in layer.named_parameters() if parameter.requires_grad]


class LiveLosses:
    """A chart of training losses that grows while models train, one after the other.

    Args:
        every: steps between two drawings. A drawing takes about as long as a step or two.
        steps: of one training, where the axis ends; by default one pass of the language task.
    """

    def __init__(self, every: int = 15, steps: int | None = None) -> None:
        self.every = every
        self.steps = steps or len(language_task().train) // Settings(adapter_type="lora").batch_size
        self.losses: dict[str, list[float]] = {}
        self._shown = display(self._picture(), display_id=True)

    def follow(self, method: str) -> Callable[[int, nn.Module, float], None]:
        """Return an `on_step` for `train_and_evaluate` that adds this method's losses."""
        losses = self.losses.setdefault(method, [])

        def on_step(step: int, model: nn.Module, loss: float) -> None:
            if step:  # step 0 has no loss
                losses.append(loss)
            if step % self.every == 0:
                self.draw()

        return on_step

    def draw(self) -> None:
        """Draw the losses so far; call it at the end, too."""
        self._shown.update(self._picture())

    def _picture(self) -> plots.Picture:
        alt = "Training loss over the steps so far, one line for each method."
        return plots.Picture(plots.live_losses(self.losses, self.steps), alt)


def seeds_explorer(baseline: Sequence[float], other: Sequence[float]) -> Explorer:
    """Return a slider over the number of seeds that an interval is computed from.

    Args:
        baseline, other: the loss of each seed of LoRA and DoRA, in the same order.
    """
    slider = IntSlider(
        value=3,
        min=2,
        max=len(baseline),
        description="seeds",
        continuous_update=False,
        **_wide(),
    )

    def draw(seeds: int) -> Drawing:
        figure = plots.narrowing_interval(baseline, other, seeds)
        # each drawn as a line from its low end to its high one
        ends = [sorted(line.get_xdata()) for line in figure.axes[0].lines[:2]]
        paired, unpaired = (f"{low:+.4f} to {high:+.4f}" for low, high in ends)
        return figure, f"Intervals from {seeds} seeds: paired {paired}, unpaired {unpaired}."

    return Explorer({"seeds": slider}, draw)


def rank_explorer(records: Sequence[dict], ranks: Sequence[int] = (4, 8, 16, 32)) -> Explorer:
    """Return a slider for one learning rate of LoRA at all ranks, against DoRA's chosen ones.

    Args:
        records: runs of both methods at all ranks and rates, as `benchmarks/head_to_head.py`
            makes them.
        ranks: which of them to draw; by default those that were run with all rates.
    """
    tried = {
        (method, rank): of_the_search(select(records, adapter_type=method, rank=rank, targets=None))
        for method in ("lora", "dora")
        for rank in ranks
    }
    at_every_rank = [{run["learning_rate"] for run in tried["lora", rank]} for rank in ranks]
    rates = sorted(set.intersection(*at_every_rank))
    options = [("chosen for each rank", "chosen"), *((plots.rate_text(r), r) for r in rates)]
    slider = _choice("LoRA's learning rate", options, rates[2])

    # The same for every rate, so that it stays while one drags; runs that diverged lie far above.
    limits = 1.65, 2.2

    def losses(method: str, rank: int, rate: float | str) -> list[float]:
        if isinstance(rate, str):
            rate = choose_learning_rate(tried[method, rank])
        return [run["test_loss"] for run in select(tried[method, rank], learning_rate=rate)]

    def draw(rate: float | str) -> Drawing:
        by_method = {
            "lora": {rank: losses("lora", rank, rate) for rank in ranks},
            "dora": {rank: losses("dora", rank, "chosen") for rank in ranks},
        }
        gaps = [fmean(by_method["dora"][r]) - fmean(by_method["lora"][r]) for r in ranks]
        lead = ", ".join(f"{gap:+.3f} (rank {r})" for r, gap in zip(ranks, gaps, strict=True))
        own = "the rate chosen for each rank"
        lora = "LoRA and" if isinstance(rate, str) else f"LoRA at {plots.rate_text(rate)},"
        title = f"{lora} DoRA at {own}\nDoRA minus LoRA: {lead}"
        alt = f"Test loss over the rank. {title}.".replace("\n", ". ")
        return plots.loss_by_rank(by_method, title, limits), alt

    return Explorer({"rate": slider}, draw)


def scaling_explorer() -> Explorer:
    """Return a slider over the rank and one over alpha, for LoRA's two scalings."""
    controls = {
        "rank": _choice("rank", [4, 8, 16, 32, 64], 64),
        "alpha": _slider("alpha", 16.0, 4.0, 64.0, 4.0),
        "grows": Checkbox(value=False, description="alpha = 2 * rank", **_wide()),
    }

    def draw(rank: int, alpha: float, grows: bool) -> Drawing:
        figure = plots.scaling_rules(rank, alpha, grows)
        scaling, gradient = ([text.get_text() for text in ax.texts] for ax in figure.axes)
        return figure, (
            f"Two panels over the rank. At rank {rank} alpha is {2 * rank if grows else alpha:g}. "
            f"Left, the scaling there: {scaling[0]} under alpha / rank, {scaling[1]} under "
            f"alpha / sqrt(rank). Right, the first gradient relative to rank 4: {gradient[0]} and "
            f"{gradient[1]}."
        )

    def no_effect(change: dict) -> None:
        controls["alpha"].disabled = change["new"]

    controls["grows"].observe(no_effect, "value")
    return Explorer(controls, draw)


def published_explorer() -> Explorer:
    """Return controls over the published table: the pair to compare, and a task to leave out."""
    known = pairs(commonsense_table())
    wide = _wide()
    controls = {
        "pair": Dropdown(options=list(known), description="compare", **wide),
        "left_out": SelectionSlider(
            options=["nothing", *TASKS], description="leave out", continuous_update=False, **wide
        ),
    }

    def draw(pair: str, left_out: str) -> Drawing:
        dora, lora = known[pair]
        figure = plots.published_gains(dora, lora, None if left_out == "nothing" else left_out)
        alt = f"Bars of DoRA's gain on eight tasks: {figure.axes[0].get_title()}."
        return figure, alt

    return Explorer(controls, draw)


def _wide() -> dict:
    """Return the layout of all controls, so that they are aligned."""
    return {"layout": {"width": "min(36em, 98%)"}, "style": {"description_width": "min(11em, 40%)"}}


def _choice(name: str, options: Sequence, start: object) -> SelectionSlider:
    return SelectionSlider(
        options=options,
        value=start,
        description=name,
        continuous_update=False,
        **_wide(),
    )


def _slider(name: str, start: float, low: float, high: float, step: float) -> FloatSlider:
    # continuous_update=False: a figure takes longer to draw than a handle takes to move
    return FloatSlider(
        value=start,
        min=low,
        max=high,
        step=step,
        description=name,
        readout_format=f".{_decimals(step)}f",
        continuous_update=False,
        **_wide(),
    )


def _decimals(step: float) -> int:
    """Return how many decimals the multiples of a step need."""
    return len(f"{step:g}".partition(".")[2])
