"""Split a weight into magnitude and direction, and measure how far training moved each.

Throughout the lab a weight has PyTorch's layout, `(out_features, in_features)`: row `i` holds
what output neuron `i` multiplies its inputs with. `norm_dim` names the dimension that a norm
sums over, as in `weight.norm(dim=norm_dim)`:

- `norm_dim=1`: one magnitude per output neuron, shape `(out_features, 1)`. The authors' code
  and PEFT do this.
- `norm_dim=0`: one magnitude per input feature, shape `(1, in_features)`.

The paper (Liu et al., 2024, arXiv 2402.09353) writes "column-wise norm" because its figures
draw W as (in, out). Its columns are PyTorch's rows, so `norm_dim=1` is the paper's meaning.
"""

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor


def decompose(weight: Tensor, norm_dim: int = 1, eps: float = 1e-8) -> tuple[Tensor, Tensor]:
    """Split a weight into lengths and unit vectors: `weight == magnitude * direction` (eq. 2).

    Args:
        weight: `(out_features, in_features)`.
        norm_dim: 1 for one magnitude per output neuron, 0 for one per input feature.
        eps: the smallest length to divide by. A vector of zeros has no direction: its
            magnitude is 0 and its direction stays all zeros.

    Returns:
        `magnitude`, of shape `(out_features, 1)` or `(1, in_features)`, and `direction`, of the
        shape of `weight`; both in the dtype of `weight`.

    Raises:
        ValueError: `weight` is not a matrix, or `norm_dim` is neither 0 nor 1.
    """
    _check_matrix("weight", weight)
    check_norm_dim(norm_dim)
    # In float16 the square of a small weight is 0 and that of a large one infinite.
    vectors = exact(weight)
    magnitude = torch.linalg.vector_norm(vectors, dim=norm_dim, keepdim=True)
    direction = vectors / magnitude.clamp_min(eps)
    return magnitude.to(weight.dtype), direction.to(weight.dtype)


def recompose(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Put a weight together again: the inverse of `decompose`.

    Args:
        magnitude: `(out_features, 1)` or `(1, in_features)`.
        direction: `(out_features, in_features)`.

    Returns:
        The weight, `(out_features, in_features)`.

    Raises:
        ValueError: the shapes do not belong together.
    """
    _check_matrix("direction", direction)
    out_features, in_features = direction.shape
    if magnitude.shape not in {(out_features, 1), (1, in_features)}:
        raise ValueError(
            f"magnitude has shape {tuple(magnitude.shape)}; for a direction of shape "
            f"{(out_features, in_features)} it must be {(out_features, 1)} (norm_dim=1) or "
            f"{(1, in_features)} (norm_dim=0)"
        )
    return magnitude * direction


def magnitude_change(before: Tensor, after: Tensor, norm_dim: int = 1) -> float:
    """The paper's delta M (eq. 3): the mean absolute change of length over a weight's vectors.

    Args:
        before, after: the weight before and after training, `(out_features, in_features)`. For
            an adapter, `after` is the merged weight.
        norm_dim: 1 for one vector per output neuron, 0 for one per input feature.

    Returns:
        The mean of `| ||after_i|| - ||before_i|| |`: 0 or more, in the unit of the weights.

    Raises:
        ValueError: the shapes differ or are not those of matrices, or `norm_dim` is not 0 or 1.
    """
    before, after = _exact_pair(before, after)
    length_before, _ = decompose(before, norm_dim)
    length_after, _ = decompose(after, norm_dim)
    return (length_after - length_before).abs().mean().item()


def direction_change(before: Tensor, after: Tensor, norm_dim: int = 1) -> float:
    """The paper's delta D (eq. 4): the mean turn of the vectors of a weight.

    Args:
        before, after: the weight before and after training, `(out_features, in_features)`. For
            an adapter, `after` is the merged weight.
        norm_dim: 1 for one vector per output neuron, 0 for one per input feature.

    Returns:
        The mean of `1 - cos(after_i, before_i)`: 0 if no vector turned, 2 if all were reversed.
        A vector of zeros, before or after, has no direction and counts as a right angle (1).

    Raises:
        ValueError: the shapes differ or are not those of matrices, or `norm_dim` is not 0 or 1.
    """
    before, after = _exact_pair(before, after)
    _, direction_before = decompose(before, norm_dim)
    _, direction_after = decompose(after, norm_dim)
    cosine = (direction_before * direction_after).sum(dim=norm_dim)
    return (1 - cosine).mean().item()


def magnitude_share(before: Tensor, after: Tensor, norm_dim: int = 1) -> float:
    """Return how much of the change of a weight is change of length, the rest being turns.

    By the law of cosines a vector of length m that becomes one of length m', turned by an angle
    t, moves by a distance d with `d^2 = (m' - m)^2 + 2 m m' (1 - cos t)`. The share is the sum
    of the first terms over that of the distances.

    Args:
        before, after, norm_dim: as in `magnitude_change`.

    Returns:
        From 0 (vectors turned only) to 1 (lengths changed only); NaN if nothing changed.

    Raises:
        ValueError: the shapes differ or are not those of matrices, or `norm_dim` is not 0 or 1.
    """
    before, after = _exact_pair(before, after)
    length_before, _ = decompose(before, norm_dim)
    length_after, _ = decompose(after, norm_dim)
    moved = (after - before).square().sum()
    return ((length_after - length_before).square().sum() / moved).item()


def random_update(
    before: Tensor, after: Tensor, generator: torch.Generator, norm_dim: int = 1
) -> Tensor:
    """Return what a weight would be if its vectors had moved as far, in random directions.

    The null model of `magnitude_change` and the other measures: what they say of it, they say of
    any change of that size, regardless of its cause.

    Args:
        before, after, norm_dim: as in `magnitude_change`.
        generator: source of the directions, uniform on the sphere; it must be on the CPU.

    Returns:
        A weight of the shape and dtype of `before`, each vector as far from it as in `after`.

    Raises:
        ValueError: the shapes differ or are not those of matrices, or `norm_dim` is not 0 or 1.
    """
    exact_before, exact_after = _exact_pair(before, after)
    moved, _ = decompose(exact_after - exact_before, norm_dim)
    _, direction = decompose(torch.randn(before.shape, generator=generator), norm_dim)
    return (exact_before + moved * direction.to(exact_before)).to(before.dtype)


def intruders(before: Tensor, after: Tensor, top: int = 10, cosine: float = 0.6) -> int:
    """Return how many of the strongest directions of a trained weight its base did not have.

    A direction is a left singular vector. An intruder is one of the `top` ones of `after` whose
    cosine with every one of `before` is below a threshold. Source: Shuttleworth et al., 2024,
    arXiv 2410.21228, section 3.

    Args:
        before, after: as in `magnitude_change`.
        top: how many of the strongest directions to look at.
        cosine: the threshold, between 0 and 1.

    Returns:
        From 0 to `top`, or to the number of directions if that is smaller.

    Raises:
        ValueError: the shapes differ or are not those of matrices.
        torch.linalg.LinAlgError: a weight contains NaN or infinity.
    """
    base, trained = (
        torch.linalg.svd(weight, full_matrices=False).U for weight in _exact_pair(before, after)
    )
    closest = (base.T @ trained[:, :top]).abs().amax(dim=0)
    return int((closest < cosine).sum())


def coupling(delta_m: Sequence[float], delta_d: Sequence[float]) -> float:
    """Return Pearson's correlation of magnitude changes and direction changes (figure 2).

    Args:
        delta_m, delta_d: one number each for every point, such as a layer at a checkpoint.

    Returns:
        From -1 (where lengths change more, vectors turn less) to 1; NaN if one of the two does
        not vary, or there are fewer than two points.

    Raises:
        ValueError: there are not as many of one as of the other.
    """
    if len(delta_m) != len(delta_d):
        raise ValueError(
            f"delta_m has {len(delta_m)} numbers and delta_d {len(delta_d)}; every point has both"
        )
    # The mean of equal numbers is rounded: their deviations from it need not be zero.
    if len(set(delta_m)) < 2 or len(set(delta_d)) < 2:
        return math.nan
    m, d = (torch.tensor(values, dtype=torch.float64) for values in (delta_m, delta_d))
    m, d = m - m.mean(), d - d.mean()
    return ((m * d).sum() / (m.square().sum() * d.square().sum()).sqrt()).item()


def check_norm_dim(norm_dim: int) -> None:
    """Raise `ValueError` unless `norm_dim` is 0 or 1."""
    whole = isinstance(norm_dim, numbers.Integral) and not isinstance(norm_dim, bool)
    if not whole or norm_dim not in (0, 1):
        raise ValueError(
            f"norm_dim is {norm_dim!r}; it must be 1 (one magnitude per output neuron) or "
            "0 (one per input feature)"
        )


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute norms in: float32 for half precision, else `dtype` itself."""
    return torch.promote_types(dtype, torch.float32)


def exact(tensor: Tensor) -> Tensor:
    """Return a tensor in the dtype to compute norms in, see `at_least_float32`.

    Half precision has three digits: what training changed would be lost in their rounding.
    """
    return tensor.to(at_least_float32(tensor.dtype))


def _check_matrix(name: str, tensor: Tensor) -> None:
    if tensor.ndim != 2:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}; it must have two dimensions, "
            "(out_features, in_features)"
        )


def _exact_pair(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight at two times in float32 or better, as `exact` does.

    Raises:
        ValueError: the shapes differ or are not those of matrices.
    """
    _check_matrix("before", before)
    if before.shape != after.shape:
        raise ValueError(
            f"before has shape {tuple(before.shape)} and after {tuple(after.shape)}; "
            "both must be the same weight at two times"
        )
    return exact(before), exact(after)
