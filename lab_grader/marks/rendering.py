"""Texts as HTML. What a student wrote is data: no tag, script or picture of it gets through.

Every function returns `Markup`, which templates do not escape again; all else they escape.
"""

import functools
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markupsafe import Markup, escape
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from lab_grader.marks.formulas import alone, in_text

MOST_TEXT = 100_000  # characters of one text on a page
MOST_FORMULA = 500  # characters; a longer one is shown as TeX
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
STYLES = {"light": "a11y-high-contrast-light", "dark": "a11y-high-contrast-dark"}


def readable(text: object, most: int = MOST_TEXT) -> str:
    """Return a text that is fit for a page: no control characters, not too long."""
    whole = ANSI.sub("", str(text)[: 2 * most]).replace("\r\n", "\n")
    cut = UNSEEN.sub("\N{REPLACEMENT CHARACTER}", whole[:most])
    return cut if len(str(text)) <= most else f"{cut}\n… ({len(str(text))} characters in all)"


@functools.lru_cache(4096)
def _formula(tex: str, display: bool) -> str:
    if len(tex) <= MOST_FORMULA:
        try:
            return (alone if display else in_text)(tex)
        except Exception:  # ziamath raises what it happens to stumble over
            pass
    return str(Markup("<code>{}</code>").format(tex))


def _renderer(html: bool) -> MarkdownIt:
    """Return a renderer of Markdown; without `html`, tags in it are text."""
    made = MarkdownIt("commonmark", {"html": html}).enable(["table", "strikethrough"])
    made.use(
        dollarmath_plugin,
        renderer=lambda tex, options: _formula(tex.strip(), options["display_mode"]),
    )

    def heading_open(self: RendererHTML, *_: object) -> str:  # the page has headings of its own
        return '<p class="heading">'

    def heading_close(self: RendererHTML, *_: object) -> str:
        return "</p>\n"

    def image(self: RendererHTML, tokens: list, index: int, *_: object) -> str:
        return str(Markup("<em>[picture: {}]</em>").format(tokens[index].content))

    def table_open(self: RendererHTML, *_: object) -> str:  # a phone scrolls it, with keys too
        return '<div class="scrolls text" role="group" aria-label="table" tabindex="0"><table>\n'

    def table_close(self: RendererHTML, *_: object) -> str:
        return "</table></div>\n"

    for rule in (heading_open, heading_close, image, table_open, table_close):
        made.add_render_rule(rule.__name__, rule)
    made.core.ruler.push("links", _keep_links_to_other_sites)
    return made


def _keep_links_to_other_sites(state: StateCore) -> None:
    """Turn every other link into text: its target is not beside the page."""
    for block in state.tokens:
        kept: list[bool] = []  # of the links that are open
        for token in block.children or []:
            if token.type == "link_open":
                kept.append(str(token.attrs["href"]).startswith("https://"))
            if token.type in ("link_open", "link_close"):
                keep = kept[-1] if token.type == "link_open" else kept.pop()
                if not keep:
                    token.tag, token.attrs = "span", {}


OURS, THEIRS = _renderer(html=True), _renderer(html=False)


@functools.lru_cache(1024)
def lesson_text(text: str) -> Markup:
    """Return a released text cell as HTML. It may hold tags."""
    return _with_named_columns(OURS.render(text))


def student_text(text: str) -> Markup:
    """Return a student's text cell as HTML. Tags in it are shown as they were typed."""
    return _with_named_columns(THEIRS.render(readable(text)))


def _with_named_columns(html: str) -> Markup:
    """Return a text whose empty table headers are cells, which need no name."""
    return Markup(re.sub(r"<th([^<>]*)></th>", r"<td\1></td>", html))


@functools.lru_cache(1024)
def code(text: str) -> Markup:
    """Return Python code with its colours."""
    lines = highlight(readable(text), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    return Markup('<pre class="code" tabindex="0"><code>{}</code></pre>').format(Markup(lines))


def preformatted(text: str) -> Markup:
    """Return a text with its line breaks, in which a check's `ok` and `FAIL` stand out."""
    lines = str(escape(readable(text).rstrip())).split("\n")
    for number, line in enumerate(lines):
        for word, kind in (("ok", "ok"), ("FAIL", "failed")):
            if line.startswith(f"  {word}  "):
                lines[number] = f'  <span class="{kind}">{word}</span>{line[len(word) + 2 :]}'
    return Markup('<pre tabindex="0">{}</pre>').format(Markup("\n".join(lines)))


@functools.cache
def templates() -> Environment:
    """Return the templates of the pages. What they insert is escaped, unless it is `Markup`."""
    made = Environment(
        loader=PackageLoader("lab_grader.marks"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"code": code, "preformatted": preformatted, "readable": readable}
    for theme, style in STYLES.items():
        made.globals[f"code_{theme}"] = Markup(HtmlFormatter(style=style).get_style_defs(".code"))
    return made
