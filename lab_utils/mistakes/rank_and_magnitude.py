"""Other versions of the exercises of lesson 05."""

import torch

from lab_utils import checks, training


def without_clone(n_epochs=50):
    """It keeps the magnitude itself at every step, detached and flat."""
    rows = []
    training.train_and_evaluate(
        "dora",
        n_epochs=n_epochs,
        task="regression",
        verbose=False,
        on_step=lambda step, model, loss: rows.append(model.q_proj.magnitude.detach().flatten()),
    )
    history = torch.stack(rows)
    change = history - history[0]
    return {
        "history": history,
        "mean_change": change.abs().mean(dim=1),
        "relative_change": (change[-1].norm() / history[0].norm()).item(),
    }


def same_rank_for_all(ranks=(4, 8, 16, 32)):
    """Each training takes its default rank; the keys are the ranks that were asked for."""

    def loss(method):
        return training.train_and_evaluate(method, n_epochs=1, task="regression", verbose=False)

    return {m: {rank: loss(m)["test_loss"] for rank in ranks} for m in ("lora", "dora")}


QUESTIONS = [
    (without_clone, checks.check_track_magnitude_changes, "history"),
    (same_rank_for_all, checks.check_compare_across_ranks, "keys"),
    (same_rank_for_all, checks.check_compare_across_ranks, "losses"),
]
AFTER = {
    "compare_across_ranks": ["keys", "losses"],
    "track_magnitude_changes": ["history", "statistics"],
}
