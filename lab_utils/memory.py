"""Measure the memory that tensors take, on any machine and without its process statistics."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """A context manager that finds the most bytes held at once by tensors made inside it.

    It sees every operation of PyTorch, in the forward and the backward pass. Tensors that were
    there before do not count, views count once, and what one operation takes and gives back
    before it returns is not seen.

    Attributes:
        peak: the bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):  # not seen before: made outside
            self._sizes.setdefault(StorageWeakRef(storage), 0)
        result = operation(*args, **kwargs)
        for storage in _storages(result):
            self._sizes.setdefault(StorageWeakRef(storage), storage.nbytes())
        if sum(self._sizes.values()) > self.peak:  # unless some of it is no longer held
            self._sizes = {ref: size for ref, size in self._sizes.items() if not ref.expired()}
            self.peak = max(self.peak, sum(self._sizes.values()))
        return result


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, torch.Tensor)]


@dataclass(eq=False)
class _Kept:
    tensor: torch.Tensor


def kept_for_backward(layer: nn.Module, forward: Callable, x: torch.Tensor) -> int:
    """Return the bytes that `forward(x)` keeps for its backward pass.

    PyTorch hands every tensor that it keeps to a hook. Those of the layer itself, parameters and
    frozen weights, are there anyway and do not count; what is let go again does not either.
    """
    alive: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def keep(tensor: torch.Tensor) -> _Kept:
        kept = _Kept(tensor)
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        output = forward(x)  # noqa: F841 holds the graph, which holds what is kept
        own = {tensor.untyped_storage().data_ptr() for tensor in layer.state_dict().values()}
        storages = [kept.tensor.untyped_storage() for kept in alive]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for address, size in sizes.items() if address not in own)
