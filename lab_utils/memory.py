"""Measure the memory that tensors take, on any machine and without its process statistics."""

import torch
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
        self._sizes = {ref: size for ref, size in self._sizes.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self._sizes.values()))
        return result


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, torch.Tensor)]
