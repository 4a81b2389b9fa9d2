"""What tests of several folders share: a JupyterLab as `make lab` starts it, and the book.

And what no module of tests may do: leave the process changed for those that come later.
"""

import locale
import os
import re
import signal
from contextlib import ExitStack

import pytest
import torch
from filelock import FileLock

# What libraries set for themselves when they are imported or first used.
OF_LIBRARIES = re.compile("KMP_|PYTEST_|_?TORCHINDUCTOR_")


def _process():
    """What any code may change for all that runs later in this process."""
    umask = os.umask(0)
    os.umask(umask)
    process = {"folder": os.getcwd(), "locale": locale.setlocale(locale.LC_ALL), "umask": umask}
    process |= {number.name: signal.getsignal(number) for number in signal.Signals}
    # A shell ignores SIGINT for what it starts in the background; Jupyter's client sets it back.
    if process["SIGINT"] == signal.SIG_IGN:
        process["SIGINT"] = signal.default_int_handler
    return process | {f"${k}": v for k, v in os.environ.items() if not OF_LIBRARIES.match(k)}


PROCESS = pytest.StashKey[dict]()


def pytest_collection_finish(session):
    session.stash[PROCESS] = _process()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Fail at the end of a module which leaves the process other than it found it."""
    yield
    if nextitem is None or nextitem.path != item.path:
        before, after = item.session.stash[PROCESS], _process()
        item.session.stash[PROCESS] = after
        left = {
            name: (before.get(name), after.get(name))
            for name in before | after
            if before.get(name) != after.get(name)
        }
        assert not left, f"{item.path.name} leaves the process changed: {left}"


@pytest.fixture(autouse=True)
def _the_same_draws():
    """Let what draws from PyTorch's global generator draw the same in every run and order.

    The seed is none that a lesson uses: with its seed 0 a forgotten generator would do no harm.
    """
    torch.default_generator.manual_seed(987_654_321)  # of the CPU alone, which is far faster


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
