"""Values on their way to a student's process and back: JSON for the structure, safetensors for
the arrays.

Nothing here executes what it reads: no pickle, and a function travels as its name, only towards
the student. What comes back is made of plain types, or is an `Unknown` that knows no more than
what the value called itself.
"""

import base64
import functools
import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

LONGEST_DESCRIPTION = 2000


class Unknown:
    """A value of a type that does not travel: it shows how the student's own would show."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


@functools.cache
def _type_called(name: str) -> type[Unknown]:
    return type(name, (Unknown,), {})  # so that a check that names the type names the student's


def pack(value: Any) -> str:
    """Write a value as text, of letters, digits and a few signs that need no quoting."""
    arrays: dict[str, Tensor] = {}
    tree = _take_apart(value, arrays)
    parts = json.dumps(tree).encode(), safetensors.torch.save(arrays)
    return ".".join(base64.b64encode(part).decode() for part in parts)


def unpack(text: str, functions: bool = False) -> Any:
    """Read what `pack` wrote.

    Args:
        functions: whether functions may be named, and are then imported.

    Raises:
        ValueError: the text is something else.
    """
    try:
        tree, data = (base64.b64decode(part, validate=True) for part in text.split("."))
        return _put_together(json.loads(tree), safetensors.torch.load(data), functions)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, RuntimeError) as error:
        raise ValueError(f"not a value as pack writes it: {error}") from error
    except safetensors.SafetensorError as error:
        raise ValueError(f"not arrays as safetensors writes them: {error}") from error


def _take_apart(value: Any, arrays: dict[str, Tensor]) -> Any:
    """Return the JSON form of a value; its tensors go to `arrays`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return _add_array("tensor", value, arrays)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        kind = "scalar" if isinstance(value, np.generic) else "array"
        return _add_array(kind, torch.from_numpy(np.array(value)), arrays)
    if isinstance(value, dict):
        items = [[_take_apart(item, arrays) for item in pair] for pair in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_take_apart(item, arrays) for item in value]}
    for plain in (int, float, str):  # a subclass travels as what it is based on
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Callable) and getattr(value, "__module__", "").startswith("lab_utils."):
        return {"function": [value.__module__, value.__qualname__]}
    return {"unknown": [type(value).__name__, repr(value)[:LONGEST_DESCRIPTION]]}


def _add_array(kind: str, tensor: Tensor, arrays: dict[str, Tensor]) -> dict[str, Any]:
    name = str(len(arrays))
    # A copy of its own storage, without gradient: safetensors takes no views and no subclasses.
    arrays[name] = tensor.detach().as_subclass(Tensor).cpu().contiguous().clone()
    return {kind: [name, tensor.requires_grad]}


def _put_together(tree: Any, arrays: dict[str, Tensor], functions: bool) -> Any:
    if not isinstance(tree, dict):
        if isinstance(tree, list):
            raise ValueError("a list has no kind")
        return tree
    ((kind, content),) = tree.items()
    if kind in ("list", "tuple"):
        items = [_put_together(item, arrays, functions) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        pairs = [[_put_together(item, arrays, functions) for item in pair] for pair in content]
        return dict(pairs)
    if kind == "tensor":
        name, requires_grad = content
        return arrays[name].requires_grad_() if requires_grad else arrays[name]
    if kind in ("array", "scalar"):
        array = arrays[content[0]].numpy()
        return array if kind == "array" else array[()]
    if kind == "dtype":
        dtype = getattr(torch, content)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{content!r} is no dtype")
        return dtype
    if kind == "function" and functions:
        module, name = content
        return getattr(importlib.import_module(module), name)
    if kind == "unknown":
        name, description = content
        return _type_called(str(name)[:100])(str(description)[:LONGEST_DESCRIPTION])
    raise ValueError(f"{kind!r} is no kind of value")


def give_back(given: Any, after: Any) -> None:
    """Change a mutable argument in place to what it was after the call in the other process."""
    if isinstance(given, Tensor) and isinstance(after, Tensor):
        if given.dtype == after.dtype and not _same(given, after):
            given.data = after.detach()
    elif isinstance(given, list | tuple) and isinstance(after, list | tuple):
        for one, other in zip(given, after, strict=False):
            give_back(one, other)
        if isinstance(given, list) and len(given) != len(after):
            given[:] = after
        elif isinstance(given, list):
            given[:] = [b if _is_plain(b) else a for a, b in zip(given, after, strict=True)]
    elif isinstance(given, dict) and isinstance(after, dict):
        for key in given.keys() & after.keys():
            give_back(given[key], after[key])
        changed = {k: given[k] if k in given and not _is_plain(v) else v for k, v in after.items()}
        given.clear()
        given.update(changed)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit; NaN is equal to NaN."""
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
