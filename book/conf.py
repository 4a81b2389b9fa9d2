"""Sphinx's settings for the reading version, which scripts/build_book.py builds."""

import sys
from pathlib import Path

from docutils import nodes

from lab_grader.marks.formulas import alone, in_text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import addresses  # noqa: E402

project = "DoRA Lab"
extensions = ["myst_nb"]
exclude_patterns = ["README.md"]  # index.md includes a part of it
nitpicky = True

# The pages show what the stored notebooks hold; nothing is executed.
nb_execution_mode = "off"
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
nb_render_markdown_format = "gfm"  # for tables
myst_enable_extensions = ["dollarmath", "strikethrough"]
suppress_warnings = ["myst.strikethrough"]  # it works in HTML only, and HTML is what we make

html_theme = "sphinx_book_theme"
html_title = "DoRA Lab"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = False
html_show_search_summary = False  # book.js shows one; a page from the disk may fetch nothing
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "home_page_in_toc": True,
    "use_download_button": False,
    "navbar_persistent": [],  # the sidebar has a field to search in already
    "footer_content_items": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if repository := addresses.read_repository():
    html_theme_options |= {
        "repository_url": repository,
        "repository_branch": addresses.BRANCH,
        "path_to_docs": "notebooks/dora",  # what opens is the student's notebook
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }

# Formulas become drawings when the site is built. MathJax and KaTeX would need Node.js to be
# installed, or a network to read; native MathML depends on the reader's fonts.
html_math_renderer = "drawing"


def visit_inline(translator, node):
    translator.body.append(in_text(node.astext()))
    raise nodes.SkipNode


def visit_block(translator, node):
    translator.body.append(alone(node.astext()))
    raise nodes.SkipNode


def add_sections(app, pagename, templatename, context, doctree):
    """Let the search page load what it looks through, which is written when all pages are."""
    if pagename == "search":
        app.add_js_file("sections.js", priority=400)


def shorten_ways(app, pagename, templatename, context, doctree):
    """Let the ways to the pages before and after say what tells them apart."""
    for way in ("prev", "next"):
        if context.get(way):
            context[way]["title"] = context[way]["title"].removeprefix("3.1.2 DoRA · ")


def setup(app):
    app.connect("html-page-context", add_sections)
    app.connect("html-page-context", shorten_ways)
    app.add_html_math_renderer("drawing", (visit_inline, None), (visit_block, None))
