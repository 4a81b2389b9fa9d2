"""Other versions of `DoRALayer`, lesson 02."""

import torch
import torch.nn.functional as F
from torch import nn

from lab_utils import checks


class Sketch(nn.Module):
    """Parameters and bias as they should be."""

    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
        super().__init__()
        self.original_layer = original_layer.requires_grad_(False)
        self.s = alpha / rank
        self.lora_A = nn.Parameter(torch.randn(rank, original_layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))
        self.magnitude = nn.Parameter(original_layer.weight.norm(dim=1, keepdim=True))

    def forward(self, x):
        return F.linear(x, self.weight(), self.original_layer.bias)

    def weight(self):
        updated = self.original_layer.weight + self.s * self.lora_B @ self.lora_A
        return self.magnitude * updated / updated.norm(dim=1, keepdim=True).clamp_min(1e-8)


class NoNormalisation(Sketch):
    """The updated weight is multiplied by m, and divided by nothing."""

    def weight(self):
        return self.magnitude * (self.original_layer.weight + self.s * self.lora_B @ self.lora_A)


class NormOfTheFrozenWeight(Sketch):
    """The updated weight is divided by the norm that the frozen weight has."""

    def weight(self):
        updated = self.original_layer.weight + self.s * self.lora_B @ self.lora_A
        return (
            self.magnitude
            * updated
            / self.original_layer.weight.norm(dim=1, keepdim=True).clamp_min(1e-8)
        )


class NormOverTheWrongAxis(Sketch):
    """m has a number for each output neuron; the norm is taken for each input feature."""

    def weight(self):
        updated = self.original_layer.weight + self.s * self.lora_B @ self.lora_A
        return self.magnitude * updated / updated.norm(dim=0, keepdim=True).clamp_min(1e-8)


class ScalingLeftOut(Sketch):
    """alpha is an argument that changes nothing."""

    def weight(self):
        updated = self.original_layer.weight + self.lora_B @ self.lora_A
        return self.magnitude * updated / updated.norm(dim=1, keepdim=True).clamp_min(1e-8)


class NormNotDetached(Sketch):
    """Every output is right. The backward pass differentiates whatever forward computed."""


class DropoutOnTheFrozenPath(Sketch):
    """Dropout acts on x before anything else happens."""

    def forward(self, x):
        return super().forward(F.dropout(x, 0.5, self.training))


class BiasLost(Sketch):
    """The result is the input times the merged weight, and nothing more."""

    def forward(self, x):
        return F.linear(x, self.weight())


class RandomMagnitude(Sketch):
    """m starts as lora_A does, at random."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.magnitude = nn.Parameter(torch.randn(self.magnitude.shape))


class BaseTrainable(Sketch):
    """requires_grad_(False) was forgotten."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.original_layer.requires_grad_(True)


QUESTIONS = [
    (NoNormalisation, checks.check_dora_layer, "forward"),
    (NormOfTheFrozenWeight, checks.check_dora_layer, "start"),
    (NormOfTheFrozenWeight, checks.check_dora_layer, "forward"),
    (NormOverTheWrongAxis, checks.check_dora_layer, "forward"),
    (ScalingLeftOut, checks.check_dora_layer, "forward"),
    (NormNotDetached, checks.check_dora_layer, "gradients"),
    (DropoutOnTheFrozenPath, checks.check_dora_layer, "dropout"),
    (BiasLost, checks.check_dora_layer, "forward"),
    (RandomMagnitude, checks.check_dora_layer, "start"),
    (BaseTrainable, checks.check_dora_layer, "start"),
]
AFTER = {"DoRALayer": ["start", "forward", "axis", "gradients", "dropout", "merge"]}
