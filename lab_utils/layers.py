"""The reference layers: LoRA, and DoRA, which adds one trained length to each weight vector.

Read `LoRALayer` first: `DoRALayer` is the same low-rank update with a norm and a magnitude
around it. `DoRALayer.reference_forward` is the paper's formula; `DoRALayer.forward` gives the
same numbers without building a second weight. Both layers have one form for every device and
dtype, with nothing in it that `torch.compile` or a CUDA graph would stumble over.
"""

import math
import numbers

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab_utils.decomposition import at_least_float32, check_norm_dim, decompose, exact
from lab_utils.fused import scale_features, updated_norm


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
        generator: source of the random `lora_A`, on any device; PyTorch's global one if None. One
            on the CPU gives the same start wherever the layer is.

    Attributes:
        lora_A: `(rank, in_features)`, Kaiming-uniform with `a=sqrt(5)`.
        lora_B: `(out_features, rank)`, zeros, so that training starts from `W' == W0`.

    On a half-precision layer the trained parameters are float32, because small optimiser steps
    would be rounded away. (`.half()` or `.bfloat16()` on the adapted layer rounds them, too.)
    Products and outputs have the dtype that `nn.Linear` gives them, also under autocast. In half
    precision `W0 x` and the update's part are rounded each, so where the update undoes most of
    W0, the output has the digits of the larger of the two.

    Raises:
        TypeError: `original_layer` is not an `nn.Linear`, `rank` is not an int, or `alpha` or
            `dropout` is not a number.
        ValueError: `rank`, `alpha` or `dropout` is out of range, or a weight is NaN or infinite,
            or on the meta device, where it has no values yet.
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
        source = new | ({"device": generator.device} if generator else {})
        A = nn.init.kaiming_uniform_(
            torch.empty(rank, self.in_features, **source), a=math.sqrt(5), generator=generator
        )
        self.lora_A = nn.Parameter(A.to(weight.device))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, **new))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, `(..., in_features)`, to `(..., out_features)`."""
        return self.original_layer(x) + self._low_rank(x)

    def _low_rank(self, x: Tensor) -> Tensor:
        """Return `scaling * B A dropout(x)`, from right to left: `B A` itself is never built."""
        A, B = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        return F.linear(self.scaling * F.linear(self.dropout(x), A), B)

    def update(self) -> Tensor:
        """Return `scaling * B A`, `(out_features, in_features)`, in float32 or better."""
        with torch.autocast(self.lora_A.device.type, enabled=False):
            return self.scaling * exact(self.lora_B) @ exact(self.lora_A)

    def updated_weight(self) -> Tensor:
        """Return `W0 + scaling * B A`, `(out_features, in_features)`, in float32 or better."""
        return self.original_layer.weight + self.update()

    def merged_weight(self) -> Tensor:
        """Return `W'`, `(out_features, in_features)`: what the layer multiplies `x` with."""
        return self.updated_weight()

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return a new plain `nn.Linear` that computes the same without an adapter.

        The adapted layer and its `original_layer` stay as they are.
        """
        original = self.original_layer
        has_bias = original.bias is not None
        # "meta": nothing is drawn for a weight that is replaced at once.
        merged = nn.Linear(self.in_features, self.out_features, bias=has_bias, device="meta")
        merged.weight = nn.Parameter(self.merged_weight().to(original.weight.dtype))
        if has_bias:
            merged.bias = nn.Parameter(original.bias.clone())
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

    Load W0 before the layer is adapted: `magnitude` starts as its norm.

    A vector of zeros in W0 has magnitude 0. (Some checkpoints have such rows: issue 2049 of
    huggingface/peft counts 434 in one.) With `norm_dim=1` it stays zero, since neither its
    magnitude nor its row of `lora_B` gets a gradient. With `norm_dim=0` the update gives its
    column a direction, and training may give it a length.

    Raises:
        TypeError, ValueError: as `LoRALayer`; ValueError also for an unknown `norm_dim`.
    """

    eps = 1e-8  # the smallest norm to divide by

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
        self.magnitude = nn.Parameter(self.base_norm)

    @property
    def base_norm(self) -> Tensor:
        """`||W0||`, in the shape of `magnitude`, in float32 or better."""
        norm, _ = decompose(exact(self.original_layer.weight.detach()), self.norm_dim)
        return norm

    def reference_forward(self, x: Tensor) -> Tensor:
        """Map `x` as the paper writes it, with `B A` and weights built at every call."""
        W0, bias = exact(self.original_layer.weight), self.original_layer.bias
        update = self.update()
        norm_scale = self.magnitude / self._norm_of(W0 + update)
        y = F.linear(exact(x), norm_scale * W0)
        y = y + F.linear(exact(self.dropout(x)), norm_scale * update)
        return (y if bias is None else y + bias).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, `(..., in_features)`, to `(..., out_features)`.

        The factor `m / ||V||` is one number per output (`norm_dim=1`) or per input
        (`norm_dim=0`), so it scales a vector: `W' x = (m / ||V||) * (W0 x + scaling * B A x)`.
        """
        weight, bias = self.original_layer.weight, self.original_layer.bias
        norm_scale = self.magnitude.flatten() / self._norm()
        if self.norm_dim == 1:
            y = scale_features(F.linear(x, weight) + self._low_rank(x), norm_scale)
        else:
            x = scale_features(x, norm_scale)
            y = F.linear(x, weight) + self._low_rank(x)
        return y if bias is None else y + bias.to(y.dtype)

    def merged_weight(self) -> Tensor:
        """Return `W' = m * V / ||V||`, `(out_features, in_features)`, in float32 or better."""
        updated = self.updated_weight()
        return self.magnitude * updated / self._norm_of(updated)

    def get_magnitude_change(self) -> Tensor:
        """Return `|m - ||W0|||`, one number per magnitude, as a flat tensor."""
        return (self.magnitude.detach() - self.base_norm).abs().flatten()

    def _norm_of(self, updated: Tensor) -> Tensor:
        """Return `||V||` of a weight that has been built, in the shape of `magnitude`."""
        vectors = updated.detach() if self.detach_norm else updated
        norm = torch.linalg.vector_norm(vectors, dim=self.norm_dim, keepdim=True)
        return norm.clamp_min(self.eps)

    def _norm(self) -> Tensor:
        """Return `||V||`, flat, without building the weight as a whole."""
        W0, A, B, s = self.original_layer.weight, self.lora_A, self.lora_B, self.scaling
        norm = updated_norm(W0, A, B, s, self.norm_dim).clamp_min(self.eps)
        if self.detach_norm:
            return norm
        # For a row of the weight, with b for that row of B,
        #     ||w0 + s bA||^2 = ||w0||^2 + 2s <w0 A^T, b> + s^2 <b (A A^T), b>,
        # which needs only matrices as thin as the rank. It is not taken for the norm itself: where
        # an update undoes most of w0, the sum loses its digits. Its derivative has enough of them.
        if self.norm_dim == 0:  # the columns of V are the rows of V^T = W0^T + s A^T B^T
            W0, A, B = W0.T, B.T, A.T
        overlap = (B * (W0 @ A.T.to(W0.dtype))).sum(dim=1)
        update_squared = (B * (B @ (A @ A.T))).sum(dim=1)
        squared = 2 * s * overlap + s**2 * update_squared
        return norm + (squared - squared.detach()) / (2 * norm)  # the value of norm, exactly


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
    for name, value in (("alpha", alpha), ("dropout", dropout)):
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; it must be a number")
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha is {alpha}; it must be a finite number above 0")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
    if layer.weight.is_meta:
        raise ValueError(
            "the weight of original_layer is on the meta device and has no values; load the "
            "checkpoint first, then adapt the layer"
        )
    if not layer.weight.isfinite().all():
        raise ValueError(
            "the weight of original_layer contains NaN or infinity; it must contain finite numbers"
        )
