"""No small change of a solved exercise passes its check, unless it is as right as the original.

The solutions are changed one node of their syntax tree at a time: operators,
numbers, names of arguments, calls left out, statements left out.
"""

import ast
import copy
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import of_lessons
from peft import LoraConfig
from scipy import stats
from torch import nn

from lab_utils import adapters, checks, data, layers, training

pytestmark = pytest.mark.slow

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
EXERCISES = of_lessons("EXERCISES")
task = data.language_task()
NAMES = {"torch": torch, "nn": nn, "F": F, "copy": copy, "math": math, "np": np, "stats": stats}
NAMES |= {"adapters": adapters, "data": data, "layers": layers, "training": training, "task": task}
NAMES |= {"inputs": task.train.inputs[:8], "targets": task.train.targets[:8]}
NAMES |= {"LoraConfig": LoraConfig}

# Changes that leave a right answer: what they write in place of what.
AS_RIGHT = of_lessons("AS_RIGHT")
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


@cache
def solution(name):
    """The solved definition of an exercise without docstrings, as text."""
    trees = (ast.parse(path.read_text()) for path in sorted(SOLUTIONS.glob("*.py")))
    (found,) = (n for tree in trees for n in tree.body if getattr(n, "name", None) == name)
    for node in ast.walk(found):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            del node.body[0]
    return ast.unparse(found)


def tree_of(name):
    """The syntax tree of a solution, which may be changed."""
    return ast.parse(solution(name)).body[0]


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
    count = len(list(ast.walk(tree_of(name))))
    for position in range(count):
        choice = 0
        while True:
            tree = tree_of(name)
            options = list(changes(list(ast.walk(tree))[position]))
            if choice >= len(options):
                break
            reads, apply = options[choice]
            apply()
            text = ast.unparse(tree)
            if text != solution(name):
                found[f"{reads} ({position})"] = text
            choice += 1
    return found


def made(name, text):
    namespace = dict(NAMES)
    exec(text, namespace)
    return namespace[name]


@pytest.mark.usefixtures("runs_are_made_once")
@pytest.mark.parametrize("name", EXERCISES)
def test_no_mutant_lives(name):
    check, _, _ = EXERCISES[name]
    check(made(name, solution(name)))
    alive = []
    for reads, text in mutants(name).items():
        if reads.startswith(TOO_LONG):
            continue
        try:
            check(made(name, text))
        except checks.CheckFailed:
            continue
        if re.sub(r" \(\d+\)$", "", reads) not in AS_RIGHT.get(name, ()):
            alive.append(reads)
    assert not alive
