"""`lab_utils.decomposition`: the mathematics on plain tensors."""

import math

import pytest
import torch

from lab_utils.decomposition import (
    decompose,
    direction_change,
    magnitude_change,
    recompose,
)


@pytest.mark.parametrize(("norm_dim", "shape"), [(1, (3, 1)), (0, (1, 5))])
def test_recompose_inverts_decompose(norm_dim, shape):
    weight = torch.randn(3, 5, dtype=torch.float64)
    magnitude, direction = decompose(weight, norm_dim)
    assert magnitude.shape == shape
    torch.testing.assert_close(
        direction.norm(dim=norm_dim), torch.ones(max(shape), dtype=torch.float64)
    )
    torch.testing.assert_close(recompose(magnitude, direction), weight)


def test_decompose_by_hand():
    weight = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    magnitude, direction = decompose(weight)
    assert magnitude.tolist() == [[5.0], [2.0]]
    torch.testing.assert_close(direction, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    magnitude, _ = decompose(weight, norm_dim=0)
    torch.testing.assert_close(magnitude, torch.tensor([[3.0, math.sqrt(20)]]))


@pytest.mark.parametrize("norm_dim", [0, 1])
def test_zero_vectors_stay_zero(norm_dim):
    magnitude, direction = decompose(torch.zeros(3, 5), norm_dim)
    assert magnitude.count_nonzero() == 0
    assert direction.count_nonzero() == 0


def test_half_precision_norms_neither_vanish_nor_overflow():
    for value in (1e-4, 1e3):  # their squares are 0 and infinity in float16
        magnitude, _ = decompose(torch.full((2, 4), value, dtype=torch.float16))
        assert magnitude.dtype == torch.float16
        torch.testing.assert_close(
            magnitude.float(), torch.full((2, 1), 2 * value), rtol=2e-3, atol=0
        )


def test_changes_by_hand():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    after = torch.tensor([[0.0, 3.0], [0.0, 1.0]])  # turned by 90 degrees and +2; same way and -1
    assert magnitude_change(before, after) == pytest.approx(1.5)
    assert direction_change(before, after) == pytest.approx(0.5)
    assert direction_change(before, -before) == pytest.approx(2.0)
    assert direction_change(before, 7 * before) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: decompose(torch.ones(3)), "weight has shape (3,)"),
        (lambda: decompose(torch.ones(2, 3), norm_dim=2), "norm_dim is 2"),
        (lambda: recompose(torch.ones(3), torch.ones(2, 3)), "magnitude has shape (3,)"),
        (lambda: recompose(torch.ones(3, 1), torch.ones(2, 3)), "it must be (2, 1) (norm_dim=1)"),
        (lambda: magnitude_change(torch.ones(2, 3), torch.ones(3, 2)), "before has shape (2, 3)"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError) as raised:
        call()
    assert words in str(raised.value)
