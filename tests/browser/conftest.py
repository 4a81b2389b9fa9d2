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


@pytest.fixture(scope="module")
def console():
    """What the browser's console complains of."""
    return []


@pytest.fixture(autouse=True)
def console_stays_clean(console):
    yield
    found, console[:] = list(console), []
    assert not found


@pytest.fixture(scope="module")
def context(chromium, console):
    """A window's worth of pages, with nothing stored."""
    context = chromium.new_context(viewport=in_browser.VIEWPORT)
    context.on("console", lambda said: said.type == "error" and console.append(said.text))
    context.on("weberror", lambda raised: console.append(raised.error))
    yield context
    context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of what a student works in."""
    copy = tmp_path_factory.mktemp("student")
    shutil.copytree(release.NOTEBOOKS, copy / "notebooks" / "dora")
    release.make_start_page(copy / "notebooks")
    return copy


@pytest.fixture(scope="module")
def server(chromium, start_lab, folder):
    """Its address and token. The page may be asked where its cells are; nothing else differs."""
    return start_lab(folder, in_browser.EXPOSE)


@pytest.fixture(scope="module")
def lesson(context, server, folder):
    """JupyterLab in a page, for one notebook after the other."""
    lesson = in_browser.LabPage(context, server, folder / "notebooks")
    yield lesson
    lesson.shut_down()
