"""No small change of a solved exercise passes its check, unless it is as right as the original.

The solutions are changed one node of their syntax tree at a time: operators,
numbers, names of arguments, calls left out, statements left out.
"""

import ast
import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig
from scipy import stats
from torch import nn

from lab_utils import adapters, checks, data, layers, training

pytestmark = pytest.mark.slow

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
EXERCISES = {
    "decompose": ("01-mathematics", checks.check_decompose),
    "recompose": ("01-mathematics", checks.check_recompose),
    "count_trainable": ("01-mathematics", checks.check_count_trainable),
    "LoRALayer": ("02-from-scratch", checks.check_lora_layer),
    "DoRALayer": ("02-from-scratch", checks.check_dora_layer),
    "magnitude_change": ("03-decomposition", checks.check_magnitude_change),
    "direction_change": ("03-decomposition", checks.check_direction_change),
    "coupling": ("03-decomposition", checks.check_coupling),
    "add_adapters_to_model": ("04-head-to-head", checks.check_add_adapters),
    "train_step": ("04-head-to-head", checks.check_train_step),
    "paired_difference": ("04-head-to-head", checks.check_paired_difference),
    "compare_across_ranks": ("05-rank-and-magnitude", checks.check_compare_across_ranks),
    "track_magnitude_changes": ("05-rank-and-magnitude", checks.check_track_magnitude_changes),
    "make_config": ("06-peft-and-commonsense", checks.check_make_config),
    "to_peft_state": ("06-peft-and-commonsense", checks.check_to_peft_state),
    "choice_accuracy": ("06-peft-and-commonsense", checks.check_choice_accuracy),
    "lora_scaling": ("07-rslora-challenge", checks.check_lora_scaling),
    "gradient_norms_by_rank": ("07-rslora-challenge", checks.check_gradient_norms_by_rank),
}
task = data.language_task()
NAMES = {"torch": torch, "nn": nn, "F": F, "copy": copy, "math": math, "np": np, "stats": stats}
NAMES |= {"adapters": adapters, "data": data, "layers": layers, "training": training, "task": task}
NAMES |= {"inputs": task.train.inputs[:8], "targets": task.train.targets[:8]}
NAMES |= {"LoraConfig": LoraConfig}

# lora_A may start with random numbers of any size.
ROOT = "5 ** 0.5"
ANY_START = {"5 -> 6", "0.5 -> 1.0", "a= left out", f"{ROOT} -> 5 * 0.5"}
ANY_START |= {f"{ROOT} -> left", f"{ROOT} -> right"}

# A run of 50 epochs, or of all four ranks, is too long to ask for by leaving the argument out.
AS_BY_DEFAULT = {"seed= left out", "verbose= left out", "False -> True"}

# Changes that leave a right answer: what they write in place of what.
AS_RIGHT = {
    "decompose": {"1e-08 -> 2e-08"},
    "recompose": set(),
    "count_trainable": {"'dora' -> ''"},
    "LoRALayer": ANY_START,
    "DoRALayer": ANY_START | {"1e-08 -> 2e-08"},
    "magnitude_change": {"lengths[1] - lengths[0] -> swapped"},
    "direction_change": {"1e-08 -> 2e-08"},
    "coupling": {"dtype= left out"},
    "add_adapters_to_model": {
        "'adapter_type is ' -> ''",
        "\"; it must be 'lora' or 'dora'\" -> ''",
    },
    "train_step": set(),
    "paired_difference": {"strict= left out", "True -> False"},
    "compare_across_ranks": AS_BY_DEFAULT | {f"{r} -> {r + 1}" for r in (4, 8, 16, 32)},
    "track_magnitude_changes": AS_BY_DEFAULT | {"50 -> 51"},
    "make_config": set(),
    "to_peft_state": {".clone() left out"},
    "choice_accuracy": {"strict= left out", "True -> False"},
    "lora_scaling": set(),
    "gradient_norms_by_rank": {"alpha= left out"},
}
# Without it the language model is trained, for minutes.
TOO_LONG = "task= left out"
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.MatMult: ast.Add,
    ast.Pow: ast.Mult,
    ast.Eq: ast.NotEq,
}


def solution(name):
    """The solved definition of an exercise, as a syntax tree without docstrings."""
    lesson, _ = EXERCISES[name]
    tree = ast.parse((SOLUTIONS / f"{lesson}.py").read_text())
    (found,) = (node for node in tree.body if getattr(node, "name", None) == name)
    for node in ast.walk(found):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            del node.body[0]
    return found


def changes(node):
    """Ways to change one node in place, each with how it reads."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            before = ast.unparse(node)
            changed = OPERATORS[type(op)]()
            after = ast.unparse(ast.BinOp(left, changed, right))
            yield f"{before} -> {after}", lambda: setattr(node, "op", changed)
            yield f"{before} -> left", lambda: replace_by(node, left)
            yield f"{before} -> right", lambda: replace_by(node, right)
        case ast.Compare(ops=[op]) if type(op) in OPERATORS:
            yield ast.unparse(node), lambda: setattr(node, "ops", [OPERATORS[type(op)]()])
        case ast.Constant(value=bool(value)):
            yield f"{value} -> {not value}", lambda: setattr(node, "value", not value)
        case ast.Constant(value=str(value)):
            yield f"{value!r} -> ''", lambda: setattr(node, "value", "")
        case ast.Constant(value=int(value)):
            yield f"{value} -> {value + 1}", lambda: setattr(node, "value", value + 1)
        case ast.Constant(value=float(value)):
            yield f"{value} -> {2 * value}", lambda: setattr(node, "value", 2 * value)
        case ast.Call(func=ast.Attribute(value=inner, attr=attr)) if not isinstance(
            inner, ast.Name
        ) or inner.id not in ("torch", "nn", "F", "copy"):
            yield f".{attr}() left out", lambda: replace_by(node, inner)
    for index, keyword in enumerate(getattr(node, "keywords", [])):
        yield f"{keyword.arg}= left out", lambda index=index: node.keywords.pop(index)
    if isinstance(node, ast.FunctionDef | ast.If | ast.With):
        for index, statement in enumerate(node.body):
            text = ast.unparse(statement).splitlines()[0]
            yield f"without {text}", lambda index=index: node.body.__setitem__(index, ast.Pass())


def replace_by(node, other):
    node.__class__ = other.__class__
    node.__dict__.clear()
    node.__dict__.update(other.__dict__)


def mutants(name):
    """Each changed solution, as text, by how the change reads."""
    found = {}
    count = len(list(ast.walk(solution(name))))
    for position in range(count):
        choice = 0
        while True:
            tree = solution(name)
            options = list(changes(list(ast.walk(tree))[position]))
            if choice >= len(options):
                break
            reads, apply = options[choice]
            apply()
            text = ast.unparse(tree)
            if text != ast.unparse(solution(name)):
                found[f"{reads} ({position})"] = text
            choice += 1
    return found


def made(name, text):
    namespace = dict(NAMES)
    exec(text, namespace)
    return namespace[name]


@pytest.mark.parametrize("name", EXERCISES)
def test_no_mutant_lives(name):
    check = EXERCISES[name][1]
    check(made(name, ast.unparse(solution(name))))
    alive = []
    for reads, text in mutants(name).items():
        if reads.startswith(TOO_LONG):
            continue
        try:
            check(made(name, text))
        except checks.CheckFailed:
            continue
        if re.sub(r" \(\d+\)$", "", reads) not in AS_RIGHT[name]:
            alive.append(reads)
    assert not alive
