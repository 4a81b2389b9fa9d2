"""What `lab_utils.fused` computes, as Triton kernels that read the large tensors once.

Importing it raises ImportError if Triton is not installed.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

# What a program has in its registers of the weight at a time, how many ranks it adds at a time, and
# how many warps work on it. The fastest of those tried on an H100.
TILE = {"ROWS": 16, "COLUMNS": 512, "RANKS": 16, "num_warps": 4, "num_stages": 3}


def updated_norm_on_gpu(
    weight: Tensor, A: Tensor, B: Tensor, scaling: float, norm_dim: int
) -> Tensor:
    """Return what `lab_utils.fused.updated_norm` returns, in float32, with the same arguments.

    `A` and `B` must be float32, and all three on one GPU. `weight` may be half precision.
    """
    if norm_dim == 0:  # the columns of W0 + s BA are the rows of W0^T + s A^T B^T
        weight, A, B = weight.T, B.T, A.T
    rows, columns = weight.shape
    norm = torch.empty(rows, device=weight.device, dtype=torch.float32)
    with _on_device_of(weight):
        _norms_of_rows[(triton.cdiv(rows, TILE["ROWS"]),)](
            weight,
            A,
            B,
            norm,
            scaling,
            rows,
            columns,
            *weight.stride(),
            *A.stride(),
            *B.stride(),
            RANK=A.shape[0],
            **TILE,
        )
    return norm


def _on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current GPU, which need not be the tensor's.

    `torch.compile` takes care of that itself.
    """
    compiling = torch.compiler.is_compiling()
    return contextlib.nullcontext() if compiling else torch.cuda.device_of(tensor)


@triton.jit
def _norms_of_rows(
    weight,
    A,
    B,
    norm,
    scaling,
    rows,
    columns,
    weight_row,
    weight_column,
    A_row,
    A_column,
    B_row,
    B_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
):
    """Measure some rows of `weight + scaling * B A`.

    The arguments `*_row` and `*_column` are strides. Positions beyond an edge are read as 0.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    squared = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, columns, COLUMNS):
        c = start + tl.arange(0, COLUMNS)
        inside = (r < rows)[:, None] & (c < columns)[None, :]
        # 64 bits, since a weight may have more than 2**31 numbers
        at = r.to(tl.int64)[:, None] * weight_row + c.to(tl.int64)[None, :] * weight_column
        V = tl.load(weight + at, mask=inside, other=0).to(tl.float32)
        for first in range(0, RANK, RANKS):
            k = first + tl.arange(0, RANKS)
            of_B = tl.load(
                B + r[:, None] * B_row + k[None, :] * B_column,
                mask=(r < rows)[:, None] & (k < RANK)[None, :],
                other=0,
            )
            of_A = tl.load(
                A + k[:, None] * A_row + c[None, :] * A_column,
                mask=(k < RANK)[:, None] & (c < columns)[None, :],
                other=0,
            )
            # "ieee": in float32, not in TF32, which has the digits of bfloat16 and three more bits
            V = tl.dot((scaling * of_B).to(tl.float32), of_A, V, input_precision="ieee")
        squared += V * V
    tl.store(norm + r, tl.sqrt(tl.sum(squared, axis=1)), mask=r < rows)
