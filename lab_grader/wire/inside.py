"""The end of the wire in the student's process: answer one question about one of its objects.

This runs in the interpreter that runs the student's code, which may have changed any of it. So
nothing is decided here: what leaves is only read by `remote`, as arrays and plain values.
"""

import builtins
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from IPython import get_ipython
from torch import Tensor, nn

from lab_grader.wire.values import pack, unpack
from lab_utils.checks import subject
from lab_utils.checks.report import CheckFailed


def load_when_used(name: str) -> None:
    """Make a module of the lab importable at no cost; its code runs when it is first used."""
    package, _, short = name.rpartition(".")
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    setattr(sys.modules[package], short, module)
    spec.loader.exec_module(module)


# What draws takes a second to import; nearly every lesson does it, and hardly an exercise uses it.
for drawing in ("lab_utils.plots", "lab_utils.widgets"):
    if drawing not in sys.modules:
        load_when_used(drawing)


def answer(namespace: dict[str, Any], question: str) -> str:
    """Call a function of the checks with the student's object; return its packed answer.

    Args:
        namespace: the notebook's variables.
        question: packed `(name of the object, way, arguments, named arguments)`; with None for
            the way it asks whether there is an object of this name.
    """
    name, way, arguments, named = unpack(question, functions=True)
    if way is None:
        return pack(name in namespace)
    try:
        reply = {"result": way(namespace[name], *arguments, **named)}
    except CheckFailed as failure:
        reply = {"failed": str(failure), "lines": failure.student_lines}
    # A function's arguments go back: the check may look whether they stayed as they were.
    return pack(reply | ({"after": arguments} if way is subject.call_function else {}))


def fresh_start() -> bool:
    """Forget a notebook's variables; return whether nothing else of this process was changed.

    Then the next notebook finds what it would find in a process of its own.
    """
    get_ipython().reset(new_session=False)
    subject._layers.clear()
    now = _state()
    if not _at_start:
        _at_start.update(now)
    return all(key in now and now[key] == value for key, value in _at_start.items())


_at_start: dict[Any, Any] = {}


def _state() -> dict[str, Any]:
    """Return what code may change for all that runs after it in the same process."""
    modules = {
        name: module
        for name, module in sys.modules.items()
        if name.startswith("lab_utils") and type(module) is ModuleType  # not one to load later
    }
    places = {"builtins": builtins, "torch": torch, "nn": nn, "F": F, "Tensor": Tensor} | modules
    state = {(place, n): id(v) for place, owner in places.items() for n, v in vars(owner).items()}
    shell = get_ipython()
    return state | {
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "folder": (os.getcwd(), sorted(os.listdir())),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "transformers": (len(shell.input_transformers_cleanup), len(shell.ast_transformers)),
    }
