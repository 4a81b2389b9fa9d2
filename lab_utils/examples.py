"""Small layers for lesson 02 that are the same at every call."""

import torch
from torch import Tensor, nn

from lab_utils.layers import LoRALayer


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator of random numbers that starts at a seed."""
    return torch.Generator().manual_seed(seed)


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    """Return normal random numbers of a shape."""
    return torch.randn(shape, generator=seeded(seed))


def random_linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer that represents a pretrained one."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * random_tensor(*parameter.shape))
    return layer


def moved(layer: LoRALayer) -> LoRALayer:
    """Move an adapter away from its start, in place, as training would; return it."""
    with torch.no_grad():
        for seed, parameter in enumerate(p for p in layer.parameters() if p.requires_grad):
            parameter.add_(0.3 * random_tensor(*parameter.shape, seed=seed + 1))
    return layer
