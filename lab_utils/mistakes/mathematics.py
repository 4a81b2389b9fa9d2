"""Other versions of `decompose` and `recompose`, lesson 01."""

import torch

from lab_utils import checks


def over_the_other_dimension(weight, norm_dim=1, eps=1e-8):
    """The norm sums over the dimension that norm_dim does not name."""
    magnitude = weight.norm(dim=1 - norm_dim, keepdim=True)
    return magnitude, weight / magnitude.clamp_min(eps)


def without_keepdim(weight, norm_dim=1, eps=1e-8):
    """The direction is right, and the magnitude is returned as a list of numbers, not a matrix."""
    magnitude = weight.norm(dim=norm_dim)
    return magnitude, weight / magnitude.unsqueeze(norm_dim).clamp_min(eps)


def root_of_the_sum(weight, norm_dim=1, eps=1e-8):
    """It never calls norm: it adds up squares and takes the root."""
    magnitude = torch.sqrt((weight * weight).sum(dim=norm_dim, keepdim=True))
    return magnitude, weight / torch.maximum(magnitude, torch.tensor(eps))


def divides_by_zero(weight, norm_dim=1, eps=1e-8):
    """eps is an argument that it takes and never uses."""
    magnitude = weight.norm(dim=norm_dim, keepdim=True)
    return magnitude, weight / magnitude


def sum_of_absolute_values(weight, norm_dim=1, eps=1e-8):
    """The length of a vector is the sum of the absolute values of its entries."""
    magnitude = weight.abs().sum(dim=norm_dim, keepdim=True)
    return magnitude, weight / magnitude.clamp_min(eps)


QUESTIONS = [
    (over_the_other_dimension, checks.check_decompose, "rows"),
    (without_keepdim, checks.check_decompose, "rows"),
    (root_of_the_sum, checks.check_decompose, "rows"),
    (divides_by_zero, checks.check_decompose, "zeros"),
    (sum_of_absolute_values, checks.check_decompose, "rows"),
]
AFTER = {"decompose": ["rows", "columns", "zeros"]}
