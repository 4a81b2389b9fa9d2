"""What tests of several folders share: a JupyterLab as `make lab` starts it, and the book."""

from contextlib import ExitStack

import build_book
import in_browser
import pytest


@pytest.fixture(scope="session")
def start_lab():
    """A function that does in a folder what the Makefile's `lab` does.

    It returns the server's address and token. Servers stop when the tests end.
    """
    with ExitStack() as servers:

        def start(folder, *options):
            where, arguments = in_browser.make_lab()
            return servers.enter_context(in_browser.serve(folder / where, *arguments, *options))

        yield start


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the book, built from the lessons as they are."""
    folder = tmp_path_factory.mktemp("book") / "site"
    build_book.build(folder)
    return folder
