"""What a check asks and says about a value: is it the right one, what is it, how does it differ."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab_utils.questions.odd_tensors import odd_kind

LONGEST = 120  # characters of a student's value in a message


def number(value: Any) -> float | None:
    """Return a value as a float if it is a plain number of Python or NumPy; otherwise None.

    Tensors, truth values, and texts that look like a number are not plain numbers. NaN and
    infinity are numbers.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        return None


def is_plain(value: Any) -> bool:
    """Return whether a value is a tensor of real numbers with all its data: dense, not meta."""
    return isinstance(value, Tensor) and value.is_floating_point() and not odd_kind(value)


def close(
    found: Tensor, expected: Tensor, tolerance: float = 1e-4, scale_dim: int | None = None
) -> bool:
    """Return whether two tensors of any dtypes agree, relative to the size of `expected`.

    The tolerance allows float32 rounding and an epsilon that is added to a norm or clamps it.

    Args:
        scale_dim: the dimension whose entries share a size; all entries do if None.
    """
    if found.shape != expected.shape:
        return False
    found, expected = found.detach().double(), expected.detach().double()
    if not expected.numel():
        return True
    sizes = expected.abs().nan_to_num(posinf=0.0)
    together = scale_dim is None or scale_dim >= expected.ndim
    size = sizes.max() if together else sizes.amax(scale_dim, keepdim=True)
    same = (found == expected) | (found.isnan() & expected.isnan())
    return bool((same | ((found - expected).abs() <= tolerance * (size + sizes))).all())


def near(found: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    """Return whether two numbers, tensors, texts, or sequences or dicts of these, are the same.

    Args:
        tolerance: relative to the number, or to the largest entry of the tensor, that is expected.
    """
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            near(found[key], value, tolerance) for key, value in expected.items()
        )
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(
            near(f, e, tolerance) for f, e in zip(found, expected, strict=True)
        )
    if isinstance(expected, Tensor):
        return is_plain(found) and close(found, expected, tolerance)
    if isinstance(expected, float) and isinstance(found, int | float):
        if math.isnan(expected) or math.isnan(found):
            return math.isnan(expected) and math.isnan(found)
        return math.isclose(found, expected, rel_tol=tolerance, abs_tol=1e-12)
    return bool(found == expected)


def describe(value: Any) -> str:
    """Say what a value of any type is, in a few words.

    Text is marked as such, since `'0.5'` looks like a number, and long results are shortened.
    """
    if value is None:
        return "None (is there a return?)"
    if isinstance(value, Tensor):
        if odd := odd_kind(value):
            details = {"meta tensor": "without numbers", "sparse tensor": value.layout}
            return f"a {odd}, {details.get(odd, value.dtype)}"
        gradient = " with gradient" if value.requires_grad else ""
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}{gradient}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}"
    if isinstance(value, str):
        return f"the text {shown(value)}"
    if isinstance(value, bool):
        return f"the truth value {value}"
    if isinstance(value, int):
        return repr(value)
    if isinstance(value, float):
        return repr(number(value))  # NumPy's repr of a float64 names its type
    name = type(value).__name__
    if isinstance(value, type) or callable(value):
        kind = "class" if isinstance(value, type) else name
        return f"the {kind} {getattr(value, '__name__', '')}".strip()
    kind = f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"
    if isinstance(value, list | tuple | dict | set):
        return f"{kind} of {len(value)}{_items(value)}"
    return kind


def _items(value: list | tuple | dict | set) -> str:
    """Say what is in a collection: its values, or their kinds if these are not short."""
    if not value:
        return ""
    items = list(value.values() if isinstance(value, dict) else value)
    if not all(isinstance(item, str | numbers.Number | None) for item in items):
        kinds = dict.fromkeys(type(item).__name__ for item in items)
        return f" ({', '.join(list(kinds)[:4])})"
    return f", {shown(value)}"


def shown(value: Any, longest: int = LONGEST) -> str:
    """Return the text of a value, in one line, cut if it is long."""
    text = " ".join(text_of(value).split())
    return text if len(text) <= longest else f"{text[: longest - 2]} …"


def text_of(value: Any) -> str:
    """Return the `repr` of a value, or why there is none: that of a student's class may fail."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def listed(values: Sequence[Any], longest: int = 3) -> str:
    """Return the first few values, and how many more there are."""
    first = ", ".join(map(str, values[:longest]))
    return first if len(values) <= longest else f"{first} and {len(values) - longest} more"


def differ(found: Tensor, expected: Tensor, scale_dim: int | None = None) -> str:
    """Say how two tensors differ: in kind, in shape, or in the value that is furthest off.

    Args:
        scale_dim: the dimension whose entries share a size, as in `close`.
    """
    if odd_kind(found):
        return f"expected a tensor of {expected.dtype}, found {describe(found)}"
    if found.shape != expected.shape:
        return f"expected shape {tuple(expected.shape)}, found {tuple(found.shape)}"
    kind = found.dtype
    found, expected = found.detach().double(), expected.detach().double()
    if expected.isfinite().all() and not found.isfinite().all():
        count = int((~found.isfinite()).sum())
        return f"expected finite numbers, found NaN or infinity in {count} of {found.numel()}"
    gap = (found - expected).abs().nan_to_num(nan=math.inf)
    if scale_dim is not None:
        gap = gap / expected.abs().amax(scale_dim, keepdim=True).clamp_min(1e-30)
    index = largest_at(gap)
    place = f" at index {index}" if index else ""
    # Too few digits, or none after the point, are the reason more often than not.
    odd = "" if kind in (torch.float32, torch.float64) else f" (it is {kind})"
    return f"{apart(expected[index].item(), found[index].item(), place)}{odd}"


def apart(expected: float, found: float, place: str = "") -> str:
    """Say that two numbers differ, with enough digits to show it.

    Args:
        place: where they are, such as `" at index (0, 1)"`.
    """
    for digits in range(4, 18):
        one, other = f"{expected:.{digits}g}", f"{found:.{digits}g}"
        if one != other:
            return f"expected {one}{place}, found {other}"
    return f"expected {expected!r}{place}, found {found!r}"


def largest_at(values: Tensor) -> tuple[int, ...]:
    """Return the index of the largest value."""
    # torch.unravel_index would import SymPy, for a second.
    return tuple(int(i) for i in np.unravel_index(values.argmax().item(), values.shape))
