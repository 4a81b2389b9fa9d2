"""The checks of the exercises: one module a lesson, each finding names the mistake."""

from lab_utils.checks.from_scratch import check_dora_layer, check_lora_layer
from lab_utils.checks.mathematics import check_count_trainable, check_decompose, check_recompose
from lab_utils.checks.peft_and_commonsense import (
    check_choice_accuracy,
    check_make_config,
    check_to_peft_state,
)
from lab_utils.checks.report import CheckFailed
from lab_utils.checks.rslora import check_gradient_norms_by_rank, check_lora_scaling

__all__ = [
    "CheckFailed",
    "check_choice_accuracy",
    "check_count_trainable",
    "check_decompose",
    "check_dora_layer",
    "check_gradient_norms_by_rank",
    "check_lora_layer",
    "check_lora_scaling",
    "check_make_config",
    "check_recompose",
    "check_to_peft_state",
]
