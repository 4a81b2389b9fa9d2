"""Answers to lessons 01 to 03 of further kinds, and what each cell says of a wrong one."""

import math
import statistics
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from by_cell_from_scratch import D, L
from torch import nn

from lab_utils import checks


class RightDecompose:
    @torch.inference_mode()
    def inference(weight, norm_dim=1, eps=1e-8):
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / m.clip(min=eps)

    def hypot(weight, norm_dim=1, eps=1e-8):
        m = torch.zeros_like(weight.select(norm_dim, 0))
        for v in weight.unbind(norm_dim):
            m = torch.hypot(m, v)
        m = m.unsqueeze(norm_dim)
        return m, weight / (m + eps)

    def matmul(weight, norm_dim=1, eps=1e-8):
        gram = weight @ weight.T if norm_dim == 1 else weight.T @ weight
        m = gram.diagonal().sqrt()
        m = m[:, None] if norm_dim == 1 else m[None]
        return m, weight / m.clamp_min(eps)

    def list_pair(weight, norm_dim=1, eps=1e-8):
        m = weight.norm(dim=norm_dim, keepdim=True)
        return [m, weight / m.clamp_min(eps)]


class WrongDecompose:
    def gradients_left_off(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: unnamed"""
        torch.set_grad_enabled(False)
        return RightDecompose.hypot(weight, norm_dim, eps)

    def default_dtype_left(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: unnamed"""
        torch.set_default_dtype(torch.float64)
        return RightDecompose.hypot(weight, norm_dim, eps)

    def clamp_inside(weight, norm_dim=1, eps=1e-8):
        """zeros: eps in the magnitude"""
        m = weight.pow(2).sum(norm_dim, keepdim=True).clamp_min(eps).sqrt()
        return m, weight / m

    def clamp_square(weight, norm_dim=1, eps=1e-8):
        """zeros: eps in the magnitude"""
        m = (weight.pow(2).sum(norm_dim, keepdim=True) + eps**2).sqrt()
        return m, weight / m

    def ones_for_zero(weight, norm_dim=1, eps=1e-8):
        """zeros: a direction for zeros"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, torch.where(m < eps, torch.ones_like(weight), weight / m.clamp_min(eps))

    def three(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: more than two returned"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps), eps

    def transposed(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: transposed"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, (weight / m.clamp_min(eps)).T

    def negative(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: sign swapped"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, -weight / m.clamp_min(eps)

    def rounded(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: rounded"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m.round(decimals=2), weight / m.clamp_min(eps)

    def int_mag(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: whole numbers"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m.int(), weight / m.clamp_min(eps)

    def global_max(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: one norm for the whole matrix"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / m.max()

    def inverse(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: magnitude upside down"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return 1 / m.clamp_min(eps), weight / m.clamp_min(eps)

    def weight_as_direction(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: no normalisation"""
        return weight.norm(dim=norm_dim, keepdim=True), weight

    def p3(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: not the Euclidean length"""
        m = weight.norm(p=3, dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def eps_min(weight, norm_dim=1, eps=1e-8):
        """zeros: eps ignored"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / (m + 1e-12)


class RightRecompose:
    def vmap(magnitude, direction):
        return (direction.T * magnitude.T).T

    def multiply(magnitude, direction):
        return torch.multiply(direction, magnitude.broadcast_to(direction.shape))


class WrongRecompose:
    def divided_again(magnitude, direction):
        """all: normalised again"""
        return magnitude * direction / direction.norm()

    def outer(magnitude, direction):
        """all: outer product"""
        return torch.outer(magnitude.flatten(), direction.flatten())

    def sign(magnitude, direction):
        """all: sign lost"""
        return (magnitude * direction).abs()

    def m_only(magnitude, direction):
        """all: direction left out"""
        return magnitude

    def detached_inplace(magnitude, direction):
        """all: in-place change of the argument"""
        return direction.copy_(magnitude * direction)

    def max_one(magnitude, direction):
        """all: unnamed"""
        return magnitude.clamp_max(1) * direction


class RightCount:
    def dc(in_features, out_features, rank, method, norm_dim=1):
        @dataclass
        class Sizes:
            a: int
            b: int
            m: int

        s = Sizes(
            rank * in_features,
            rank * out_features,
            (in_features, out_features)[norm_dim] if method == "dora" else 0,
        )
        return s.a + s.b + s.m


class WrongCount:
    def div(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: a float, not an int"""
        return RightCount.dc(in_features, out_features, rank, method, norm_dim) / 1

    def minimum(in_features, out_features, rank, method, norm_dim=1):
        """dora, dora-input: magnitude by size"""
        return rank * (in_features + out_features) + (
            min(in_features, out_features) if method == "dora" else 0
        )

    def squared(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: rank squared"""
        return rank**2 * (in_features + out_features) + (
            (in_features, out_features)[norm_dim] if method == "dora" else 0
        )

    def truth(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: a truth value, not an int"""
        return bool(rank)

    def tup(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: a tuple, not an int"""
        return rank * in_features, rank * out_features

    def minus(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: rank times rank"""
        return rank * (in_features + out_features - rank) + (
            (in_features, out_features)[norm_dim] if method == "dora" else 0
        )


class RightMagnitude:
    def hyp(before, after, norm_dim=1):
        d = torch.stack([before, after]).norm(dim=norm_dim + 1).diff(dim=0)
        return d.abs().mean().item()


class WrongMagnitude:
    def log(before, after, norm_dim=1):
        """rows, columns: logarithm of the ratio"""
        return (after.norm(dim=norm_dim) / before.norm(dim=norm_dim)).log().abs().mean().item()

    def relu(before, after, norm_dim=1):
        """rows, columns: growth alone"""
        return F.relu(after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).mean().item()

    def after_only(before, after, norm_dim=1):
        """rows, columns: one length alone"""
        return after.norm(dim=norm_dim).mean().item()

    def halved(before, after, norm_dim=1):
        """rows, columns: half of it"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item() / 2

    def unbiased(before, after, norm_dim=1):
        """rows, columns: another number to divide by"""
        d = (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs()
        return (d.sum() / (len(d) - 1)).item()

    def f32(before, after, norm_dim=1):
        """rows, columns: a NumPy number, not a float"""
        return np.float32(
            (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item()
        )


class RightDirection:
    def acos(before, after, norm_dim=1):
        a = torch.linalg.vecdot(before.double(), after.double(), dim=norm_dim)
        n = before.double().norm(dim=norm_dim) * after.double().norm(dim=norm_dim)
        return (1 - a / n.clamp_min(1e-16)).mean().item()


class WrongDirection:
    def rms(before, after, norm_dim=1):
        """rows, columns: squared turn"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).square().mean().sqrt().item()

    def median(before, after, norm_dim=1):
        """rows, columns: median instead of mean"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).median().item()

    def negate(before, after, norm_dim=1):
        """rows, columns: sign swapped"""
        return (F.cosine_similarity(before, after, dim=norm_dim) - 1).mean().item()

    def l1(before, after, norm_dim=1):
        """rows, columns: not the Euclidean length"""
        u = F.normalize(before, p=1, dim=norm_dim)
        v = F.normalize(after, p=1, dim=norm_dim)
        return (1 - (u * v).sum(norm_dim)).mean().item()

    def squared_norms(before, after, norm_dim=1):
        """rows, columns: not the Euclidean length"""
        return (
            (
                1
                - (before * after).sum(norm_dim)
                / (before.square().sum(norm_dim) * after.square().sum(norm_dim)).clamp_min(1e-8)
            )
            .mean()
            .item()
        )

    def pi(before, after, norm_dim=1):
        """rows, columns: an angle"""
        return (
            (F.cosine_similarity(before, after, dim=norm_dim).clamp(-1, 1).arccos() / math.pi)
            .mean()
            .item()
        )

    def clamp1(before, after, norm_dim=1):
        """rows, columns: another eps"""
        u, v = (w / w.norm(dim=norm_dim, keepdim=True).clamp_min(1) for w in (before, after))
        return (1 - (u * v).sum(norm_dim)).mean().item()


class RightCoupling:
    def fm(delta_m, delta_d):
        xm, ym = statistics.fmean(delta_m), statistics.fmean(delta_d)
        if max(delta_m) == min(delta_m) or max(delta_d) == min(delta_d):
            return float("nan")
        num = math.fsum((x - xm) * (y - ym) for x, y in zip(delta_m, delta_d, strict=False))
        return num / (
            math.dist(delta_m, [xm] * len(delta_m)) * math.dist(delta_d, [ym] * len(delta_d))
        )


class WrongCoupling:
    def swapped_sign(delta_m, delta_d):
        """correlation: sign swapped"""
        return -RightCoupling.fm(delta_m, delta_d)

    def squares_of_sum(delta_m, delta_d):
        """correlation: means not subtracted"""
        if max(delta_m) == min(delta_m) or max(delta_d) == min(delta_d):
            return float("nan")
        x, y = np.array(delta_m), np.array(delta_d)
        return float(((x - x.mean()) * (y - y.mean())).sum() / np.sqrt((x**2).sum() * (y**2).sum()))

    def diffs(delta_m, delta_d):
        """correlation: differences correlated"""
        return RightCoupling.fm(list(np.diff(delta_m)), list(np.diff(delta_d)))

    def autoc(delta_m, delta_d):
        """correlation: one list reversed"""
        return RightCoupling.fm(delta_m, delta_d[::-1])

    def one(delta_m, delta_d):
        """constant: a number in place of NaN"""
        r = RightCoupling.fm(delta_m, delta_d)
        return 1.0 if math.isnan(r) else r

    def inf(delta_m, delta_d):
        """constant: a number in place of NaN"""
        r = RightCoupling.fm(delta_m, delta_d)
        return math.inf if math.isnan(r) else r

    def pops(delta_m, delta_d):
        """correlation: in-place change of the argument"""
        r = RightCoupling.fm(delta_m, delta_d)
        delta_d.pop()
        return r

    def pval(delta_m, delta_d):
        """correlation: p-value"""
        from scipy import stats

        return (
            float(stats.pearsonr(delta_m, delta_d)[1])
            if len(set(delta_m)) > 1 < len(set(delta_d))
            else math.nan
        )


class RightLoRA:
    class inner_update(L):
        class Path(nn.Module):
            def forward(self, x, a, b):
                return x @ a.T @ b.T

        def forward(self, x):
            return self.original_layer(x) + self.Path()(
                self.dropout(x), self.lora_A, self.scaling * self.lora_B
            )

    class autocast_free(L):
        def forward(self, x):
            dtype = self.lora_A.dtype
            low = self.dropout(x.to(dtype)) @ self.lora_A.T @ self.lora_B.T
            return self.original_layer(x) + (low * self.scaling).to(x.dtype)

    class lazy_merge(L):
        def merge(self):
            from copy import deepcopy

            m = deepcopy(self.original_layer)
            m.weight = nn.Parameter(self.weight().detach(), requires_grad=False)
            return m


class WrongLoRA:
    class merges_once(L):
        """merge: an earlier merged layer"""

        def merge(self):
            if "earlier" not in vars(self):
                vars(self)["earlier"] = super().merge()
            return self.earlier

    class merges_weight_once(L):
        """merge: an earlier merged layer"""

        def weight(self):
            vars(self).setdefault("merged", super().weight().detach())
            return self.merged

    class keeps_update_in_evaluation(L):
        """forward: the weight of an earlier pass"""

        def update(self):
            if self.training or "kept" not in vars(self):
                vars(self)["kept"] = super().update()
            return super().update() if self.training else self.kept

        def forward(self, x):
            if self.training:
                return super().forward(x)
            return F.linear(x, self.original_layer.weight + self.update(), self.original_layer.bias)

        def merge(self):
            vars(self).pop("kept", None)
            return super().merge()

    class merges_in_half_precision(L):
        """merge: precision lost"""

        def weight(self):
            return super().weight().half()

    class gradients_left_off(L):
        """merge: unnamed"""

        def merge(self):
            torch.set_grad_enabled(False)
            return super().merge()

    class own_init(L):
        """start, forward, merge: in-place change of the base layer"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            original_layer.reset_parameters()

    class sets_train(L):
        """start: base weight trainable"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            original_layer.requires_grad_(True)

        def train(self, mode=True):
            self.original_layer.requires_grad_(not mode)
            return super().train(mode)

    class b_init_small(L):
        """start: lora_B is not zero"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            nn.init.normal_(self.lora_B, std=1e-6)

    class a_const_half(L):
        """start: lora_A is not random"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            nn.init.constant_(self.lora_A, 0.5)

    class scaled_trainable(L):
        """start: something else trainable"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = nn.Parameter(torch.tensor(alpha / rank))

    class cached(L):
        """forward: gradient cut off"""

        def forward(self, x):
            if not hasattr(self, "cache"):
                self.cache = self.update().detach()
            return self.original_layer(x) + F.linear(self.dropout(x), self.cache)

    class mean_batch(L):
        """forward: vectors of x mixed"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(self.dropout(x), self.update()).mean(
                0, keepdim=True
            )

    class squeeze(L):
        """forward: a dimension of x lost"""

        def forward(self, x):
            return super().forward(x).squeeze()

    class scale_x(L):
        """start, forward: frozen weight scaled"""

        def forward(self, x):
            x = self.scaling * x
            return self.original_layer(x) + F.linear(self.dropout(x), self.lora_B @ self.lora_A)

    class rank_alpha_swapped(L):
        """forward: whole-number division"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = int(alpha / rank)

    class drop_both(L):
        """dropout: not the input dropped"""

        def forward(self, x):
            return self.original_layer(x) + self.scaling * F.linear(
                self.dropout(F.linear(self.dropout(x), self.lora_A)), self.lora_B
            )

    class drop_hard(L):
        """dropout: another dropout probability"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(
                F.dropout(x, training=self.training), self.update()
            )

    class seeded_drop(L):
        """dropout: the same inputs dropped at every pass"""

        def forward(self, x):
            torch.manual_seed(0)
            return super().forward(x)

    class mask_features(L):
        """dropout: one mask for all vectors"""

        def forward(self, x):
            d = x
            if self.training and self.p:
                d = x * (torch.rand(x.shape[-1]) >= self.p) / (1 - self.p)
            return self.original_layer(x) + F.linear(d, self.update())

    class merge_trained(L):
        """merge: not a plain nn.Linear"""

        def merge(self):
            class Merged(nn.Linear):
                pass

            o = self.original_layer
            m = Merged(o.in_features, o.out_features, bias=o.bias is not None)
            with torch.no_grad():
                m.weight.copy_(self.weight())
                if o.bias is not None:
                    m.bias.copy_(o.bias)
            return m

    class merge_self(L):
        """merge: not a plain nn.Linear"""

        def merge(self):
            return self

    class merge_shares(L):
        """merge: update added twice"""

        def merge(self):
            m = super().merge()
            m.weight.data += self.update().data
            return m

    class merge_dropped(L):
        """merge: merge() depends on the mode"""

        def merge(self):
            m = super().merge()
            m.weight.data = (
                self.original_layer.weight.data
                + self.scaling * self.lora_B.data @ F.dropout(self.lora_A.data, 0.3, self.training)
            )
            return m

    class merge_transposed_update(L):
        """merge: shapes that do not fit"""

        def merge(self):
            m = super().merge()
            m.weight.data = self.original_layer.weight.data + self.update().T.data
            return m


class RightDoRA:
    class buffers(D):
        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            super().__init__(original_layer, rank, alpha, dropout, norm_dim)
            self.register_buffer("eps", torch.tensor(1e-8))

        def factor(self):
            v = (self.original_layer.weight + self.update()).detach()
            return self.magnitude / torch.maximum(v.norm(dim=self.norm_dim, keepdim=True), self.eps)

    class in_eval_merged(D):
        def forward(self, x):
            if self.training:
                return super().forward(x)
            return F.linear(x, self.weight(), self.original_layer.bias)


class WrongDoRA:
    class refills_one_layer(D):
        """merge: an earlier merged layer"""

        def merge(self):
            new = super().merge()
            layer = vars(self).setdefault("layer", new)
            layer.load_state_dict(new.state_dict())
            return layer

    class merges_weight_once(D):
        """merge: an earlier merged layer"""

        def merge(self):
            if "earlier" not in vars(self):
                vars(self)["earlier"] = super().merge().state_dict()
            new = super().merge()
            new.load_state_dict(self.earlier)
            return new

    class short_rows_kept_short(D):
        """start: another eps"""

        def norm(self, v):
            return super().norm(v).clamp_min(0.01)

    class rows_then_columns(D):
        """start, forward, axis, gradients, dropout: unnamed"""

        def weight(self):
            v = self.original_layer.weight + self.update()
            return self.factor() * F.normalize(v, dim=1 - self.norm_dim)

        def forward(self, x):
            return F.linear(x, self.weight(), self.original_layer.bias) + 0 * self.dropout(x).sum()

    class softplus(D):
        """start, forward, axis: magnitude changed before it is used; gradients: unnamed"""

        def factor(self):
            return F.softplus(self.magnitude) / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class norm_scaled_twice(D):
        """forward, axis: scaling applied twice in the norm; gradients: unnamed"""

        def factor(self):
            return self.magnitude / self.norm(
                self.original_layer.weight + self.scaling * self.update()
            ).detach().clamp_min(1e-8)

    class m_relative(D):
        """start: magnitude of ones or zeros; forward, axis: magnitude as a factor of ||W0||;
        gradients: unnamed"""

        def start(self, w):
            return torch.ones_like(super().start(w))

        def factor(self):
            w = self.original_layer.weight
            return (
                self.magnitude
                * self.norm(w)
                / self.norm(w + self.update()).detach().clamp_min(1e-8)
            )

    class m_one_dim(D):
        """start: magnitude transposed"""

        def start(self, w):
            return w.norm(dim=self.norm_dim, keepdim=True).T

        def factor(self):
            return self.magnitude.T / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class m_full(D):
        """start, forward, axis, gradients, dropout, merge: one magnitude per entry"""

        def start(self, w):
            return w.norm(dim=self.norm_dim, keepdim=True).expand_as(w).clone()

    class detach_m_and_norm(D):
        """gradients: gradient cut off"""

        def update(self):
            return self.scaling * self.lora_B @ self.lora_A.detach()

    class detach_w(D):
        """gradients: gradient cut off"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(x, f * o.weight, o.bias) + F.linear(
                self.dropout(x), f.detach() * self.update()
            )

    class axis_eval(D):
        """axis: norm not detached"""

        def factor(self):
            n = self.norm(self.original_layer.weight + self.update())
            return self.magnitude / (n.detach() if self.norm_dim == 1 else n).clamp_min(1e-8)

    class axis_drop(D):
        """axis: dropout unused"""

        def forward(self, x):
            if self.norm_dim == 0:
                return F.linear(x, self.weight(), self.original_layer.bias)
            return super().forward(x)

    class axis_merge(D):
        """axis: magnitude unused"""

        def weight(self):
            if self.norm_dim == 0:
                return self.original_layer.weight + self.update()
            return super().weight()

    class axis_bias(D):
        """axis: bias lost"""

        def merge(self):
            m = super().merge()
            if self.norm_dim == 0:
                m.bias = None
            return m

    class axis_m_start(D):
        """axis: magnitude of ones or zeros"""

        def start(self, w):
            m = super().start(w)
            return m if self.norm_dim == 1 else torch.ones_like(m)

    class scale_after(D):
        """start, forward, axis: frozen weight scaled; gradients: unnamed"""

        def forward(self, x):
            return self.scaling * super().forward(x)

    class bias_in_merge_twice(D):
        """merge: bias added twice"""

        def merge(self):
            m = super().merge()
            if m.bias is not None:
                m.bias.data *= 2
            return m

    class v_norm_merge(D):
        """merge: norm of W0 instead of V"""

        def weight(self):
            w = self.original_layer.weight
            return self.magnitude * (w + self.update()) / self.norm(w).clamp_min(1e-8)

    class peft_undropped_base(D):
        """dropout: dropped twice"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(x, f * o.weight, o.bias) + F.linear(
                self.dropout(self.dropout(x)), f * self.update()
            )


EXERCISES = {
    "decompose": (checks.check_decompose, RightDecompose, WrongDecompose),
    "recompose": (checks.check_recompose, RightRecompose, WrongRecompose),
    "count": (checks.check_count_trainable, RightCount, WrongCount),
    "magnitude": (checks.check_magnitude_change, RightMagnitude, WrongMagnitude),
    "direction": (checks.check_direction_change, RightDirection, WrongDirection),
    "coupling": (checks.check_coupling, RightCoupling, WrongCoupling),
    "lora": (checks.check_lora_layer, RightLoRA, WrongLoRA),
    "dora": (checks.check_dora_layer, RightDoRA, WrongDoRA),
}
