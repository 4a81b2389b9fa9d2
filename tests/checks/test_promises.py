"""What the exercises of lessons 01 to 03 promise is asked: each sentence has answers that break it.

The sentences are the lists under “What holds” in the lessons. A new one needs its line here.
"""

import re
from pathlib import Path

import pytest
from test_decomposition_checks import WrongCoupling, WrongDirection, WrongMagnitude
from test_from_scratch import WrongDoRA, WrongLoRA
from test_mathematics import WrongCount, WrongDecompose, WrongRecompose

from lab_utils import checks

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
CHECKS = {
    WrongDecompose: checks.check_decompose,
    WrongRecompose: checks.check_recompose,
    WrongCount: checks.check_count_trainable,
    WrongLoRA: checks.check_lora_layer,
    WrongDoRA: checks.check_dora_layer,
    WrongMagnitude: checks.check_magnitude_change,
    WrongDirection: checks.check_direction_change,
    WrongCoupling: checks.check_coupling,
}

# By the exercise and the beginning of each sentence: the answers that break it.
BROKEN_BY = {
    "decompose": {
        "`magnitude` has the Euclidean length": "squared no_keepdim repeated axis_by_size",
        "`direction` has the shape of the weight": "not_divided direction_over_the_other_axis",
        "a vector of zeros": "zero_rows_only ones_for_zero eps_under_the_root",
        "a vector shorter than `eps`": "eps_ignored clamped_at_a_hundredth magnitude_clamped",
        "the tensor that is passed in": "in_place",
    },
    "recompose": {
        "a magnitude of shape `(out_features, 1)`": "by_size by_length",
        "a direction need not": "again positive",
        "both tensors": "in_place changes_magnitude",
    },
    "count_trainable": {
        "the count is an `int`": "a_float a_tensor",
        "it counts what is trained": "with_the_frozen the_frozen_alone a_only b_only",
        "only DoRA has magnitudes": "magnitude_in_lora always_inputs always_outputs no_magnitude",
    },
    "LoRALayer": {
        "`self.original_layer` is the layer": "another_name copied buffer base_trainable "
        "bias_trainable changes_base",
        "`lora_A` and `lora_B` are parameters": "inner_linear inner_module plain_tensor "
        "transposed_a a_zero a_of_ones b_not_zero",
        "before training": "b_not_zero",
        "`forward` takes an `x`": "matrices_only no_vectors squeezes flattens x_changed",
        "gradients reach": "data_of_a no_grad x_detached cut_in_training",
        "in training mode each input": "dropped_after_a dropped_after_b weights_dropped "
        "not_rescaled p_of_a_half p_mirrored dropout_on_frozen always_dropout no_dropout",
        "`merge()` returns a new": "merge_to_tensor merge_in_place merge_with_dropout "
        "merge_evaluates merge_empties merge_thaws merge_without_bias merge_of_random_bias",
    },
    "DoRALayer": {
        "all that holds for `LoRALayer`": "dropped_after_a columns_drop_all bias_twice "
        "columns_need_a_bias columns_merged_as_rows merge_without_norm merged_bias_scaled",
        "`magnitude` is an": "flat_magnitude random_magnitude magnitude_buffer absolute clamped "
        "norm_dim_ignored",
        "a vector of zeros in $W_0$": "divides_by_zero divides_by_zero_over_columns",
        "in training mode the norm is a constant": "not_detached detached_in_evaluation "
        "columns_not_detached updated_detached",
        "dropout takes the lab's form": "dropout_on_frozen",
    },
    "magnitude_change": {
        "the result is a plain `float`": "a_tensor an_integer",
        "`norm_dim=1`, the default": "other_axis always_rows dim_as_p whole",
        "both weights stay": "in_place",
    },
    "direction_change": {
        "a vector of zeros": "zero_division zeros_left_out zeros_as_none zero_in_both_only",
    },
    "coupling": {
        "the result is a plain `float`": "a_tensor matrix",
        "where either list does not vary": "numpy_alone first_only second_only zero_if_constant "
        "crash_if_constant only_a_half",
        "both lists stay": "sorts",
    },
}
WRONG = dict(zip(BROKEN_BY, CHECKS, strict=True))


def promises(text):
    """The sentences under “What holds” of each exercise, in the text of a lesson."""
    exercises = re.split(r"^# ### Exercise \d: `(\w+)`", text, flags=re.M)[1:]
    for name, part in zip(exercises[::2], exercises[1::2], strict=True):
        lines = part.split("\n# %% nbgrader")[0].splitlines()
        start = next(i for i, line in enumerate(lines) if "What holds" in line)
        after = lines[start + 1 :]
        bullets = []
        for line in after:
            if line.startswith("# - "):
                bullets.append(line[4:])
            elif bullets and not line.startswith("#   "):
                break
        yield name, bullets


PROMISES = {
    name: sentences
    for path in sorted(SOLUTIONS.glob("0[123]-*.py"))
    for name, sentences in promises(path.read_text())
}


def test_each_exercise_says_what_holds():
    assert PROMISES.keys() == BROKEN_BY.keys()


@pytest.mark.parametrize("name", BROKEN_BY)
def test_each_sentence_has_answers_that_break_it(name):
    beginnings = list(BROKEN_BY[name])
    for sentence in PROMISES[name]:
        assert any(sentence.startswith(beginning) for beginning in beginnings), sentence
    for beginning in beginnings:
        assert any(sentence.startswith(beginning) for sentence in PROMISES[name]), beginning


@pytest.mark.parametrize(
    ("name", "beginning", "answer"),
    [
        (name, beginning, answer)
        for name, sentences in BROKEN_BY.items()
        for beginning, answers in sentences.items()
        for answer in answers.split()
    ],
)
def test_what_breaks_it_fails(name, beginning, answer):
    wrong = WRONG[name]
    with pytest.raises(checks.CheckFailed):
        CHECKS[wrong](getattr(wrong, answer))
