"""The figures of the lessons: each function returns a matplotlib `Figure`; `show` displays it."""

from lab_utils.adapters import COLOURS, NAMES
from lab_utils.plots.commonsense import published_and_rerun, published_gains
from lab_utils.plots.rates import (
    accuracy_by_rate,
    loss_by_rate,
    loss_by_rate_and_rule,
    validation_by_rate,
)
from lab_utils.plots.rslora import RULES, loss_by_rule, scaling_rules, training_by_rule
from lab_utils.plots.runs import (
    differences,
    differences_by_rank,
    final_losses,
    improvement_by_rank,
    live_losses,
    loss_by_rank,
    loss_curves,
    narrowing_interval,
    parameters,
    published_by_rank,
)
from lab_utils.plots.style import Picture, rate_text, show
from lab_utils.plots.weights import (
    couplings,
    decomposition,
    lengths_and_turns,
    magnitude_maps,
    magnitude_shares,
    one_vector,
    rows_moved,
    saved_memory,
    sketch,
    step_times,
    weight_changes,
)

__all__ = [
    "COLOURS",
    "NAMES",
    "RULES",
    "Picture",
    "accuracy_by_rate",
    "couplings",
    "decomposition",
    "differences",
    "differences_by_rank",
    "final_losses",
    "improvement_by_rank",
    "lengths_and_turns",
    "live_losses",
    "loss_by_rank",
    "loss_by_rate",
    "loss_by_rate_and_rule",
    "loss_by_rule",
    "loss_curves",
    "magnitude_maps",
    "magnitude_shares",
    "narrowing_interval",
    "one_vector",
    "parameters",
    "published_and_rerun",
    "published_by_rank",
    "published_gains",
    "rate_text",
    "rows_moved",
    "saved_memory",
    "scaling_rules",
    "show",
    "sketch",
    "step_times",
    "training_by_rule",
    "validation_by_rate",
    "weight_changes",
]
