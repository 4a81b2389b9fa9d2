"""Two operations that the layers need and PyTorch has only in parts, each a pass over memory.

Each has one readable form, which says what it computes. On a GPU, kernels of `lab_utils.fused_gpu`
compute the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from lab_utils.decomposition import at_least_float32

try:
    from lab_utils import fused_gpu
except ImportError:  # Triton comes with PyTorch for GPUs, on Linux
    fused_gpu = None

BLOCK = 2**20  # how many numbers of the updated weight are built at a time
SHORT = 256  # vectors with fewer numbers are measured in float64


@torch.no_grad()
def updated_norm(weight: Tensor, A: Tensor, B: Tensor, scaling: float, norm_dim: int) -> Tensor:
    """Return the norms of `weight + scaling * B A`, which is never built as a whole.

    The result is precise for all dtypes of the arguments and under autocast, even if the update
    undoes all but a thousandth of the weight: the sum is built and measured in float32, whose
    rounding errors average out over a long vector, or in float64 for a short one. No gradient flows
    back.

    Args:
        weight: `(out_features, in_features)`.
        A: `(rank, in_features)`.
        B: `(out_features, rank)`.
        scaling: of the update.
        norm_dim: the dimension that a norm sums over, 0 or 1.

    Returns:
        `(out_features,)` if `norm_dim` is 1, else `(in_features,)`, in float32 or better.
    """
    result_dtype = dtype = at_least_float32(torch.promote_types(weight.dtype, A.dtype))
    if weight.shape[norm_dim] < SHORT and weight.device.type in ("cpu", "cuda"):
        dtype = torch.float64
    A, B = A.to(dtype), B.to(dtype)
    if weight.is_cuda and fused_gpu and dtype == torch.float32:
        return fused_gpu.updated_norm_on_gpu(weight, A, B, scaling, norm_dim)
    rows = max(1, BLOCK // weight.shape[1])
    with torch.autocast(weight.device.type, enabled=False):
        squared = [
            torch.addmm(some.to(dtype), of_B, A, alpha=scaling).square_().sum(dim=norm_dim)
            for some, of_B in zip(weight.split(rows), B.split(rows), strict=True)
        ]
    total = torch.cat(squared) if norm_dim == 1 else torch.stack(squared).sum(dim=0)
    return total.sqrt().to(result_dtype)


def scale_features(x: Tensor, factor: Tensor) -> Tensor:
    """Return `x * factor`, in the dtype of `x` and with the digits of `factor`.

    In half precision `x * factor` would be a float32 tensor as large as `x`; with `factor` rounded
    first, small changes of it would be lost.

    Args:
        x: `(..., features)`.
        factor: `(features,)`, at least as precise as `x`.
    """
    if x.dtype == factor.dtype or is_compiling():  # a compiler rounds in the same pass
        return (x * factor).to(x.dtype)
    # Batch norm with mean 0, variance 0 and eps 1 is PyTorch's one operation that takes a factor
    # with more digits than x, computes in float32, and rounds where it writes.
    zeros = torch.zeros_like(factor)
    y = F.batch_norm(x.reshape(-1, len(factor)), zeros, zeros, weight=factor, eps=1.0)
    return y.reshape(x.shape)
