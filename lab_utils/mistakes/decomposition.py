"""Other versions of `magnitude_change`, `direction_change` and `coupling`, lesson 03."""

import torch

from lab_utils import checks


def norm_of_the_difference(before, after, norm_dim=1):
    """It takes the mean length of the update, row by row."""
    return (after - before).norm(dim=norm_dim).mean().item()


def signed(before, after, norm_dim=1):
    """Rows that grew and rows that shrank cancel."""
    return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).mean().item()


def one_cosine(before, after, norm_dim=1):
    """Both weights are flattened, and one cosine is taken of the two long vectors."""
    return 1 - torch.cosine_similarity(before.flatten(), after.flatten(), dim=0).item()


def covariance(delta_m, delta_d):
    """It is positive where the two lists rise together, and has the unit of their product."""
    return torch.cov(torch.tensor([delta_m, delta_d]))[0, 1].item()


QUESTIONS = [
    (norm_of_the_difference, checks.check_magnitude_change, "rows"),
    (signed, checks.check_magnitude_change, "rows"),
    (one_cosine, checks.check_direction_change, "rows"),
    (covariance, checks.check_coupling, "correlation"),
]
AFTER = {
    "magnitude_change": ["rows", "columns"],
    "direction_change": ["rows", "columns", "zeros"],
    "coupling": ["correlation", "constant"],
}
