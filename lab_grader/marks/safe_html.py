"""What a page may hold of a student's work: nothing that runs, loads, or imitates the page.

`configure` hands `FILTERS`, `SHOWN` and `PlainNames` to nbconvert's `HTMLExporter`, which makes the
feedback pages and Formgrader's page of a submission. Texts and outputs are rendered
first and sanitised then (by nh3), so that it does not matter how a text led to what it became.
"""

import html
import re

import nh3
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters import get_metadata
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from pygments.token import STANDARD_TYPES
from traitlets.config import Config

# A picture within the page, or a file beside it; no address, and nothing that can name one.
PICTURE = re.compile(
    r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*"
    r"|\w(\w|[ .-]|%20)*(/\w(\w|[ .-]|%20)*)*\.(png|jpe?g|gif|webp)",
    re.IGNORECASE,
)
LINK_IN_FORMULA = re.compile(r"\\(href|mmlToken)(?![a-zA-Z])")
PIXELS = re.compile(r"\d{1,4}")
CODE = {"highlight", "hl-ipython3", "dataframe", *filter(None, STANDARD_TYPES.values())}
# Longer texts are shown as they were written: rendering some takes the square of their length.
MOST_TEXT = 20_000  # characters of a cell
MOST_TEXTS = 200_000  # of all that is rendered in a page


def _attribute(tag: str, name: str, value: str) -> str | None:
    """Return what an attribute may be; None leaves it out."""
    allowed = {"src": PICTURE, "width": PIXELS, "height": PIXELS}.get(name)
    return value if allowed is None or allowed.fullmatch(value) else None


_CLEANER = nh3.Cleaner(
    tags=nh3.ALLOWED_TAGS - {"a", "map", "area"},  # no page that a student names opens by a click
    attributes={
        "img": {"src", "alt", "width", "height"},
        "ol": {"start"},
        "td": {"colspan", "rowspan", "style"},
        "th": {"colspan", "rowspan", "style"},
    },
    attribute_filter=_attribute,
    allowed_classes=dict.fromkeys(("code", "div", "pre", "span", "table"), CODE),
    filter_style_properties={"text-align"},
    generic_attribute_prefixes=set(),
    url_schemes={"data"},
    link_rel=None,
)


def sanitise(text: object) -> str:
    """Return HTML without anything that runs, loads from elsewhere, or leads away."""
    cleaned = _CLEANER.clean(text.decode() if isinstance(text, bytes) else str(text))
    return LINK_IN_FORMULA.sub(r"\\mathrm{\1}", cleaned)


class _Renderer(IPythonRenderer):
    """Shows a link as its text and its address, and an image that is not there as its text."""

    def link(self, text: str, url: str, title: str | None = None) -> str:
        address = html.escape(url)
        return text if url in text or address in text else f"{text} ({address})"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        try:
            return super().image(text, url, title)
        except InvalidNotebook:
            return html.escape(text)


@pass_context
def markdown(context: Context, source: str) -> str:
    """Render a text cell, or a comment, and sanitise it."""
    page = context.get("resources", {})
    page["rendered"] = page.get("rendered", 0) + len(source)
    if len(source) > MOST_TEXT or page["rendered"] > MOST_TEXTS:
        return f"<pre>{html.escape(source)}</pre>"
    attachments = context.get("cell", {}).get("attachments", {})
    renderer = _Renderer(escape=False, attachments=attachments, exclude_anchor_links=True)
    return sanitise(MarkdownWithMath(renderer=renderer).render(source))


def metadata(output: NotebookNode, key: str, mimetype: str | None = None) -> object:
    """Return what an output says about its picture: the template writes sizes without quotes."""
    value = get_metadata(output, key, mimetype)
    if key in ("width", "height") and not PIXELS.fullmatch(str(value)):
        return None
    return value


FILTERS = {"markdown2html": markdown, "clean_html": sanitise, "get_metadata": metadata}
# The kinds of output that are shown, the first that there is: no scripts, and none of widgets.
SHOWN = [
    "text/html",
    "text/markdown",
    "image/svg+xml",  # as an image, where it runs and loads nothing
    "image/png",
    "image/jpeg",
    "text/plain",
]


class PlainNames(Preprocessor):
    """Escapes names of people, which Formgrader's page writes as they are."""

    enabled = True

    def preprocess(self, notebook: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Leave the notebook, and escape the names."""
        for name in ("student", "last_name", "first_name", "notebook_path"):
            if isinstance(resources.get(name), str):
                resources[name] = html.escape(resources[name])
        return notebook, resources


def configure(config: Config) -> None:
    """Set up nbconvert's exporter: for a course, and for an environment in which Formgrader may be
    started anywhere."""
    config.HTMLExporter.sanitize_html = True
    config.HTMLExporter.filters = FILTERS
    config.HTMLExporter.preprocessors = [PlainNames]
    config.WidgetsDataTypeFilter.display_data_priority = SHOWN
