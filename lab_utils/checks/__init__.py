"""The checks of the exercises: one module a lesson, each finding names the mistake."""

from lab_utils.checks.decomposition import (
    check_coupling,
    check_direction_change,
    check_magnitude_change,
)
from lab_utils.checks.from_scratch import check_dora_layer, check_lora_layer
from lab_utils.checks.head_to_head import (
    check_add_adapters,
    check_paired_difference,
    check_train_step,
)
from lab_utils.checks.mathematics import check_count_trainable, check_decompose, check_recompose
from lab_utils.checks.peft_and_commonsense import (
    check_choice_accuracy,
    check_make_config,
    check_to_peft_state,
)
from lab_utils.checks.rank_and_magnitude import (
    check_compare_across_ranks,
    check_track_magnitude_changes,
)
from lab_utils.checks.report import CheckFailed
from lab_utils.checks.rslora import check_gradient_norms_by_rank, check_lora_scaling

__all__ = [
    "CheckFailed",
    "check_add_adapters",
    "check_choice_accuracy",
    "check_compare_across_ranks",
    "check_count_trainable",
    "check_coupling",
    "check_decompose",
    "check_direction_change",
    "check_dora_layer",
    "check_gradient_norms_by_rank",
    "check_lora_layer",
    "check_lora_scaling",
    "check_magnitude_change",
    "check_make_config",
    "check_paired_difference",
    "check_recompose",
    "check_to_peft_state",
    "check_track_magnitude_changes",
    "check_train_step",
]
