"""Tensors that are not plain arrays of real numbers: no check compares them, and none travels."""

from collections.abc import Callable

import torch
from torch import Tensor

KINDS: dict[str, Callable[[Tensor], bool]] = {
    "meta tensor": lambda tensor: tensor.is_meta,
    "quantised tensor": lambda tensor: tensor.is_quantized,
    "sparse tensor": lambda tensor: tensor.layout is not torch.strided,
    "complex tensor": lambda tensor: tensor.is_complex(),
}


def odd_kind(tensor: Tensor) -> str:
    """Return which of these a tensor is; "" if it is a plain one."""
    return next((kind for kind, is_one in KINDS.items() if is_one(tensor)), "")
