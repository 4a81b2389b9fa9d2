"""One layer to check: its sizes and arrays, what is right, and what each known mistake gives."""

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lab_utils.checks.layer.mistakes import (
    ALPHA_LEFT_OUT,
    ANOTHER_EPS,
    BIAS_LOST,
    BIAS_SCALED,
    BIAS_TWICE,
    DIM_AS_P,
    FACTOR_ON_UPDATE,
    FROZEN_LEFT_OUT,
    FROZEN_SCALED,
    FROZEN_TWICE,
    LOGARITHM,
    MAGNITUDE_ADDED,
    MAGNITUDE_CHANGED,
    MAGNITUDE_RELATIVE,
    MAGNITUDE_UNUSED,
    MULTIPLIED_BY_NORM,
    NO_NORMALISATION,
    NORM_OF_BASE,
    NORM_OF_UPDATE,
    NORM_SCALED_TWICE,
    NORM_UNSCALED,
    NORMALISED_FACTORS,
    NORMALISED_UPDATE,
    NOT_A_LENGTH,
    POSITIVE_MAGNITUDE,
    SCALING_FIXED,
    SCALING_LEFT_OUT,
    SCALING_MULTIPLIED,
    SCALING_OTHER,
    SCALING_TWICE,
    SCALING_UPSIDE_DOWN,
    SCALING_WHOLE,
    TWO_NORMS,
    UPDATE_LEFT_OUT,
    UPDATE_ON_DIRECTION,
    UPDATE_OUTSIDE,
    UPDATE_SUBTRACTED,
    UPDATE_TWICE,
    WHOLE_NORM,
    WRONG_AXIS,
)
from lab_utils.checks.report import Mistake
from lab_utils.checks.values import close


class Case:
    """One layer to check: its sizes, and every array that the check works with, from one seed.

    The layer is not square, because a square one hides a wrong axis; and the arrays are those
    of a trained adapter, because DoRA starts as LoRA and LoRA starts as the frozen layer. One
    magnitude is negative and one is zero: nothing keeps training from either.
    """

    def __init__(
        self,
        in_features: int = 7,
        out_features: int = 4,
        rank: int = 2,
        alpha: float = 3.0,
        bias: bool = True,
        norm_dim: int = 1,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        given_norm_dim: int | None = None,
    ) -> None:
        """Draw everything from the seed.

        Args:
            given_norm_dim: what the layer is told, where that is not the axis that it has.
        """
        self.rank, self.alpha, self.norm_dim, self.dtype = rank, alpha, norm_dim, dtype
        self.seed = seed
        self.leading: tuple[int, ...] = (2, 3)  # dimensions of x
        self.scaling = alpha / rank
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.weight = draw(out_features, in_features)
        self.bias = draw(out_features) if bias else None
        self.lora_A = draw(rank, in_features)
        self.lora_B = draw(out_features, rank)
        self.magnitude = self.start_magnitude() * (1.5 + draw(*self.start_magnitude().shape).abs())
        flat = self.magnitude.view(-1)
        flat[0], flat[1] = -flat[0], 0.0
        self.x = self.all_of_x = draw(2, 3, in_features)
        self.output_weights = draw(2, 3, out_features)
        self.given = {"rank": rank, "alpha": alpha}  # None of it where the defaults are looked at
        self.given_norm_dim = norm_dim if given_norm_dim is None else given_norm_dim
        if self.given_norm_dim != 1:
            self.given["norm_dim"] = self.given_norm_dim

    def __str__(self) -> str:
        out_features, in_features = self.weight.shape
        return (
            f"{in_features} → {out_features}, rank {self.rank}, alpha {self.alpha:g}, "
            f"{'bias' if self.bias is not None else 'no bias'}, {self.dtype}"
        )

    def other(self) -> "Case":
        """Return a case of other sizes, rank and alpha, with a bias where this one has none.

        An explanation of both outputs is not a coincidence of one case's numbers.
        """
        out_features, in_features = self.weight.shape
        in_features, out_features = in_features + 3, out_features + 1
        rank = self.rank + 1 if self.rank < out_features - 1 else self.rank - 1
        other = Case(
            in_features + (in_features == out_features),
            out_features,
            rank,
            2 * rank + 1.3,  # so that alpha / rank is neither whole nor near 1
            self.bias is None,
            self.norm_dim,
            self.dtype,
            self.seed + 1000,
            self.given_norm_dim,
        )
        return other if self.leading == other.leading else other.shaped(*self.leading)

    def by_default(self) -> "Case":
        """Return a case that is given no rank, no alpha, no dropout and no norm_dim."""
        case = Case(11, 9, 8, 16.0, dtype=self.dtype, seed=self.seed + 2000)
        case.given = {}
        return case

    def shaped(self, *leading: int) -> "Case":
        """Return this case with x, and what weighs outputs, in other leading dimensions.

        Without any, x is one vector.
        """
        changed = copy.copy(self)
        for name in ("x", "output_weights"):
            value = getattr(self, name)
            value = value if leading else value[0, 0]
            setattr(changed, name, value.reshape(*leading, value.shape[-1]))
        changed.leading = leading
        return changed

    def along(self, norm_dim: int, given: int) -> "Case":
        """Return a case of the same sizes with this norm_dim, where the layer is told another."""
        out_features, in_features = self.weight.shape
        bias = self.bias is not None
        sizes = (in_features, out_features, self.rank, self.alpha, bias)
        case = Case(*sizes, norm_dim, self.dtype, self.seed, given)
        return case if self.leading == case.leading else case.shaped(*self.leading)

    def at_start(self) -> "Case":
        """Return this case before training."""
        start = self.without_update()
        start.magnitude = self.start_magnitude()
        return start

    def without_update(self) -> "Case":
        """Return this case with a lora_B of zeros, and a magnitude that was trained."""
        reset = copy.copy(self)
        reset.lora_B = torch.zeros_like(self.lora_B)
        return reset

    def with_zero_vector(self) -> "Case":
        """Return this case with a row of zeros (norm_dim=1) or a column of zeros in the weight.

        Another is short: longer than what keeps from dividing by zero, and shorter than what is
        also used for it, such as 0.01.
        """
        changed = copy.copy(self)
        changed.weight = self.weight.clone()
        short = changed.weight.select(1 - self.norm_dim, 1)
        short *= 5e-3 / short.norm()
        changed.weight.select(1 - self.norm_dim, 2).zero_()
        return changed

    def inputs(self) -> dict[str, Tensor]:
        """Return inputs of every shape that a layer takes."""
        flat = self.all_of_x.flatten(0, 1)
        return {
            "of shape (2, 3, in)": self.all_of_x,
            "that is a batch of vectors": flat,
            "that is one vector": flat[0],
            "that is a batch of one": flat[:1],
            "that is an empty batch": flat[:0],
            "with four dimensions": self.all_of_x[:, None],
        }

    def update(self, scaling: float | None = None) -> Tensor:
        """Return `scaling * B A`."""
        return (self.scaling if scaling is None else scaling) * (self.lora_B @ self.lora_A)

    def start_magnitude(self) -> Tensor:
        return self.length(self.weight)

    def length(self, matrix: Tensor) -> Tensor:
        return matrix.norm(dim=self.norm_dim, keepdim=True)

    def factor(self) -> Tensor:
        """Return `m / ||V||`."""
        return self.magnitude / self.length(self.weight + self.update()).clamp_min(1e-8)

    def scalings(self) -> Iterator[tuple[float, Mistake]]:
        """Yield the scaling as each known mistake makes it."""
        yield 1.0, SCALING_LEFT_OUT
        yield self.scaling**2, SCALING_TWICE
        yield self.alpha, SCALING_OTHER
        yield self.alpha / math.sqrt(self.rank), SCALING_OTHER
        for size in self.weight.shape:
            yield self.alpha / size, SCALING_OTHER
        yield self.alpha * self.rank, SCALING_MULTIPLIED
        yield self.rank / self.alpha, SCALING_UPSIDE_DOWN
        yield 1 / self.rank, ALPHA_LEFT_OUT
        yield float(self.alpha // self.rank), SCALING_WHOLE
        yield 2.0, SCALING_FIXED
        yield -self.scaling, UPDATE_SUBTRACTED
        yield 2 * self.scaling, UPDATE_TWICE

    def scaling_that_gives(self, weight: Tensor, method: str) -> float | None:
        """Return the scaling with which a layer that is right but for it has this `W'`, if any."""
        kept, added = self.shares(weight)
        if method == "lora":
            kept = torch.ones_like(kept)
        largest = kept.abs().argmax()  # a vector whose magnitude is zero does not tell
        scaling = (added[largest] / kept[largest]).item()
        if not math.isfinite(scaling) or not close(weight, self.merged(method, scaling)):
            return None
        return scaling

    def shares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what multiplies W0, and what multiplies B A, in each vector of a weight."""
        parts = torch.stack([self.weight, self.update(1.0)], dim=-1).double()  # (out, in, 2)
        wanted = weight.double()[..., None]
        if self.norm_dim == 0:
            parts, wanted = parts.transpose(0, 1), wanted.transpose(0, 1)
        kept, added = torch.linalg.lstsq(parts, wanted).solution.squeeze(-1).unbind(-1)
        return kept, added

    def scaled(self, scaling: float) -> "Case":
        """Return this case with another scaling, as a wrong layer has it."""
        changed = copy.copy(self)
        changed.scaling = scaling
        return changed

    def merged(self, method: str, scaling: float | None = None) -> Tensor:
        """Return `W'` of a right layer; with another scaling, that of a wrong one."""
        updated = self.weight + self.update(scaling)
        if method == "lora":
            return updated
        return self.magnitude * updated / self.length(updated).clamp_min(1e-8)

    def wrong_weights(self, method: str) -> Iterator[tuple[Tensor, Mistake]]:
        """Yield `W'` as each known mistake would make it; as many for every case."""
        if method == "dora":
            update, m, start = self.update(), self.magnitude, self.start_magnitude()
            updated = self.weight + update
            length, start = (n.clamp_min(1e-8) for n in (self.length(updated), start))
            across = updated.norm(dim=1 - self.norm_dim, keepdim=True).clamp_min(1e-8)
            on_direction = self.weight / start + update
            yield m * updated, NO_NORMALISATION
            yield m * updated * length, MULTIPLIED_BY_NORM
            yield m * (self.weight + self.scaling * update) / length, SCALING_TWICE
            yield m * (self.weight + update / self.scaling) / length, SCALING_LEFT_OUT
            yield m * updated / across, WRONG_AXIS
            yield m * updated / start, NORM_OF_BASE
            unscaled = self.length(self.weight + update / self.scaling).clamp_min(1e-8)
            yield m * updated / unscaled, NORM_UNSCALED
            yield m * updated / length**2, NOT_A_LENGTH
            yield (
                m * updated / updated.abs().sum(self.norm_dim, keepdim=True).clamp_min(1e-8),
                NOT_A_LENGTH,
            )
            yield (
                m * updated / updated.abs().amax(self.norm_dim, keepdim=True).clamp_min(1e-8),
                NOT_A_LENGTH,
            )
            yield m * updated / updated.norm(), WHOLE_NORM
            yield m * updated / updated.norm(p=self.norm_dim), DIM_AS_P
            yield m.abs() * updated / length, POSITIVE_MAGNITUDE
            yield m.clamp_min(0) * updated / length, POSITIVE_MAGNITUDE
            yield from ((w, MAGNITUDE_UNUSED) for w in (start * updated / length, updated))
            yield updated / length, MAGNITUDE_UNUSED
            twice = self.length(self.weight + self.scaling * update).clamp_min(1e-8)
            yield m * updated / twice, NORM_SCALED_TWICE
            yield m * start * updated / length, MAGNITUDE_RELATIVE
            yield (start + m) * updated / length, MAGNITUDE_ADDED
            yield (1 + m) * updated / length, MAGNITUDE_ADDED
            yield m * self.weight / start, UPDATE_LEFT_OUT
            yield m * on_direction, UPDATE_ON_DIRECTION
            yield m * on_direction / self.length(on_direction).clamp_min(1e-8), UPDATE_ON_DIRECTION
            yield m * self.weight / start + update, UPDATE_OUTSIDE
            yield m * self.weight / length + update, UPDATE_OUTSIDE
            yield self.weight + m * update / self.length(update), NORMALISED_UPDATE
            of_update = update / self.length(update).clamp_min(1e-8)
            two = self.weight / start + of_update
            yield m * two, TWO_NORMS
            yield m * two / self.length(two).clamp_min(1e-8), TWO_NORMS
            factors = (F.normalize(factor, dim=1) for factor in (self.lora_B, self.lora_A))
            normalised = self.weight + self.scaling * torch.matmul(*factors)
            yield m * normalised / self.length(normalised).clamp_min(1e-8), NORMALISED_FACTORS
            yield m**2 * updated / length, MAGNITUDE_CHANGED
            yield m * update / self.length(update), FROZEN_LEFT_OUT
            yield self.weight + m * update / length, FACTOR_ON_UPDATE
            yield m * updated / self.length(update).clamp_min(1e-8), NORM_OF_UPDATE
            yield m.exp() * updated / length, LOGARITHM
            for eps in (1e-2, 0.1, 1.0):
                yield m * updated / (self.length(updated) + eps), ANOTHER_EPS
                yield m * updated / self.length(updated).clamp_min(eps), ANOTHER_EPS
        else:
            yield self.update(), FROZEN_LEFT_OUT
        for scaling, mistake in self.scalings():
            yield self.merged(method, scaling), mistake
        yield self.weight, UPDATE_LEFT_OUT

    def wrong_layers(self, method: str) -> Iterator[tuple[Tensor, Tensor | None, Mistake]]:
        """Yield weight and bias as each known mistake would make them; as many for every case."""
        right, bias = self.merged(method), self.bias
        # Where a mistake changes nothing, a lost bias is another one.
        nowhere = None if bias is None else torch.full_like(bias, torch.inf)
        for weight, mistake in self.wrong_weights(method):
            yield weight, bias, mistake
            yield weight, nowhere if close(weight, right) else None, mistake
        twice = None if bias is None else 2 * bias
        yield self.weight + right, twice, FROZEN_TWICE
        yield self.weight + right, bias, FROZEN_TWICE
        for scaled in (self.scaling * right, self.scaling * self.merged(method, 1.0)):
            yield scaled, None if bias is None else self.scaling * bias, FROZEN_SCALED
            yield scaled, bias, FROZEN_SCALED
        yield right, None, BIAS_LOST
        yield right, twice, BIAS_TWICE
        if method == "dora" and self.norm_dim == 1:
            scaled = None if bias is None else self.factor().flatten() * bias
            yield right, scaled, BIAS_SCALED


def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)
