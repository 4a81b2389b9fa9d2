"""Checks of lesson 02: right layers pass however they are written, wrong ones are named."""

import copy
import logging
import math
import os
import sys

import peft
import pytest
import torch
import torch.nn.functional as F
from answers import answers, cases
from torch import nn

from lab_utils import checks, layers

EPS = torch.tensor(1e-8)


class LoRA(nn.Module):
    """A right LoRA layer, in small methods so that a wrong one can change just one of them."""

    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        self.original_layer = original_layer
        self.freeze()
        self.rank, self.alpha = rank, alpha
        self.scaling = self.scale()
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(self.start_a(rank, original_layer.in_features))
        self.lora_B = nn.Parameter(self.start_b(original_layer.out_features, rank))

    def freeze(self):
        self.original_layer.requires_grad_(False)

    def scale(self):
        return self.alpha / self.rank

    def start_a(self, *shape):
        return nn.init.kaiming_uniform_(torch.empty(*shape), a=math.sqrt(5))

    def start_b(self, *shape):
        return torch.zeros(*shape)

    def update(self):
        return self.scaling * self.lora_B @ self.lora_A

    def forward(self, x):
        low_rank = F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)
        return self.original_layer(x) + self.scaling * low_rank

    def weight(self):
        return self.original_layer.weight + self.update()

    def merge(self):
        original = self.original_layer
        merged = nn.Linear(original.in_features, original.out_features, original.bias is not None)
        merged.weight = nn.Parameter(self.weight().detach().clone())
        if original.bias is not None:
            merged.bias = nn.Parameter(original.bias.detach().clone())
        return merged


class DoRA(LoRA):
    """A right DoRA layer, in small methods."""

    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
        super().__init__(original_layer, rank, alpha, dropout)
        self.norm_dim = norm_dim
        self.magnitude = nn.Parameter(self.start_magnitude())

    def start_magnitude(self):
        return self.norm(self.original_layer.weight.detach())

    def norm(self, weight):
        return weight.norm(dim=self.norm_dim, keepdim=True)

    def factor(self):
        norm = self.norm((self.original_layer.weight + self.update()).detach())
        return self.magnitude / norm.clamp_min(1e-8)

    def weight(self):
        return self.factor() * (self.original_layer.weight + self.update())

    def forward(self, x):
        factor = self.factor()
        frozen = F.linear(x, factor * self.original_layer.weight, self.original_layer.bias)
        return frozen + F.linear(self.dropout(x), factor * self.update())


def object_setattr(self, name, value):
    """Set an attribute that may be a plain function in place of a module."""
    self.__dict__.get("_modules", {}).pop(name, None)
    nn.Module.__setattr__(self, name, value)


class RightLoRA:
    in_methods = LoRA

    class matrices(LoRA):
        """Built from x @ A.T @ B.T, parameters registered in another order, merged by addmm."""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            nn.Module.__init__(self)
            self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))
            self.lora_A = nn.Parameter(0.01 * torch.randn(rank, original_layer.in_features))
            self.original_layer, self.s = original_layer, alpha / rank
            for parameter in original_layer.parameters():
                parameter.requires_grad = False
            self.drop = nn.Identity() if dropout == 0 else nn.Dropout(p=dropout)

        def forward(self, x):
            return self.original_layer(x) + self.s * (self.drop(x) @ self.lora_A.T @ self.lora_B.T)

        def weight(self):
            return torch.addmm(self.original_layer.weight, self.lora_B, self.lora_A, alpha=self.s)

    class einsum(LoRA):
        def forward(self, x):
            a = torch.einsum("...i,ri->...r", self.dropout(x), self.lora_A)
            return self.original_layer(x) + torch.einsum(
                "...r,or->...o", a, self.scaling * self.lora_B
            )

    class functional(LoRA):
        """Keeps p and calls F.dropout itself; merges by a deep copy."""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha)
            self.p = dropout

        def forward(self, x):
            dropped = F.dropout(x, self.p, training=self.training)
            low_rank = dropped.matmul(self.lora_A.t()).matmul(self.lora_B.t())
            return self.original_layer(x) + low_rank.mul(self.alpha).div(self.rank)

        def merge(self):
            merged = copy.deepcopy(self.original_layer)
            merged.weight.data += self.update().data
            return merged


class RightDoRA:
    in_methods = DoRA

    class normalize(DoRA):
        """The direction by F.normalize; the gradient of the norm is cut by its own factor."""

        def start_magnitude(self):
            return torch.linalg.vector_norm(
                self.original_layer.weight, dim=self.norm_dim, keepdim=True
            )

        def factor(self):
            with torch.no_grad():
                updated = self.original_layer.weight + self.update()
                ones = F.normalize(updated, dim=self.norm_dim) / updated
                inverse = ones.nanmean(dim=self.norm_dim, keepdim=True).nan_to_num()
            return self.magnitude * inverse

    class scaled_outputs(DoRA):
        """Scales outputs or inputs instead of weights, with an epsilon added to the norm."""

        def forward(self, x):
            updated = self.original_layer.weight + self.update()
            norm = updated.detach().pow(2).sum(self.norm_dim).sqrt() + 1e-8
            factor = self.magnitude.flatten() / norm
            if self.norm_dim == 0:
                x = x * factor
            y = F.linear(x, self.original_layer.weight)
            y = y + self.scaling * (self.dropout(x) @ self.lora_A.T @ self.lora_B.T)
            y = y if self.norm_dim == 0 else y * factor
            return y if self.original_layer.bias is None else y + self.original_layer.bias

    class as_peft_does(DoRA):
        """PEFT's form: dropout also touches the part that the magnitude adds to W0 x."""

        def forward(self, x):
            factor, dropped = self.factor(), self.dropout(x)
            extra = F.linear(
                dropped, (factor - 1) * self.original_layer.weight + factor * self.update()
            )
            return self.original_layer(x) + extra

    class loops(DoRA):
        """One vector after the other."""

        def start_magnitude(self):
            weight = self.original_layer.weight.detach()
            vectors = weight if self.norm_dim == 1 else weight.T
            return torch.stack([vector.norm() for vector in vectors]).unsqueeze(self.norm_dim)

        def factor(self):
            updated = (self.original_layer.weight + self.update()).detach()
            vectors = updated if self.norm_dim == 1 else updated.T
            norms = torch.stack([max(torch.einsum("i,i", v, v).sqrt(), EPS) for v in vectors])
            return self.magnitude / norms.unsqueeze(self.norm_dim)

    class cached(DoRA):
        """Keeps the norm of the frozen weight, which is computed once."""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            super().__init__(original_layer, rank, alpha, dropout, norm_dim)
            self.register_buffer("start", self.magnitude.detach().clone())

        def factor(self):
            W0, U = self.original_layer.weight.detach(), self.update().detach()
            squares = self.start**2 + (2 * W0 * U + U**2).sum(self.norm_dim, keepdim=True)
            return self.magnitude / squares.clamp_min(1e-16).sqrt()

    class detached_in_training(DoRA):
        """Nobody trains in evaluation mode."""

        def factor(self):
            norm = self.norm(self.original_layer.weight + self.update()).clamp_min(1e-8)
            return self.magnitude / (norm.detach() if self.training else norm)

    class of_lora(DoRA):
        """Merges what F.linear of the identity gives."""

        def weight(self):
            frozen = self.original_layer.weight
            eye = torch.eye(frozen.shape[1], dtype=frozen.dtype)
            return (self.factor() * (frozen + self.update())) @ eye


class WrongLoRA:
    class scaling_left_out(LoRA):
        """forward: scaling left out"""

        def scale(self):
            return 1.0

    class scaling_twice(LoRA):
        """forward: scaling applied twice"""

        def scale(self):
            return (self.alpha / self.rank) ** 2

    class alpha_alone(LoRA):
        """forward: another scaling"""

        def scale(self):
            return self.alpha

    class base_trainable(LoRA):
        """start: base weight trainable"""

        def freeze(self):
            pass

    class b_not_zero(LoRA):
        """start: lora_B is not zero"""

        def start_b(self, *shape):
            return torch.randn(*shape)

    class a_zero(LoRA):
        """start: lora_A is zero"""

        def start_a(self, *shape):
            return torch.zeros(*shape)

    class a_never_filled(LoRA):
        """start: lora_A is never given values"""

        def start_a(self, *shape):
            return torch.empty(*shape)

    class b_never_filled(LoRA):
        """start: lora_B is never given values"""

        def start_b(self, *shape):
            return torch.Tensor(*shape)

    class dropout_on_frozen(LoRA):
        """dropout: dropout on the frozen path"""

        def forward(self, x):
            x = self.dropout(x)
            return self.original_layer(x) + F.linear(x, self.update())

    class no_dropout(LoRA):
        """dropout: dropout unused"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(x, self.update())

    class always_dropout(LoRA):
        """dropout: dropout in evaluation"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(F.dropout(x, self.dropout.p), self.update())

    class bias_lost(LoRA):
        """forward: bias lost"""

        def forward(self, x):
            return F.linear(x, self.original_layer.weight + self.update())

    class bias_twice(LoRA):
        """forward: bias added twice"""

        def forward(self, x):
            return super().forward(x) + self.original_layer.bias

    class merge_without_bias(LoRA):
        """merge: bias lost"""

        def merge(self):
            merged = super().merge()
            merged.bias = None
            return merged

    class merge_in_place(LoRA):
        """merge: in-place change of the base layer"""

        def merge(self):
            self.original_layer.weight.data += self.update().detach()
            return self.original_layer

    class unmerged(LoRA):
        """merge: update left out"""

        def weight(self):
            return self.original_layer.weight

    class changes_base(LoRA):
        """forward: in-place change of the base layer"""

        def forward(self, x):
            output = super().forward(x)
            self.original_layer.weight.mul_(0.5)
            return output

    class transposed_a(LoRA):
        """start: lora_A must have the shape (rank, in_features) = (2, 7)"""

        def start_a(self, rank, in_features):
            return torch.randn(in_features, rank)

    class plain_tensor(LoRA):
        """start: lora_B must be an nn.Parameter"""

        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            del self.lora_B
            self.lora_B = torch.zeros(self.original_layer.out_features, self.rank)

    class merge_to_tensor(LoRA):
        """merge: merge() must return an nn.Linear; found a Tensor"""

        def merge(self):
            return self.weight()

    class blank(LoRA):
        """forward: is not written yet"""

        def forward(self, x):
            raise NotImplementedError()

    class data_of_a(LoRA):
        """forward: gradient cut off"""

        def forward(self, x):
            low_rank = F.linear(F.linear(self.dropout(x), self.lora_A.data), self.lora_B)
            return self.original_layer(x) + self.scaling * low_rank

    class no_grad(LoRA):
        """forward: gradient cut off"""

        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    class x_detached(LoRA):
        """forward: gradient cut off"""

        def forward(self, x):
            return super().forward(x.detach())

    class cut_in_training(LoRA):
        """forward: gradient cut off"""

        def forward(self, x):
            output = super().forward(x)
            return output.detach() if self.training else output

    class dropped_after_a(LoRA):
        """dropout: not the input dropped"""

        def forward(self, x):
            low_rank = F.linear(self.dropout(F.linear(x, self.lora_A)), self.lora_B)
            return self.original_layer(x) + self.scaling * low_rank

    class dropped_after_b(LoRA):
        """dropout: not the input dropped"""

        def forward(self, x):
            return self.original_layer(x) + self.dropout(F.linear(x, self.update()))

    class weights_dropped(LoRA):
        """dropout: not the input dropped"""

        def forward(self, x):
            low_rank = F.linear(F.linear(x, self.dropout(self.lora_A)), self.lora_B)
            return self.original_layer(x) + self.scaling * low_rank

    class not_rescaled(LoRA):
        """dropout: kept inputs not rescaled"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.p = dropout
            self.dropout = self.drop

        def drop(self, x):
            return x * (torch.rand_like(x) >= self.p) if self.training else x

        __setattr__ = object_setattr

    class p_of_a_half(LoRA):
        """dropout: another dropout probability"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, 0.5)

    class p_mirrored(LoRA):
        """dropout: dropout mirrored"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, 1 - dropout)

    class x_changed_by_dropout(LoRA):
        """dropout: in-place change of the input"""

        def forward(self, x):
            frozen = self.original_layer(x)
            dropped = F.dropout(x, self.dropout.p, self.training, inplace=True)
            return frozen + F.linear(dropped, self.update())

    class x_changed(LoRA):
        """forward: in-place change of the input"""

        def forward(self, x):
            frozen = self.original_layer(x)
            x.mul_(self.scaling)
            return frozen + F.linear(F.linear(x, self.lora_A), self.lora_B)

    class matrices_only(LoRA):
        """forward: with x of shape (2, 3, 7), raised RuntimeError"""

        def forward(self, x):
            return self.original_layer(x) + self.scaling * x.mm(self.lora_A.T).mm(self.lora_B.T)

    class no_vectors(LoRA):
        """forward: with x of shape (7,), raised"""

        def forward(self, x):
            low_rank = torch.einsum("...bi,ri->...br", self.dropout(x), self.lora_A)
            return self.original_layer(x) + self.scaling * low_rank @ self.lora_B.T

    class squeezes(LoRA):
        """forward: a dimension of x lost"""

        def forward(self, x):
            return super().forward(x).squeeze(0)

    class flattens(LoRA):
        """forward: expected shape (2, 3, 4), found (6, 4)"""

        def forward(self, x):
            return super().forward(x.reshape(-1, x.shape[-1]))

    class nothing_returned(LoRA):
        """forward: found None (is there a return?)"""

        def forward(self, x):
            super().forward(x)

    class copied(LoRA):
        """start: original layer not kept"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            original_layer.requires_grad_(False)
            super().__init__(copy.deepcopy(original_layer), rank, alpha, dropout)

    class another_name(nn.Module):
        """start: another name"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__()
            self.base = original_layer.requires_grad_(False)
            self.lora_A = nn.Parameter(torch.randn(rank, original_layer.in_features))
            self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))

        def forward(self, x):
            return self.base(x) + F.linear(x, self.lora_B @ self.lora_A)

    class buffer(LoRA):
        """start: a second weight kept"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.register_buffer("frozen", original_layer.weight.detach().clone())

    class bias_trainable(LoRA):
        """start: base weight trainable"""

        def freeze(self):
            self.original_layer.weight.requires_grad_(False)

    class a_of_ones(LoRA):
        """start: lora_A is not random"""

        def start_a(self, *shape):
            return torch.full(shape, 0.1)

    class identity(LoRA):
        """start: lora_A is not random"""

        def start_a(self, *shape):
            return torch.eye(*shape)

    class inner_linear(LoRA):
        """start: parameter of an inner module"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            del self.lora_A, self.lora_B
            self.lora_A = nn.Linear(original_layer.in_features, rank, bias=False)
            self.lora_B = nn.Linear(rank, original_layer.out_features, bias=False)

    class inner_module(LoRA):
        """start: found the parameter adapter.lora_A of an inner module"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.adapter = nn.Module()
            self.adapter.lora_A, self.adapter.lora_B = self.lora_A, self.lora_B
            del self.lora_A, self.lora_B

    class alpha_times_rank(LoRA):
        """forward: alpha times rank"""

        def scale(self):
            return self.alpha * self.rank

    class whole_number(LoRA):
        """forward: whole-number division"""

        def scale(self):
            return self.alpha // self.rank

    class upside_down(LoRA):
        """forward: scaling upside down"""

        def scale(self):
            return self.rank / self.alpha

    class no_alpha(LoRA):
        """forward: alpha left out"""

        def scale(self):
            return 1 / self.rank

    class root(LoRA):
        """forward: another scaling"""

        def scale(self):
            return self.alpha / math.sqrt(self.rank)

    class subtracted(LoRA):
        """forward: update subtracted"""

        def scale(self):
            return -self.alpha / self.rank

    class update_alone(LoRA):
        """forward: frozen weight left out"""

        def forward(self, x):
            y = F.linear(self.dropout(x), self.update())
            return y if self.original_layer.bias is None else y + self.original_layer.bias

    class frozen_alone(LoRA):
        """forward: update left out"""

        def forward(self, x):
            return self.original_layer(x)

    class rank_fixed(LoRA):
        """start: lora_A must have the shape (rank, in_features) = (2, 7); found (8, 7)"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, 8, alpha, dropout)

    class alpha_default(LoRA):
        """forward: rank 8, alpha 16"""

        def __init__(self, original_layer, rank=8, alpha=8.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)

    class merge_of_nothing(LoRA):
        """merge: nothing returned"""

        def merge(self):
            super().merge()

    class merge_evaluates(LoRA):
        """merge: mode changed by merge()"""

        def merge(self):
            self.eval()
            return super().merge()

    class merge_empties(LoRA):
        """merge: adapter changed by merge()"""

        def merge(self):
            merged = super().merge()
            nn.init.zeros_(self.lora_B)
            return merged

    class merge_thaws(LoRA):
        """merge: base weight trainable"""

        def merge(self):
            self.original_layer.requires_grad_(True)
            return super().merge()

    class merge_of_random_bias(LoRA):
        """merge: another bias"""

        def merge(self):
            original = self.original_layer
            merged = nn.Linear(original.in_features, original.out_features)
            merged.weight = nn.Parameter(self.weight().detach())
            return merged

    class merge_with_dropout(LoRA):
        """merge: merge() depends on the mode"""

        def merge(self):
            merged = super().merge()
            with torch.no_grad():
                eye = torch.eye(self.original_layer.in_features)
                bias = self.original_layer.bias
                merged.weight.copy_((self(eye) - (0 if bias is None else bias)).T)
            return merged

    class merge_unscaled(LoRA):
        """merge: scaling left out"""

        def weight(self):
            return self.original_layer.weight + self.lora_B @ self.lora_A

    class merge_transposed(LoRA):
        """merge: expected shape (4, 7), found (7, 4)"""

        def weight(self):
            return (self.original_layer.weight + self.update()).T


class WrongDoRA:
    class no_normalisation(DoRA):
        """forward: no normalisation"""

        def factor(self):
            return self.magnitude

    class random_magnitude(DoRA):
        """start: random magnitude"""

        def start_magnitude(self):
            return torch.randn(self.original_layer.out_features, 1)

    class magnitude_never_filled(DoRA):
        """start: magnitude is never given values"""

        def start_magnitude(self):
            return torch.empty(self.original_layer.out_features, 1)

    class a_never_filled(DoRA):
        """start: lora_A is never given values"""

        def start_a(self, *shape):
            return torch.empty(*shape)

    class wrong_axis(DoRA):
        """start: norm over the wrong axis"""

        def norm(self, weight):
            return weight.norm(dim=0, keepdim=True)

    class wrong_axis_in_forward(DoRA):
        """forward: norm over the wrong axis"""

        def start_magnitude(self):
            return self.original_layer.weight.detach().norm(dim=1, keepdim=True)

        def norm(self, weight):
            return weight.norm(dim=0, keepdim=True)

    class norm_dim_ignored(DoRA):
        """axis: norm over the wrong axis"""

        def norm(self, weight):
            return weight.norm(dim=1, keepdim=True)

    class scaling_left_out(DoRA):
        """forward: scaling left out"""

        def scale(self):
            return 1.0

    class scaling_twice(DoRA):
        """forward: scaling applied twice"""

        def update(self):
            return self.scaling * super().update()

    class base_trainable(DoRA):
        """start: base weight trainable"""

        def freeze(self):
            pass

    class b_not_zero(DoRA):
        """start: lora_B is not zero"""

        def start_b(self, *shape):
            return torch.randn(*shape)

    class dropout_on_frozen(DoRA):
        """dropout: dropout on the frozen path"""

        def forward(self, x):
            return F.linear(self.dropout(x), self.weight(), self.original_layer.bias)

    class no_dropout(DoRA):
        """dropout: dropout unused"""

        def forward(self, x):
            return F.linear(x, self.weight(), self.original_layer.bias)

    class bias_lost(DoRA):
        """forward: bias lost"""

        def forward(self, x):
            return F.linear(x, self.weight())

    class bias_scaled(DoRA):
        """forward: bias scaled"""

        def forward(self, x):
            y = self.original_layer(x) + F.linear(self.dropout(x), self.update())
            return self.factor().flatten() * y

    class magnitude_buffer(DoRA):
        """start: magnitude must be an nn.Parameter"""

        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            magnitude = self.magnitude.detach()
            del self.magnitude
            self.register_buffer("magnitude", magnitude)

    class magnitude_frozen(DoRA):
        """start: magnitude frozen"""

        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.magnitude.requires_grad_(False)

    class magnitude_detached(DoRA):
        """gradients: magnitude frozen"""

        def factor(self):
            return super().factor().detach()

    class magnitude_unused(DoRA):
        """forward: magnitude unused"""

        def factor(self):
            return self.norm(self.original_layer.weight) / self.norm(
                self.original_layer.weight + self.update()
            )

    class plain_lora(DoRA):
        """forward: magnitude unused"""

        def forward(self, x):
            return LoRA.forward(self, x)

    class norm_of_base(DoRA):
        """forward: norm of W0 instead of V"""

        def factor(self):
            return self.magnitude / self.norm(self.original_layer.weight)

    class on_the_direction(DoRA):
        """forward: update added to the direction"""

        def forward(self, x):
            direction = (
                self.original_layer.weight / self.norm(self.original_layer.weight) + self.update()
            )
            return F.linear(
                x, self.magnitude * direction / self.norm(direction), self.original_layer.bias
            )

    class update_normalised(DoRA):
        """forward: only the update normalised"""

        def forward(self, x):
            update = self.magnitude * self.update() / self.norm(self.update())
            return self.original_layer(x) + F.linear(x, update)

    class not_detached(DoRA):
        """gradients: norm not detached"""

        def factor(self):
            return self.magnitude / self.norm(self.original_layer.weight + self.update())

    class in_place(DoRA):
        """forward: in-place change of the base layer"""

        def forward(self, x):
            self.original_layer.weight += self.update().detach()
            return F.linear(x, self.factor() * self.original_layer.weight, self.original_layer.bias)

    class merge_without_norm(DoRA):
        """merge: norm missing from the merged weight"""

        def weight(self):
            return self.magnitude * (self.original_layer.weight + self.update())

    class merge_as_lora(DoRA):
        """merge: magnitude unused"""

        def weight(self):
            return self.original_layer.weight + self.update()

    class merge_without_bias(DoRA):
        """merge: bias lost"""

        def merge(self):
            merged = super().merge()
            merged.bias = None
            return merged

    class crash(DoRA):
        """forward: with x of shape (2, 3, 7), raised TypeError: unsupported operand"""

        def forward(self, x):
            return x + None

    class blank(DoRA):
        """start: is not written yet"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            raise NotImplementedError()

    class flat_magnitude(DoRA):
        """start: summed dimension dropped"""

        def start_magnitude(self):
            return super().start_magnitude().flatten()

        def factor(self):
            return super().factor().diagonal().unsqueeze(self.norm_dim)

    class absolute(DoRA):
        """forward: magnitude made positive"""

        def factor(self):
            return super().factor().abs()

    class clamped(DoRA):
        """forward: magnitude made positive"""

        def factor(self):
            return super().factor().clamp_min(0)

    class divides_by_zero(DoRA):
        """start: division by a zero norm"""

        def factor(self):
            return self.magnitude / self.norm((self.original_layer.weight + self.update()).detach())

    class divides_by_zero_over_columns(DoRA):
        """axis: with a column of zeros and a short column in the weight"""

        def factor(self):
            factor = super().factor()
            return factor if self.norm_dim else factor / (factor != 0)

    class dim_as_p(DoRA):
        """start: norm_dim taken as p"""

        def norm(self, weight):
            return weight.norm(self.norm_dim)

    class whole_norm(DoRA):
        """start: one norm for the whole matrix"""

        def norm(self, weight):
            return weight.norm()

    class sum_of_sizes(DoRA):
        """start: not the Euclidean length"""

        def norm(self, weight):
            return weight.abs().sum(self.norm_dim, keepdim=True)

    class squared_norm(DoRA):
        """forward: not the Euclidean length"""

        def start_magnitude(self):
            return super().start_magnitude().sqrt()

        def norm(self, weight):
            return weight.square().sum(self.norm_dim, keepdim=True)

    class magnitude_of_ones(DoRA):
        """start: magnitude of ones or zeros"""

        def start_magnitude(self):
            return torch.ones_like(super().start_magnitude())

    class magnitude_scaled(DoRA):
        """start: magnitude scaled"""

        def start_magnitude(self):
            return self.scaling * super().start_magnitude()

    class a_change_of_magnitude(DoRA):
        """forward: magnitude as a change"""

        def factor(self):
            frozen = self.original_layer.weight
            m = self.magnitude + self.norm(frozen)
            return m / self.norm((frozen + self.update()).detach())

    class norm_unscaled(DoRA):
        """forward: scaling left out of the norm"""

        def factor(self):
            updated = self.original_layer.weight + self.lora_B @ self.lora_A
            return self.magnitude / self.norm(updated.detach()).clamp_min(1e-8)

    class detached_in_evaluation(DoRA):
        """gradients: norm not detached"""

        def factor(self):
            updated = self.original_layer.weight + self.update()
            norm = self.norm(updated).clamp_min(1e-8)
            return self.magnitude / (norm if self.training else norm.detach())

    class updated_detached(DoRA):
        """gradients: gradient cut off"""

        def weight(self):
            return self.factor() * (self.original_layer.weight + self.update().detach())

        def forward(self, x):
            return F.linear(x, self.weight(), self.original_layer.bias)

    class columns_not_detached(DoRA):
        """axis: norm not detached"""

        def factor(self):
            updated = self.original_layer.weight + self.update()
            norm = self.norm(updated).clamp_min(1e-8)
            return self.magnitude / (norm.detach() if self.norm_dim else norm)

    class columns_merged_as_rows(DoRA):
        """axis: weight of merge()"""

        def weight(self):
            updated = self.original_layer.weight + self.update()
            length = updated.norm(dim=1, keepdim=True)
            return self.magnitude * updated / (length if self.norm_dim == 0 else self.norm(updated))

    class columns_drop_all(DoRA):
        """axis: dropout on the frozen path"""

        def forward(self, x):
            if self.norm_dim == 1:
                return super().forward(x)
            return F.linear(self.dropout(x), self.weight(), self.original_layer.bias)

    class columns_need_a_bias(DoRA):
        """axis: raised TypeError"""

        def forward(self, x):
            if self.norm_dim == 1:
                return super().forward(x)
            y = F.linear(x, self.factor() * self.original_layer.weight)
            return y + F.linear(self.dropout(x), self.factor() * self.update()) + self.bias_of()

        def bias_of(self):
            return 0 + self.original_layer.bias

    class bias_twice(DoRA):
        """forward: bias added twice"""

        def forward(self, x):
            y = super().forward(x)
            return y if self.original_layer.bias is None else y + self.original_layer.bias

    class merged_bias_scaled(DoRA):
        """merge: bias scaled"""

        def merge(self):
            merged = super().merge()
            if merged.bias is not None:
                merged.bias.data *= self.factor().detach().flatten()
            return merged

    class merge_takes_v(DoRA):
        """merge: magnitude unused"""

        def weight(self):
            return self.original_layer.weight + self.update()

        def forward(self, x):
            return F.linear(x, DoRA.weight(self), self.original_layer.bias)

    class dropped_after_a(DoRA):
        """dropout: not the input dropped"""

        def forward(self, x):
            factor = self.factor()
            frozen = F.linear(x, factor * self.original_layer.weight, self.original_layer.bias)
            low_rank = F.linear(self.dropout(F.linear(x, self.lora_A)), self.lora_B)
            return frozen + self.scaling * factor.flatten() * low_rank

    class adapter_frozen(DoRA):
        """start: adapter frozen"""

        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.requires_grad_(False)

    class mask_fixed(DoRA):
        """dropout: the same inputs dropped at every pass"""

        def forward(self, x):
            torch.manual_seed(0)
            return super().forward(x)

    class frozen_twice(DoRA):
        """forward: frozen output added twice"""

        def forward(self, x):
            return self.original_layer(x) + super().forward(x)

    class update_outside(DoRA):
        """forward: update added after the norm"""

        def forward(self, x):
            frozen = self.original_layer.weight
            scaled = self.magnitude * frozen / self.norm(frozen).clamp_min(1e-8)
            return F.linear(x, scaled + self.update(), self.original_layer.bias)

    class doubled(DoRA):
        """start: output before training, in evaluation mode: expected"""

        def forward(self, x):
            return 2 * super().forward(x)

    class half_precision(DoRA):
        """forward: (it is torch.bfloat16)"""

        def forward(self, x):
            return super().forward(x).bfloat16()

    class wrong_before_training(DoRA):
        """dropout: expected two outputs in training whose mean is that in evaluation"""

        def forward(self, x):
            return WrongDoRA.dropped_after_a.forward(self, x) + 1.0


class handed_back(LoRA):
    def forward(self, x):
        return layers.LoRALayer.forward(self, x)


def make_reference(*arguments, **named):
    return layers.DoRALayer(*arguments, **named)


class Wrapped(nn.Module):
    """Own parameters, but every result comes from the reference layer inside."""

    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
        super().__init__()
        self.inner = layers.DoRALayer(original_layer, rank, alpha, dropout, norm_dim)
        self.lora_A, self.lora_B = self.inner.lora_A, self.inner.lora_B
        self.magnitude = self.inner.magnitude

    def forward(self, x):
        return self.inner(x)


class FromPeft(nn.Module):
    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
        super().__init__()
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=["0"], use_dora=True
        )
        self.model = peft.get_peft_model(nn.Sequential(original_layer), config)


SUBCLASS = type("MyLayer", (layers.DoRALayer,), {})

EXERCISES = {
    "LoRALayer": (checks.check_lora_layer, RightLoRA, WrongLoRA),
    "DoRALayer": (checks.check_dora_layer, RightDoRA, WrongDoRA),
}

# By the beginning of each sentence under “What must hold”: the answers that break it.
BROKEN_BY = {
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
        "all that must hold for `LoRALayer`": "dropped_after_a columns_drop_all bias_twice "
        "columns_need_a_bias columns_merged_as_rows merge_without_norm merged_bias_scaled",
        "`magnitude` is an": "flat_magnitude random_magnitude magnitude_buffer absolute clamped "
        "norm_dim_ignored",
        "a vector of zeros in $W_0$": "divides_by_zero divides_by_zero_over_columns",
        "in training mode the norm is a constant": "not_detached detached_in_evaluation "
        "columns_not_detached updated_detached",
        "dropout takes the lab's form": "dropout_on_frozen",
    },
}

# lora_A may start with random numbers of any size.
ROOT = "5 ** 0.5"
ANY_START = {"5 -> 6", "0.5 -> 1.0", "a= left out", f"{ROOT} -> 5 * 0.5"}
ANY_START |= {f"{ROOT} -> left", f"{ROOT} -> right"}
# Small changes of the solution that are as right, see test_mutants: what they write for what.
AS_RIGHT = {
    "LoRALayer": ANY_START,
    "DoRALayer": ANY_START | {"1e-08 -> 2e-08"},
}
HIDDEN_SIZES = [
    {},
    {"in_features": 5, "out_features": 9, "rank": 3, "alpha": 12.0, "bias": False, "seed": 4},
    {"in_features": 6, "out_features": 6, "rank": 6, "alpha": 3.0, "seed": 5},
    {"dtype": torch.float64, "seed": 6},
]


def test_there_are_three_right_and_eight_wrong_answers_for_each_exercise():
    for _, right, wrong in EXERCISES.values():
        assert len(answers(right)) >= 3
        assert len(answers(wrong)) >= 8


FAST_AND_SLOW = [
    HIDDEN_SIZES[0],
    *(pytest.param(it, marks=pytest.mark.slow) for it in HIDDEN_SIZES[1:]),
]


@pytest.mark.parametrize("sizes", FAST_AND_SLOW)
@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 1))
def test_right_answers_pass(check, answer, sizes, capsys):
    check(answer, **sizes)
    captured = capsys.readouterr()
    assert "FAIL" not in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 2))
def test_wrong_answers_are_named(check, answer, capsys):
    aspect, words = answer.__doc__.split(": ", 1)
    with pytest.raises(checks.CheckFailed) as raised:
        check(answer, aspect)
    assert words in str(raised.value)
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("answer", "aspect", "untrue"),
    [
        (WrongDoRA.b_not_zero, "dropout", "dropout on the frozen path"),
        (WrongDoRA.doubled, "dropout", "dropout on the frozen path"),
        (WrongDoRA.doubled, "start", "added twice"),
        (WrongDoRA.random_magnitude, "dropout", "dropout on the frozen path"),
        (WrongDoRA.merge_as_lora, "merge", "norm missing"),
        (WrongLoRA.merge_empties, "merge", "in-place change of the base"),
        (WrongLoRA.whole_number, "forward", "scaling left out"),
        (WrongDoRA.sum_of_sizes, "start", "random magnitude"),
        (WrongDoRA.merged_bias_scaled, "merge", "bias lost"),
        (WrongDoRA.scaling_left_out, "dropout", "dropout"),
        (WrongDoRA.scaling_left_out, "gradients", "detached"),
        (WrongLoRA.p_of_a_half, "forward", "gradient cut off"),
    ],
)
def test_no_name_that_is_not_so(answer, aspect, untrue):
    of_lora = answer.__qualname__.startswith("WrongLoRA")
    check = checks.check_lora_layer if of_lora else checks.check_dora_layer
    try:
        check(answer, aspect)
    except checks.CheckFailed as failure:
        assert failure.mistake is None or untrue not in failure.mistake.name


@pytest.mark.parametrize(
    ("check", "answer", "named"),
    [
        (checks.check_lora_layer, layers.LoRALayer, "lab_utils.layers.LoRALayer"),
        (checks.check_dora_layer, layers.DoRALayer, "lab_utils.layers.DoRALayer"),
        (checks.check_dora_layer, SUBCLASS, "lab_utils.layers.DoRALayer"),
        (checks.check_dora_layer, make_reference, "lab_utils.layers"),
        (checks.check_dora_layer, Wrapped, "lab_utils.layers"),
        (checks.check_lora_layer, handed_back, "lab_utils.layers.LoRALayer.forward"),
        (checks.check_dora_layer, FromPeft, "peft"),
    ],
)
def test_the_reference_is_rejected_by_name(check, answer, named):
    with pytest.raises(checks.CheckFailed) as raised:
        check(answer)
    assert named in str(raised.value)
    assert "your own" in str(raised.value)


def test_a_warning_or_a_print_to_stderr_costs_nothing(capsys):
    class Talks(DoRA):
        def forward(self, x):
            import sys
            import warnings

            warnings.warn("something is deprecated", stacklevel=1)
            print("forward was called", file=sys.stderr)
            return super().forward(x)

    checks.check_dora_layer(Talks)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "forward was called" in captured.out


def test_system_exit_is_a_failure():
    class Exits(DoRA):
        def merge(self):
            raise SystemExit

    checks.check_dora_layer(Exits, "forward")
    with pytest.raises(checks.CheckFailed, match="SystemExit"):
        checks.check_dora_layer(Exits, "merge")


def test_what_a_notebook_shows_is_the_students_lines_and_the_sentence():
    with pytest.raises(checks.CheckFailed) as raised:
        checks.check_dora_layer(WrongDoRA.crash, "forward")
    shown = "\n".join(raised.value._render_traceback_())
    assert "return x + None" in shown
    assert "subject.py" not in shown
    said = " ".join(f"CheckFailed: {raised.value}".split())
    assert " ".join(shown.split()).endswith(said)


def test_a_check_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    checks.check_dora_layer(DoRA, "dropout")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("algorithms", "fill"), [(False, True), (True, False)])
def test_memory_that_is_never_filled_holds_nan_while_a_layer_is_built(algorithms, fill):
    """And the caller's settings are there again afterwards."""

    class Unfilled(LoRA):
        def start_a(self, *shape):
            found.append(torch.empty(*shape))
            return super().start_a(*shape)

    found = []
    deterministic = torch.utils.deterministic
    try:
        torch.use_deterministic_algorithms(algorithms)
        deterministic.fill_uninitialized_memory = fill
        checks.check_lora_layer(Unfilled, "start")
        assert torch.are_deterministic_algorithms_enabled() == algorithms
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert deterministic.fill_uninitialized_memory == fill
    finally:
        torch.use_deterministic_algorithms(False)
        deterministic.fill_uninitialized_memory = True
    assert found and all(tensor.isnan().all() for tensor in found)


def test_a_log_that_was_set_up_before_does_not_reach_stderr(capfd):
    handler = logging.StreamHandler(sys.stderr)  # as logging.basicConfig() in an exercise's cell
    logger = logging.getLogger("student")
    logger.addHandler(handler)

    class Logs(DoRA):
        def forward(self, x):
            logger.warning("forward was called")
            os.write(2, b"from C\n")
            return super().forward(x)

    try:
        checks.check_dora_layer(Logs, "forward")
    finally:
        logger.removeHandler(handler)
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "forward was called" in captured.out
    print("still there", file=sys.stderr)
    os.write(2, b"and below\n")
    assert capfd.readouterr().err == "still there\nand below\n"


@pytest.mark.parametrize(
    "found",
    [None, 3, "text", [1], {"a": 1}, torch.eye(4).to_sparse(), torch.ones(4, device="meta")],
    ids=str,
)
@pytest.mark.parametrize("method", ["forward", "merge", "parameter"])
def test_whatever_a_layer_gives_back_ends_in_a_sentence(method, found):
    class Odd(DoRA):
        pass

    if method == "parameter":
        Odd.__init__ = lambda self, *a, **k: (DoRA.__init__(self, *a, **k), self.break_it())[0]
        Odd.break_it = lambda self: (delattr(self, "lora_A"), setattr(self, "lora_A", found))
    else:
        setattr(Odd, method, lambda self, *arguments: found)
    for aspect in ("start", "forward", "axis", "gradients", "dropout", "merge"):
        try:
            checks.check_dora_layer(Odd, aspect)
        except checks.CheckFailed:
            continue
        assert method == "merge"
        assert aspect != "merge"
