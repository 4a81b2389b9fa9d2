"""JupyterLab in a Chromium without windows: what the browser tests and `pictures.py` share."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
NO_CHROMIUM = "There is no Chromium here. On Debian or Ubuntu: sudo apt install chromium"
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
# With it the page may be asked where its cells are; `LabPage` needs that.
EXPOSE = "--LabApp.expose_app_in_browser=True"


# What stands below the active cell and cannot be read: texts whose contrast to what is behind them
# is below 4.5, the least that the Web Content Accessibility Guidelines (1.4.3) allow, and pictures
# without a background of their own. Contrast and luminance are as defined there.
UNREADABLE = r"""async () => {
    const numbers = colour => colour.match(/[\d.]+/g).map(Number);
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const luminance = colour => {
        const [r, g, b] = colour.map(value => linear(value / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (let it = element; it; it = it.parentElement) {
            const [r, g, b, opacity = 1] = numbers(getComputedStyle(it).backgroundColor);
            if (opacity > 0.5) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const contrast = element => {
        const colour = numbers(getComputedStyle(element).color).slice(0, 3);
        const [text, paper] = [luminance(colour), luminance(behind(element))];
        return (Math.max(text, paper) + 0.05) / (Math.min(text, paper) + 0.05);
    };
    const opaque = async picture => {
        await picture.decode();
        const canvas = new OffscreenCanvas(1, 1).getContext('2d');
        canvas.drawImage(picture, 0, 0);
        return canvas.getImageData(0, 0, 1, 1).data[3] === 255;
    };
    const found = [];
    for (const output of document.querySelectorAll('.jp-mod-active .jp-OutputArea-output')) {
        const texts = document.createTreeWalker(output, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
            const shown = text && element.getClientRects().length;
            if (shown && contrast(element) < 4.5) found.push(text);
        }
        for (const picture of output.querySelectorAll('img')) {
            if (!await opaque(picture)) found.push(picture.alt);
        }
    }
    return found;
}"""


def make_lab() -> tuple[str, list[str]]:
    """Return where the Makefile's `lab` calls `jupyter`, and what it hands it, without ARGS."""
    recipe = r'^lab:.*\n\tcd (\S+) && "\S+/jupyter" (.*) \$\(ARGS\)$'
    folder, arguments = re.search(recipe, (ROOT / "Makefile").read_text(), re.M).groups()
    return folder, arguments.split()


@contextmanager
def serve(folder: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """Run this Python's `jupyter ARGUMENTS` in a folder; yield the server's address and token."""
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as the Makefile has it
    with tempfile.TemporaryDirectory(prefix="jupyter-") as config:
        log = Path(config, "log.txt")
        options = ["--no-browser", "--port=0", "--allow-root"]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyter", *arguments, *options],
                cwd=folder,
                env=os.environ | {"JUPYTER_CONFIG_DIR": config, "PATH": bin_first},
                stderr=stderr,
            )
        try:
            yield _wait_until_it_listens(log, process)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_it_listens(log: Path, process: subprocess.Popen, seconds: float = 60):
    """It announces its address before it listens there."""
    deadline = time.monotonic() + seconds
    while True:
        announced = re.search(r"(http://\S+)/lab\S*\?token=(\w+)", log.read_text())
        try:
            if announced:
                urllib.request.urlopen(f"{announced[1]}/api", timeout=30).close()
                return announced.groups()
        except urllib.error.URLError:
            pass  # not yet
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab stopped:\n{log.read_text()}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"JupyterLab did not listen within {seconds} s")
        time.sleep(0.2)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium.

    Raises:
        FileNotFoundError: there is none.
    """
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class LabPage:
    """A notebook in a page. Cells are named by their index, and run in place with Ctrl+Enter."""

    def __init__(self, context, server, root):
        """Load JupyterLab into a new page.

        Args:
            context: a window of `chromium`.
            server: what `serve` yields, started with `EXPOSE`.
            root: the server's folder.
        """
        url, token = server
        self.root = root
        self.page = page = context.new_page()
        page.goto(f"{url}/lab?reset&token={token}")  # and not what was open last
        page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")
        self.active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
        self.outputs = self.active.locator(".jp-OutputArea-output")
        self.is_open = False

    def open(self, path):
        """Open a notebook of the server's folder, and wait for its kernel; close the one before
        without saving it."""
        if self.is_open:
            self.shut_down()
        self.page.evaluate(
            """async path => {
                const {commands, shell} = window.jupyterapp;
                shell.currentWidget?.dispose();
                await commands.execute('docmanager:open', {path});
            }""",
            str(path.relative_to(self.root)),
        )
        self.page.wait_for_function(
            """name => {
                const notebook = window.jupyterapp.shell.currentWidget;
                const kernel = notebook?.sessionContext?.session?.kernel;
                return notebook?.context?.path === name
                    && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
            }""",
            arg=str(path.relative_to(self.root)),
            timeout=60_000,
        )
        self.cells = nbformat.read(path, as_version=4).cells
        self.executed = 0
        self.is_open = True

    def index(self, text):
        """Return the index of the first code cell that holds a text."""
        found = (i for i, c in enumerate(self.cells) if c.cell_type == "code" and text in c.source)
        return next(found)

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
        self.page.wait_for_function(  # not its prompt, which a folded cell does not show
            """([index, count]) => {
                const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
                return cells.get(index).executionCount === count;
            }""",
            arg=[index, self.executed],
            timeout=60_000,
        )

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
        """Wait until a cell has failed, after all cells were told to run.

        Its count comes with the kernel's reply, which may be later than its output.
        """
        self.page.wait_for_function(
            """index => {
                const cell = window.jupyterapp.shell.currentWidget.content.model.cells.get(index);
                const outputs = cell.outputs.toJSON();
                const failed = outputs.some(output => output.output_type === 'error');
                return failed && cell.executionCount;
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

    def use_theme(self, name):
        """Choose JupyterLab's theme, `"JupyterLab Light"` or `"JupyterLab Dark"`.

        The server remembers it for all who come later.
        """
        body = self.page.locator("body")
        if body.get_attribute("data-jp-theme-name") == name:
            return
        # A choice before the last one is stored would upset JupyterLab.
        with self.page.expect_response(
            lambda answer: answer.request.method == "PUT" and "settings" in answer.url
        ):
            self.page.evaluate(
                "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
                name,
            )
        self.page.locator(f'body[data-jp-theme-name="{name}"]').wait_for(state="attached")

    def assert_readable(self):
        """Fail if something below the active cell cannot be read in this theme."""
        unreadable = self.page.evaluate(UNREADABLE)
        assert not unreadable, f"on this background one cannot read {unreadable}"
        dark = "Dark" in self.page.locator("body").get_attribute("data-jp-theme-name")
        for figure in self.outputs.locator(".lab-figure").all():
            turned = figure.evaluate("it => getComputedStyle(it).filter").startswith("invert")
            assert turned == dark, "a figure is as light or dark as the page"

    def shut_down(self):
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
