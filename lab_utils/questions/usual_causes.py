"""What usually lies behind an error that a student's code raised, where its text tells."""

import re

# Of the function that the exercise asks for. Of another one, that is said in its place.
OTHER_ARGUMENTS = (
    "a first line, `def ...`, that is not the exercise's, or a call with other arguments."
)

NO_GRADIENT = (
    "a parameter whose .grad is None: a frozen one, or any before backward(). Pass over those."
)

# Names that are imported, and how.
IMPORTS = {
    "np": "import numpy as np",
    "nn": "from torch import nn",
    "F": "import torch.nn.functional as F",
    "init": "from torch.nn import init",
    "plt": "import matplotlib.pyplot as plt",
    "stats": "from scipy import stats",
    "Path": "from pathlib import Path",
    "Tensor": "from torch import Tensor",
    "deepcopy": "from copy import deepcopy",
    **{name: f"from torch.nn import {name}" for name in ("Parameter", "Linear", "Module")},
    **{name: f"from math import {name}" for name in ("sqrt", "isnan", "nan", "inf", "hypot")},
    **{
        name: f"from statistics import {name}"
        for name in ("mean", "fmean", "median", "stdev", "variance", "correlation")
    },
    **{name: f"from functools import {name}" for name in ("partial", "reduce", "wraps", "cache")},
    **{name: f"from itertools import {name}" for name in ("product", "chain", "pairwise")},
    **{name: f"from collections import {name}" for name in ("defaultdict", "OrderedDict")},
    **{name: f"from dataclasses import {name}" for name in ("dataclass", "field")},
    **{
        name: f"from typing import {name}"
        for name in ("Any", "Optional", "Union", "Tuple", "List", "Dict", "NamedTuple")
    },
    **{name: f"from peft import {name}" for name in ("LoraConfig", "TaskType", "get_peft_model")},
    **{
        name: f"import {name}"
        for name in (
            *("torch", "math", "numpy", "scipy", "copy", "random", "statistics", "itertools"),
            *("functools", "collections", "operator", "warnings", "logging", "json", "typing"),
            *("dataclasses", "peft", "time", "os", "sys"),
        )
    },
    **{
        name: f"from lab_utils import {name}"
        for name in (
            *("adapters", "checks", "comparison", "data", "decomposition", "layers"),
            *("peft_bridge", "plots", "training"),
        )
    },
}

# The type of an error, what its text holds, and the usual cause; the first that fits is said.
USUAL_CAUSES = [
    (
        "RuntimeError",
        r"The size of tensor a \(\d+\) must match the size of tensor b",
        "a sum, mean or norm without keepdim=True, whose result no longer lines up with the "
        "tensor; or the wrong dim. Print both shapes.",
    ),
    (
        "RuntimeError",
        r"shapes cannot be multiplied|size mismatch|Expected size for first two dimensions",
        "a matrix that is not transposed (F.linear(x, weight) is x @ weight.T), two factors in the "
        "wrong order, or @ in place of *. Print both shapes.",
    ),
    (
        "RuntimeError",
        r"same dtype|expected scalar type|but got .* dtype",
        "a tensor made in PyTorch's default dtype: give it that of the weight, dtype=weight.dtype.",
    ),
    (
        "RuntimeError",
        r"Can't call numpy\(\) on Tensor that requires grad",
        "a function of NumPy's, through which no gradient flows: use PyTorch's.",
    ),
    (
        "RuntimeError",
        r"leaf Variable that requires grad is being used in an in-place operation",
        "a parameter that is changed in place: do that within `with torch.no_grad():`.",
    ),
    (
        "RuntimeError",
        r"does not require grad and does not have a grad_fn",
        "a detach(), .data, .item() or no_grad() between the parameters and the loss, or "
        "parameters that are all frozen.",
    ),
    (
        "RuntimeError",
        r"backward through the graph a second time",
        "something that was computed once, with gradient, and is used at every step: "
        "compute it again.",
    ),
    (
        "RuntimeError",
        r"could not infer output dtype|mean\(\): input dtype|std and var only support",
        "a mean of truth values or whole numbers: convert them first, values.double().",
    ),
    (
        "RuntimeError|ValueError",
        r"expected sequence of length|inhomogeneous shape|array element with a sequence|"
        r"stack expects each tensor to be equal size",
        "rows of different lengths in one tensor or array, whose rows all have the same length: go "
        "through them one by one.",
    ),
    (
        "RuntimeError|ValueError|IndexError",
        r"Dimension out of range|only one element tensors|too many indices|not enough values",
        "a tensor with another number of dimensions than expected. Print its shape.",
    ),
    (
        "TypeError",
        r"unexpected keyword argument '(keepdims|axis|axes|ddof)'",
        "a name of NumPy's: PyTorch says dim and keepdim.",
    ),
    (
        "TypeError",
        r"unexpected keyword argument|takes \d+ positional arguments? but|missing \d+ required",
        OTHER_ARGUMENTS,
    ),
    (
        "TypeError|AttributeError",
        r"'NoneType' object",
        "a function or method of yours that has no return.",
    ),
    (
        "AttributeError|TypeError",
        r"numpy\.ndarray|'numpy\.\w+' object",
        "NumPy in place of PyTorch: write it with torch, which keeps the gradient.",
    ),
    (
        "AttributeError",
        r"before Module\.__init__\(\) call",
        "a missing super().__init__(), which comes first in __init__.",
    ),
    (
        "AttributeError",
        r"'\w+' object has no attribute '\w+'",
        "a name that is spelt in two ways, or that this kind of object does not have: what "
        "forward uses, __init__ sets.",
    ),
    (
        "TypeError|ValueError",
        r"cannot assign .* as parameter|Cannot assign non-leaf Tensor to parameter",
        "a tensor in place of a parameter: wrap it in nn.Parameter(...), or change its values "
        "by copy_ within `with torch.no_grad():`.",
    ),
    (
        "TypeError",
        r"unsupported operand type.* 'list'|can't multiply sequence",
        "a list in arithmetic: make a tensor of it, torch.tensor(values), or take it item by item.",
    ),
    (
        "RuntimeError",
        r"(changed size|mutated|keys changed) during iteration",
        "a dict, a set, or the modules of a model, changed while a loop goes over it: loop over a "
        "copy, list(model.named_modules()).",
    ),
    (
        "RuntimeError|ValueError",
        r"Expected target size|Expected input batch_size",
        "classes in another place than cross_entropy expects: flatten(0, 1) both, so that scores "
        "are (positions, classes) and targets (positions,).",
    ),
    (
        "UnboundLocalError",
        r"",
        "a name that only one branch of an if sets, or that is used above the line that sets it.",
    ),
    (
        "NameError",
        r"",
        "a name that is spelt in two ways, or set in a cell that has not run since the kernel "
        "started.",
    ),
    (
        "AssertionError",
        r"",
        "an assert of yours that is stricter than the exercise: it has to hold for all that may "
        "be passed in.",
    ),
    ("RecursionError", r"", "a function that calls itself, perhaps by a name that you gave twice."),
]


def usual_cause(kind: str, text: str, step: str = "", line: str = "") -> str:
    """Return a line on what usually causes an error of this type with this text, or "".

    Args:
        step: what the student's code was asked to do, from the name of what was called on.
        line: of the student's code that raised, "" if it is not known.
    """
    if "NoneType" in text and re.search(r"\.grad\b", line):
        return f"\nThe usual cause is {NO_GRADIENT}"
    for kinds, pattern, cause in USUAL_CAUSES:
        if kind in kinds.split("|") and re.search(pattern, text):
            if cause is OTHER_ARGUMENTS:
                cause = _whose_arguments(text, step)
            if missing := kind == "NameError" and _not_imported(text):
                cause = missing
            return f"\nThe usual cause is {cause}"
    return ""


def _whose_arguments(text: str, step: str) -> str:
    """Say whose call does not fit: that of the exercise, or one in the student's code."""
    called = re.search(r"([\w.<>]+)\(\)", text)
    if called is None or re.split(r"[(, ]", step)[0].endswith(called[1].rpartition(">.")[2]):
        return OTHER_ARGUMENTS
    return f"a call of {called[1]} with other arguments than it has: look at how it is defined."


def _not_imported(text: str) -> str:
    """Say which line imports a name that is not defined, if one usually does."""
    name = re.match(r"name '(\w+)'", text)
    if name is None or name[1] not in IMPORTS:
        return ""
    return (
        f"a missing import: `{IMPORTS[name[1]]}` is not in this notebook, or is in a cell that has "
        "not run since the kernel started."
    )


def without_usual_cause(text: str) -> str:
    """Return a text without that line, where more is known."""
    return re.sub(r"\nThe usual cause is [^\n]*", "", text)
