"""Other versions of the exercises of lesson 04."""

import numpy as np
import torch
from scipy import stats

from lab_utils import checks, data, layers


def adapts_the_original(model, adapter_type, rank=8, alpha=16.0):
    """It returns the model that it was given, with adapters in it."""
    model.requires_grad_(False)
    for block in model.blocks:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            kind = layers.DoRALayer if adapter_type == "dora" else layers.LoRALayer
            setattr(block, name, kind(getattr(block, name), rank=rank, alpha=alpha))
    return model


def forgets_zero_grad(model, batch, optimizer, max_norm=1.0):
    """What the last step left in .grad is still there when this one begins."""
    loss = data.next_byte_loss(model(batch[0]), batch[1])
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item(), norm.item()


def forgets_the_pairs(lora_losses, dora_losses, confidence=0.95):
    """The two lists are treated as two samples that have nothing to do with each other."""
    lora, dora = np.array(lora_losses), np.array(dora_losses)
    mean = dora.mean() - lora.mean()
    error = np.sqrt((lora.var(ddof=1) + dora.var(ddof=1)) / len(lora))
    half = stats.t.ppf((1 + confidence) / 2, len(lora) - 1) * error
    return float(mean), float(mean - half), float(mean + half)


QUESTIONS = [
    (adapts_the_original, checks.check_add_adapters, "frozen"),
    (forgets_zero_grad, checks.check_train_step, "numbers"),
    (forgets_the_pairs, checks.check_paired_difference, "mean"),
    (forgets_the_pairs, checks.check_paired_difference, "interval"),
]
AFTER = {
    "add_adapters_to_model": ["layers", "frozen", "types"],
    "train_step": ["numbers", "weights"],
    "paired_difference": ["mean", "interval"],
}
