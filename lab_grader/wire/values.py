"""How values travel to a student's process and back: the structure as JSON, arrays as safetensors.

Nothing here executes what it reads: no pickle, no function. What comes back consists of plain types
and of `Unknown`, which has only the name and the text that a value of another type gave itself.
"""

import functools
import json
import struct
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from lab_utils.questions.odd_tensors import odd_kind

LONGEST_DESCRIPTION = 2000
LENGTH = struct.Struct("!Q")  # of the JSON, in bytes; after it come the arrays, if there are any
DTYPES = {  # of arrays that can be sent
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
NOT_WRITTEN = (  # errors when the bytes are not what `pack` writes
    *(ValueError, TypeError, KeyError, AttributeError, RecursionError, RuntimeError, struct.error),
    safetensors.SafetensorError,
)


class Unknown:
    """Stands for a value that cannot be sent; its `repr` is that of the student's value."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


@functools.cache
def _type_called(name: str) -> type[Unknown]:
    return type(name, (Unknown,), {})  # so that a check's message names the student's type


def pack(value: Any) -> bytes:
    """Return the bytes of a value."""
    arrays: dict[str, Tensor] = {}
    tree = json.dumps(_take_apart(value, arrays)).encode()
    return LENGTH.pack(len(tree)) + tree + (safetensors.torch.save(arrays) if arrays else b"")


def unpack(packed: bytes) -> Any:
    """Read what `pack` wrote.

    Raises:
        ValueError: these bytes are not what `pack` writes.
    """
    try:
        (length,) = LENGTH.unpack_from(packed)
        tree, data = packed[LENGTH.size :][:length], packed[LENGTH.size + length :]
        if len(tree) < length:
            raise ValueError(f"its JSON has {len(tree):,} bytes of {length:,}")
        return _put_together(json.loads(tree), safetensors.torch.load(data) if data else {})
    except NOT_WRITTEN as error:
        raise ValueError(f"not a value as pack writes it: {error}") from error


def _take_apart(value: Any, arrays: dict[str, Tensor]) -> Any:
    """Return the JSON form of a value; its tensors go to `arrays`."""
    try:
        return _tree_of(value, arrays)
    except Exception:  # it only looks like a type that can be sent: sparse, quantised, endless
        return {"unknown": [_called(value), _shown(value)]}


def _tree_of(value: Any, arrays: dict[str, Tensor]) -> Any:
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
    for plain in (int, float, str):  # a subclass is sent as its base
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return {"unknown": [_called(value), _shown(value)]}


def _called(value: Any) -> str:
    """Return the name of a value's type; for a tensor that cannot be sent, the reason."""
    odd = odd_kind(value) if isinstance(value, Tensor) else ""
    return odd or type(value).__name__


def _shown(value: Any) -> str:
    try:
        return repr(value)[:LONGEST_DESCRIPTION]
    except Exception:
        return f"<{type(value).__name__}>"


def _add_array(kind: str, tensor: Tensor, arrays: dict[str, Tensor]) -> dict[str, Any]:
    if tensor.dtype not in DTYPES:
        raise TypeError(f"a tensor of {tensor.dtype} cannot be sent")
    name = str(len(arrays))
    # A copy with its own storage, without gradient: safetensors accepts no views or subclasses.
    arrays[name] = tensor.detach().as_subclass(Tensor).cpu().contiguous().clone()
    return {kind: [name, tensor.requires_grad]}


def _put_together(tree: Any, arrays: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        if isinstance(tree, list):
            raise ValueError("a list has no kind")
        return tree
    ((kind, content),) = tree.items()
    if kind in ("list", "tuple"):
        items = [_put_together(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        pairs = [[_put_together(item, arrays) for item in pair] for pair in content]
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
            raise ValueError(f"{content!r} is not a dtype")
        return dtype
    if kind == "unknown":
        name, description = content
        return _type_called(str(name)[:100])(str(description)[:LONGEST_DESCRIPTION])
    raise ValueError(f"{kind!r} is not a kind of value")
