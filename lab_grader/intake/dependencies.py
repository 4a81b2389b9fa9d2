"""Which cells of a notebook the exercises need, so that demonstrations need not run.

A cell of the lesson that the student left as it was is needed if it binds a name that a needed
cell uses. Everything that the student added or changed runs, whatever it does. What cannot be read
for sure, as a magic that runs code, counts as using every name: it costs time, and no marks.
"""

import ast
import functools
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

from IPython.core.inputtransformer2 import TransformerManager

UNKNOWN = "*"  # stands for names that cannot be told, as after `from torch import *`

# What reaches the notebook's names by a way that the text does not show.
REACHING = {"exec", "eval", "compile", "globals", "locals", "vars", "dir", "__import__"}
REACHING_ATTRIBUTES = {"modules", "f_globals", "f_locals", "f_back", "__globals__", "user_ns"}
# Magics after which a cell's names are what they would be without; and those before code.
HARMLESS_MAGICS = {"matplotlib", "pip", "conda", "config", "autosave", "precision", "xmode", "pwd"}
CODE_MAGICS = {"time", "capture"}
MAGIC_LINE = re.compile(r"^[ \t]*[%!?]|=[ \t]*[%!]|\?[ \t]*$", re.MULTILINE)
MOST_MAGICS = 20  # lines of a cell


@dataclass(frozen=True)
class Names:
    """The names that a cell binds and those that it uses, anywhere in it."""

    binds: frozenset[str]
    uses: frozenset[str]


NOTHING = Names(frozenset(), frozenset())
ANYTHING = Names(frozenset([UNKNOWN]), frozenset([UNKNOWN]))


@functools.lru_cache(maxsize=2048)
def names_of(source: str) -> Names:
    """Return what a cell binds and uses; a cell that can only fail binds and uses nothing."""
    if len(MAGIC_LINE.findall(source)) > MOST_MAGICS:
        return ANYTHING  # IPython reads a cell anew for each of them, for minutes
    try:
        code = TransformerManager().transform_cell(source)
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(code, "cell", "exec", flags)
    except (SyntaxError, ValueError):
        return NOTHING
    except (RecursionError, MemoryError):
        return ANYTHING
    try:
        table = symtable.symtable(code, "cell", "exec")
        found = [_names_in(tree, table), *_names_behind_magics(tree)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ANYTHING  # as `await` outside of a function, which a notebook allows
    return Names(
        frozenset().union(*(names.binds for names in found)),
        frozenset().union(*(names.uses for names in found)),
    )


def _names_in(tree: ast.Module, table: symtable.SymbolTable) -> Names:
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
            case ast.Attribute(attr=name) if name in REACHING_ATTRIBUTES:
                uses.add(UNKNOWN)
            case ast.Constant(value="__main__"):
                uses.add(UNKNOWN)
            case ast.Import(names=aliases) if any(a.name == "__main__" for a in aliases):
                uses.add(UNKNOWN)
            case ast.ImportFrom(module="__main__"):
                uses.add(UNKNOWN)
    if uses & REACHING:
        uses.add(UNKNOWN)
    return Names(frozenset(binds), frozenset(uses))


def _names_behind_magics(tree: ast.Module) -> Iterator[Names]:
    """Yield what the magics and shell commands of a cell bind and use.

    IPython writes each of them as a call of a method of `get_ipython()`.
    """
    calls = {
        id(node.func.value.func): node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Call)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "get_ipython":
            yield _names_behind(calls[id(node)]) if id(node) in calls else ANYTHING


def _names_behind(call: ast.Call) -> Names:
    given = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    match [call.func.attr, *given]:
        case ["run_cell_magic", str(magic), str(line), str(body)] if magic in CODE_MAGICS:
            if magic == "time" and line:
                return ANYTHING
            inside = names_of(body)
            return Names(inside.binds | set(line.split()), inside.uses)
        case ["run_line_magic", "time", str(line), *_]:
            return names_of(line)
        case ["run_line_magic", str(magic), *_] if magic in HARMLESS_MAGICS:
            return NOTHING
        case ["system" | "getoutput", str(command)] if not set(command) & set("${"):
            return NOTHING
        case _:
            return ANYTHING


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
        if index in always or UNKNOWN in binds | wanted or binds & wanted:
            chosen.add(index)
            wanted |= names.uses
    return chosen
