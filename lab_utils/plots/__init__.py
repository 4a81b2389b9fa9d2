"""The figures of the lessons: every function returns a matplotlib `Figure`, which `show` shows."""

from lab_utils.plots.commonsense import commonsense
from lab_utils.plots.runs import (
    final_losses,
    learning_rates,
    live_losses,
    loss_by_rank,
    loss_curves,
    narrowing_interval,
    published_by_rank,
)
from lab_utils.plots.style import COLOURS, NAMES, show
from lab_utils.plots.weights import (
    couplings,
    decomposition,
    lengths_and_turns,
    magnitude_maps,
    magnitude_shares,
    one_vector,
    rows_moved,
    saved_memory,
    weight_changes,
)

__all__ = [
    "COLOURS",
    "NAMES",
    "commonsense",
    "couplings",
    "decomposition",
    "final_losses",
    "learning_rates",
    "lengths_and_turns",
    "live_losses",
    "loss_by_rank",
    "loss_curves",
    "magnitude_maps",
    "magnitude_shares",
    "narrowing_interval",
    "one_vector",
    "published_by_rank",
    "rows_moved",
    "saved_memory",
    "show",
    "weight_changes",
]
