"""Put adapters into a model, merge them into its weights, and keep them in a file."""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from lab_utils import ablations
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.models import ATTENTION


@dataclass(frozen=True)
class Method:
    """One way to train a model, and everything that the lab knows about it except its layer.

    Attributes:
        name: what sentences and figures call it.
        colour: that of the method in every figure. The colours are those of Okabe and Ito, which
            stay apart in the common forms of colour blindness; what is pale there is darker here,
            to stand out from white and, turned over, from a dark page.
        marker: the shape of its points, for those who cannot tell the colours apart. No method has
            the triangle that points up: it says that something lies above a figure.
        maker: what makes the layer that takes the place of an `nn.Linear`; None without adapters.
    """

    name: str
    colour: str
    marker: str
    maker: Callable[..., nn.Module] | None = None


METHODS = {
    "lora": Method("LoRA", "#0072B2", "o", LoRALayer),
    "dora": Method("DoRA", "#D55E00", "s", partial(DoRALayer, norm_dim=1)),
    "dora-input": Method("DoRA, norm_dim=0", "#7F66FF", "P", partial(DoRALayer, norm_dim=0)),
    "dora-fixed": Method("DoRA, m fixed", "#B87E00", "X", ablations.fixed_magnitude),
    "lora-scaled": Method("LoRA and m, no norm", "#2E93CC", ">", ablations.ScaledLoRALayer),
    "dora-full": Method("DoRA, full gradient", "#8C510A", "v", ablations.full_gradient),
    "full": Method("full fine-tuning", "#009E73", "D"),
    "frozen": Method("frozen base", "#666666", "*"),
}
NAMES = {key: method.name for key, method in METHODS.items()}
COLOURS = {key: method.colour for key, method in METHODS.items()}
MARKERS = {key: method.marker for key, method in METHODS.items()}
ADAPTERS = {key: method.maker for key, method in METHODS.items() if method.maker}
# What a run may adapt or, in full fine-tuning, train; a name, unlike a tuple, is one setting.
TARGETS = {"attention": ATTENTION, "all": (*ATTENTION, "mlp_up", "mlp_down")}


def add_adapters_to_model(
    model: nn.Module,
    adapter_type: str,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    *,
    target_modules: Sequence[str] = ATTENTION,
    rank_stabilized: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Return a frozen copy of a model whose linear layers have trainable adapters.

    Args:
        model: the pretrained model. It stays as it is.
        adapter_type: `"lora"`, `"dora"` (one magnitude per output neuron), `"dora-input"` (one
            per input feature), or another key of `METHODS` that has a maker.
        rank, alpha, dropout, rank_stabilized: as in `LoRALayer`.
        target_modules: the last part of the names of the layers to adapt; the default is the
            four projections of an attention block. A layer that the model has under several names
            gets one adapter, which it has under all of them.
        generator: source of every `lora_A`, drawn in the order of `model.named_modules()`. Two
            calls with equally seeded generators give LoRA and DoRA the same `lora_A`.

    Raises:
        ValueError: the adapter type is unknown, the model has an adapter already, or a target
            names no layer.
        TypeError: a target is not an `nn.Linear`.
    """
    if adapter_type not in ADAPTERS:
        allowed = ", ".join(repr(name) for name in ADAPTERS)
        raise ValueError(f"adapter_type is {adapter_type!r}; it must be one of {allowed}")
    if adapter_layers(model):
        raise ValueError("the model has adapters already; merge them first, or use its base")
    adapted = copy.deepcopy(model).requires_grad_(False)
    make = ADAPTERS[adapter_type]
    rest = {"rank_stabilized": rank_stabilized, "generator": generator}
    layers = {
        layer: make(layer, rank, alpha, dropout, **rest)
        for layer in _targets(adapted, target_modules)
    }
    _replace(adapted, layers)
    return adapted


def _targets(model: nn.Module, target_modules: Sequence[str]) -> list[nn.Module]:
    """Return the layers whose names end with one of the targets, each once, in their order.

    Raises:
        ValueError: a target names no layer.
    """
    named = [(name.split(".")[-1], layer) for name, layer in _every_name(model)]
    missing = set(target_modules) - {last for last, _ in named}
    if missing or not target_modules:
        raise ValueError(
            f"target_modules is {list(target_modules)}; the model has no layer named "
            f"{', '.join(sorted(missing)) or 'nothing'}"
        )
    return list(dict.fromkeys(layer for last, layer in named if last in target_modules))


def merge_adapters(model: nn.Module) -> nn.Module:
    """Return a copy of a model with every adapter merged into a plain `nn.Linear`.

    The copy computes what `model` computes (in evaluation mode, where dropout rests), at the
    cost of the model before it was adapted.
    """
    merged = copy.deepcopy(model)
    _replace(merged, {layer: layer.merge() for layer in adapter_layers(merged).values()})
    return merged


def _every_name(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return all submodules by name, those that have several under each of them."""
    return [(name, m) for name, m in model.named_modules(remove_duplicate=False) if name]


def _replace(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Put modules in the places of others, under each of their names."""
    for name, module in _every_name(model):
        if module in new:
            model.set_submodule(name, new[module])


def adapter_layers(model: nn.Module) -> dict[str, LoRALayer]:
    """Return the adapters of a model (`DoRALayer` is a `LoRALayer`) by their names."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALayer)}


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what an optimiser would train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the adapters of a model hold besides the layers that they adapt, by name."""
    return {
        f"{name}.{key}": tensor
        for name, layer in adapter_layers(model).items()
        for key, tensor in layer.state_dict().items()
        if not key.startswith("original_layer.")
    }


def save_adapters(model: nn.Module, path: str | os.PathLike) -> None:
    """Write a model's adapters to a safetensors file, without the layers that they adapt.

    The file appears complete or not at all; a file that was there is replaced at the end.

    Raises:
        ValueError: the model has no adapter.
    """
    layers = adapter_layers(model)
    if not layers:
        raise ValueError("the model has no adapter to save; call add_adapters_to_model first")
    tensors = {key: tensor.cpu().contiguous() for key, tensor in _own_tensors(model).items()}
    scaling = {name: layer.scaling for name, layer in layers.items()}
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        finished = Path(folder, path.name)
        save_file(tensors, finished, metadata={"scaling": json.dumps(scaling)})
        finished.replace(path)


def load_adapters(model: nn.Module, path: str | os.PathLike) -> None:
    """Read what `save_adapters` wrote into a model with the same adapters, in place.

    Args:
        model: the same base model, adapted by `add_adapters_to_model` with the same arguments.
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file was made for other layers, another rank, type or scaling. The model
            is then unchanged.
    """
    tensors = _own_tensors(model)
    with safe_open(path, framework="pt") as file:
        scaling = json.loads((file.metadata() or {}).get("scaling", "{}"))
        saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 not a dict
    different = sorted(saved.keys() ^ tensors.keys())
    if different:
        raise ValueError(
            f"{path} and the model's adapters differ in {', '.join(different[:3])}; adapt the "
            "model with the type and target_modules that the file was saved with"
        )
    for key, tensor in tensors.items():
        if saved[key].shape != tensor.shape:
            raise ValueError(
                f"{path} has {key} of shape {tuple(saved[key].shape)} and the model's has "
                f"{tuple(tensor.shape)}; adapt the model with the rank that the file was "
                "saved with"
            )
    for name, layer in adapter_layers(model).items():
        if scaling.get(name) != layer.scaling:
            raise ValueError(
                f"{path} was trained with scaling {scaling.get(name)} in {name} and the model "
                f"has {layer.scaling}; adapt the model with the file's alpha and rank"
            )
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(saved[key])
