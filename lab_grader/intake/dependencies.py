"""Which cells of a notebook the exercises need, so that demonstrations need not run.

A cell of the lesson that the student left as it was is needed if it binds a name that a needed
cell uses. Everything that the student added or changed runs, whatever it does.
"""

import ast
import functools
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

from IPython.core.inputtransformer2 import TransformerManager

UNKNOWN = "*"  # stands for names that cannot be told, as after `from torch import *`


@dataclass(frozen=True)
class Names:
    """The names that a cell binds and those that it uses, anywhere in it."""

    binds: frozenset[str]
    uses: frozenset[str]


@functools.cache
def names_of(source: str) -> Names:
    """Return what a cell binds and uses; a cell that is no Python binds and uses nothing."""
    try:
        code = TransformerManager().transform_cell(source)
        tree, table = ast.parse(code), symtable.symtable(code, "cell", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Names(frozenset(), frozenset())
    binds, uses = set(), set()
    for symbol in _global_symbols(table):
        if symbol.is_referenced():
            uses.add(symbol.get_name())
        if symbol.is_assigned() or symbol.is_imported():
            binds.add(symbol.get_name())
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                binds.add(UNKNOWN)
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                binds.add(_owner(node))
    return Names(frozenset(binds), frozenset(uses))


def _global_symbols(table: symtable.SymbolTable) -> Iterator[symtable.Symbol]:
    """Yield the names of the notebook in a cell, in its functions and classes too."""
    for symbol in table.get_symbols():
        if table.get_type() == "module" or symbol.is_global():
            yield symbol
    for inner in table.get_children():
        yield from _global_symbols(inner)


def _owner(node: ast.expr) -> str:
    """Return `a` of `a.b[0].c`, which an assignment to it changes."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else UNKNOWN


def needed(cells: list[tuple[str, str]], always: set[int], wanted: set[str]) -> set[int]:
    """Return the indices of the cells that must run so that `wanted` names are bound.

    Args:
        cells: the text of each code cell, and the text with which it was released: an exercise
            counts as binding what it was released with, even where it is no Python any more.
        always: indices of cells that run in any case.
        wanted: the names that are asked about.
    """
    wanted, chosen = set(wanted), set()
    for index in reversed(range(len(cells))):
        names, released = map(names_of, cells[index])
        binds = names.binds | released.binds
        if index in always or UNKNOWN in binds or binds & wanted:
            chosen.add(index)
            wanted |= names.uses
    return chosen
