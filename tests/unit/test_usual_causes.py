"""The errors that students' code raises most, really raised, and what is said of each."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab_utils.questions.student_code import StudentCodeFailed, student_code
from lab_utils.questions.usual_causes import IMPORTS, USUAL_CAUSES

WEIGHT = torch.ones(3, 5)


class NoSuper(nn.Module):
    def __init__(self):
        self.lora_A = nn.Parameter(WEIGHT.clone())


class NeverSet(nn.Module):
    def forward(self, x):
        return self.scaling * x


class Replaced(nn.Linear):
    def __init__(self):
        super().__init__(5, 3)
        self.weight = torch.ones(3, 5)


def nothing(weight, norm_dim=1):
    weight.norm(dim=norm_dim)


def one_branch(weight, method="lora"):
    if method == "dora":
        count = 1
    return count


def itself(weight):
    return itself(weight)


def second_backward():
    loss = nn.Linear(5, 3)(WEIGHT).square().sum()
    loss.backward()
    loss.backward()


def replaced_by_a_sum():
    layer = nn.Linear(5, 3).requires_grad_(False)
    layer.weight += nn.Parameter(WEIGHT.clone())


def own_assert(weight):
    assert weight.shape[0] == weight.shape[1], "square weights only"


def in_place():
    nn.Parameter(WEIGHT.clone()).add_(1)


def norms_of_all_gradients():
    layer = nn.Linear(5, 3).requires_grad_(False)
    return sum(parameter.grad.norm() for parameter in layer.parameters())


def layers_replaced_in_a_loop():
    model = nn.Sequential(nn.Linear(5, 3))
    for name, _ in model.named_modules():
        setattr(model, f"{name}x", nn.ReLU())


MISTAKES = {
    "no keepdim": (lambda: WEIGHT / WEIGHT.norm(dim=1), "keepdim=True"),
    "not transposed": (lambda: WEIGHT @ WEIGHT, "not transposed"),
    "another dtype": (lambda: WEIGHT @ WEIGHT.T.double(), "dtype=weight.dtype"),
    "numpy of a parameter": (lambda: nn.Linear(5, 3).weight.numpy(), "no gradient flows"),
    "in place": (in_place, "within `with torch.no_grad():`"),
    "detached": (lambda: WEIGHT.sum().backward(), "detach()"),
    "graph kept": (second_backward, "compute it again"),
    "another dim": (lambda: torch.ones(3).norm(dim=1), "number of dimensions"),
    "keepdims": (lambda: WEIGHT.norm(dim=1, keepdims=True), "PyTorch says dim and keepdim"),
    "no such argument": (lambda: nothing(WEIGHT, eps=1), "`def ...`"),
    "argument missing": (lambda: nothing(), "`def ...`"),
    "no return": (lambda: nothing(WEIGHT).sum(), "no return"),
    "an array": (lambda: np.ones(3).clamp_min(1), "NumPy in place"),
    "no super": (NoSuper, "super().__init__()"),
    "never set": (lambda: NeverSet()(WEIGHT), "__init__ sets"),
    "no parameter": (Replaced, "nn.Parameter"),
    "a parameter's sum": (replaced_by_a_sum, "copy_ within"),
    "lists": (lambda: [2.0] - [1.0], "torch.tensor(values)"),
    "classes last": (
        lambda: F.cross_entropy(torch.ones(4, 8, 256), torch.zeros(4, 8).long()),
        "flatten(0, 1)",
    ),
    "one branch": (lambda: one_branch(WEIGHT), "branch"),
    "mean of truths": (lambda: (WEIGHT > 0).mean(), "truth values"),
    "mean of whole numbers": (lambda: WEIGHT.long().mean(), "truth values"),
    "ragged tensor": (lambda: torch.tensor([[1.0], [1.0, 2.0]]), "different lengths"),
    "ragged array": (lambda: np.array([[1.0], [1.0, 2.0]]), "different lengths"),
    "ragged stack": (lambda: torch.stack([WEIGHT, WEIGHT.T]), "different lengths"),
    "assert": (lambda: own_assert(WEIGHT), "an assert of yours"),
    "another's argument": (lambda: nn.Linear(5, 3, out=2), "a call of Linear.__init__ with other"),
    "a helper's argument": (lambda: one_branch(), "a call of one_branch with other"),
    "no such name": (lambda: magnitud, "spelt in two ways"),  # noqa: F821
    "no gradient": (norms_of_all_gradients, "a parameter whose .grad is None"),
    "no gradient to torch": (lambda: torch.norm(nn.Linear(5, 3).weight.grad), ".grad is None"),
    "changed in a loop": (layers_replaced_in_a_loop, "list(model.named_modules())"),
    "calls itself": (lambda: itself(WEIGHT), "calls itself"),
}


def test_the_lines_that_raised_are_the_students_and_not_of_who_asked():
    with pytest.raises(StudentCodeFailed) as raised, student_code("nothing(weight)"):
        own_assert(WEIGHT)
    (line,) = raised.value.lines
    assert line.startswith("in own_assert, ")


@pytest.mark.parametrize("code, cause", MISTAKES.values(), ids=MISTAKES)
def test_its_usual_cause_is_said(code, cause):
    with pytest.raises(StudentCodeFailed) as raised, student_code("nothing(weight)"):
        code()
    first, *others = str(raised.value).splitlines()
    assert first.startswith("nothing(weight) raised ")
    assert others[-1].startswith("The usual cause is ") and cause in others[-1]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("np", "import numpy as np"),
        ("F", "import torch.nn.functional as F"),
        ("math", "import math"),
        ("partial", "from functools import partial"),
    ],
)
def test_a_name_that_is_imported_is_said_with_its_line(name, line):
    with pytest.raises(StudentCodeFailed) as raised, student_code("nothing(weight)"):
        eval(name, {})
    assert f"a missing import: `{line}`" in str(raised.value)


@pytest.mark.parametrize("line", sorted(set(IMPORTS.values())))
def test_a_line_that_is_said_is_right(line):
    exec(line, {})


def test_an_error_of_another_kind_is_left_as_it_is():
    division = r"ZeroDivisionError: [^\n]*$"
    with pytest.raises(StudentCodeFailed, match=division), student_code("decompose(weight)"):
        divmod(1, 0)


def test_every_cause_is_tried():
    said = {cause for _, cause in MISTAKES.values()}
    assert all(any(it in cause for it in said) for _, _, cause in USUAL_CAUSES)
