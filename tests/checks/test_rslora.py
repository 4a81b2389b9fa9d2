"""Checks of lesson 07: right answers pass however they are written, wrong ones are named."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from answers import answers

from lab_utils import adapters, checks
from lab_utils.adapters import adapter_layers, trainable_parameters
from lab_utils.data import language_task
from lab_utils.training import make_optimizer, train_step

ROOT = Path(__file__).resolve().parents[2]


class RightScaling:
    def conditional(alpha, rank, rank_stabilized):
        return alpha / math.sqrt(rank) if rank_stabilized else alpha / rank

    def power(alpha, rank, rank_stabilized):
        return alpha * rank ** (-0.5 if rank_stabilized else -1.0)

    def table(alpha, rank, rank_stabilized):
        return alpha / {True: rank**0.5, False: rank}[rank_stabilized]

    def numpy(alpha, rank, rank_stabilized):
        return np.divide(alpha, np.sqrt(rank) if rank_stabilized else rank)


class WrongScaling:
    def always_rank(alpha, rank, rank_stabilized):
        """rank_stabilized ignored"""
        return alpha / rank

    def swapped(alpha, rank, rank_stabilized):
        """the two rules are swapped"""
        return RightScaling.power(alpha, rank, not rank_stabilized)

    def root_of_all(alpha, rank, rank_stabilized):
        """square root over alpha"""
        return math.sqrt(alpha / rank) if rank_stabilized else alpha / rank

    def root_of_alpha(alpha, rank, rank_stabilized):
        """square root over alpha"""
        return math.sqrt(alpha) / rank if rank_stabilized else alpha / rank

    def without_alpha(alpha, rank, rank_stabilized):
        """alpha left out"""
        return RightScaling.power(1.0, rank, rank_stabilized)

    def without_rank(alpha, rank, rank_stabilized):
        """rank left out"""
        return alpha

    def upside_down(alpha, rank, rank_stabilized):
        """upside down"""
        return 1 / RightScaling.power(alpha, rank, rank_stabilized)

    def multiplied(alpha, rank, rank_stabilized):
        """multiplied"""
        return alpha * rank**0.5 if rank_stabilized else alpha * rank

    def squared(alpha, rank, rank_stabilized):
        """rank squared"""
        return alpha / rank**2 if rank_stabilized else alpha / rank

    def whole_numbers(alpha, rank, rank_stabilized):
        """whole-number division"""
        return alpha // rank

    def a_tensor(alpha, rank, rank_stabilized):
        """a tensor, not a number"""
        return torch.tensor(alpha) / rank

    def nothing(alpha, rank, rank_stabilized):
        """nothing returned"""

    def blank(alpha, rank, rank_stabilized):
        """is not written yet"""
        raise NotImplementedError()


def adapted(rank, rank_stabilized, seed=0, alpha=16.0, kind="lora"):
    return adapters.add_adapters_to_model(
        language_task().base,
        kind,
        rank,
        alpha,
        rank_stabilized=rank_stabilized,
        generator=torch.Generator().manual_seed(seed),
    )


def gradients(model, factor=1.0):
    """Gradients of what is trained, on the batch of the exercise."""
    task = language_task()
    loss = task.loss(model(task.train.inputs[:8]), task.train.targets[:8])
    (factor * loss).backward()
    return [parameter.grad for parameter in trainable_parameters(model).values()]


def by_rank(measure, ranks):
    return {rank: measure(rank) for rank in ranks}


def length(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()


class RightNorms:
    def one_vector(ranks, rank_stabilized):
        return by_rank(lambda r: length(gradients(adapted(r, rank_stabilized))), ranks)

    def get_total_norm(ranks, rank_stabilized):
        norms = {}
        for rank in ranks:
            found = gradients(adapted(rank, rank_stabilized))
            norms[rank] = float(torch.nn.utils.get_total_norm(found))
        return norms

    def found_while_clipping(ranks, rank_stabilized):
        """The norm that clipping found is that from before."""
        norms = {}
        for rank in ranks:
            model = adapted(rank, rank_stabilized)
            gradients(model)
            parameters = trainable_parameters(model).values()
            norms[rank] = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        return norms

    def by_the_labs_train_step(ranks, rank_stabilized):
        """One step of the lab's training: the norm that it reports is that before the step."""
        task, norms = language_task(), {}
        batch = task.train.inputs[:8], task.train.targets[:8]
        for rank in reversed(ranks):
            model = adapted(rank, rank_stabilized)
            optimizer = make_optimizer(model, 5e-3, 0.01)
            _, norms[rank] = train_step(model, batch, task.loss, optimizer)
        return norms

    def sum_of_squares(ranks, rank_stabilized):
        def measure(rank):
            found = gradients(adapted(rank, rank_stabilized))
            return sum(g.square().sum().item() for g in found) ** 0.5

        return by_rank(measure, ranks)


class WrongNorms:
    def growing_alpha(ranks, rank_stabilized):
        """alpha grows with the rank"""
        return by_rank(lambda r: length(gradients(adapted(r, rank_stabilized, alpha=2 * r))), ranks)

    def flag_ignored(ranks, rank_stabilized):
        """rank_stabilized ignored"""
        return RightNorms.one_vector(ranks, False)

    def always_stabilized(ranks, rank_stabilized):
        """rank_stabilized always on"""
        return RightNorms.one_vector(ranks, True)

    def default_alpha_of_the_paper(ranks, rank_stabilized):
        """another alpha"""
        return by_rank(lambda r: length(gradients(adapted(r, rank_stabilized, alpha=32.0))), ranks)

    def alpha_of_peft(ranks, rank_stabilized):
        """another alpha"""
        return by_rank(lambda r: length(gradients(adapted(r, rank_stabilized, alpha=8.0))), ranks)

    def scaling_as_alpha(ranks, rank_stabilized):
        """scaling applied twice"""
        return by_rank(
            lambda r: length(gradients(adapted(r, rank_stabilized, alpha=16.0 / r))), ranks
        )

    def clipped(ranks, rank_stabilized):
        """the norm of clipped gradients"""

        def measure(rank):
            model = adapted(rank, rank_stabilized)
            gradients(model)
            parameters = list(trainable_parameters(model).values())
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            return length([parameter.grad for parameter in parameters])

        return by_rank(measure, ranks)

    def squared(ranks, rank_stabilized):
        """squared norm"""
        return by_rank(lambda r: length(gradients(adapted(r, rank_stabilized))) ** 2, ranks)

    def added_up(ranks, rank_stabilized):
        """norms added up"""
        return by_rank(
            lambda r: sum(g.norm().item() for g in gradients(adapted(r, rank_stabilized))), ranks
        )

    def mean_of_norms(ranks, rank_stabilized):
        """mean of the norms"""

        def measure(rank):
            norms = [g.norm().item() for g in gradients(adapted(rank, rank_stabilized))]
            return sum(norms) / len(norms)

        return by_rank(measure, ranks)

    def largest_entry(ranks, rank_stabilized):
        """largest entry"""

        def measure(rank):
            return max(g.abs().max().item() for g in gradients(adapted(rank, rank_stabilized)))

        return by_rank(measure, ranks)

    def first_layer(ranks, rank_stabilized):
        """one layer only"""

        def measure(rank):
            model = adapted(rank, rank_stabilized)
            gradients(model)
            return next(iter(adapter_layers(model).values())).lora_B.grad.norm().item()

        return by_rank(measure, ranks)

    def lora_a_only(ranks, rank_stabilized):
        """lora_A only"""
        return by_rank(lambda r: length(gradients(adapted(r, rank_stabilized))[::2]), ranks)

    def summed_loss(ranks, rank_stabilized):
        """loss summed over the batch"""
        return by_rank(
            lambda r: length(gradients(adapted(r, rank_stabilized), factor=8 * 128)), ranks
        )

    def dora(ranks, rank_stabilized):
        """DoRA in place of LoRA"""
        return by_rank(lambda r: length(gradients(adapted(r, rank_stabilized, kind="dora"))), ranks)

    def a_list(ranks, rank_stabilized):
        """expected a dict from each rank to its gradient norm, found a list"""
        return list(RightNorms.one_vector(ranks, rank_stabilized).values())

    def texts_as_keys(ranks, rank_stabilized):
        """found ['16', '4', '64']"""
        return {str(rank): 1.0 for rank in ranks}

    def one_rank_only(ranks, rank_stabilized):
        """expected the ranks (16, 4, 64) as keys, whole numbers, found [16]"""
        return RightNorms.one_vector(ranks[:1], rank_stabilized)

    def tensors(ranks, rank_stabilized):
        """a tensor, not a number"""
        return by_rank(lambda rank: torch.tensor(1.0), ranks)

    def not_a_number(ranks, rank_stabilized):
        """found nan"""
        return by_rank(lambda rank: math.nan, ranks)

    def blank(ranks, rank_stabilized):
        """is not written yet"""
        raise NotImplementedError()


EXERCISES = {
    "lora_scaling": (checks.check_lora_scaling, RightScaling, WrongScaling),
    "gradient_norms_by_rank": (checks.check_gradient_norms_by_rank, RightNorms, WrongNorms),
}
HIDDEN = {
    checks.check_lora_scaling: [{"alpha": 5.0, "rank": 64}],
    checks.check_gradient_norms_by_rank: [{"ranks": (6, 32, 128)}],
}


@pytest.mark.slow
def test_another_lora_a_is_named_whatever_its_seed():
    for seed in range(5, 8):

        def answer(ranks, rank_stabilized, seed=seed):
            return {r: length(gradients(adapted(r, rank_stabilized, seed))) for r in ranks}

        with pytest.raises(checks.CheckFailed, match="another seed"):
            checks.check_gradient_norms_by_rank(answer, "usual")


@pytest.mark.parametrize("answer", answers(RightScaling), ids=lambda answer: answer.__name__)
def test_marks_do_not_depend_on_luck(answer):
    for seed in range(200):
        checks.check_lora_scaling(answer, seed=seed)


def test_a_half_right_answer_keeps_its_half():
    checks.check_lora_scaling(WrongScaling.always_rank, "usual")
    with pytest.raises(checks.CheckFailed):
        checks.check_lora_scaling(WrongScaling.always_rank, "stabilized")
    checks.check_gradient_norms_by_rank(WrongNorms.flag_ignored, "usual")
    with pytest.raises(checks.CheckFailed):
        checks.check_gradient_norms_by_rank(WrongNorms.flag_ignored, "stabilized")
