"""What lesson 06 asks: make a configuration, write a layer's state, score questions."""

import contextlib
import dataclasses
import enum
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lab_utils.layers import DoRALayer, LoRALayer


def ask_config(
    make_config: Callable, use_dora: bool, rank: int | None, modules: list[str]
) -> dict[str, Any]:
    """Make a configuration; say what its fields are, and which of the modules it adapts.

    Args:
        rank: to ask for; with None none is passed.
        modules: names of a model's linear layers.
    """
    config = make_config(use_dora) if rank is None else make_config(use_dora, rank=rank)
    if isinstance(config, type) or not dataclasses.is_dataclass(config):
        return {"returned": config}
    return {
        "class": f"{type(config).__module__}.{type(config).__qualname__}",
        "fields": {
            field.name: plain(getattr(config, field.name, None))
            for field in dataclasses.fields(config)
        },
        "adapted": adapted(getattr(config, "target_modules", None), modules),
    }


def plain(value: Any) -> Any:
    """Return a field as a plain value; a set as a sorted list."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if callable(value):  # its repr has an address, which differs from run to run
        return f"<{type(value).__name__} {getattr(value, '__name__', '')}>"
    return repr(value)


def adapted(targets: Any, modules: list[str]) -> list[str]:
    """Return the modules that PEFT adapts: a text is a pattern for whole names, or one word."""
    if isinstance(targets, str):
        if targets == "all-linear":
            return [name for name in modules if not name.endswith("lm_head")]
        try:
            return [name for name in modules if re.fullmatch(targets, name)]
        except re.error:
            return []
    if not isinstance(targets, Iterable):
        return []
    ends = [str(target) for target in targets]
    return [n for n in modules if any(n == end or n.endswith(f".{end}") for end in ends)]


def ask_state(
    to_peft_state: Callable,
    method: str,
    weight: Tensor,
    trained: dict[str, Tensor],
    scaling: float,
    prefix: str,
    x: Tensor,
) -> dict[str, Any]:
    """Write a trained layer's state; say what was written, and what the layer is afterwards.

    Args:
        weight: of the base, `(out_features, in_features)`.
        trained: values of the layer's parameters, by name.
        x: what the layer is run on, and its gradients taken, after the call.
    """
    out_features, in_features = weight.shape
    base = nn.Linear(in_features, out_features, bias=False, dtype=weight.dtype)
    with torch.no_grad():
        base.weight.copy_(weight)
    rank = len(trained["lora_A"])
    layer = {"lora": LoRALayer, "dora": DoRALayer}[method](base, rank, alpha=scaling * rank)
    with torch.no_grad():
        for name, value in trained.items():
            getattr(layer, name).copy_(value)
    before = dict(layer.named_parameters())
    frozen = {name: p.detach().clone() for name, p in before.items() if not p.requires_grad}
    training = layer.training
    result = to_peft_state(layer, prefix)
    if not isinstance(result, dict):
        return {"returned": result}
    after = dict(layer.named_parameters())
    output = None
    with contextlib.suppress(Exception):  # a layer that was changed may not work any more
        output = layer(x)
        if output.requires_grad:
            output.sum().backward()
    return {
        "names": list(result),
        "written": {
            str(name): value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in result.items()
        },
        "with gradient": [
            str(name)
            for name, value in result.items()
            if isinstance(value, Tensor) and value.requires_grad
        ],
        "values": {name: p.detach().clone() for name, p in after.items()},
        "frozen": frozen,
        "trainable": [name for name, p in after.items() if p.requires_grad],
        "replaced": [name for name, p in before.items() if after.get(name) is not p],
        "same mode": layer.training == training,
        "output": None if output is None else output.detach(),
        "gradients": {n: None if p.grad is None else p.grad.clone() for n, p in after.items()},
    }
