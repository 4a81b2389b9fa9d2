"""Answers to lesson 01 as students write them, and what each cell says of a wrong one."""

import math
from collections import namedtuple

import numpy as np
import torch
import torch.nn.functional as F

from lab_utils import checks


class RightDecompose:
    def sum_of_squares(weight, norm_dim=1, eps=1e-8):
        magnitude = (weight**2).sum(norm_dim, keepdim=True).sqrt()
        return magnitude, weight / magnitude.clamp(min=eps)

    def where(weight, norm_dim=1, eps=1e-8):
        m = torch.linalg.norm(weight, dim=norm_dim, keepdim=True)
        safe = torch.where(m > eps, m, torch.full_like(m, eps))
        return m, weight / safe

    def maximum(
        weight: torch.Tensor, norm_dim: int = 1, eps: float = 1e-8
    ) -> tuple[torch.Tensor, torch.Tensor]:
        m = torch.linalg.vector_norm(weight, 2, norm_dim, True)
        return (m, weight / torch.maximum(m, torch.tensor(eps)))

    def numpy_names(weight, norm_dim=1, eps=1e-8):
        m = weight.pow(2).sum(axis=norm_dim, keepdims=True) ** 0.5
        return m, torch.div(weight, m + eps)

    def through_numpy(weight, norm_dim=1, eps=1e-8):
        w = weight.detach().cpu().numpy()
        m = np.linalg.norm(w, axis=norm_dim, keepdims=True)
        return torch.from_numpy(m), torch.from_numpy(w / np.maximum(m, eps))

    def no_grad(weight, norm_dim=1, eps=1e-8):
        with torch.no_grad():
            w = weight.clone()
            m = torch.norm(w, p=2, dim=norm_dim, keepdim=True)
            w /= m.clamp_min(eps)
        return m, w

    def named(weight, norm_dim=1, eps=1e-8):
        Split = namedtuple("Split", "magnitude direction")
        m = weight.square().sum(dim=norm_dim).sqrt().unsqueeze(norm_dim)
        return Split(m, weight * (m + eps).reciprocal())

    def double(weight, norm_dim=1, eps=1e-8):
        m = weight.double().norm(dim=norm_dim, keepdim=True)
        return m.to(weight.dtype), (weight.double() / m.clamp_min(eps)).to(weight.dtype)

    def except_dim(weight, norm_dim=1, eps=1e-8):
        m = torch.norm_except_dim(weight, 2, 1 - norm_dim)
        return m, weight / m.clamp(eps)

    def by_rows(weight, norm_dim=1, eps=1e-8):
        if norm_dim == 0:
            m, d = RightDecompose.by_rows(weight.T, 1, eps)
            return m.T, d.T
        m = torch.stack([row.norm() for row in weight])[:, None]
        d = torch.stack([row / max(row.norm(), eps) for row in weight])
        return m, d

    def if_any(weight, norm_dim=1, eps=1e-8):
        m = weight.norm(dim=norm_dim, keepdim=True)
        divide_by = m if (m > eps).all() else m + eps
        return m, weight / divide_by

    def masked(weight, norm_dim=1, eps=1e-8):
        m = weight.norm(dim=norm_dim, keepdim=True)
        d = m.clone()
        d[d < eps] = eps
        return m, weight / d

    def negative_dim(weight, norm_dim=1, eps=1e-8):
        m = weight.norm(dim=-norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps)


class WrongDecompose:
    def whole(weight, norm_dim=1, eps=1e-8):
        """rows, columns: one norm for the whole matrix"""
        m = weight.norm(keepdim=True)
        return m, weight / m.clamp_min(eps)

    def rows_only(weight, norm_dim=1, eps=1e-8):
        """columns: norm over the wrong axis"""
        m = weight.norm(dim=1, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def swapped_axis(weight, norm_dim=1, eps=1e-8):
        """rows, columns: norm over the wrong axis"""
        m = weight.norm(dim=0 if norm_dim == 1 else 1, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def flat_magnitude(weight, norm_dim=1, eps=1e-8):
        """rows, columns: summed dimension dropped"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m.squeeze(), weight / m.clamp_min(eps)

    def no_eps(weight, norm_dim=1, eps=1e-8):
        """zeros: division by a zero norm"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / m

    def eps_in_root(weight, norm_dim=1, eps=1e-8):
        """zeros: eps under the root"""
        m = ((weight**2).sum(dim=norm_dim, keepdim=True) + eps).sqrt()
        return m, weight / m

    def eps_in_root_direction(weight, norm_dim=1, eps=1e-8):
        """zeros: eps under the root"""
        s = (weight**2).sum(dim=norm_dim, keepdim=True)
        return s.sqrt(), weight / (s + eps).sqrt()

    def clamped_magnitude(weight, norm_dim=1, eps=1e-8):
        """zeros: eps in the magnitude"""
        m = weight.norm(dim=norm_dim, keepdim=True).clamp_min(eps)
        return m, weight / m

    def magnitude_plus_eps(weight, norm_dim=1, eps=1e-8):
        """zeros: eps in the magnitude"""
        m = weight.norm(dim=norm_dim, keepdim=True) + eps
        return m, weight / m

    def manhattan(weight, norm_dim=1, eps=1e-8):
        """rows, columns: not the Euclidean length"""
        m = weight.norm(p=1, dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def squares(weight, norm_dim=1, eps=1e-8):
        """rows, columns: not the Euclidean length"""
        m = (weight**2).sum(dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def squares_magnitude(weight, norm_dim=1, eps=1e-8):
        """rows, columns: not the Euclidean length"""
        m = (weight**2).sum(dim=norm_dim, keepdim=True)
        return m, weight / m.sqrt().clamp_min(eps)

    def reversed_(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: the two results are swapped"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return weight / m.clamp_min(eps), m

    def one(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: one of two returned"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return weight / m.clamp_min(eps)

    def prints(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: nothing returned"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        print(m, weight / m.clamp_min(eps))

    def multiplies(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: multiplied by the norm"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight * m

    def positive(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: sign lost"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight.abs() / m.clamp_min(eps)

    def fixed_eps(weight, norm_dim=1, eps=1e-8):
        """zeros: eps ignored"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_min(1e-8)

    def large_eps(weight, norm_dim=1, eps=1e-8):
        """zeros: eps ignored"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_min(1e-3)

    def in_place(weight, norm_dim=1, eps=1e-8):
        """rows, columns: in-place change of the argument"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        weight /= m.clamp_min(eps)
        return m, weight

    def nan_to_num(weight, norm_dim=1, eps=1e-8):
        """zeros: eps ignored"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, (weight / m).nan_to_num(0.0)

    def where_zero(weight, norm_dim=1, eps=1e-8):
        """zeros: eps ignored"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / torch.where(m == 0, torch.ones_like(m), m)

    def short_are_zero(weight, norm_dim=1, eps=1e-8):
        """zeros: short vectors set to zero"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, torch.where(m < eps, torch.zeros_like(weight), weight / m)

    def standard_deviation(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: not the Euclidean length"""
        m = weight.std(dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def root_mean_square(weight, norm_dim=1, eps=1e-8):
        """rows, columns: not the Euclidean length"""
        m = (weight**2).mean(dim=norm_dim, keepdim=True).sqrt()
        return m, weight / m.clamp_min(eps)

    def arrays(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: a NumPy array, not a tensor"""
        w = weight.numpy()
        m = np.linalg.norm(w, axis=norm_dim, keepdims=True)
        return m, w / np.maximum(m, eps)

    def widened(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: one magnitude per entry"""
        m = weight.norm(dim=norm_dim, keepdim=True).expand_as(weight)
        return m, weight / m.clamp_min(eps)

    def normalize_rows(weight, norm_dim=1, eps=1e-8):
        """columns: norm over the wrong axis"""
        return weight.norm(dim=norm_dim, keepdim=True), F.normalize(weight, eps=eps)

    def normalize_eps(weight, norm_dim=1, eps=1e-8):
        """zeros: eps ignored"""
        return weight.norm(dim=norm_dim, keepdim=True), F.normalize(weight, dim=norm_dim)

    def as_p(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: norm_dim taken as p"""
        m = weight.norm(norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def as_p_with_dim(weight, norm_dim=1, eps=1e-8):
        """rows: not the Euclidean length; columns, zeros: norm_dim taken as p"""
        m = weight.norm(norm_dim, 1, True)
        return m, weight / m.clamp_min(eps)

    def largest(weight, norm_dim=1, eps=1e-8):
        """rows, columns: not the Euclidean length"""
        m = weight.abs().amax(norm_dim, keepdim=True)
        return m, weight / m.clamp_min(eps)

    def twice(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: divided by the squared norm"""
        m = weight.norm(dim=norm_dim, keepdim=True).clamp_min(eps)
        return weight.norm(dim=norm_dim, keepdim=True), weight / m / m

    def centred(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: mean subtracted"""
        c = weight - weight.mean(dim=norm_dim, keepdim=True)
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, c / m.clamp_min(eps)

    def softmax(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: softmax"""
        return weight.norm(dim=norm_dim, keepdim=True), weight.softmax(norm_dim)

    def lists(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: a list, not a tensor"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m.tolist(), (weight / m.clamp_min(eps)).tolist()

    def half(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: precision lost"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m.half(), (weight / m.clamp_min(eps)).half()

    def signed(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: not the Euclidean length"""
        m = weight.sum(dim=norm_dim, keepdim=True)
        return m, weight / m

    def dropped_everywhere(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: summed dimension dropped"""
        m = weight.norm(dim=norm_dim)
        return m, weight / m.clamp_min(eps)

    def clamp_max(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: clamped from above"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return m, weight / m.clamp_max(eps)

    def dictionary(weight, norm_dim=1, eps=1e-8):
        """rows, columns, zeros: a dict, not a pair"""
        m = weight.norm(dim=norm_dim, keepdim=True)
        return {"magnitude": m, "direction": weight / m.clamp_min(eps)}


class RightRecompose:
    def mul(magnitude, direction):
        return torch.mul(magnitude, direction)

    def diagonal(magnitude, direction):
        if magnitude.shape[1] == 1 and magnitude.shape[0] == direction.shape[0]:
            return torch.diag(magnitude[:, 0]) @ direction
        return direction @ torch.diag(magnitude[0])

    def expanded(magnitude, direction):
        return magnitude.expand_as(direction) * direction

    def loops(magnitude, direction):
        out = torch.empty_like(direction)
        for i in range(direction.size(0)):
            for j in range(direction.size(1)):
                out[i, j] = (
                    magnitude[i if magnitude.size(0) > 1 else 0, j if magnitude.size(1) > 1 else 0]
                    * direction[i, j]
                )
        return out

    def clone(magnitude, direction):
        weight = direction.clone()
        weight *= magnitude
        return weight

    def einsum(magnitude, direction):
        return torch.einsum("ij,ij->ij", magnitude.expand(direction.shape), direction)

    def array(magnitude, direction):
        return torch.as_tensor(magnitude.numpy() * direction.numpy())

    def double(magnitude, direction):
        return magnitude.double() * direction.double()


class WrongRecompose:
    def matmul(magnitude, direction):
        """all: matrix product"""
        return magnitude @ direction

    def normalises(magnitude, direction):
        """all: normalised again"""
        return magnitude * F.normalize(direction, dim=1)

    def normalises_right_axis(magnitude, direction):
        """all: normalised again"""
        dim = 1 if magnitude.shape[1] == 1 else 0
        return magnitude * direction / direction.norm(dim=dim, keepdim=True)

    def absolute(magnitude, direction):
        """all: magnitude made positive"""
        return magnitude.abs() * direction

    def clamps(magnitude, direction):
        """all: magnitude made positive"""
        return magnitude.clamp_min(0) * direction

    def divides(magnitude, direction):
        """all: divided"""
        return direction / magnitude

    def adds(magnitude, direction):
        """all: added"""
        return magnitude + direction

    def in_place(magnitude, direction):
        """all: in-place change of the argument"""
        return direction.mul_(magnitude)

    def in_place_magnitude(magnitude, direction):
        """all: in-place change of the argument"""
        weight = magnitude * direction
        magnitude.abs_()
        return weight

    def squeezed(magnitude, direction):
        """all: magnitude always along columns"""
        return magnitude.squeeze() * direction

    def rows(magnitude, direction):
        """all: magnitude always along rows"""
        return magnitude.view(-1, 1) * direction

    def columns(magnitude, direction):
        """all: magnitude always along columns"""
        return magnitude.view(1, -1) * direction

    def guesses(magnitude, direction):
        """all: axis guessed by size"""
        m = magnitude.flatten()
        return m[:, None] * direction if len(m) == direction.shape[0] else m * direction

    def guesses_other(magnitude, direction):
        """all: axis guessed by size"""
        m = magnitude.flatten()
        return m * direction if len(m) == direction.shape[1] else m[:, None] * direction

    def transposed(magnitude, direction):
        """all: transposed"""
        return (magnitude * direction).T

    def turned(magnitude, direction):
        """all: magnitude transposed"""
        return magnitude.T * direction

    def nothing(magnitude, direction):
        """all: nothing returned"""
        weight = magnitude * direction  # noqa: F841

    def listed(magnitude, direction):
        """all: a list, not a tensor"""
        return (magnitude * direction).tolist()

    def only_direction(magnitude, direction):
        """all: magnitude left out"""
        return direction

    def squared(magnitude, direction):
        """all: magnitude multiplied twice"""
        return magnitude * magnitude * direction

    def rounded(magnitude, direction):
        """all: rounded"""
        return (magnitude * direction).round(decimals=2)

    def total(magnitude, direction):
        """all: summed up"""
        return (magnitude * direction).sum()

    def pair(magnitude, direction):
        """all: a tuple, not a tensor"""
        return magnitude, direction

    def array(magnitude, direction):
        """all: a NumPy array, not a tensor"""
        return (magnitude * direction).numpy()

    def halves(magnitude, direction):
        """all: precision lost"""
        return (magnitude * direction).half()


class RightCount:
    def numpy64(in_features, out_features, rank, method, norm_dim=1):
        return np.prod([rank, in_features + out_features]) + (method == "dora") * (
            out_features if norm_dim else in_features
        )

    def plain(in_features, out_features, rank, method, norm_dim=1):
        n = rank * in_features + out_features * rank
        if method == "dora":
            n += out_features if norm_dim == 1 else in_features
        return n

    def table(in_features, out_features, rank, method, norm_dim=1):
        sizes = (in_features, out_features)
        return rank * sum(sizes) + {"lora": 0, "dora": sizes[norm_dim]}[method]

    def modules(in_features, out_features, rank, method, norm_dim=1):
        shapes = [(rank, in_features), (out_features, rank)]
        if method.lower() == "dora":
            shapes.append((out_features, 1) if norm_dim else (1, in_features))
        return sum(math.prod(s) for s in shapes)

    def tensors(in_features, out_features, rank, method, norm_dim=1):
        A, B = torch.empty(rank, in_features), torch.empty(out_features, rank)
        m = torch.empty(out_features, in_features).norm(dim=norm_dim)
        return A.numel() + B.numel() + (m.numel() if method == "dora" else 0)

    def oneliner(in_features, out_features, rank, method, norm_dim=1):
        return (
            rank * (in_features + out_features)
            + (method == "dora") * [in_features, out_features][norm_dim]
        )

    def numpy_int(in_features, out_features, rank, method, norm_dim=1):
        total = np.sum(
            [
                rank * in_features,
                rank * out_features,
                (method == "dora") * (out_features if norm_dim == 1 else in_features),
            ]
        )
        return int(total)


class WrongCount:
    def frozen(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: the frozen weight counted"""
        return in_features * out_features + RightCount.plain(
            in_features, out_features, rank, method, norm_dim
        )

    def bias(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora: one number per output too many;
        dora-input: inputs and outputs counted"""
        return out_features + RightCount.plain(in_features, out_features, rank, method, norm_dim)

    def axis(in_features, out_features, rank, method, norm_dim=1):
        """dora, dora-input: magnitude on the wrong axis"""
        n = rank * (in_features + out_features)
        return n + (in_features if norm_dim == 1 else out_features) if method == "dora" else n

    def ignores(in_features, out_features, rank, method, norm_dim=1):
        """dora-input: magnitude on the wrong axis"""
        return rank * (in_features + out_features) + (out_features if method == "dora" else 0)

    def both(in_features, out_features, rank, method, norm_dim=1):
        """lora: magnitude counted for LoRA"""
        return rank * (in_features + out_features) + (out_features if norm_dim else in_features)

    def never(in_features, out_features, rank, method, norm_dim=1):
        """dora, dora-input: magnitude left out"""
        return rank * (in_features + out_features)

    def capital(in_features, out_features, rank, method, norm_dim=1):
        """dora, dora-input: magnitude left out"""
        n = rank * (in_features + out_features)
        if method == "DoRA":
            n += out_features if norm_dim == 1 else in_features
        return n

    def product(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: a full matrix counted"""
        return (
            RightCount.plain(in_features, out_features, 0, method, norm_dim)
            + in_features * out_features
        )

    def times(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: multiplied"""
        return (
            RightCount.plain(in_features, out_features, 0, method, norm_dim)
            + rank * in_features * out_features
        )

    def halves(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: lora_B left out"""
        return rank * in_features + (
            (out_features if norm_dim else in_features) if method == "dora" else 0
        )

    def twice_in(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: lora_A counted twice"""
        return 2 * rank * in_features + (
            (out_features if norm_dim else in_features) if method == "dora" else 0
        )

    def precedence(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: brackets left out"""
        n = rank * in_features + out_features
        return n + ((out_features if norm_dim else in_features) if method == "dora" else 0)

    def one_magnitude(in_features, out_features, rank, method, norm_dim=1):
        """dora, dora-input: a single magnitude"""
        return rank * (in_features + out_features) + (method == "dora")

    def floats(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: a float, not an int"""
        return float(RightCount.plain(in_features, out_features, rank, method, norm_dim))

    def tensor(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: a tensor, not an int"""
        return torch.tensor(RightCount.plain(in_features, out_features, rank, method, norm_dim))

    def text(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: a text, not an int"""
        return f"{RightCount.plain(in_features, out_features, rank, method, norm_dim):,}"

    def all_magnitudes(in_features, out_features, rank, method, norm_dim=1):
        """dora, dora-input: inputs and outputs counted"""
        return rank * (in_features + out_features) + (
            in_features + out_features if method == "dora" else 0
        )

    def rank_magnitudes(in_features, out_features, rank, method, norm_dim=1):
        """dora, dora-input: magnitude times rank"""
        return rank * (in_features + out_features) + (
            rank * (out_features if norm_dim else in_features) if method == "dora" else 0
        )

    def nothing(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: nothing returned"""
        print(RightCount.plain(in_features, out_features, rank, method, norm_dim))

    def falls_through(in_features, out_features, rank, method, norm_dim=1):
        """lora: nothing returned"""
        if method == "dora":
            return RightCount.plain(in_features, out_features, rank, method, norm_dim)

    def plus_rank(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: rank times rank"""
        return rank * rank + RightCount.plain(in_features, out_features, rank, method, norm_dim)

    def both_axes_default(in_features, out_features, rank, method, norm_dim=1):
        """dora-input: inputs and outputs counted"""
        n = rank * (in_features + out_features)
        if method == "dora":
            n += out_features
            if norm_dim == 0:
                n += in_features
        return n

    def bytes_(in_features, out_features, rank, method, norm_dim=1):
        """lora, dora, dora-input: bytes counted"""
        return 4 * RightCount.plain(in_features, out_features, rank, method, norm_dim)


EXERCISES = {
    "decompose": (checks.check_decompose, RightDecompose, WrongDecompose),
    "recompose": (checks.check_recompose, RightRecompose, WrongRecompose),
    "count": (checks.check_count_trainable, RightCount, WrongCount),
}
