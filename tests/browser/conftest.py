"""JupyterLab as a student has it: a real server, a real kernel, Chromium, mouse and keyboard."""

import os
import re
import shutil

import nbformat
import pytest
import release
from playwright.sync_api import sync_playwright

INSTALL = "There is no Chromium here. On Debian or Ubuntu: sudo apt install chromium"
FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root with its sandbox, and containers run as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# A laptop's page, with the file browser open beside the notebook.
VIEWPORT = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def chromium():
    """A Chromium without windows. It is installed in CI; elsewhere these tests can be missing."""
    path = shutil.which("chromium")
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(INSTALL)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of what a student works in."""
    copy = tmp_path_factory.mktemp("student")
    shutil.copytree(release.NOTEBOOKS, copy / "notebooks" / "dora")
    return copy


@pytest.fixture(scope="module")
def server(chromium, start_lab, folder):
    """Its address and token. The page may be asked where its cells are; nothing else differs."""
    return start_lab(folder, "--LabApp.expose_app_in_browser=True")


@pytest.fixture
def open_lesson(chromium, server, folder, tmp_path):
    """A function that opens a notebook in a new page. At the end its console must be clean."""
    context = chromium.new_context(viewport=VIEWPORT)
    opened, complaints = [], []

    def open_in_new_page(name):
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(error))
        url, token = server
        # a workspace of its own, or JupyterLab would open the last test's notebooks with it
        page.goto(f"{url}/lab/workspaces/{tmp_path.name}/tree/{name}.ipynb?token={token}")
        opened.append(Lesson(page, folder / "notebooks" / "dora" / f"{name}.ipynb"))
        return opened[-1]

    yield open_in_new_page
    for lesson in opened:
        lesson.shut_down()
    context.close()
    assert not [getattr(complaint, "text", complaint) for complaint in complaints]


class Lesson:
    """A notebook in a page. Cells are named by their index, and run in place with Ctrl+Enter."""

    def __init__(self, page, path):
        self.page = page
        self.cells = nbformat.read(path, as_version=4).cells
        self.active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
        self.outputs = self.active.locator(".jp-OutputArea-output")
        self.executed = 0
        page.wait_for_function(
            """() => {
                const notebook = window.jupyterapp?.shell.currentWidget;
                const kernel = notebook?.sessionContext?.session?.kernel;
                return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
            }""",
            timeout=60_000,
        )

    def index(self, text):
        """Return the index of the first code cell that holds a text."""
        found = (i for i, c in enumerate(self.cells) if c.cell_type == "code" and text in c.source)
        return next(found)

    def code(self):
        """Return the indices of the cells that run and are neither exercise nor test."""
        cells = enumerate(self.cells)
        return [i for i, c in cells if c.cell_type == "code" and "nbgrader" not in c.metadata]

    def select(self, index):
        """Scroll to a cell: JupyterLab keeps in the page only those near to what is seen."""
        self.page.evaluate(
            """async index => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.activeCellIndex = index;
                notebook.deselectAll();
                notebook.mode = 'command';
                await notebook.scrollToItem(index, 'start');
                notebook.activate();
            }""",
            index,
        )
        self.active.wait_for()

    def start(self, index):
        """Run a cell, and do not wait."""
        self.select(index)
        self.page.keyboard.press("Control+Enter")
        self.executed += 1

    def run(self, index):
        """Run a cell, and wait until it has run."""
        self.start(index)
        prompt = self.active.locator(".jp-InputPrompt")
        prompt.get_by_text(f"[{self.executed}]:", exact=True).wait_for(timeout=60_000)

    def type(self, index, text):
        """Replace a cell's text."""
        self.select(index)
        self.page.keyboard.press("Enter")
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Escape")

    def said(self, index):
        """Return what stands below a cell."""
        self.select(index)
        return "\n".join(self.outputs.all_inner_texts())

    def menu(self, name, command):
        self.page.locator(f'.lm-MenuBar-itemLabel:text-is("{name}")').click()
        self.page.locator(f'.lm-Menu-item[data-command="{command}"]').click()

    def wait_for_error(self, index):
        """Wait until a cell has failed, after all cells were told to run."""
        self.page.wait_for_function(
            """index => {
                const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
                const outputs = cells.get(index).outputs.toJSON();
                return outputs.some(output => output.output_type === 'error');
            }""",
            arg=index,
            timeout=60_000,
        )
        self.executed = self.counts()[index]

    def counts(self):
        """Return the execution count of each cell, None for one that has not run."""
        return self.page.evaluate(
            """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
                .map(cell => cell.executionCount ?? null)"""
        )

    def validate(self):
        """Press Validate, and return what the dialog says."""
        self.page.get_by_role("button", name="Validate").click()
        dialog = self.page.locator(".jp-Dialog")
        dialog.wait_for(timeout=60_000)
        text = dialog.inner_text()
        dialog.get_by_role("button", name="OK").click()
        return text

    def picture(self):
        """Return the picture below the active cell, once it is there."""
        picture = self.active.locator(".jupyter-widgets img")
        picture.wait_for()
        return picture.get_attribute("src")

    def move(self, handle):
        """Move a slider by a step, and wait for another picture."""
        before = self.picture()
        low, now = (float(handle.get_attribute(f"aria-value{name}")) for name in ("min", "now"))
        handle.focus()
        self.page.keyboard.press("ArrowLeft" if now > low else "ArrowRight")
        self.page.wait_for_function(
            """before => {
                const picture = document.querySelector('.jp-mod-active .jupyter-widgets img');
                return picture && picture.src !== before;
            }""",
            arg=before,
        )

    def assert_fits(self):
        """Fail if what stands below the active cell is wider than the page, or an error."""
        for output in self.outputs.all():
            name = re.sub(r"\s+", " ", output.inner_text())[:60]
            scrolled, seen = output.evaluate("it => [it.scrollWidth, it.clientWidth]")
            assert scrolled <= seen, f"{name!r} is {scrolled} px wide; the page has {seen}"
            assert "Error displaying widget" not in output.inner_text()

    def shut_down(self):
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
