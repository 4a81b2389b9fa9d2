"""What a student wrote runs in no page that an instructor or another student opens.

Each thing that could run, load or lead away reports to a server of the test. With nbgrader's own
settings they do: that is what tells that nothing arrives because it is held back.
"""

import http.server
import json
import shutil
import threading
from urllib.parse import quote

import classroom
import in_browser
import nbformat
import pytest
from nbgrader.api import Gradebook

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

LESSON = classroom.LESSON
STOCK = """
c.HTMLExporter.sanitize_html = False
c.HTMLExporter.filters = {}
c.HTMLExporter.preprocessors = []
c.WidgetsDataTypeFilter.display_data_priority = [
    "application/vnd.jupyter.widget-view+json", "application/javascript", "text/html",
    "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain",
]
"""
# Texts of cells; HOME is where each reports, JS is a script that does.
MARKDOWN = {
    "script": "<script>JS</script>",
    "onerror": '<img src="none" onerror="JS">',
    "svg": '<svg onload="JS"></svg>',
    "iframe": '<iframe srcdoc="<script>JS</script>"></iframe>',
    "frame-of-elsewhere": '<iframe src="HOME"></iframe>',
    "details": '<details open ontoggle="JS"><summary>x</summary></details>',
    "link": '<a href="javascript:JS">here</a>',
    "stripped-link": '<a href="files/javascript:JS">here</a>',
    "link-in-markdown": "[here](/files/javascript:JS)",
    "entity-link": '<a href="jav&#x09;ascript:JS">here</a>',
    "stylesheet": '<link rel="stylesheet" href="HOME">',
    "style": '<style>@import "HOME";</style>',
    "style-of-a-tag": '<p style="background: url(HOME)">x</p>',
    "image": "![x](HOME)",
    "picture": '<picture><source srcset="HOME"><img src="HOME" srcset="HOME 2x"></picture>',
    "video": '<video poster="HOME" src="HOME"></video>',
    "object": '<object data="HOME"></object>',
    "embed": '<embed src="HOME">',
    "input": '<input autofocus onfocus="JS">',
    "in-a-table": '| a |\n| - |\n| <img src="none" onerror="JS"> |',
    "in-a-heading": '# x <img src="none" onerror="JS">',
    "after-a-formula": '$x<y$ <img src="none" onerror="JS"> $y>z$',
    "button": '<form action="HOME"><button>here</button></form>',
    "attachment": "![x](attachment:x.html)",
}
# Data and metadata of outputs. The sandbox lets through less than these.
OUTPUTS = {
    "out-html": ({"text/html": "<script>JS</script>"}, {}),
    "out-onerror": ({"text/html": '<img src="none" onerror="JS">'}, {}),
    "out-javascript": ({"application/javascript": "JS"}, {}),
    "out-isolated": ({"text/html": "<script>JS</script>"}, {"text/html": {"isolated": True}}),
    "out-svg": ({"image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg" onload="JS"/>'}, {}),
    "out-size": ({"image/png": "AAAA"}, {"image/png": {"width": "1 onerror=JS"}}),
    "out-markdown": ({"text/markdown": '<img src="none" onerror="JS">'}, {}),
    "out-latex": ({"text/latex": '<img src="none" onerror="JS">'}, {}),
    "out-text": ({"text/plain": '<img src="none" onerror="JS">'}, {}),
}


@pytest.fixture(scope="module")
def home():
    """A server, and the names that reported to it."""
    reports = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            reports.add(self.path.strip("/").split("?")[0])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", reports
    server.shutdown()


def armed(kinds, home):
    """Replace HOME and JS; scripts hold no quotes, blanks or tags, so that they fit everywhere."""
    for name, text in kinds.items():
        url = f"{home}/{name}"
        codes = ",".join(str(ord(c)) for c in url)
        script = f"void((new(Image)).src=String.fromCharCode({codes}))"
        yield text.replace("HOME", url).replace("JS", script)


@pytest.fixture(scope="module")
def course(tmp_path_factory, home):
    """A course in which one student handed in all of it."""
    course = classroom.make_course(tmp_path_factory.mktemp("hostile") / "course")
    notebook = classroom.notebook_with(classroom.solutions())
    for text in armed(MARKDOWN, home[0]):
        cell = nbformat.v4.new_markdown_cell(text)
        if "attachment:" in text:
            page = f"<script>location='{home[0]}/attachment'</script>"
            cell.attachments = {"x.html": {"text/html": quote(page)}}
        notebook.cells.append(cell)
    raw = next(armed({"raw": "<script>JS</script>"}, home[0]))
    notebook.cells.append(nbformat.v4.new_raw_cell(raw, metadata={"raw_mimetype": "text/html"}))
    folder = classroom.folder_of(course, "eve")
    nbformat.write(notebook, folder / f"{LESSON}.ipynb")
    for name in ("page.html", "drawing.svg", "page.xhtml", "page.htm", "feed.xml"):
        (folder / name).write_text(f"<script src='{home[0]}/file'></script>")
    (folder / "plot.png").write_bytes(b"\x89PNG")
    name = next(armed({"name": "<img src=none onerror=JS>"}, home[0]))
    classroom.run(
        course, "nbgrader", "db", "student", "add", "eve", f"--last-name={name}", "--first-name=E"
    )
    classroom.grade(course)
    assert classroom.marks(course)["eve"] == classroom.marks_without()
    graded = course / "grading" / "autograded" / "eve" / "dora" / f"{LESSON}.ipynb"
    notebook = nbformat.read(graded, as_version=4)
    for text in armed({name: json.dumps(output) for name, output in OUTPUTS.items()}, home[0]):
        data, metadata = json.loads(text)
        output = nbformat.v4.new_output("display_data", data, metadata=metadata)
        notebook.cells.append(nbformat.v4.new_code_cell("1", outputs=[output]))
    graded.chmod(0o644)
    nbformat.write(notebook, graded)
    return course


def submission(course):
    with Gradebook(classroom.database(course)) as gradebook:
        return gradebook.find_submission_notebook(LESSON, "dora", "eve").id


def visit(browser, *urls):
    """Open pages, click on all that can be clicked, and wait until nothing is loaded any more.

    Each is as if it were alone: with storage and cookies of its own.
    """
    pages = []
    for url in urls:
        context = browser.new_context()
        context.route("https://**", lambda route: route.abort())
        pages.append(context.new_page())
        pages[-1].goto(url, wait_until="load")
    texts = [page.locator("body").inner_text() for page in pages]
    pages[0].wait_for_timeout(1000)
    for page in pages:
        page.evaluate(
            """() => [...document.querySelectorAll('.rendered_html :is(a, button)')]
                .filter(it => !/^(https|#)|\\.ipynb$/.test(it.getAttribute('href') ?? ''))
                .forEach((it, index) => setTimeout(() => it.click(), 50 * index))"""
        )
    pages[0].wait_for_timeout(4000)
    for page in pages:
        page.context.close()
    return texts


def feedback(course):
    classroom.run(course, "nbgrader", "generate_feedback", "dora", "--force")
    return (course / "grading" / "feedback" / "eve" / "dora" / f"{LESSON}.html").as_uri()


def without_attachments(course):
    """Leave out the text whose attachment grading has removed: nbgrader stumbles over it."""
    path = course / "grading" / "autograded" / "eve" / "dora" / f"{LESSON}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "attachment:" not in cell.source]
    nbformat.write(notebook, path)


# What a browser, a template or nbconvert holds back by itself, or needs more than a page of files.
HARMLESS = {"attachment", "out-svg", "out-latex", "out-text", "out-javascript"}
ACTIVE_FILES = ("page.html", "drawing.svg", "page.xhtml", "page.htm", "feed.xml")


@pytest.mark.parametrize("stock", [True, False], ids=["as nbgrader has it", "as the course has it"])
def test_pages_of_a_hostile_submission(chromium, course, home, tmp_path, stock):
    _, reports = home
    if stock:
        course = shutil.copytree(course, tmp_path / "course")
        with open(course / "nbgrader_config.py", "a") as config:
            config.write(STOCK)
        without_attachments(course)
    reports.clear()
    (said,) = visit(chromium, feedback(course))
    arrived = set(reports)
    with in_browser.serve(course, "lab") as (url, token):
        page = f"{url}/formgrader/submissions/{submission(course)}/"
        there = [f"{page}{name}?token={token}" for name in ("", *ACTIVE_FILES)]
        said_there, *files = visit(chromium, *there)
    if stock:
        assert {*MARKDOWN, *OUTPUTS} - arrived == HARMLESS
        assert {"name", "out-javascript"} <= reports
        return
    assert not reports
    for text in (said, said_there):
        assert "def decompose" in text and "3. Decompose a matrix" in text
    assert all("404" in text for text in files)
    served = course / "grading" / "autograded" / "eve" / "dora"
    assert sorted(p.name for p in served.iterdir()) == [f"{LESSON}.ipynb", "plot.png"]
