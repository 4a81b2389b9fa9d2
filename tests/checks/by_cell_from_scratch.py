"""Layers as students write them, and what each cell says of a wrong one."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab_utils import checks


class L(nn.Module):
    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        self.original_layer = original_layer
        for p in original_layer.parameters():
            p.requires_grad = False
        self.rank, self.alpha, self.p = rank, alpha, dropout
        self.scaling = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(torch.empty(rank, original_layer.in_features))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))

    def update(self):
        return self.scaling * (self.lora_B @ self.lora_A)

    def forward(self, x):
        return self.original_layer(x) + self.scaling * F.linear(
            F.linear(self.dropout(x), self.lora_A), self.lora_B
        )

    def weight(self):
        return self.original_layer.weight + self.update()

    def merge(self):
        o = self.original_layer
        merged = nn.Linear(o.in_features, o.out_features, bias=o.bias is not None)
        with torch.no_grad():
            merged.weight.copy_(self.weight())
            if o.bias is not None:
                merged.bias.copy_(o.bias)
        return merged


class D(L):
    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
        super().__init__(original_layer, rank, alpha, dropout)
        self.norm_dim = norm_dim
        self.magnitude = nn.Parameter(self.start(original_layer.weight.detach()))

    def start(self, w):
        return w.norm(dim=self.norm_dim, keepdim=True)

    def norm(self, v):
        return v.norm(dim=self.norm_dim, keepdim=True)

    def factor(self):
        return self.magnitude / self.norm(
            self.original_layer.weight + self.update()
        ).detach().clamp_min(1e-8)

    def weight(self):
        return self.factor() * (self.original_layer.weight + self.update())

    def forward(self, x):
        f, o = self.factor(), self.original_layer
        return F.linear(x, f * o.weight, o.bias) + F.linear(self.dropout(x), f * self.update())


class RightLoRA:
    class typed(nn.Module):
        original_layer: nn.Linear

        def __init__(
            self,
            original_layer: nn.Linear,
            rank: int = 8,
            alpha: float = 16.0,
            dropout: float = 0.0,
        ) -> None:
            super().__init__()
            self.original_layer = original_layer.requires_grad_(False)
            self.r = rank
            self.register_parameter(
                "lora_A", nn.Parameter(torch.randn(rank, original_layer.in_features) / rank)
            )
            self.register_parameter(
                "lora_B", nn.Parameter(torch.zeros(original_layer.out_features, rank))
            )
            self.register_buffer("scaling", torch.tensor(alpha / rank), persistent=False)
            self.drop = nn.Dropout(p=dropout) if dropout > 0 else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            z = self.drop(x) @ self.lora_A.T @ self.lora_B.T
            return self.original_layer(x) + self.scaling * z

        @torch.no_grad()
        def merge(self) -> nn.Linear:
            merged = copy.deepcopy(self.original_layer)
            merged.weight += self.scaling * self.lora_B @ self.lora_A
            return merged

    class einsum(L):
        def forward(self, x):
            low = torch.einsum("...i,ri,or->...o", self.dropout(x), self.lora_A, self.lora_B)
            return torch.add(self.original_layer(x), low, alpha=self.scaling)

    class functional(L):
        def forward(self, x):
            dropped = F.dropout(x, self.p, training=self.training)
            return F.linear(x, self.original_layer.weight, self.original_layer.bias) + F.linear(
                dropped, self.update()
            )

    class scaled_start(L):
        "scaling into x"

        def forward(self, x):
            return self.original_layer(x) + F.linear(
                self.dropout(x * self.scaling) @ self.lora_A.mT, self.lora_B
            )

    class mask(L):
        def forward(self, x):
            low = x
            if self.training and self.p > 0:
                low = x * (torch.rand_like(x) >= self.p) / (1 - self.p)
            return self.original_layer(x) + (low @ self.lora_A.t()) @ self.lora_B.t() * (
                self.alpha / self.rank
            )

    class properties(L):
        @property
        def delta(self):
            return self.update()

        def forward(self, x):
            return self.original_layer.forward(x) + self.dropout(x).matmul(
                self.delta.transpose(0, 1)
            )

        def merge(self):
            o = self.original_layer
            merged = nn.utils.skip_init(
                nn.Linear, o.in_features, o.out_features, bias=o.bias is not None
            )
            merged.load_state_dict(
                {
                    "weight": o.weight + self.delta.detach(),
                    **({"bias": o.bias} if o.bias is not None else {}),
                }
            )
            return merged

    class data_set(L):
        def merge(self):
            o = self.original_layer
            m = nn.Linear(
                o.in_features, o.out_features, bias=(o.bias is not None), dtype=o.weight.dtype
            )
            m.weight.data = (o.weight + self.update()).detach()
            if o.bias is not None:
                m.bias.data = o.bias.data.clone()
            m.train(self.training)
            return m

    class normal(L):
        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            nn.init.normal_(self.lora_A, std=0.02)
            nn.init.zeros_(self.lora_B)


class WrongLoRA:
    class frozen_partly(L):
        """start: base weight trainable"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            if original_layer.bias is not None:
                original_layer.bias.requires_grad_(True)

    class not_frozen(L):
        """start: base weight trainable"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            original_layer.requires_grad_(True)

    class copies(L):
        """start: original layer not kept"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(copy.deepcopy(original_layer), rank, alpha, dropout)

    class copies_weight(L):
        """start: a second weight kept"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.register_buffer("w0", original_layer.weight.detach().clone())

        def weight(self):
            return self.w0 + self.update()

    class other_name(nn.Module):
        """start: another name"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__()
            self.linear = original_layer.requires_grad_(False)
            self.scaling = alpha / rank
            self.dropout = nn.Dropout(dropout)
            self.lora_A = nn.Parameter(torch.randn(rank, original_layer.in_features))
            self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))

        def forward(self, x):
            return self.linear(x) + self.scaling * self.dropout(x) @ self.lora_A.T @ self.lora_B.T

        def merge(self):
            m = copy.deepcopy(self.linear)
            m.weight.data += self.scaling * self.lora_B.data @ self.lora_A.data
            return m

    class a_zero_b_random(L):
        """start: lora_B is not zero"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            nn.init.zeros_(self.lora_A)
            nn.init.normal_(self.lora_B)

    class both_random(L):
        """start: lora_B is not zero"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            nn.init.normal_(self.lora_B, std=0.01)

    class a_ones(L):
        """start: lora_A is not random"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            nn.init.ones_(self.lora_A)

    class a_eye(L):
        """start: lora_A is not random"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            nn.init.eye_(self.lora_A)

    class a_seeded_rows(L):
        """start: lora_A is not random"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.lora_A.data.copy_(torch.randn(1, original_layer.in_features).expand(rank, -1))

    class a_seeded(L):
        """start: the same lora_A every time"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            torch.manual_seed(0)
            super().__init__(original_layer, rank, alpha, dropout)

    class transposed(nn.Module):
        """start: factor transposed"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__()
            self.original_layer = original_layer.requires_grad_(False)
            self.scaling = alpha / rank
            self.dropout = nn.Dropout(dropout)
            self.lora_A = nn.Parameter(torch.randn(original_layer.in_features, rank))
            self.lora_B = nn.Parameter(torch.zeros(rank, original_layer.out_features))

        def forward(self, x):
            return (
                self.original_layer(x) + self.scaling * self.dropout(x) @ self.lora_A @ self.lora_B
            )

        def merge(self):
            m = copy.deepcopy(self.original_layer)
            m.weight.data += self.scaling * (self.lora_A.data @ self.lora_B.data).T
            return m

    class inner_linears(nn.Module):
        """start: parameter of an inner module"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__()
            self.original_layer = original_layer.requires_grad_(False)
            self.scaling = alpha / rank
            self.dropout = nn.Dropout(dropout)
            self.lora_A = nn.Linear(original_layer.in_features, rank, bias=False)
            self.lora_B = nn.Linear(rank, original_layer.out_features, bias=False)
            nn.init.zeros_(self.lora_B.weight)

        def forward(self, x):
            return self.original_layer(x) + self.scaling * self.lora_B(self.lora_A(self.dropout(x)))

        def merge(self):
            m = copy.deepcopy(self.original_layer)
            m.weight.data += self.scaling * self.lora_B.weight.data @ self.lora_A.weight.data
            return m

    class plain_tensors(L):
        """start: no nn.Parameter"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            nn.Module.__init__(self)
            self.original_layer = original_layer.requires_grad_(False)
            self.scaling, self.dropout = alpha / rank, nn.Dropout(dropout)
            self.lora_A = torch.randn(rank, original_layer.in_features, requires_grad=True)
            self.lora_B = torch.zeros(original_layer.out_features, rank, requires_grad=True)

    class parameter_list(L):
        """start, forward, dropout, merge: parameters in a list or dict"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            nn.Module.__init__(self)
            self.original_layer = original_layer.requires_grad_(False)
            self.scaling, self.dropout = alpha / rank, nn.Dropout(dropout)
            self.lora = [
                nn.Parameter(torch.randn(rank, original_layer.in_features)),
                nn.Parameter(torch.zeros(original_layer.out_features, rank)),
            ]

        def forward(self, x):
            return (
                self.original_layer(x)
                + self.scaling * self.dropout(x) @ self.lora[0].T @ self.lora[1].T
            )

    class all_frozen(L):
        """start: adapter frozen"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.requires_grad_(False)

    class b_frozen(L):
        """start: adapter frozen"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.lora_B.requires_grad = False

    class extra_bias(L):
        """start: something else trainable"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.lora_bias = nn.Parameter(torch.zeros(original_layer.out_features))

        def forward(self, x):
            return super().forward(x) + self.lora_bias

    class no_scaling(L):
        """forward: scaling left out"""

        def forward(self, x):
            return self.original_layer(x) + self.dropout(x) @ self.lora_A.T @ self.lora_B.T

    class twice(L):
        """forward: scaling applied twice"""

        def forward(self, x):
            return self.original_layer(x) + self.scaling * F.linear(self.dropout(x), self.update())

    class inverse(L):
        """forward: scaling upside down"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = rank / alpha

    class product(L):
        """forward: alpha times rank"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = alpha * rank

    class root(L):
        """forward: another scaling"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = alpha / rank**0.5

    class whole(L):
        """forward: whole-number division"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = alpha // rank

    class fixed(L):
        """forward: scaling of the defaults"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = 16.0 / 8

    class fixed_rank(L):
        """start, forward, dropout, merge: rank ignored"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, 8, alpha, dropout)

    class by_width(L):
        """forward: another scaling"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.scaling = alpha / original_layer.in_features

    class scaling_of_all(L):
        """start, forward: frozen weight scaled"""

        def forward(self, x):
            return self.scaling * (
                self.original_layer(x) + F.linear(self.dropout(x), self.lora_B @ self.lora_A)
            )

    class subtracts(L):
        """forward: update subtracted"""

        def forward(self, x):
            return self.original_layer(x) - F.linear(self.dropout(x), self.update())

    class chained(L):
        """forward: update left out; dropout: unnamed"""

        def forward(self, x):
            x = self.original_layer(x)
            return x + F.linear(x, self.update()) if self.lora_A.shape[1] == x.shape[-1] else x

    class relu(L):
        """forward: not linear in x"""

        def forward(self, x):
            return self.original_layer(x) + self.scaling * F.linear(
                F.relu(F.linear(self.dropout(x), self.lora_A)), self.lora_B
            )

    class no_base(L):
        """start, forward: frozen weight left out"""

        def forward(self, x):
            return F.linear(self.dropout(x), self.update(), self.original_layer.bias)

    class no_bias(L):
        """start, forward: bias lost"""

        def forward(self, x):
            return F.linear(x, self.original_layer.weight) + F.linear(
                self.dropout(x), self.update()
            )

    class bias_required(L):
        """merge: a bias taken for granted"""

        def merge(self):
            o = self.original_layer
            m = nn.Linear(o.in_features, o.out_features)
            m.weight.data = self.weight().detach()
            m.bias.data = o.bias.data
            return m

    class two_dim(L):
        """forward: only some shapes of x"""

        def forward(self, x):
            return (
                self.original_layer.weight @ x.t() + self.update() @ self.dropout(x).t()
            ).t() + (0 if self.original_layer.bias is None else self.original_layer.bias)

    class bmm(L):
        """forward: only some shapes of x"""

        def forward(self, x):
            b = x.shape[0]
            return self.original_layer(x) + torch.bmm(
                self.dropout(x), self.update().T.expand(b, -1, -1)
            )

    class flattened(L):
        """forward: only some shapes of x"""

        def forward(self, x):
            x = x.view(x.size(0), -1)
            return self.original_layer(x) + F.linear(self.dropout(x), self.update())

    class data_used(L):
        """forward: gradient cut off"""

        def forward(self, x):
            return self.original_layer(x) + self.scaling * F.linear(
                F.linear(self.dropout(x), self.lora_A.data), self.lora_B
            )

    class no_grad_forward(L):
        """forward: gradient cut off"""

        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    class detached_x(L):
        """forward: gradient cut off"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(self.dropout(x.detach()), self.update())

    class base_no_grad(L):
        """forward: gradient cut off"""

        def forward(self, x):
            with torch.no_grad():
                y = self.original_layer(x)
            return y + F.linear(self.dropout(x), self.update())

    class detached_update(L):
        """forward: gradient cut off"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(self.dropout(x), self.update().detach())

    class eval_no_grad(L):
        """forward: gradient cut off"""

        def forward(self, x):
            if not self.training:
                with torch.no_grad():
                    return super().forward(x)
            return super().forward(x)

    class in_place_x(L):
        """dropout: in-place change of the input"""

        def forward(self, x):
            y = self.original_layer(x)
            return y + F.linear(F.dropout(x, self.p, self.training, inplace=True), self.update())

    class add_in_place(L):
        """forward, dropout: in-place change of the input"""

        def forward(self, x):
            y = self.original_layer(x)
            with torch.no_grad():
                x *= self.scaling
            return y + x @ self.lora_A.T @ self.lora_B.T

    class drop_everything(L):
        """dropout: dropout on the frozen path"""

        def forward(self, x):
            x = self.dropout(x)
            return self.original_layer(x) + F.linear(x, self.update())

    class drop_output(L):
        """dropout: not the input dropped"""

        def forward(self, x):
            return self.original_layer(x) + self.dropout(F.linear(x, self.update()))

    class drop_between(L):
        """dropout: not the input dropped"""

        def forward(self, x):
            return self.original_layer(x) + self.scaling * F.linear(
                self.dropout(F.linear(x, self.lora_A)), self.lora_B
            )

    class drop_parameter(L):
        """dropout: not the input dropped"""

        def forward(self, x):
            return self.original_layer(x) + self.scaling * F.linear(
                F.linear(x, self.dropout(self.lora_A)), self.lora_B
            )

    class drop_result(L):
        """dropout: dropout on the frozen path"""

        def forward(self, x):
            return self.dropout(self.original_layer(x) + F.linear(x, self.update()))

    class no_drop(L):
        """dropout: dropout unused"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(x, self.update())

    class fixed_drop(L):
        """dropout: another dropout probability"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, 0.1 if dropout else 0.0)

    class keep_drop(L):
        """dropout: dropout mirrored"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, 1 - dropout if dropout else 0.0)

    class functional_always(L):
        """dropout: dropout in evaluation"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(F.dropout(x, self.p), self.update())

    class eval_only(L):
        """dropout: dropout in evaluation"""

        def forward(self, x):
            return self.original_layer(x) + F.linear(
                F.dropout(x, self.p, not self.training), self.update()
            )

    class unscaled_mask(L):
        """dropout: kept inputs not rescaled"""

        def forward(self, x):
            d = x * (torch.rand_like(x) >= self.p) if self.training else x
            return self.original_layer(x) + F.linear(d, self.update())

    class drop_features(L):
        """dropout: whole vectors dropped"""

        def forward(self, x):
            d = (
                x * ((torch.rand((*x.shape[:-1], 1)) >= self.p) / (1 - self.p))
                if self.training and self.p
                else x
            )
            return self.original_layer(x) + F.linear(d, self.update())

    class alpha_dropout(L):
        """dropout: not the input dropped"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__(original_layer, rank, alpha, dropout)
            self.dropout = nn.AlphaDropout(dropout)

    class returns_base(L):
        """merge: in-place change of the base layer"""

        def merge(self):
            with torch.no_grad():
                self.original_layer.weight += self.update()
            return self.original_layer

    class merge_into_base(L):
        """merge: in-place change of the base layer"""

        def merge(self):
            with torch.no_grad():
                self.original_layer.weight += self.update()
            return copy.deepcopy(self.original_layer)

    class merge_no_scaling(L):
        """merge: scaling left out"""

        def merge(self):
            m = super().merge()
            m.weight.data = self.original_layer.weight.data + self.lora_B.data @ self.lora_A.data
            return m

    class merge_order(L):
        """merge: shapes that do not fit"""

        def merge(self):
            m = super().merge()
            m.weight.data = self.original_layer.weight.data + self.scaling * (
                self.lora_A.T.data @ self.lora_B.T.data
            )
            return m

    class merge_no_bias(L):
        """merge: bias lost"""

        def merge(self):
            o = self.original_layer
            m = nn.Linear(o.in_features, o.out_features, bias=False)
            m.weight.data = self.weight().data
            return m

    class merge_random_bias(L):
        """merge: another bias"""

        def merge(self):
            o = self.original_layer
            m = nn.Linear(o.in_features, o.out_features, bias=o.bias is not None)
            m.weight.data = self.weight().data
            return m

    class merge_bias_always(L):
        """merge: another bias"""

        def merge(self):
            o = self.original_layer
            m = nn.Linear(o.in_features, o.out_features)
            m.weight.data = self.weight().data
            if o.bias is not None:
                m.bias.data = o.bias.data
            return m

    class merge_zero_bias(L):
        """merge: a bias of zeros"""

        def merge(self):
            m = super().merge()
            if m.bias is None:
                m.bias = nn.Parameter(torch.zeros(m.out_features))
            return m

    class merge_resets(L):
        """merge: adapter changed by merge()"""

        def merge(self):
            m = super().merge()
            nn.init.zeros_(self.lora_B)
            return m

    class merge_eval(L):
        """merge: mode changed by merge()"""

        def merge(self):
            self.eval()
            return super().merge()

    class merge_unfreezes(L):
        """merge: base weight trainable"""

        def merge(self):
            m = super().merge()
            self.original_layer.requires_grad_(True)
            return m

    class merge_tensor(L):
        """merge: a tensor, not an nn.Linear"""

        def merge(self):
            return self.weight()

    class merge_none(L):
        """merge: nothing returned"""

        def merge(self):
            super().merge()

    class merge_pair(L):
        """merge: a tuple, not an nn.Linear"""

        def merge(self):
            return self.weight(), self.original_layer.bias

    class merge_state(L):
        """merge: a dict, not an nn.Linear"""

        def merge(self):
            return super().merge().state_dict()

    class merge_sequential(L):
        """merge: not a plain nn.Linear"""

        def merge(self):
            return nn.Sequential(super().merge())

    class merge_only_update(L):
        """merge: frozen weight left out"""

        def weight(self):
            return self.update()

    class merge_swapped(L):
        """merge: shapes that do not fit"""

        def merge(self):
            o = self.original_layer
            m = nn.Linear(o.out_features, o.in_features, bias=o.bias is not None)
            with torch.no_grad():
                m.weight.copy_(self.weight())
            return m

    class merge_unfilled(L):
        """merge: random weight in merge()"""

        def merge(self):
            o = self.original_layer
            m = nn.Linear(o.in_features, o.out_features, bias=o.bias is not None)
            m.weigth = self.weight()
            if o.bias is not None:
                m.bias = o.bias
            return m

    class merge_float(L):
        """merge: precision lost"""

        def merge(self):
            return super().merge().half()

    class forward_none(L):
        """start, forward, dropout, merge: nothing returned"""

        def forward(self, x):
            self.original_layer(x) + F.linear(self.dropout(x), self.update())

    class forward_pair(L):
        """start, forward, dropout, merge: a tuple, not a tensor"""

        def forward(self, x):
            return self.original_layer(x), F.linear(self.dropout(x), self.update())

    class no_super(L):
        """start, forward, dropout, merge: super().__init__() left out"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            self.original_layer = original_layer


def textbook(self, x, factor, v):
    return F.linear(x, factor * v, self.original_layer.bias)


class RightDoRA:
    class peft(D):
        def forward(self, x):
            f, o = self.factor(), self.original_layer
            d = self.dropout(x)
            return o(x) + F.linear(d, (f - 1) * o.weight) + F.linear(d, f * self.update())

    class through_v(nn.Module):
        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            super().__init__()
            self.original_layer = original_layer
            self.original_layer.weight.requires_grad = False
            if self.original_layer.bias is not None:
                self.original_layer.bias.requires_grad = False
            self.lora_A = nn.Parameter(torch.randn(rank, original_layer.in_features) * 0.01)
            self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))
            with torch.no_grad():
                m = torch.linalg.norm(original_layer.weight, dim=norm_dim, keepdim=True)
            self.magnitude = nn.Parameter(m)
            self.norm_dim, self.s, self.drop = norm_dim, alpha / rank, nn.Dropout(dropout)

        @property
        def v(self):
            return self.original_layer.weight + self.s * self.lora_B @ self.lora_A

        @property
        def scale(self):
            with torch.no_grad():
                n = torch.linalg.norm(self.v, dim=self.norm_dim, keepdim=True).clamp(min=1e-6)
            return self.magnitude / n

        def forward(self, x):
            w = self.scale * self.v
            if not self.training:
                return F.linear(x, w, self.original_layer.bias)
            return F.linear(
                x, self.scale * self.original_layer.weight, self.original_layer.bias
            ) + F.linear(self.drop(x), self.scale * (self.v - self.original_layer.weight))

        def merge(self):
            with torch.no_grad():
                o = self.original_layer
                merged = nn.Linear(o.in_features, o.out_features, bias=o.bias is not None)
                merged.weight = nn.Parameter(self.scale * self.v)
                merged.bias = None if o.bias is None else nn.Parameter(o.bias.clone())
                return merged

    class scale_outputs_or_inputs(D):
        def forward(self, x):
            f, o = self.factor(), self.original_layer
            if self.norm_dim == 1:
                y = f.squeeze(1) * (
                    F.linear(x, o.weight) + F.linear(self.dropout(x), self.update())
                )
            else:
                f = f.squeeze(0)
                y = F.linear(x * f, o.weight) + F.linear(self.dropout(x) * f, self.update())
            return y if o.bias is None else y + o.bias

    class eval_full_gradient(D):
        def factor(self):
            n = self.norm(self.original_layer.weight + self.update())
            return self.magnitude / (n.detach() if self.training else n).clamp_min(1e-8)

    class normalize(D):
        def weight(self):
            with torch.no_grad():
                return self.magnitude * F.normalize(
                    self.original_layer.weight + self.update(), dim=self.norm_dim, eps=1e-8
                )

    class plus_eps(D):
        def factor(self):
            return self.magnitude / (
                self.norm(self.original_layer.weight + self.update()).detach() + 1e-9
            )

    class held(D):
        "composition of a LoRA"

        def forward(self, x):
            o = self.original_layer
            low = F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B) * self.scaling
            if self.norm_dim == 1:
                out = (F.linear(x, o.weight) + low) * self.factor().view(-1)
                return out + o.bias if o.bias is not None else out
            return F.linear(x, self.factor() * o.weight, o.bias) + F.linear(
                self.dropout(x), self.factor() * self.update()
            )


class WrongDoRA:
    class flat(D):
        """start: summed dimension dropped"""

        def start(self, w):
            return w.norm(dim=self.norm_dim)

        def factor(self):
            return (
                self.magnitude
                / self.norm(self.original_layer.weight + self.update())
                .squeeze()
                .detach()
                .clamp_min(1e-8)
            ).unsqueeze(self.norm_dim)

    class ones(D):
        """start: magnitude of ones or zeros"""

        def start(self, w):
            return torch.ones(w.shape[0], 1) if self.norm_dim == 1 else torch.ones(1, w.shape[1])

    class random(D):
        """start: random magnitude"""

        def start(self, w):
            return torch.rand(w.shape[0], 1) if self.norm_dim == 1 else torch.rand(1, w.shape[1])

    class one(D):
        """start, forward, axis, gradients, dropout, merge: one norm for the whole matrix"""

        def start(self, w):
            return w.norm(keepdim=True)

    class one_wide(D):
        """start: one norm for the whole matrix"""

        def start(self, w):
            return w.norm() * torch.ones_like(w.norm(dim=self.norm_dim, keepdim=True))

    class squares(D):
        """start: not the Euclidean length"""

        def start(self, w):
            return (w**2).sum(self.norm_dim, keepdim=True)

    class mean(D):
        """start: not the Euclidean length"""

        def start(self, w):
            return w.abs().mean(self.norm_dim, keepdim=True)

    class other_axis_start(D):
        """start, forward, axis: norm over the wrong axis; gradients: unnamed"""

        def start(self, w):
            return w.norm(dim=1 - self.norm_dim, keepdim=True)

    class ignores(D):
        """axis: norm over the wrong axis"""

        def start(self, w):
            return w.norm(dim=1, keepdim=True)

        def norm(self, v):
            return v.norm(dim=1, keepdim=True)

    class ignores_columns(D):
        """start, forward: norm over the wrong axis"""

        def start(self, w):
            return w.norm(dim=0, keepdim=True)

        def norm(self, v):
            return v.norm(dim=0, keepdim=True)

    class swapped(D):
        """start, forward, axis: norm over the wrong axis"""

        def start(self, w):
            return w.norm(dim=1 - self.norm_dim, keepdim=True)

        def norm(self, v):
            return v.norm(dim=1 - self.norm_dim, keepdim=True)

    class norm_rows(D):
        """axis: norm over the wrong axis"""

        def norm(self, v):
            return v.norm(dim=1, keepdim=True)

    class norm_other(D):
        """start, forward, axis: norm over the wrong axis; gradients: unnamed"""

        def norm(self, v):
            return v.norm(dim=1 - self.norm_dim, keepdim=True)

    class norm_w0(D):
        """forward, axis: norm of W0 instead of V; gradients: unnamed"""

        def factor(self):
            return self.magnitude / self.original_layer.weight.norm(
                dim=self.norm_dim, keepdim=True
            ).clamp_min(1e-8)

    class norm_stored(D):
        """forward, axis: norm of W0 instead of V; gradients: unnamed"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            super().__init__(original_layer, rank, alpha, dropout, norm_dim)
            self.register_buffer("n", self.magnitude.detach().clone())

        def factor(self):
            return self.magnitude / self.n.clamp_min(1e-8)

    class no_norm(D):
        """start, forward, axis: no normalisation; gradients: unnamed"""

        def factor(self):
            return self.magnitude

    class m_left_out(D):
        """start, forward, axis, merge: magnitude unused; gradients: unnamed"""

        def factor(self):
            return 1 / self.norm(self.original_layer.weight + self.update()).detach().clamp_min(
                1e-8
            )

    class m_ignored(D):
        """forward, axis, merge: magnitude unused; gradients: unnamed"""

        def factor(self):
            return torch.ones_like(self.magnitude)

    class squared_norm(D):
        """start, forward, axis: not the Euclidean length; gradients: unnamed"""

        def norm(self, v):
            return (v**2).sum(self.norm_dim, keepdim=True)

    class norm_unscaled(D):
        """forward, axis: scaling left out of the norm; gradients: unnamed"""

        def factor(self):
            return self.magnitude / self.norm(
                self.original_layer.weight + self.lora_B @ self.lora_A
            ).detach().clamp_min(1e-8)

    class m_abs(D):
        """forward: magnitude made positive; gradients: unnamed"""

        def factor(self):
            return self.magnitude.abs() / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class m_clamped(D):
        """forward: magnitude made positive; gradients: unnamed"""

        def factor(self):
            return F.relu(self.magnitude) / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class m_exp(D):
        """start, forward, axis: logarithm of the magnitude; gradients: unnamed"""

        def start(self, w):
            return super().start(w).clamp_min(1e-8).log()

        def factor(self):
            return self.magnitude.exp() / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class delta_m(D):
        """start: magnitude of ones or zeros; forward, axis: magnitude as a change;
        gradients: unnamed"""

        def start(self, w):
            return torch.zeros_like(super().start(w))

        def factor(self):
            n = self.norm(self.original_layer.weight + self.update()).detach().clamp_min(1e-8)
            return (
                self.magnitude + self.original_layer.weight.norm(dim=self.norm_dim, keepdim=True)
            ) / n

    class m_buffer(D):
        """start: no nn.Parameter"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            L.__init__(self, original_layer, rank, alpha, dropout)
            self.norm_dim = norm_dim
            self.register_buffer(
                "magnitude", original_layer.weight.detach().norm(dim=norm_dim, keepdim=True)
            )

    class m_frozen(D):
        """start: magnitude frozen"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            super().__init__(original_layer, rank, alpha, dropout, norm_dim)
            self.magnitude.requires_grad_(False)

    class m_name(D):
        """start, forward, axis, gradients, dropout, merge: another name"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            L.__init__(self, original_layer, rank, alpha, dropout)
            self.norm_dim = norm_dim
            self.m = nn.Parameter(original_layer.weight.detach().norm(dim=norm_dim, keepdim=True))

        def factor(self):
            return self.m / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class m_recomputed(D):
        """forward, axis: magnitude unused; gradients: unnamed; merge: adapter changed by merge()"""

        def forward(self, x):
            self.magnitude.data = self.original_layer.weight.norm(dim=self.norm_dim, keepdim=True)
            return super().forward(x)

    class no_eps(D):
        """start: division by a zero norm"""

        def factor(self):
            return self.magnitude / self.norm(self.original_layer.weight + self.update()).detach()

    class big_eps(D):
        """start, forward, axis: another eps; gradients: unnamed"""

        def factor(self):
            return self.magnitude / (
                self.norm(self.original_layer.weight + self.update()).detach() + 1e-2
            )

    class not_detached(D):
        """gradients: norm not detached"""

        def factor(self):
            return self.magnitude / self.norm(self.original_layer.weight + self.update()).clamp_min(
                1e-8
            )

    class detached_v(D):
        """gradients: gradient cut off"""

        def weight(self):
            return self.factor() * (self.original_layer.weight + self.update()).detach()

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(x, f * o.weight, o.bias) + F.linear(
                self.dropout(x), f * self.update().detach()
            )

    class detached_factor(D):
        """gradients: magnitude frozen"""

        def factor(self):
            return super().factor().detach()

    class m_detached(D):
        """gradients: magnitude frozen"""

        def factor(self):
            return self.magnitude.detach() / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class detach_direction(D):
        """gradients: gradient cut off"""

        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    class m_data(D):
        """gradients: magnitude frozen"""

        def factor(self):
            return self.magnitude.data / self.norm(
                self.original_layer.weight + self.update()
            ).detach().clamp_min(1e-8)

    class detached_eval_only(D):
        """gradients: norm not detached"""

        def factor(self):
            n = self.norm(self.original_layer.weight + self.update())
            return self.magnitude / (n if self.training else n.detach()).clamp_min(1e-8)

    class frozen_path_unscaled(D):
        """forward, axis: factor on the update only; gradients: unnamed"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return o(x) + F.linear(self.dropout(x), f * self.update())

    class update_unscaled(D):
        """forward, axis: update added after the norm; gradients: unnamed"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(x, f * o.weight, o.bias) + F.linear(self.dropout(x), self.update())

    class bias_scaled(D):
        """start, forward: bias scaled; gradients: unnamed"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            if self.norm_dim == 1:
                return f.squeeze(1) * (o(x) + F.linear(self.dropout(x), self.update()))
            return super().forward(x)

    class output_only(D):
        """axis: shapes that do not fit"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            y = f.flatten() * (F.linear(x, o.weight) + F.linear(self.dropout(x), self.update()))
            return y if o.bias is None else y + o.bias

    class bias_lost(D):
        """start, forward: bias lost"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(x, f * o.weight) + F.linear(self.dropout(x), f * self.update())

    class bias_twice(D):
        """start, forward: bias added twice"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(x, f * o.weight, o.bias) + F.linear(
                self.dropout(x), f * self.update(), o.bias
            )

    class added_to_base(D):
        """start: twice the frozen output; forward, axis: frozen output added twice;
        gradients: unnamed"""

        def forward(self, x):
            return self.original_layer(x) + D.forward(self, x)

    class direction_of_update(D):
        """start, forward, axis: norm of the update alone; gradients: unnamed"""

        def factor(self):
            return self.magnitude / self.norm(self.update()).detach().clamp_min(1e-8)

    class direction_update_added(D):
        """forward, axis: only the update normalised; gradients, dropout: unnamed"""

        def weight(self):
            return self.original_layer.weight + self.magnitude * self.update() / self.norm(
                self.update()
            ).clamp_min(1e-8)

        def forward(self, x):
            return F.linear(x, self.weight(), self.original_layer.bias)

    class normalised_w0_plus(D):
        """forward, axis: update added to the direction; gradients: unnamed"""

        def weight(self):
            w = self.original_layer.weight
            return self.magnitude * (w / self.norm(w).clamp_min(1e-8) + self.update())

        def forward(self, x):
            w = self.original_layer.weight
            n = self.norm(w).clamp_min(1e-8)
            return F.linear(x, self.magnitude * w / n, self.original_layer.bias) + F.linear(
                self.dropout(x), self.magnitude * self.update()
            )

    class no_scaling(D):
        """forward: scaling left out"""

        def update(self):
            return self.lora_B @ self.lora_A

    class rooted(D):
        """forward: another scaling"""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
            super().__init__(original_layer, rank, alpha, dropout, norm_dim)
            self.scaling = alpha / math.sqrt(rank)

    class as_p(D):
        """start, forward, axis, gradients, dropout, merge: norm_dim taken as p"""

        def start(self, w):
            return w.norm(self.norm_dim)

        def norm(self, v):
            return v.norm(self.norm_dim)

    class mode_dependent(D):
        """gradients: unnamed; dropout: another output in training"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            if self.training:
                return F.linear(x, f * o.weight, o.bias) + F.linear(self.dropout(x), self.update())
            return super().forward(x)

    class drop_all(D):
        """dropout: dropout on the frozen path"""

        def forward(self, x):
            return F.linear(self.dropout(x), self.weight(), self.original_layer.bias)

    class no_drop(D):
        """dropout: dropout unused"""

        def forward(self, x):
            return F.linear(x, self.weight(), self.original_layer.bias)

    class drop_low(D):
        """dropout: not the input dropped"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            low = F.linear(
                self.dropout(F.linear(x, self.lora_A)),
                self.scaling * (f if self.norm_dim == 1 else 1) * self.lora_B,
            )
            return F.linear(x, f * o.weight, o.bias) + (
                low if self.norm_dim == 1 else F.linear(self.dropout(x), f * self.update())
            )

    class drop_weight(D):
        """dropout: not the input dropped"""

        def forward(self, x):
            return F.linear(
                x,
                self.factor() * (self.original_layer.weight + self.dropout(self.update())),
                self.original_layer.bias,
            )

    class drop_eval(D):
        """dropout: dropout in evaluation"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(x, f * o.weight, o.bias) + F.linear(
                F.dropout(x, self.p), f * self.update()
            )

    class peft_wrong(D):
        """start: twice the frozen output; forward, axis: frozen output added twice;
        gradients: unnamed; dropout: dropout on the frozen path"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            d = self.dropout(x)
            return o(x) + F.linear(d, f * o.weight) + F.linear(d, f * self.update())

    class peft_wrong_undropped(D):
        """dropout: dropout on the frozen path"""

        def forward(self, x):
            f, o = self.factor(), self.original_layer
            return F.linear(self.dropout(x), f * o.weight, o.bias) + F.linear(x, f * self.update())

    class merge_lora(D):
        """merge: magnitude unused"""

        def merge(self):
            return super_merge(self, self.original_layer.weight + self.update())

    class merge_no_norm(D):
        """merge: norm missing from the merged weight"""

        def merge(self):
            return super_merge(self, self.magnitude * (self.original_layer.weight + self.update()))

    class merge_no_m(D):
        """merge: magnitude unused"""

        def merge(self):
            v = self.original_layer.weight + self.update()
            return super_merge(self, v / self.norm(v).clamp_min(1e-8))

    class merge_w0(D):
        """merge: update left out"""

        def merge(self):
            return copy.deepcopy(self.original_layer)

    class merge_rows(D):
        """axis: norm over the wrong axis"""

        def merge(self):
            v = self.original_layer.weight + self.update()
            return super_merge(
                self, self.magnitude * v / v.norm(dim=1, keepdim=True).clamp_min(1e-8)
            )

    class merge_bias(D):
        """merge: bias scaled"""

        def merge(self):
            m = super().merge()
            if m.bias is not None and self.norm_dim == 1:
                m.bias.data *= self.factor().data.flatten()
            return m

    class merge_in_place(D):
        """merge: in-place change of the base layer"""

        def merge(self):
            self.original_layer.weight.data = self.weight().data
            return self.original_layer

    class merge_no_bias(D):
        """merge: bias lost"""

        def merge(self):
            m = super().merge()
            m.bias = None
            return m

    class merge_nan(D):
        """merge: division by a zero norm"""

        def merge(self):
            v = self.original_layer.weight + self.update()
            return super_merge(self, self.magnitude * v / self.norm(v))

    class merge_flat(D):
        """merge: shapes that do not fit"""

        def merge(self):
            v = self.original_layer.weight + self.update()
            return super_merge(self, self.magnitude.squeeze() * v / self.norm(v).clamp_min(1e-8))

    class merge_detached_layer(D):
        """merge: mode changed by merge()"""

        def merge(self):
            self.train()
            return super().merge()

    class merge_resets_m(D):
        """merge: adapter changed by merge()"""

        def merge(self):
            m = super().merge()
            self.magnitude.data = self.original_layer.weight.norm(dim=self.norm_dim, keepdim=True)
            return m


def super_merge(self, weight):
    o = self.original_layer
    merged = nn.Linear(o.in_features, o.out_features, bias=o.bias is not None)
    with torch.no_grad():
        merged.weight.copy_(weight)
        if o.bias is not None:
            merged.bias.copy_(o.bias)
    return merged


EXERCISES = {
    "lora": (checks.check_lora_layer, RightLoRA, WrongLoRA),
    "dora": (checks.check_dora_layer, RightDoRA, WrongDoRA),
}
