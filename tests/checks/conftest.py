"""The fast lane of the checks: where a check trains, a second or more, two answers of a kind."""

from collections import Counter

import pytest

TRAINS = ("compare_across_ranks", "track_magnitude_changes")
FEW = 2  # of the same test and exercise; the others are left to `make test`


def pytest_collection_modifyitems(items):
    seen = Counter()
    for item in items:
        exercise = next((name for name in TRAINS if f"[{name}-" in item.name), None)
        if exercise:
            kind = item.path, item.originalname, exercise
            seen[kind] += 1
            if seen[kind] > FEW:
                item.add_marker(pytest.mark.slow)
