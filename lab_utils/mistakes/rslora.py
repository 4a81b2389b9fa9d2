"""Other versions of the exercises of lesson 07."""

import math

import torch

from lab_utils import adapters, checks, data


def root_of_everything(alpha, rank, rank_stabilized):
    """Under the rank-stabilised rule the root is taken of the whole fraction."""
    return math.sqrt(alpha / rank) if rank_stabilized else alpha / rank


def first_gradients(rank, alpha, rank_stabilized):
    task = data.language_task()
    model = adapters.add_adapters_to_model(
        task.base,
        "lora",
        rank,
        alpha,
        rank_stabilized=rank_stabilized,
        generator=torch.Generator().manual_seed(0),
    )
    task.loss(model(task.train.inputs[:8]), task.train.targets[:8]).backward()
    return [p.grad for p in adapters.trainable_parameters(model).values()]


def alpha_grows_with_the_rank(ranks, rank_stabilized):
    """alpha is twice the rank, as in many published recipes."""
    return {
        rank: torch.cat([g.flatten() for g in first_gradients(rank, 2.0 * rank, rank_stabilized)])
        .norm()
        .item()
        for rank in ranks
    }


def norms_added_up(ranks, rank_stabilized):
    """It takes the norm of each parameter's gradient, and adds the norms up."""
    return {
        rank: sum(g.norm().item() for g in first_gradients(rank, 16.0, rank_stabilized))
        for rank in ranks
    }


def measured_after_clipping(ranks, rank_stabilized):
    """The gradients are clipped as in training, and then measured."""
    norms = {}
    for rank in ranks:
        gradients = torch.cat([g.flatten() for g in first_gradients(rank, 16.0, rank_stabilized)])
        norms[rank] = min(1.0, gradients.norm().item())  # what clip_grad_norm_(…, 1.0) leaves
    return norms


QUESTIONS = [
    (root_of_everything, checks.check_lora_scaling, "stabilized"),
    (alpha_grows_with_the_rank, checks.check_gradient_norms_by_rank, "usual"),
    (norms_added_up, checks.check_gradient_norms_by_rank, "stabilized"),
    (measured_after_clipping, checks.check_gradient_norms_by_rank, "stabilized"),
]
AFTER = {"lora_scaling": ["usual", "stabilized"], "gradient_norms_by_rank": ["usual", "stabilized"]}
