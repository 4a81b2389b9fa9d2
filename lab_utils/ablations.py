"""DoRA with one of its parts removed: lesson 05 reports which part does what."""

import torch.nn.functional as F
from torch import Tensor, nn

from lab_utils.decomposition import decompose
from lab_utils.layers import DoRALayer, LoRALayer


def fixed_magnitude(original_layer: nn.Linear, *args, **kwargs) -> DoRALayer:
    """Return a `DoRALayer` whose `m` is not trained: vectors turn, and keep their length.

    The arguments are those of `DoRALayer`.
    """
    layer = DoRALayer(original_layer, *args, **kwargs)
    layer.magnitude.requires_grad_(False)
    return layer


class ScaledLoRALayer(LoRALayer):
    """LoRA with DoRA's magnitude and without its norm: `W' = m / ||W0|| * (W0 + scaling * B A)`.

    `m` and the norm are per output neuron, `(out_features, 1)`; `m` starts as `||W0||`, so that
    `W' == W0`. A row of zeros in W0 stays zero, as in `DoRALayer`. The arguments are those of
    `LoRALayer`.
    """

    def __init__(self, original_layer: nn.Linear, *args, **kwargs) -> None:
        super().__init__(original_layer, *args, **kwargs)
        base_norm, _ = decompose(original_layer.weight.detach().to(self.lora_A.dtype))
        self.register_buffer("base_norm", base_norm.clamp_min(1e-8))
        self.magnitude = nn.Parameter(base_norm.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, `(..., in_features)`, to `(..., out_features)`."""
        weight, bias = self.original_layer.weight, self.original_layer.bias
        row_scale = (self.magnitude / self.base_norm).flatten()
        y = row_scale * (F.linear(x, weight) + self._low_rank(x))
        return (y if bias is None else y + bias).to(x.dtype)

    def merged_weight(self) -> Tensor:
        """Return `W'`, `(out_features, in_features)`."""
        return self.magnitude / self.base_norm * self.updated_weight()


def full_gradient(original_layer: nn.Linear, *args, **kwargs) -> DoRALayer:
    """Return a `DoRALayer` whose norm is part of the backward pass (the paper's eq. 6)."""
    return DoRALayer(original_layer, *args, detach_norm=False, **kwargs)
