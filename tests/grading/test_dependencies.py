"""Which cells run is found in a bounded time, whatever a student wrote."""

import time

import pytest

from lab_grader.intake.dependencies import ANYTHING, names_of, needed


@pytest.mark.parametrize(
    ("source", "binds", "uses"),
    [
        ("a = b", "a", "b"),
        ("%time a = b", "a", "get_ipython b"),
        ("files = !ls\nc = d", "files c", "get_ipython d"),
        ("%%time\na = b", "a", "get_ipython b"),
        ("%%time\n%%time\na = b", "*", "get_ipython *"),
        ("  a = b", "a", "b"),
        ("def f(:", "", ""),
        ("from torch import *", "*", ""),
    ],
)
def test_names(source, binds, uses):
    found = names_of(source)
    assert found.binds == set(binds.split())
    assert found.uses == set(uses.split())


LONG = {
    "magic lines": "\n".join(f"%time x{i} = {i}" for i in range(400)),
    "magic in much text": "\n".join(f"%time x{i}\n" + "y = (1, 2)\n" * 90 for i in range(90)),
    "more than IPython's own bound": "\n".join("!ls" for _ in range(3000)),
    "prompts": ">>> %x\n... y\n" * 5000,
    "one line of quotes": "%x\n" + '"\\' * 40_000,
    "lines of quotes": "%x\n" + ('"\\' * 900 + "\n") * 50,
    "help": ("a.b[1,2" * 200 + "??\n") * 20,
    "brackets": "(" * 50_000,
    "signs": "-" * 90_000 + "1",
    "attributes": "a" + ".b" * 45_000,
    "returns": "%t\n" + "\r" * 90_000,
    "continued lines": "%t\n" + "\\\n" * 40_000,
    "indents": "\n".join(" " * i + "if 1:" for i in range(99)),
    "much text": "x = 1\n" * 100_000,
}


@pytest.mark.parametrize("name", LONG)
def test_a_cell_is_read_in_seconds(name):
    start = time.process_time()
    names_of(LONG[name])
    assert time.process_time() - start < 10


def test_what_is_not_read_uses_every_name():
    for name in ("magic lines", "more than IPython's own bound", "much text"):
        assert names_of(LONG[name]) == ANYTHING, name
    cells = [("a = 1", "a = 1"), ("b = 1", "b = 1"), (LONG["magic lines"], "def f(): pass")]
    assert needed(cells, set(), {"f"}) == {0, 1, 2}
    assert needed([*cells[:2], ("f = a", "def f(): pass")], set(), {"f"}) == {0, 2}


def test_a_notebook_is_read_in_seconds():
    cells = [(f"# {n}\n{LONG['magic lines']}", "") for n in range(2000)]
    start = time.process_time()
    assert needed(cells, set(range(2000)), set()) == set(range(2000))
    assert time.process_time() - start < 30
