"""What a check says about a value is short, whatever the value is."""

import numpy as np
import pytest
import torch

from lab_utils.checks.values import LONGEST, close, describe, differ, near


class Odd(list):
    pass


class Raises:
    def __repr__(self):
        raise ValueError("no")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None (is there a return?)"),
        (True, "the truth value True"),
        (3, "3"),
        (np.float64(0.5), "0.5"),
        ("0.5", "the text '0.5'"),
        (torch.zeros(2, 3), "a tensor of shape (2, 3) and torch.float32"),
        (torch.zeros(2, device="meta"), "a meta tensor, without numbers"),
        (torch.eye(2).to_sparse(), "a sparse tensor, torch.sparse_coo"),
        (np.zeros(3), "a NumPy array of shape (3,)"),
        ([1, 2.5], "a list of 2, [1, 2.5]"),
        ((torch.zeros(2), None), "a tuple of 2 (Tensor, NoneType)"),
        ([[1.0, 2.0]], "a list of 1 (list)"),
        ([Raises()], "a list of 1 (Raises)"),
        (Odd([1]), "an Odd of 1, [1]"),
        ({}, "a dict of 0"),
        (Raises, "the class Raises"),
        (len, "the builtin_function_or_method len"),
        (Raises(), "a Raises"),
    ],
)
def test_what_a_value_is(value, said):
    assert describe(value) == said


@pytest.mark.parametrize("value", ["a\nb" * 1000, list(range(10_000)), {"a" * 1000: 1}])
def test_a_long_value_is_one_short_line(value):
    assert "\n" not in describe(value) and len(describe(value)) < LONGEST + 40


SAME = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (SAME[0], "expected shape (2, 2), found (2,)"),
        (SAME + torch.eye(2), "expected 1 at index (0, 0), found 2"),
        (SAME + 1e-5, "expected 1 at index (0, 0), found 1.00001"),
        (SAME.int() + 1, "expected 1 at index (0, 0), found 2 (it is torch.int32)"),
        (SAME.int(), "expected 1.0 at index (0, 0), found 1.0 (it is torch.int32)"),
        (SAME / 0, "expected finite numbers, found NaN or infinity in 4 of 4"),
        (SAME.to_sparse(), "expected a tensor of torch.float32, found a sparse tensor, "),
    ],
)
def test_how_a_tensor_differs(found, said):
    assert differ(found, SAME).startswith(said)


def test_a_tensor_is_near_what_it_is_close_to_if_it_is_plain():
    assert close(SAME.int(), SAME) and not near(SAME.int(), SAME)
    assert close(SAME * (1 + 1e-5), SAME) and not near(SAME * (1 + 1e-5), SAME)
    assert near(SAME * (1 + 1e-5), SAME, 1e-5)
    odd = torch.tensor([1.0, torch.inf, torch.nan])
    assert near(odd, odd) and not near(odd, odd.nan_to_num())
