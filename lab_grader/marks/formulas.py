"""Formulas as drawings: a page with them needs no network, no script and no font."""

import functools
from types import ModuleType

EM = 18  # units of a drawing in one em of the page's text
# Of no width, and no line breaks at it: a comma stays beside its formula.
WORD_JOINER = "\N{WORD JOINER}"


def in_text(formula: str) -> str:
    """Return a TeX formula as HTML, to stand in a line of text.

    No line breaks between it and a bracket or a full stop.
    """
    drawn = draw(formula, inline=True)
    return (
        '<span class="formula" style="white-space: nowrap">'
        f"{WORD_JOINER}{drawn}{WORD_JOINER}</span>"
    )


def alone(formula: str) -> str:
    """Return a TeX formula as HTML, to stand centred in a line of its own, which may scroll."""
    return f'<span class="formula alone">{draw(formula, inline=False)}</span>'


def draw(formula: str, inline: bool) -> str:
    """Return a TeX formula as an SVG in the colour and size of the text around it.

    Its title is the formula, for those who do not see it. Whatever is wrong with a formula makes
    ziamath raise an exception of one kind or another.
    """
    ziamath = _typesetter()
    drawn = ziamath.Latex(
        formula, size=1.1 * EM, inline=inline, color="currentColor", title=formula
    )
    svg = drawn.svgxml()
    for side in ("width", "height"):
        svg.set(side, f"{float(svg.get(side)) / EM:.3f}em")
    svg.set("style", f"vertical-align: {(drawn.getyofst() - drawn.margin) / EM:.3f}em")
    svg.set("role", "img")
    return ziamath.zmath.ET.tostring(svg, encoding="unicode")


@functools.cache
def _typesetter() -> ModuleType:
    """Return ziamath, set up; its import takes a while, and a run without formulas needs none."""
    import ziamath

    ziamath.config.svg2 = False  # no <symbol> with an id that other formulas repeat
    ziamath.config.precision = 2
    return ziamath
