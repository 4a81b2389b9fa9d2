"""The fast lane of the checks: where a check takes a second or more, two answers of a kind."""

import copy
from collections import Counter

import pytest

from lab_utils import training

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


_made = {}  # runs of training by their settings
_train = training._train_and_evaluate
_step = training.train_step


@pytest.fixture
def runs_are_made_once(monkeypatch):
    """Make each run of training once: what it returns, and what `on_step` sees, is kept."""

    def remembered(run, device, verbose, on_step):
        if training.train_step is not _step:  # its steps are a check's own
            return _train(run, device, verbose, on_step)
        if run not in _made:
            seen = []

            def keep(step, model, loss):
                seen.append((step, copy.deepcopy(model.state_dict()), loss))
                keep.model = model

            _made[run] = _train(run, device, verbose, keep), seen, keep.model
        result, seen, model = _made[run]
        if on_step is not None:
            model = copy.deepcopy(model)
            for step, state, loss in seen:
                model.load_state_dict(state)  # in place, as an optimiser does
                on_step(step, model, loss)
        return copy.deepcopy(result)

    monkeypatch.setattr(training, "_train_and_evaluate", remembered)
