"""JupyterLab as a student has it: a real server, a real kernel, Chromium, mouse and keyboard."""

import os
import shutil

import in_browser
import pytest
import release


@pytest.fixture(scope="session")
def chromium():
    """A Chromium without windows. It is installed in CI; elsewhere these tests can be missing."""
    try:
        with in_browser.chromium() as browser:
            yield browser
    except FileNotFoundError as missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(missing))


@pytest.fixture
def context(chromium):
    """A window's worth of pages, with nothing stored. At the end its console must be clean."""
    context = chromium.new_context(viewport=in_browser.VIEWPORT)
    complaints = []
    context.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    context.on("weberror", lambda raised: complaints.append(raised.error))
    yield context
    context.close()
    assert not complaints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of what a student works in."""
    copy = tmp_path_factory.mktemp("student")
    shutil.copytree(release.NOTEBOOKS, copy / "notebooks" / "dora")
    return copy


@pytest.fixture(scope="module")
def server(chromium, start_lab, folder):
    """Its address and token. The page may be asked where its cells are; nothing else differs."""
    return start_lab(folder, in_browser.EXPOSE)


@pytest.fixture
def open_lesson(context, server, folder, tmp_path):
    """A function that opens a notebook in a new page."""
    opened = []

    def open_in_new_page(name):
        path = folder / "notebooks" / "dora" / f"{name}.ipynb"
        # a workspace of its own, or JupyterLab would open the last test's notebooks with it
        opened.append(in_browser.Lesson(context, server, path, workspace=tmp_path.name))
        return opened[-1]

    yield open_in_new_page
    for lesson in opened:
        lesson.shut_down()
