"""What tests of several folders share: a JupyterLab as `make lab` starts it, and the book."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import release

import book


@pytest.fixture(scope="session")
def start_lab(tmp_path_factory):
    """A function that runs the Makefile's `lab` in a folder with this Python's JupyterLab.

    It returns the server's address and token. Servers stop when the tests end.
    """
    makefile = (release.ROOT / "Makefile").read_text()
    command = re.search(r"^lab:.*\n\t\$\(BIN\)/jupyter (.*) \$\(ARGS\)$", makefile, re.M).group(1)
    running = []

    def start(folder, *options):
        config = tmp_path_factory.mktemp("jupyter")
        log = config / "log.txt"
        arguments = [*command.split(), "--no-browser", "--port=0", "--allow-root", *options]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyter", *arguments],
                cwd=folder,
                env=os.environ | {"JUPYTER_CONFIG_DIR": str(config)},
                stderr=stderr,
            )
        running.append(process)
        return wait_until_it_listens(log, process)

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the book, built from the lessons as they are."""
    folder = tmp_path_factory.mktemp("book") / "site"
    book.build(folder)
    return folder


def wait_until_it_listens(log, process, seconds=60):
    """It announces its address before it listens there."""
    deadline = time.monotonic() + seconds
    while True:
        announced = re.search(r"(http://\S+)/lab\?token=(\w+)", log.read_text())
        try:
            if announced:
                urllib.request.urlopen(f"{announced[1]}/api", timeout=30).close()
                return announced.groups()
        except urllib.error.URLError:
            pass  # not yet
        assert process.poll() is None, f"JupyterLab stopped:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"JupyterLab did not listen within {seconds} s"
        time.sleep(0.2)
