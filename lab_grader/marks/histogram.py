"""The distribution of a class's points, drawn for a page that has a light and a dark theme."""

import re
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

# Colours that occur nowhere else in the drawing: the page's own are put in their place.
INK, BAR = "#010203", "#040506"


def histogram(scores: list[float], most: float) -> Markup:
    """Return a histogram of the points as an SVG, in the colours of the page; "" without scores.

    Args:
        scores: of students whose marks count.
        most: the points possible.
    """
    if not scores:
        return Markup()
    width = max(1, round(most / 20))
    edges = np.arange(0, most + width, width)
    counts, _ = np.histogram(scores, edges)
    with plt.rc_context(
        {"svg.hashsalt": "report", "text.color": INK, "axes.labelcolor": INK}
        | {"xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK, "font.size": 11}
        | {"axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, ax = plt.subplots(figsize=(8, 2.9), layout="constrained")
        ax.bar(edges[:-1], counts, width=0.9 * width, align="edge", color=BAR)
        ax.axvline(np.median(scores), color=INK, linestyle="--", linewidth=1.2)
        ax.set_xlim(0, edges[-1])
        ax.set_xlabel(f"points of {most:g}")
        ax.set_ylabel("students")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    alt = (
        f"Histogram of the points of {len(scores)} students: from {min(scores):g} to "
        f"{max(scores):g}, half of them below {np.median(scores):g}."
    )
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = svg.replace(INK, "currentColor").replace(BAR, "var(--bar)")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))
