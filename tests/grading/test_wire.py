"""Values on the wire come back as they were, and nothing else does."""

import numpy as np
import pytest
import safetensors.torch
import torch

from lab_grader.wire.values import Unknown, pack, unpack
from lab_utils.checks.diagnosis import other_kind


def there_and_back(value):
    return unpack(pack(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.5,
        float("inf"),
        "te'xt\"\\n",
        [],
        (1, (2, "x")),
        {"a": [1], 2: (None,)},
        10**30,
    ],
)
def test_plain_values(value):
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)])
def test_tensors(dtype, shape):
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    found = there_and_back({"t": tensor, "view": tensor.mT if tensor.ndim > 1 else tensor})
    assert found["t"].dtype == dtype
    assert torch.equal(found["t"], tensor)
    assert found["view"].shape == (tensor.mT if tensor.ndim > 1 else tensor).shape


def test_nan_and_gradients_stay():
    parameter = torch.nn.Parameter(torch.tensor([1.0, float("nan")]))
    found = there_and_back(parameter)
    assert found.requires_grad
    assert found.isnan().tolist() == [False, True]


def test_numpy_values_keep_their_types():
    found = there_and_back([np.float32(0.5), np.int64(3), np.arange(3)])
    assert [type(value) for value in found] == [np.float32, np.int64, np.ndarray]


def test_other_types_show_as_they_would():
    class Thing:
        def __repr__(self):
            return "a thing"

    found = there_and_back([Thing()])[0]
    assert isinstance(found, Unknown)
    assert (type(found).__name__, repr(found)) == ("Thing", "a thing")
    assert type(there_and_back(torch.Size([2, 3]))) is tuple


def test_a_function_does_not_travel():
    assert isinstance(there_and_back(print), Unknown)
    assert isinstance(there_and_back(text_with), Unknown)


def endless():
    value = []
    value.append(value)
    return value


class Mute:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
        np.longdouble(1.5),
        np.array(["a", "b"]),
        1 + 2j,
        Mute(),
        endless(),
        {Mute: Mute()},
        range(3),
        {1, 2},
        b"bytes",
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_any_type_arrives_as_something(value):
    found = unpack(pack({"result": value}))
    assert set(found) == {"result"}


def text_with(tree, arrays=None):
    """A message with any text in place of its JSON, and any bytes in that of its arrays."""
    arrays = safetensors.torch.save({}) if arrays is None else arrays
    return len(tree).to_bytes(8) + tree.encode() + arrays


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"7 bytes",
        bytes(8),
        bytes(100),
        b"\xff" * 100,
        text_with("1")[:8],
        text_with("12")[:9],
        text_with("1") + b"1",
        text_with("1").replace(b"1", b"\xe4"),
        text_with("{"),
        text_with("[1]"),
        text_with('{"tensor": ["0", false]}'),
        text_with('{"dtype": "load"}'),
        text_with('{"dtype": "nothing"}'),
        text_with('{"a": 1, "b": 2}'),
        text_with('{"pickle": "gASVAAAA"}'),
        text_with('{"dict": [[{"list": []}, 1]]}'),
        text_with('{"list": [' * 5000 + "]}" * 5000),
        text_with("1", b"\xff" * 8),
        text_with("1", b"PK\x03\x04" + bytes(100)),
        text_with("9" * 5000),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="not"):
        unpack(text)


@pytest.mark.parametrize(
    "value",
    [
        *((i for i in "a"), len, Mute, "".join, lambda: 1, {1}, frozenset({1}), True, None, 1, "a"),
        *(np.array(["a"]), np.ma.array([1]), np.complex64(1), np.float32(1), {"a": 1}, [1], (1,)),
        *(torch.ones(2, device="meta"), torch.ones(2).to_sparse(), torch.ones(2) * 1j),
        torch.nn.Parameter(torch.ones(1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_value_is_called_is_the_same_on_both_sides(value):
    here = other_kind(value, "a pair", "a section")
    there = other_kind(there_and_back(value), "a pair", "a section")
    assert here is not None and there == here
