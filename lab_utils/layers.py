"""The reference layers: LoRA, and DoRA, which adds one trained length to each weight vector.

Read `LoRALayer` first: `DoRALayer` is the same low-rank update with a norm and a magnitude
around it. `DoRALayer.reference_forward` is the paper's formula; `DoRALayer.forward` gives the
same numbers without building a second weight.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab_utils.decomposition import at_least_float32, check_norm_dim, decompose


class LoRALayer(nn.Module):
    """A frozen linear layer plus a trained low-rank update: `W' = W0 + scaling * B A`.

    Source: Hu et al., 2021, arXiv 2106.09685, section 4.1.

    Args:
        original_layer: the pretrained `nn.Linear`. It is kept, not copied, and frozen in place.
        rank: columns of `lora_B` and rows of `lora_A`, from 1 to min(in_features, out_features).
        alpha: strength of the update; `scaling = alpha / rank`.
        dropout: probability in [0, 1) of dropping an input of the low-rank path in training.
            The frozen path sees every input.
        rank_stabilized: use `scaling = alpha / sqrt(rank)` instead (rsLoRA, arXiv 2312.03732).
        generator: source of the random `lora_A`; PyTorch's global one if None.

    Attributes:
        lora_A: `(rank, in_features)`, Kaiming-uniform with `a=sqrt(5)`.
        lora_B: `(out_features, rank)`, zeros, so that training starts from `W' == W0`.

    On a half-precision layer the trained parameters are float32, because small optimiser steps
    would be rounded away; the output keeps the dtype of the input.

    Raises:
        TypeError: `original_layer` is not an `nn.Linear`, or `rank` is not an int.
        ValueError: `rank`, `alpha` or `dropout` is out of range, or a weight is NaN or infinite.
    """

    def __init__(
        self,
        original_layer: nn.Linear,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        *,
        rank_stabilized: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(original_layer, rank, alpha, dropout)
        self.original_layer = original_layer.requires_grad_(False)
        self.in_features = original_layer.in_features
        self.out_features = original_layer.out_features
        self.rank = rank
        self.alpha = alpha
        self.scaling = alpha / math.sqrt(rank) if rank_stabilized else alpha / rank
        self.dropout = nn.Dropout(dropout)

        weight = original_layer.weight
        new = {"device": weight.device, "dtype": at_least_float32(weight.dtype)}
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, **new))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, **new))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5), generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, `(..., in_features)`, to `(..., out_features)`."""
        return self.original_layer(x) + (self.scaling * self._low_rank(x)).to(x.dtype)

    def _low_rank(self, x: Tensor) -> Tensor:
        """Return `B A dropout(x)`, from right to left: `B A` itself is never built."""
        x = self.dropout(x).to(self.lora_A.dtype)
        return x @ self.lora_A.T @ self.lora_B.T

    def updated_weight(self) -> Tensor:
        """Return `W0 + scaling * B A`, `(out_features, in_features)`."""
        return self.original_layer.weight + self.scaling * self.lora_B @ self.lora_A

    def merged_weight(self) -> Tensor:
        """Return `W'`, `(out_features, in_features)`: what the layer multiplies `x` with."""
        return self.updated_weight()

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return a new plain `nn.Linear` that computes the same without an adapter.

        The adapted layer and its `original_layer` stay as they are.
        """
        original = self.original_layer
        # skip_init: the random weight that nn.Linear would draw is replaced at once.
        merged = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            bias=original.bias is not None,
            device=original.weight.device,
            dtype=original.weight.dtype,
        )
        merged.weight.copy_(self.merged_weight())
        if original.bias is not None:
            merged.bias.copy_(original.bias)
        return merged

    @property
    def trainable_params(self) -> int:
        """How many numbers an optimiser would train."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class DoRALayer(LoRALayer):
    """LoRA on the direction, and a magnitude trained apart from it.

    `W' = m * V / ||V||` with `V = W0 + scaling * B A`, and `W' == W0` before training.
    Source: Liu et al., 2024, arXiv 2402.09353, eq. 5.

    Args, besides those of `LoRALayer`:
        norm_dim: 1 for one magnitude per output neuron, as the authors' code and PEFT have it;
            0 for one per input feature.
        detach_norm: treat `||V||` as a constant in the backward pass (section 4.3, eq. 11),
            which saves memory. False gives the full gradient (eq. 6). Outputs are the same.

    Attributes, besides those of `LoRALayer`:
        magnitude: the trained `m`, `(out_features, 1)` or `(1, in_features)`; starts as `||W0||`.
        base_norm: `||W0||`, in the shape of `magnitude`. W0 is frozen, so it is computed once.

    A vector of zeros in W0 has magnitude 0, and stays zero. Some checkpoints have such rows: issue
    2049 of huggingface/peft counts 434 in one.

    Raises:
        TypeError, ValueError: as `LoRALayer`; ValueError also for an unknown `norm_dim`.
    """

    eps = 1e-8  # the smallest norm to divide by
    cancellation_share = 0.1  # see `_factored_norm`

    def __init__(
        self,
        original_layer: nn.Linear,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        norm_dim: int = 1,
        *,
        detach_norm: bool = True,
        rank_stabilized: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        check_norm_dim(norm_dim)
        super().__init__(
            original_layer,
            rank,
            alpha,
            dropout,
            rank_stabilized=rank_stabilized,
            generator=generator,
        )
        self.norm_dim = norm_dim
        self.detach_norm = detach_norm
        base_norm, _ = decompose(original_layer.weight.to(self.lora_A.dtype), norm_dim)
        self.register_buffer("base_norm", base_norm)
        self.magnitude = nn.Parameter(base_norm.clone())

    def reference_forward(self, x: Tensor) -> Tensor:
        """Map `x` as the paper writes it, with `B A` and weights built at every call."""
        bias = self.original_layer.bias
        frozen = self.original_layer.weight.to(self.lora_A.dtype)
        update = self.scaling * self.lora_B @ self.lora_A
        norm_scale = self.magnitude / self._norm_of(frozen + update)
        y = F.linear(x.to(frozen.dtype), norm_scale * frozen)
        y = y + F.linear(self.dropout(x).to(frozen.dtype), norm_scale * update)
        return (y if bias is None else y + bias).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, `(..., in_features)`, to `(..., out_features)`.

        The factor `m / ||V||` is one number per output (`norm_dim=1`) or per input
        (`norm_dim=0`), so it scales a vector: `W' x = (m / ||V||) * (W0 x + scaling * B A x)`.
        """
        weight, bias = self.original_layer.weight, self.original_layer.bias
        norm_scale = (self.magnitude / self._factored_norm()).flatten()
        if self.norm_dim == 1:
            y = norm_scale * (F.linear(x, weight) + self.scaling * self._low_rank(x))
        else:
            x_scaled = x * norm_scale.to(x.dtype)
            y = F.linear(x_scaled, weight) + self.scaling * self._low_rank(x_scaled)
        return (y if bias is None else y + bias).to(x.dtype)

    def merged_weight(self) -> Tensor:
        """Return `W' = m * V / ||V||`, `(out_features, in_features)`."""
        updated = self.updated_weight()
        return self.magnitude * updated / self._norm_of(updated)

    def get_magnitude_change(self) -> Tensor:
        """Return `|m - ||W0|||`, one number per magnitude, as a flat tensor."""
        return (self.magnitude.detach() - self.base_norm).abs().flatten()

    def _norm_of(self, updated: Tensor) -> Tensor:
        """Return `||V||` of a weight that is there, in the shape of `magnitude`."""
        vectors = updated.detach() if self.detach_norm else updated
        norm = torch.linalg.vector_norm(vectors, dim=self.norm_dim, keepdim=True)
        return norm.clamp_min(self.eps)

    def _factored_norm(self) -> Tensor:
        """Return `||V||` in the shape of `magnitude` without building `B A`.

        For a row of the weight, with s for the scaling and b for that row of B:
        `||w0 + s bA||^2 = ||w0||^2 + 2s <w0, bA> + s^2 ||bA||^2`. The first term is known; the
        others, `<w0 A^T, b>` and `<b (A A^T), b>`, need only matrices as thin as the rank.
        """
        W0, A, B, s = self.original_layer.weight, self.lora_A, self.lora_B, self.scaling
        if self.norm_dim == 0:  # the columns of V are the rows of V^T = W0^T + s A^T B^T
            W0, A, B = W0.T, B.T, A.T
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_norm):
            # A takes the dtype of W0, so that a half-precision W0 is not copied.
            overlap = (B * (W0 @ A.T.to(W0.dtype))).sum(dim=1)
            update_squared = (B * (B @ (A @ A.T))).sum(dim=1)
            lengths_squared = self.base_norm.flatten() ** 2 + s**2 * update_squared
            squared = lengths_squared + 2 * s * overlap
            # Where the update undoes most of w0, large terms of opposite sign leave a small
            # sum that keeps their rounding errors: the norm would lose its digits, and its
            # square could even be negative. Such rows, rare in training, are built and measured.
            rows = (squared < self.cancellation_share * lengths_squared).nonzero().flatten()
            if len(rows):
                exact = (W0[rows] + s * B[rows] @ A).square().sum(dim=1)
                squared = squared.index_copy(0, rows, exact)
            return squared.clamp_min(self.eps**2).sqrt().view_as(self.base_norm)


def _check_arguments(layer: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"original_layer is a {type(layer).__name__}; it must be an nn.Linear")
    if not isinstance(rank, int) or isinstance(rank, bool):
        raise TypeError(f"rank is {rank!r}; it must be an int")
    largest = min(layer.in_features, layer.out_features)
    if not 1 <= rank <= largest:
        raise ValueError(
            f"rank is {rank}; for in_features={layer.in_features} and "
            f"out_features={layer.out_features} it must be from 1 to {largest}"
        )
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha is {alpha}; it must be a finite number above 0")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
    if not layer.weight.isfinite().all():
        raise ValueError(
            "the weight of original_layer holds NaN or infinity; it must hold finite numbers"
        )
