"""Checks of lesson 04: right answers pass however they are written, wrong ones are named."""

import copy
import math
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lab_utils import adapters, checks, comparison, layers, training
from lab_utils.data import next_byte_loss

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
LAYERS = {"lora": layers.LoRALayer, "dora": layers.DoRALayer}


def layer_of(adapter_type):
    if adapter_type not in LAYERS:
        raise ValueError(f"unknown adapter_type {adapter_type!r}")
    return LAYERS[adapter_type]


def adapt(model, adapter_type, rank, alpha, targets=TARGETS, blocks=None):
    """Put adapters into a model in place, in all of its blocks or the first few."""
    for block in list(model.blocks)[:blocks]:
        for name in targets:
            layer = layer_of(adapter_type)(getattr(block, name), rank=rank, alpha=alpha)
            setattr(block, name, layer)
    return model


class RightAdd:
    def blocks(model, adapter_type, rank=8, alpha=16.0):
        return adapt(copy.deepcopy(model).requires_grad_(False), adapter_type, rank, alpha)

    def named_modules(model, adapter_type, rank=8, alpha=16.0):
        model = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.requires_grad = False
        for name, module in list(model.named_modules()):
            if name.endswith(TARGETS):
                model.set_submodule(name, layer_of(adapter_type)(module, rank, alpha))
        return model

    def recursive(model, adapter_type, rank=8, alpha=16.0):
        def visit(module):
            for name, child in module.named_children():
                if name in TARGETS:
                    setattr(module, name, layer_of(adapter_type)(child, rank=rank, alpha=alpha))
                else:
                    visit(child)

        model = copy.deepcopy(model)
        visit(model)
        for name, parameter in model.named_parameters():
            adapter = name.rsplit(".", 1)[-1] in ("lora_A", "lora_B", "magnitude")
            parameter.requires_grad_(adapter)
        return model


class WrongAdd:
    def in_place(model, adapter_type, rank=8, alpha=16.0):
        """in-place change of the base model"""
        return adapt(model.requires_grad_(False), adapter_type, rank, alpha)

    def freezes_the_base(model, adapter_type, rank=8, alpha=16.0):
        """in-place change of the base model"""
        model.requires_grad_(False)
        return adapt(copy.deepcopy(model), adapter_type, rank, alpha)

    def not_frozen(model, adapter_type, rank=8, alpha=16.0):
        """other layers trainable"""
        return adapt(copy.deepcopy(model), adapter_type, rank, alpha)

    def adapters_frozen(model, adapter_type, rank=8, alpha=16.0):
        """adapters frozen"""
        return adapt(copy.deepcopy(model), adapter_type, rank, alpha).requires_grad_(False)

    def first_block(model, adapter_type, rank=8, alpha=16.0):
        """layers left out"""
        model = copy.deepcopy(model).requires_grad_(False)
        return adapt(model, adapter_type, rank, alpha, blocks=1)

    def queries_and_values(model, adapter_type, rank=8, alpha=16.0):
        """layers left out"""
        model = copy.deepcopy(model).requires_grad_(False)
        return adapt(model, adapter_type, rank, alpha, targets=("q_proj", "v_proj"))

    def every_linear(model, adapter_type, rank=8, alpha=16.0):
        """more than the attention adapted"""
        model = copy.deepcopy(model).requires_grad_(False)
        return adapt(model, adapter_type, rank, alpha, targets=(*TARGETS, "mlp_up", "mlp_down"))

    def always_lora(model, adapter_type, rank=8, alpha=16.0):
        """the other method's layer"""
        layer_of(adapter_type)
        return adapt(copy.deepcopy(model).requires_grad_(False), "lora", rank, alpha)

    def default_rank(model, adapter_type, rank=8, alpha=16.0):
        """rank or alpha not passed on"""
        return adapt(copy.deepcopy(model).requires_grad_(False), adapter_type, 8, alpha)

    def alpha_lost(model, adapter_type, rank=8, alpha=16.0):
        """rank or alpha not passed on"""
        return adapt(copy.deepcopy(model).requires_grad_(False), adapter_type, rank, 2 * rank)

    def any_type(model, adapter_type, rank=8, alpha=16.0):
        """unknown type accepted"""
        adapter_type = "dora" if adapter_type == "dora" else "lora"
        return adapt(copy.deepcopy(model).requires_grad_(False), adapter_type, rank, alpha)

    def key_error(model, adapter_type, rank=8, alpha=16.0):
        """another kind of error"""
        LAYERS[adapter_type]
        return adapt(copy.deepcopy(model).requires_grad_(False), adapter_type, rank, alpha)

    def nothing_returned(model, adapter_type, rank=8, alpha=16.0):
        """must return the adapted model; found None (is there a return?)"""
        adapt(copy.deepcopy(model).requires_grad_(False), adapter_type, rank, alpha)

    def blank(model, adapter_type, rank=8, alpha=16.0):
        """is not written yet"""
        raise NotImplementedError()

    def reference(model, adapter_type, rank=8, alpha=16.0):
        """calls lab_utils.adapters.add_adapters_to_model, which is the reference"""
        return adapters.add_adapters_to_model(model, adapter_type, rank, alpha)


def step(model, batch, optimizer, max_norm, zero=True, move=True):
    inputs, targets = batch
    if zero:
        optimizer.zero_grad()
    loss = next_byte_loss(model(inputs), targets)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    if move:
        optimizer.step()
    return loss.item(), norm.item()


class RightStep:
    def usual(model, batch, optimizer, max_norm=1.0):
        return step(model, batch, optimizer, max_norm)

    def cross_entropy(model, batch, optimizer, max_norm=1.0):
        inputs, targets = batch
        loss = F.cross_entropy(model(inputs).transpose(1, 2), targets)
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, max_norm)
        optimizer.step()
        return float(loss), float(norm)

    def by_hand(model, batch, optimizer, max_norm=1.0):
        inputs, targets = batch
        model.zero_grad()
        logits = model(inputs).log_softmax(dim=-1)
        loss = -logits.gather(-1, targets.unsqueeze(-1)).mean()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        for gradient in gradients:
            gradient.mul_(min(1.0, max_norm / norm))
        optimizer.step()
        return loss.item(), norm


class WrongStep:
    def no_zero_grad(model, batch, optimizer, max_norm=1.0):
        """gradients accumulated"""
        return step(model, batch, optimizer, max_norm, zero=False)

    def zero_after_backward(model, batch, optimizer, max_norm=1.0):
        """zero_grad between backward and step"""
        inputs, targets = batch
        loss = next_byte_loss(model(inputs), targets)
        loss.backward()
        optimizer.zero_grad()
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        return loss.item(), norm.item()

    def no_clipping(model, batch, optimizer, max_norm=1.0):
        """no clipping"""
        return step(model, batch, optimizer, math.inf)

    def no_step(model, batch, optimizer, max_norm=1.0):
        """no step"""
        return step(model, batch, optimizer, max_norm, move=False)

    def clip_after_step(model, batch, optimizer, max_norm=1.0):
        """no clipping"""
        inputs, targets = batch
        optimizer.zero_grad()
        loss = next_byte_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item(), nn.utils.clip_grad_norm_(model.parameters(), max_norm).item()

    def clipped_norm(model, batch, optimizer, max_norm=1.0):
        """norm after clipping"""
        loss, _ = step(model, batch, optimizer, max_norm)
        return loss, nn.utils.clip_grad_norm_(model.parameters(), math.inf).item()

    def loss_afterwards(model, batch, optimizer, max_norm=1.0):
        """loss after the step"""
        _, norm = step(model, batch, optimizer, max_norm)
        return next_byte_loss(model(batch[0]), batch[1]).item(), norm

    def each_by_itself(model, batch, optimizer, max_norm=1.0):
        """each parameter clipped by itself"""
        inputs, targets = batch
        optimizer.zero_grad()
        loss = next_byte_loss(model(inputs), targets)
        loss.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        norm = torch.stack([p.grad.norm() for p in trained]).norm()
        for parameter in trained:
            nn.utils.clip_grad_norm_([parameter], max_norm)
        optimizer.step()
        return loss.item(), norm.item()

    def tensors(model, batch, optimizer, max_norm=1.0):
        """found Tensor and Tensor; a tensor keeps its graph"""
        return tuple(torch.tensor(value) for value in step(model, batch, optimizer, max_norm))

    def loss_only(model, batch, optimizer, max_norm=1.0):
        """must return two numbers"""
        return step(model, batch, optimizer, max_norm)[0]

    def blank(model, batch, optimizer, max_norm=1.0):
        """is not written yet"""
        raise NotImplementedError()

    def reference(model, batch, optimizer, max_norm=1.0):
        """calls lab_utils.training.train_step, which is the reference"""
        return training.train_step(model, batch, next_byte_loss, optimizer, max_norm)


def difference(lora, dora):
    return np.array(dora) - np.array(lora)


class RightPairs:
    def formula(lora, dora, confidence=0.95):
        d = difference(lora, dora)
        half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d))
        return float(d.mean()), float(d.mean() - half), float(d.mean() + half)

    def t_interval(lora, dora, confidence=0.95):
        d = difference(lora, dora)
        low, high = stats.t.interval(confidence, df=len(d) - 1, loc=d.mean(), scale=stats.sem(d))
        return d.mean(), low, high

    def ttest_rel(lora, dora, confidence=0.95):
        found = stats.ttest_rel(dora, lora)
        low, high = found.confidence_interval(confidence)
        return statistics.fmean(dora) - statistics.fmean(lora), float(low), float(high)


def around(d, half):
    return float(d.mean()), float(d.mean() - half), float(d.mean() + half)


class WrongPairs:
    def reversed(lora, dora, confidence=0.95):
        """difference reversed"""
        return RightPairs.formula(dora, lora, confidence)

    def unpaired(lora, dora, confidence=0.95):
        """unpaired interval"""
        low, high = stats.ttest_ind(dora, lora, equal_var=False).confidence_interval(confidence)
        return float(np.mean(dora) - np.mean(lora)), float(low), float(high)

    def pooled(lora, dora, confidence=0.95):
        """unpaired interval"""
        low, high = stats.ttest_ind(dora, lora).confidence_interval(confidence)
        return float(np.mean(dora) - np.mean(lora)), float(low), float(high)

    def normal(lora, dora, confidence=0.95):
        """normal instead of t"""
        d = difference(lora, dora)
        return around(d, stats.norm.ppf((1 + confidence) / 2) * stats.sem(d))

    def one_point_nine_six(lora, dora, confidence=0.95):
        """normal instead of t"""
        d = difference(lora, dora)
        return around(d, 1.96 * stats.sem(d))

    def population(lora, dora, confidence=0.95):
        """spread divided by n"""
        d = difference(lora, dora)
        t = stats.t.ppf((1 + confidence) / 2, len(d) - 1)
        return around(d, t * d.std() / math.sqrt(len(d)))

    def not_of_the_mean(lora, dora, confidence=0.95):
        """spread of a run, not of the mean"""
        d = difference(lora, dora)
        return around(d, stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std(ddof=1))

    def one_sided(lora, dora, confidence=0.95):
        """one-sided interval"""
        d = difference(lora, dora)
        return around(d, stats.t.ppf(confidence, len(d) - 1) * stats.sem(d))

    def degrees(lora, dora, confidence=0.95):
        """degrees of freedom"""
        d = difference(lora, dora)
        return around(d, stats.t.ppf((1 + confidence) / 2, len(d)) * stats.sem(d))

    def fixed(lora, dora, confidence=0.95):
        """confidence ignored"""
        return RightPairs.formula(lora, dora)

    def two_numbers(lora, dora, confidence=0.95):
        """expected (mean, low, high) as three floats"""
        return RightPairs.formula(lora, dora, confidence)[1:]

    def blank(lora, dora, confidence=0.95):
        """is not written yet"""
        raise NotImplementedError()

    def reference(lora, dora, confidence=0.95):
        """calls lab_utils.comparison.paired_difference, which is the reference"""
        found = comparison.paired_difference(lora, dora, confidence=confidence)
        return found.mean, found.low, found.high


EXERCISES = {
    "add_adapters": (checks.check_add_adapters, RightAdd, WrongAdd),
    "train_step": (checks.check_train_step, RightStep, WrongStep),
    "paired_difference": (checks.check_paired_difference, RightPairs, WrongPairs),
}
SEEDED = [{"seed": seed} for seed in range(1, 4)]
HIDDEN = {
    checks.check_add_adapters: [*SEEDED, {"n_blocks": 3, "rank": 1, "alpha": 5.0}],
    checks.check_train_step: [*SEEDED, {"max_norm": 100.0, "steps": 5}],
    checks.check_paired_difference: [*SEEDED, {"seeds": 3, "confidence": 0.99}],
}


def test_a_half_right_answer_keeps_its_half():
    checks.check_add_adapters(WrongAdd.any_type, "layers")
    checks.check_add_adapters(WrongAdd.not_frozen, "layers")
    with pytest.raises(checks.CheckFailed, match="other layers trainable"):
        checks.check_add_adapters(WrongAdd.not_frozen, "frozen")
    checks.check_paired_difference(WrongPairs.normal, "mean")
    checks.check_train_step(WrongStep.clipped_norm, "weights")
