"""`lab_utils.decomposition`: the mathematics on plain tensors."""

import math

import pytest
import torch

from lab_utils.decomposition import (
    decompose,
    direction_change,
    intruders,
    magnitude_change,
    magnitude_share,
    random_update,
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_changes_of_half_precision_weights_are_measured_exactly(dtype):
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(16, 64, generator=generator).to(dtype)
    after = (before + 0.05 * torch.randn(16, 64, generator=generator)).to(dtype)
    for measure in (magnitude_change, direction_change, magnitude_share, intruders):
        assert measure(before, after) == measure(before.float(), after.float()), measure
    assert direction_change(before, before) == pytest.approx(0, abs=1e-6)
    random = random_update(before, after, generator)
    assert random.dtype == dtype
    moved = direction_change(before, random) / direction_change(before, after)
    assert moved == pytest.approx(1, abs=0.2), "as far, in a space of 64 dimensions"


def test_changes_by_hand():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    after = torch.tensor([[0.0, 3.0], [0.0, 1.0]])  # turned by 90 degrees and +2; same way and -1
    assert magnitude_change(before, after) == pytest.approx(1.5)
    assert direction_change(before, after) == pytest.approx(0.5)
    assert direction_change(before, -before) == pytest.approx(2.0)
    assert direction_change(before, 7 * before) == pytest.approx(0.0)


def test_the_squared_change_is_that_of_the_length_and_that_of_the_turn():
    before, after = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])  # d^2 = 25
    assert magnitude_share(before, after) == pytest.approx(1 / 25)
    assert magnitude_share(before, 2 * before) == pytest.approx(1.0)
    assert math.isnan(magnitude_share(before, before))


@pytest.mark.parametrize("norm_dim", [0, 1])
def test_a_random_update_moves_each_vector_as_far_and_elsewhere(norm_dim):
    before, after = torch.randn(2, 6, 9)
    random = random_update(before, after, torch.Generator().manual_seed(0), norm_dim)
    far = [(w - before).norm(dim=norm_dim) for w in (after, random)]
    torch.testing.assert_close(far[1], far[0])
    assert not torch.allclose(random, after, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_an_intruder_is_a_strong_direction_that_the_base_did_not_have(dtype):
    before = torch.zeros(6, 4, dtype=dtype)
    before[:3, :3] = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=dtype))
    before[3, 3] = 0.5
    after = before.clone()
    after[5, 3] = 9.0  # the last output, which no direction of the base reaches
    assert intruders(before, before, top=4) == 0
    assert intruders(before, after, top=1) == 1
    assert intruders(before, after, top=4) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: decompose(torch.ones(3)), "weight has shape (3,)"),
        (lambda: decompose(torch.ones(2, 3), norm_dim=2), "norm_dim is 2"),
        (lambda: decompose(torch.ones(2, 3), norm_dim=True), "norm_dim is True"),
        (lambda: decompose(torch.ones(2, 3), norm_dim=1.0), "norm_dim is 1.0"),
        (lambda: magnitude_change(torch.ones(3), torch.ones(3)), "before has shape (3,)"),
        (lambda: intruders(torch.ones(3), torch.ones(3)), "before has shape (3,)"),
        (lambda: recompose(torch.ones(3), torch.ones(2, 3)), "magnitude has shape (3,)"),
        (lambda: recompose(torch.ones(3, 1), torch.ones(2, 3)), "it must be (2, 1) (norm_dim=1)"),
        (lambda: magnitude_change(torch.ones(2, 3), torch.ones(3, 2)), "before has shape (2, 3)"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError) as raised:
        call()
    assert words in str(raised.value)
