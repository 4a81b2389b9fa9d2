"""The fast lane of the checks: where a check takes a second or more, two answers of a kind."""

from collections import Counter

import pytest
import torch

HEAVY = ("compare_across_ranks", "track_magnitude_changes", "gradient_norms_by_rank")
FEW = 2  # of the same test and exercise; the others are left to `make test`


def pytest_collection_modifyitems(items):
    seen = Counter()
    for item in items:
        exercise = next((name for name in HEAVY if name in item.name), None)
        if exercise:
            kind = item.path, item.originalname, exercise
            seen[kind] += 1
            if seen[kind] > FEW:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _the_same_draws():
    """Let answers that draw from PyTorch's global generator draw the same in every run.

    The seed is none that a lesson uses: with its seed 0 a forgotten generator would do no harm.
    """
    torch.manual_seed(987_654_321)
