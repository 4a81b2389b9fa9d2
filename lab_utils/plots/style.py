"""The style that all figures share, and how a lesson shows a figure with an alternative text."""

from collections.abc import Sequence
from html import escape

import matplotlib.pyplot as plt
from IPython.core.pylabtools import print_figure
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# A method's colour is that of `lab_utils.adapters.METHODS`. The diverging map, olive below zero and
# violet above, has none of them; it too stays readable in the common forms of colour blindness.
DIVERGING = LinearSegmentedColormap.from_list(
    "olive-violet",
    ["#3d3a00", "#8f8830", "#d6d2a0", "#f7f7f7", "#c4b8e0", "#7d63b8", "#2d0f5e"],
)
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


# A white ground glares in a dark theme. There a figure is turned over, hues kept; its white becomes
# the #111 of JupyterLab's dark pages. On paper, and where no theme is told, it stays as it is.
# ipywidgets draws the arrow of a list to choose from in black, on any ground.
LIGHT_ARROW = (
    "url(\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E"
    "%3Cpath fill='%23ddd' d='M5 7l4 5 4-5z'/%3E%3C/svg%3E\")"
)
IN_THE_DARK = (
    '<style>@media screen {[data-jp-theme-light="false"] .lab-figure, .vscode-dark .lab-figure '
    "{filter: invert(93.3%) hue-rotate(180deg)} "
    f'[data-jp-theme-light="false"] .widget-dropdown {{--jp-widgets-dropdown-arrow: {LIGHT_ARROW}}}'
    "}</style>"
)


class Picture:
    """A figure with its alternative text, as a notebook shows it.

    JupyterLab shows the HTML: its own form of a PNG file has no alternative text. GitHub and the
    reading version show the PNG file, whose metadata has it. Making one closes the figure.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        self.png: str = print_figure(figure, base64=True)
        self.alt = alt
        # In pixels. A narrow page scrolls a figure rather than shrink its text below 10 pixels.
        self.least_width = round(0.66 * figure.get_figwidth() * figure.dpi)
        plt.close(figure)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        html = (
            f'{IN_THE_DARK}<img class="lab-figure" src="data:image/png;base64,{self.png}" '
            f'alt="{escape(self.alt)}" '
            f'style="min-width: {self.least_width}px">'
        )
        return {"image/png": self.png, "text/html": html}, {"image/png": {"alt": self.alt}}


def layered_width(place: int) -> float:
    """Return a line's width by its position: those below stay visible where lines coincide."""
    return (2.8, 2.0, 1.4)[min(place, 2)]


def show(figure: Figure, alt: str) -> None:
    """Display a figure with an alternative text, and close it."""
    display(Picture(figure, alt))


def beyond_mark(what: str) -> Line2D:
    """Return a legend's line for the triangles at the upper edge of a figure.

    Args:
        what: lies above the figure, as "mean".
    """
    style = {"color": "0.3", "linestyle": "", "marker": "^", "markersize": 8}
    return Line2D([], [], label=f"{what} above the figure", **style)


def decimal_axis(axis: Axis) -> None:
    """Let a logarithmic axis name its powers of ten as `0.1`, not as a small exponent."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def rank_axis(ax: Axes, ranks: list[int]) -> None:
    """Give a panel a horizontal axis of ranks, which double from one to the next."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, ranks)
    ax.minorticks_off()
    ax.set_xlabel("rank")


def rate_axis(ax: Axes, rates: list[float]) -> None:
    """Give a panel a horizontal axis of learning rates in one notation; if many, label some."""
    ax.set_xscale("log")
    named = rates[:: 1 + len(rates) // 13]
    ax.set_xticks(named, [rate_text(rate) for rate in named], rotation=30, ha="right")
    ax.set_xticks(rates, minor=True)
    ax.tick_params(which="minor", labelbottom=False)


def rate_text(rate: float) -> str:
    """Return a learning rate as the lessons write it, such as `0.00006`: never with an exponent."""
    return f"{rate:.10f}".rstrip("0").rstrip(".")


def label_bars(
    ax: Axes, bars: BarContainer, labels: list[str], above: Sequence[float] = ()
) -> None:
    """Write a label at the end of each bar, which no line of the figure strikes through.

    Args:
        above: heights, one for each bar, that a label stands above as well.
    """
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for bar, label, also in zip(bars, labels, above or [0.0] * len(labels), strict=True):
        height = bar.get_height()
        end, side = (height, -1) if height < 0 else (max(height, also), 1)
        ax.annotate(
            label,
            (bar.get_x() + bar.get_width() / 2, end),
            (0, 3 * side),
            textcoords="offset points",
            ha="center",
            va="bottom" if side == 1 else "top",
            fontsize=10,
            bbox=ground,
        )
