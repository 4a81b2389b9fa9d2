"""`updated_norm` of `lab_utils.fused` as one Triton kernel, which reads the weight once.

Importing it raises ImportError if Triton is not installed.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 64, 64  # of the tile of the weight that a program has in its registers
TILES = 8  # how many tiles a program walks over


def updated_norm_on_gpu(
    weight: Tensor, A: Tensor, B: Tensor, scaling: float, norm_dim: int
) -> Tensor:
    """Return what `lab_utils.fused.updated_norm` returns, in float32, with the same arguments.

    `A` and `B` must be float32, and all three on one GPU. `weight` may be half precision.
    """
    if norm_dim == 0:  # the columns of W0 + s BA are the rows of W0^T + s A^T B^T
        weight, A, B = weight.T, B.T, A.T
    rows, columns = weight.shape
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(columns, COLUMNS * TILES))
    squared = torch.empty(grid[1], rows, device=weight.device, dtype=torch.float32)
    # Triton launches on the current GPU, which need not be the weight's. (torch.compile takes care
    # of that itself.)
    compiling = torch.compiler.is_compiling()
    with contextlib.nullcontext() if compiling else torch.cuda.device_of(weight):
        _squared_lengths[grid](
            *(weight, A, B, squared, scaling, rows, columns),
            *(*weight.stride(), *A.stride(), *B.stride()),
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            TILES=TILES,
            RANK=A.shape[0],
            RANKS=min(64, max(16, triton.next_power_of_2(A.shape[0]))),
        )
    return squared.sum(dim=0).sqrt()


@triton.jit
def _squared_lengths(
    weight,
    A,
    B,
    squared,
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
    TILES: tl.constexpr,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
):
    """Sum the squares of some columns of `weight + scaling * B A`, for some of its rows.

    The arguments `*_row` and `*_column` are strides. Positions beyond an edge are read as 0.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    total = tl.zeros([ROWS], tl.float32)
    for tile in range(TILES):
        c = (tl.program_id(1) * TILES + tile) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        inside = (r < rows) & (c < columns)
        # 64 bits, since a weight may have more than 2**31 numbers
        at = r.to(tl.int64) * weight_row + c.to(tl.int64) * weight_column
        V = tl.load(weight + at, mask=inside, other=0).to(tl.float32)
        for first in range(0, RANK, RANKS):
            k = first + tl.arange(0, RANKS)
            of_B = tl.load(
                B + r * B_row + k[None, :] * B_column,
                mask=(r < rows) & (k[None, :] < RANK),
                other=0,
            )
            of_A = tl.load(
                A + k[:, None] * A_row + c * A_column,
                mask=(k[:, None] < RANK) & (c < columns),
                other=0,
            )
            # "ieee": in float32, not in TF32, which has the digits of bfloat16 and three more bits
            V = tl.dot((scaling * of_B).to(tl.float32), of_A, V, input_precision="ieee")
        total += tl.sum(V * V, axis=1)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tl.store(squared + tl.program_id(1) * rows + r, total, mask=r < rows)
