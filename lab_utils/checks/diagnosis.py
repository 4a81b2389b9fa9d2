"""Which mistake explains a value that is not the right one.

A mistake is named only if it explains every case that was asked about, and no other mistake does.
"""

import itertools
import math
import re
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lab_utils.checks.report import Mistake, Report
from lab_utils.checks.values import describe, listed, near, number, text_of
from lab_utils.questions import odd_tensors
from lab_utils.questions.odd_tensors import odd_kind

CLOSE_RESULTS = 1e-5  # relative: allows for rounding in float32


def nothing_returned(value: Any, section: str) -> Mistake | None:
    """Return the mistake of a missing return, if the value is None."""
    if value is not None:
        return None
    return Mistake("nothing returned", "The function needs a return.", section)


def returned_kind(value: Any, wanted: str, section: str) -> Mistake | None:
    """Return what is wrong with the kind of value that was returned, if it is a common mistake."""
    return nothing_returned(value, section) or other_kind(value, wanted, section)


def other_kind(value: Any, wanted: str, section: str) -> Mistake | None:
    """Return the mistake of giving another kind of value than is asked for, if it is common.

    Args:
        wanted: what is asked for, as the mistake's name has it: "a tensor", "a number".
    """
    kind = next((name for name, is_one in KINDS.items() if is_one(value)), None)
    if kind is None or kind in (wanted, *ALSO.get(wanted, ())):
        return None
    advice = ADVICE.get((kind, wanted)) or ADVICE.get((kind, ""), f"Return {wanted}.")
    return Mistake(f"{kind}, not {wanted}", advice, section)


def _is(*kinds: type) -> Callable[[Any], bool]:
    """Ask for some types, or for what stands in for them: in grading, a value that cannot travel
    comes as one of a type that has the name of the student's."""
    names = {kind.__name__ for kind in kinds}
    return lambda value: isinstance(value, kinds) or type(value).__name__ in names


def _is_odd(kind: str) -> Callable[[Any], bool]:
    return lambda value: (
        odd_kind(value) == kind if isinstance(value, Tensor) else type(value).__name__ == kind
    )


# What people often return instead; the first that fits is named.
KINDS: dict[str, Callable[[Any], bool]] = {
    "None": _is(type(None)),
    **{f"a {kind}": _is_odd(kind) for kind in odd_tensors.KINDS},
    "a tensor": _is(Tensor),
    "a NumPy array": _is(np.ndarray),
    "a NumPy number": _is(np.generic, np.complex64, np.complex128),
    "a truth value": _is(bool),
    "a text": _is(str),
    "a whole number": _is(int),
    "a float": _is(float),
    "a list": _is(list),
    "a tuple": _is(tuple),
    "a dict": _is(dict),
    "a set": _is(set, frozenset),
    "a generator": _is(types.GeneratorType),
    "a function": _is(types.FunctionType, types.BuiltinFunctionType, types.MethodType, type),
}
ALSO = {"a number": ("a NumPy number", "a whole number", "a float")}  # what is one, too
ITEM = ".item() makes a plain number of a tensor that has one."
ADVICE = {
    ("a tensor", "a float"): ITEM,
    ("a tensor", "an int"): ITEM,
    ("a tensor", "a number"): ITEM,
    ("a NumPy array", "a float"): ".item() makes a plain number of an array that has one.",
    ("a NumPy array", "a tensor"): "torch.from_numpy makes a tensor of it.",
    ("a NumPy number", "a float"): "float(...) makes a plain number of it.",
    ("a NumPy number", "an int"): "int(...) makes a plain number of it.",
    ("a float", "an int"): "Sizes are whole numbers, and so are their sums and products.",
    ("a whole number", "a float"): "int(...) cuts off what follows the point.",
    ("a meta tensor", ""): "It has a shape and no numbers: leave out device='meta'.",
    ("a quantised tensor", ""): "Return the numbers as they are: leave out quantize_per_tensor.",
    ("a sparse tensor", ""): ".to_dense() makes a plain tensor of it.",
    ("a complex tensor", ""): "Weights are real numbers, and so is what is computed from them.",
    ("a text", ""): "Return the value itself; format what you print.",
    ("a truth value", ""): "Return the value itself, not what holds of it.",
    ("a function", ""): "Call it, with brackets: it is not called yet.",
    ("a generator", ""): "A function with yield makes one: write return.",
}

# Errors of PyTorch and NumPy that say which mistake it is, by what their texts hold.
MISFITS = {
    r"shapes cannot be multiplied|size mismatch|Expected size for first two dimensions|"
    r"inconsistent tensor size": (
        "a matrix product that does not fit",
        "Of two factors the last size of the first is the first size of the second. A matrix is "
        "not transposed (F.linear(x, weight) is x @ weight.T), two stand in the wrong order, or @ "
        "stands in place of *. Print both shapes.",
    ),
    r"The size of tensor a \(\d+\) must match|must match the existing size|"
    r"is invalid for input of size|doesn't match the broadcast shape": (
        "shapes that do not fit",
        "Often a sum, mean or norm has lost its dimension, for lack of keepdim=True, or is taken "
        "over the other one. Print both shapes.",
    ),
    r"expected sequence of length|inhomogeneous shape|array element with a sequence|"
    r"stack expects each tensor to be equal size": (
        "one tensor of rows that differ in length",
        "A tensor, like an array, has one length for all of its rows: take them one by one.",
    ),
    r"backward through the graph a second time": (
        "kept from an earlier pass",
        "Something that was computed from the parameters is kept and used again. They have changed "
        "since: compute it again in every pass.",
    ),
    r"raised IndexError\b": (
        "an index out of range",
        "The code counts on more items than there are. Go through them with for, or ask len(...).",
    ),
    r"could not infer output dtype|mean\(\): input dtype": (
        "a mean of truth values",
        "mean() takes fractions: make numbers of them first, .float() or .double().",
    ),
}


def misfit(failure: Exception, section: str) -> Mistake | None:
    """Return the mistake of tensors that do not go together, if that is why code raised."""
    for pattern, (name, why) in MISFITS.items():
        if re.search(pattern, str(failure)):
            return Mistake(name, why, section)
    return None


def expect_numbers(
    report: Report,
    answers: Sequence[Any],
    what: str,
    why: Callable[[Any], Mistake | None],
) -> list[float] | None:
    """Print whether all answers are plain, finite numbers; return them, or None if one is not.

    Args:
        what: the answers are, such as "the scaling".
        why: says which mistake a value is that is not a number.
    """
    found = [number(answer) for answer in answers]
    odd = [a for a, value in zip(answers, found, strict=True) if value is None]
    finite = not odd and all(map(math.isfinite, found))
    report.expect(
        finite,
        f"{what} is a finite number",
        f"expected {what} as a finite float, found {describe(odd[0]) if odd else listed(found)}.",
        why(odd[0]) if odd else None,
    )
    return found if finite else None


def expect_kept(report: Report, given: list[Any], after: list[Any], section: str) -> bool:
    """Print whether a function left its arguments as they were.

    Args:
        given, after: numbers and lists of them, for each call.
    """
    return report.expect(
        text_of(after) == text_of(given),
        "the arguments stay as they are",
        "the lists that were passed in have other values, or another order, after the call.",
        Mistake(
            "in-place change of the argument",
            "Methods such as sort, pop and append change the caller's list: work on a copy, as "
            "sorted makes one.",
            section,
        ),
    )


def only_explanation(
    found: Any,
    mistakes: Iterable[tuple[Mistake, Any]],
    same: Callable[[Any, Any], bool] = near,
) -> Mistake | None:
    """Return the mistake that explains all that was found, if there is one and no other.

    Args:
        found: what was found, over all cases.
        mistakes: known mistakes, each with all that would be found after it. One mistake may
            stand there several times, once for each of its forms.
        same: compares `found` with what a mistake predicts.
    """
    fitting: list[Mistake] = []
    for mistake, predicted in mistakes:
        if mistake not in fitting and same(found, predicted):
            fitting.append(mistake)
    return fitting[0] if len(fitting) == 1 else None


def earlier_result(
    found: Sequence[float], expected: Sequence[float], section: str
) -> Mistake | None:
    """Return the mistake of a result that is kept, if each call gave its own or an earlier one's.

    Args:
        found, expected: of all calls, in their order.
    """
    cases = list(zip(found, expected, strict=True))
    wrong = [i for i, (value, right) in enumerate(cases) if not near(value, right, CLOSE_RESULTS)]
    kept = (any(near(found[i], e, CLOSE_RESULTS) for e in expected[:i]) for i in wrong)
    if not wrong or not all(kept):
        return None
    return Mistake(
        "the result of an earlier call",
        "The function gives again what it gave for other arguments: keep nothing outside it.",
        section,
    )


def tell_apart(
    expected: Any,
    mistakes: Sequence[tuple[Mistake, Any]],
    same: Callable[[Any, Any], bool] = near,
) -> bool:
    """Return whether all mistakes give different results, none of them the expected one."""
    if any(same(predicted, expected) for _, predicted in mistakes):
        return False
    return not any(
        one is not other and same(first, second)
        for (one, first), (other, second) in itertools.combinations(mistakes, 2)
    )


def so_far(values: Sequence[float]) -> list[list[float]]:
    """Return the sum, the mean, the smallest and the largest of the values up to each of them."""
    sums = [*itertools.accumulate(values)]
    means = [total / count for count, total in enumerate(sums, 1)]
    return [sums, means, *([*itertools.accumulate(values, pick)] for pick in (min, max))]


def roundings(
    expected: Any, mistake: Mistake, digits: Sequence[int] = range(7)
) -> list[tuple[Mistake, Any]]:
    """Return the results if every number were rounded, for each of some numbers of digits."""

    def rounded(value: Any, places: int) -> Any:
        if isinstance(value, dict):
            return {key: rounded(part, places) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(part, places) for part in value]
        if isinstance(value, Tensor):
            return value.double().round(decimals=places)
        return float(round(value, places)) if math.isfinite(value) else value

    return [(mistake, rounded(expected, places)) for places in digits]
