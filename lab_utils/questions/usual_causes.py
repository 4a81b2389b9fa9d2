"""What usually lies behind an error that a student's code raised, where its text tells."""

import re

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
        "NumPy in place of PyTorch, which NumPy's functions take the gradient from.",
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
        "compute it anew.",
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
        "a first line, `def ...`, that is not the exercise's, or a call with other arguments.",
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
        "a name that is spelt in two ways, or never set: what forward uses, __init__ sets.",
    ),
    (
        "TypeError|ValueError",
        r"cannot assign .* as parameter|Cannot assign non-leaf Tensor to parameter",
        "a tensor in the place of a parameter: wrap it in nn.Parameter(...), or change its values "
        "by copy_ within `with torch.no_grad():`.",
    ),
    (
        "TypeError",
        r"unsupported operand type.* 'list'|can't multiply sequence",
        "a list in arithmetic: make a tensor of it, torch.tensor(values), or take it item by item.",
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
    ("RecursionError", r"", "a function that calls itself, perhaps by a name that you gave twice."),
]


def usual_cause(kind: str, text: str) -> str:
    """Return a line on what usually causes an error of this type with this text, or ""."""
    for kinds, pattern, cause in USUAL_CAUSES:
        if kind in kinds.split("|") and re.search(pattern, text):
            return f"\nThe usual cause is {cause}"
    return ""


def without_usual_cause(text: str) -> str:
    """Return a text without that line, where more is known."""
    return re.sub(r"\nThe usual cause is [^\n]*", "", text)
