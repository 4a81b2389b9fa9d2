"""Other versions of the exercises of lesson 06."""

from peft import LoraConfig

from lab_utils import checks


def alpha_that_does_not_follow(use_dora, rank=16):
    """lora_alpha is 32, as in the paper's table at rank 16."""
    return LoraConfig(
        r=rank,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
        use_dora=use_dora,
    )


def the_flag_is_forgotten(use_dora, rank=16):
    """Rank and alpha are right, and use_dora is an argument that it never uses."""
    return LoraConfig(r=rank, lora_alpha=2 * rank)


def magnitude_forgotten(layer, prefix):
    """It writes lora_A and lora_B, whatever the layer is."""
    return {
        f"{prefix}.lora_A.weight": layer.lora_A.detach(),
        f"{prefix}.lora_B.weight": layer.lora_B.detach(),
    }


def scaling_folded_in(layer, prefix):
    """So that nobody has to know alpha, lora_B is written times the scaling."""
    return {
        f"{prefix}.lora_A.weight": layer.lora_A.detach(),
        f"{prefix}.lora_B.weight": layer.scaling * layer.lora_B.detach(),
    }


def lowest_is_best(scores, answers):
    """It takes the choice with the lowest score, as one would with a loss."""
    right = [row.index(min(row)) == answer for row, answer in zip(scores, answers, strict=True)]
    return sum(right) / len(right)


QUESTIONS = [
    (alpha_that_does_not_follow, checks.check_make_config, "scaling"),
    (the_flag_is_forgotten, checks.check_make_config, "method"),
    (magnitude_forgotten, checks.check_to_peft_state, "lora"),
    (magnitude_forgotten, checks.check_to_peft_state, "dora"),
    (scaling_folded_in, checks.check_to_peft_state, "lora"),
    (lowest_is_best, checks.check_choice_accuracy, "equal"),
]
AFTER = {
    "make_config": ["method", "scaling", "layers"],
    "to_peft_state": ["lora", "dora"],
    "choice_accuracy": ["equal", "ragged"],
}
