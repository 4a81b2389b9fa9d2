"""Which cells of a notebook the exercises need, so that demonstrations need not run.

A cell of the lesson that the student left as it was is needed if it binds a name that a needed
cell uses. Everything that the student added or changed runs, regardless of what it does. Cells that
cannot be read for sure, such as a magic that runs code, count as using every name: this costs time
and no marks.

The time to read a cell is bounded, regardless of its content: Python's own parser takes time in
proportion to the text, and IPython's, which is needed for what is not Python (`%timeit`, `!ls`),
gets little of it. The time for a whole notebook is bounded as well; what is not read counts as
using every name, too.
"""

import ast
import functools
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

from IPython.core.inputtransformer2 import TransformerManager

UNKNOWN = "*"  # stands for names that are unknown, as after `from torch import *`
MOST_TEXT = 100_000  # characters of a cell that are read
# IPython reads the whole cell again for each line that is not Python, and tokens of a line may
# take time in proportion to its square.
MOST_TRANSFORMED = 300_000  # characters of a cell, counted as often as they are read
MOST_READ = 1_000_000  # of a notebook, counted likewise: some seconds
LONGEST_TRANSFORMED_LINE = 2_000

# What reaches the notebook's names by a way that the text does not show.
REACHING = {"exec", "eval", "compile", "globals", "locals", "vars", "dir", "__import__"}
REACHING_ATTRIBUTES = {"modules", "f_globals", "f_locals", "f_back", "__globals__", "user_ns"}
# Magics after which a cell's names are what they would be without; and those before code.
HARMLESS_MAGICS = {"matplotlib", "pip", "conda", "config", "autosave", "precision", "xmode", "pwd"}
CODE_MAGICS = {"time", "capture"}


@dataclass(frozen=True)
class Names:
    """The names that a cell binds and those that it uses, anywhere in it."""

    binds: frozenset[str]
    uses: frozenset[str]


NOTHING = Names(frozenset(), frozenset())
ANYTHING = Names(frozenset([UNKNOWN]), frozenset([UNKNOWN]))


class _TooLong(Exception):
    """A cell takes too long to read."""


class _Reader(TransformerManager):
    """IPython's reader of one cell, up to a bound."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def do_one_token_transform(self, lines: list[str]) -> tuple[bool, list[str]]:
        """See `TransformerManager`."""
        self.read += sum(map(len, lines))
        if self.read > MOST_TRANSFORMED or _longest(lines) > LONGEST_TRANSFORMED_LINE:
            raise _TooLong
        return super().do_one_token_transform(lines)


def _longest(lines: list[str]) -> int:
    return max(map(len, lines), default=0)


def names_of(source: str) -> Names:
    """Return what a cell binds and uses; a cell that can only fail binds and uses nothing."""
    return _names_and_cost(source)[0]


def as_python(source: str) -> str:
    """Return a cell as IPython runs it, its magics written as calls, on the same lines.

    The empty text is returned for a cell that takes too long to read.
    """
    if len(source) > MOST_TEXT or _longest(source.splitlines()) > LONGEST_TRANSFORMED_LINE:
        return ""
    try:
        return _Reader().transform_cell(source)
    except (SyntaxError, _TooLong, RuntimeError, MemoryError):
        return ""


@functools.lru_cache(maxsize=500)
def _names_and_cost(source: str) -> tuple[Names, int]:
    """Return the names of a cell, and how many characters were read for it."""
    if len(source) > MOST_TEXT:
        return ANYTHING, 0
    reader = _Reader()
    try:
        try:
            names = _names_of_python(source)
        except SyntaxError:  # or it has magics
            if _longest(source.splitlines()) > LONGEST_TRANSFORMED_LINE:
                raise _TooLong from None
            names = _names_of_python(reader.transform_cell(source))
    except (SyntaxError, ValueError):
        names = NOTHING
    except (_TooLong, RuntimeError, MemoryError):  # the second is IPython's bound, and Python's own
        names = ANYTHING
    return names, len(source) + reader.read


def _names_of_python(code: str) -> Names:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(code, "cell", "exec", flags)
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
            if (magic == "time" and line) or body.lstrip().startswith("%%"):
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
            counts as binding what it was released with, even if it is no longer Python.
        always: indices of cells that run in any case.
        wanted: the names that are asked about.
    """
    wanted, chosen, read = set(wanted), set(), 0
    for index in reversed(range(len(cells))):
        source, released = cells[index]
        names, cost = _names_and_cost(source) if read < MOST_READ else (ANYTHING, 0)
        read += cost
        binds = names.binds | names_of(released).binds
        if index in always or UNKNOWN in binds | wanted or binds & wanted:
            chosen.add(index)
            wanted |= names.uses
    return chosen
