"""What tests of several folders share: a JupyterLab as `make lab` starts it, and the book."""

import os
from contextlib import ExitStack

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def start_lab():
    """A function that does in a folder what the Makefile's `lab` does.

    It returns the server's address and token. Servers stop when the tests end.
    """
    import in_browser

    with ExitStack() as servers:

        def start(folder, *options):
            where, arguments = in_browser.make_lab()
            return servers.enter_context(in_browser.serve(folder / where, *arguments, *options))

        yield start


# Values of a control by how many there are: of several both ends, and the first or the middle.
# `make book` draws more, for over a minute; that these can be drawn is tested without pictures.
FEW_FRAMES = {1: 8, 2: 3, 3: 3}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the book, built from the lessons as they are, once for all workers."""
    import book_parts  # these import Sphinx, which most tests do not need
    import build_book

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the workers of one run share
    site = folder / "book" / "site"
    with FileLock(folder / "book.lock"), pytest.MonkeyPatch.context() as patch:
        if not site.exists():
            patch.setattr(book_parts, "MOST", FEW_FRAMES)
            build_book.build(site)
    return site
