"""Adapters to PEFT's file format and back, so that what is trained here runs there.

A PEFT adapter is a folder of two files: `adapter_config.json` says how the layers are adapted, and
`adapter_model.safetensors` (`adapter_model.bin` from older versions) holds what was trained.
PEFT's LoRA layer is this lab's under other names. Its DoRA layer differs in three things:

- it has one magnitude per output neuron (`norm_dim=1`) and no other;
- it always detaches the norm, so a layer with `detach_norm=False` gives the same outputs there,
  and other gradients;
- its dropout also acts on the part that the magnitude adds to `W0 x` (lesson 02, section 6).
"""

import copy
import os
import re
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.tuners import lora
from peft.utils import CONFIG_NAME, WEIGHTS_NAME, load_peft_weights
from peft.utils import SAFETENSORS_WEIGHTS_NAME as WEIGHTS
from safetensors.torch import save_file
from torch import Tensor, nn

from lab_utils.adapters import adapter_layers
from lab_utils.layers import DoRALayer, LoRALayer

PREFIX = "base_model.model."  # where a model's own names start within PEFT's wrapper

# What PEFT and this lab's layers have in common, most of it a choice of layers or of ranks. In
# every other field a configuration must hold PEFT's default ...
CARRIED = {
    "alpha_pattern",
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "r",
    "rank_pattern",
    "target_modules",
    "use_dora",
    "use_rslora",
}
# ... but for these, which have no effect on what the loaded layers compute.
WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "fan_in_fan_out",  # says how a layer of another type keeps its weight
    "inference_mode",
    "init_lora_weights",  # see `_check_config`
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
}
# How PEFT starts adapters without a change of the base weights, which are not in the folder.
STARTS = (True, False, "gaussian", "eva", "orthogonal")


def to_peft_state(layer: LoRALayer, prefix: str) -> dict[str, Tensor]:
    """Return a layer's trained tensors under the names that PEFT gives them in a file.

    Args:
        layer: a `LoRALayer` or `DoRALayer`.
        prefix: the adapted layer's name in PEFT's wrapper, without a dot at the end, as in
            `"base_model.model.blocks.0.q_proj"`.

    Returns:
        Copies on the CPU: `{prefix}.lora_A.weight`, `(rank, in_features)`;
        `{prefix}.lora_B.weight`, `(out_features, rank)`; and for DoRA
        `{prefix}.lora_magnitude_vector`, `(out_features,)`.

    Raises:
        ValueError: the layer has `norm_dim=0`.
    """
    tensors = {"lora_A.weight": layer.lora_A, "lora_B.weight": layer.lora_B}
    if isinstance(layer, DoRALayer):
        if layer.norm_dim != 1:
            raise ValueError(
                f"{prefix} has norm_dim={layer.norm_dim}; PEFT's DoRA has one magnitude per output "
                "neuron and no other, so only norm_dim=1 can be written: merge the layer instead"
            )
        tensors["lora_magnitude_vector"] = layer.magnitude.flatten()
    return {f"{prefix}.{name}": t.detach().cpu().clone() for name, t in tensors.items()}


def from_peft_state(layer: LoRALayer, state: dict[str, Tensor], prefix: str) -> None:
    """Copy what `to_peft_state` returned, or PEFT wrote, into a layer, in place.

    Args:
        layer: a `LoRALayer` or `DoRALayer`.
        state: tensors by name, those of other layers among them. Names may also have the forms
            that a module of PEFT gives them, such as `lora_A.default.weight`, and those of
            earlier versions, such as `lora_magnitude_vector.weight`.
        prefix: as in `to_peft_state`.

    Raises:
        ValueError: the state lacks a tensor of the layer or has one that it has not, or a shape
            differs. The layer is then unchanged.
    """
    expected = to_peft_state(layer, prefix)
    found = {
        _name_in_file(name): t for name, t in state.items() if name.startswith(f"{prefix}.lora_")
    }
    different = sorted(found.keys() ^ expected.keys())
    if different:
        raise ValueError(
            f"{', '.join(different)} is in the file or in the model, and must be in both: the two "
            "differ in adapted layers, or one has LoRA and the other DoRA"
        )
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{name} has the shape {tuple(found[name].shape)} in the file and "
                f"{tuple(tensor.shape)} in the model: the base model or the rank is different"
            )
    with torch.no_grad():
        layer.lora_A.copy_(found[f"{prefix}.lora_A.weight"])
        layer.lora_B.copy_(found[f"{prefix}.lora_B.weight"])
        if isinstance(layer, DoRALayer):
            magnitude = found[f"{prefix}.lora_magnitude_vector"]
            layer.magnitude.copy_(magnitude.view_as(layer.magnitude))


def _name_in_file(name: str) -> str:
    """Return the name that PEFT writes for a tensor: without the adapter's, "default"."""
    name = re.sub(r"\.default(\.weight)?$", r"\1", name)
    return re.sub(r"\.lora_magnitude_vector\.weight$", ".lora_magnitude_vector", name)


def to_peft_config(model: nn.Module, task_type: str | None = None) -> LoraConfig:
    """Return the configuration with which PEFT adapts a base model as this one is adapted.

    Args:
        model: made by `add_adapters_to_model`.
        task_type: which kind of model PEFT is to wrap it as, such as `"CAUSAL_LM"`.

    Raises:
        ValueError: the model has no adapters, they differ in more than their weights, or one of
            them is shared by several places of the model.
    """
    layers = adapter_layers(model)
    if not layers:
        raise ValueError("the model has no adapter to write; call add_adapters_to_model first")
    settings = {_settings(layer) for layer in layers.values()}
    if len(settings) > 1:
        raise ValueError(
            "the adapters have (rank, alpha, dropout, DoRA, rank-stabilised) = "
            f"{', '.join(map(str, sorted(settings)))}; they must all be the same"
        )
    ((rank, alpha, dropout, use_dora, use_rslora),) = settings
    return LoraConfig(
        target_modules=_targets(model, layers),
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_dora=use_dora,
        use_rslora=use_rslora,
        task_type=task_type,
        inference_mode=True,  # as PEFT writes it; who loads the adapter says if it is trained on
    )


def _targets(model: nn.Module, layers: dict[str, LoRALayer]) -> list[str] | str:
    """Return what makes PEFT adapt these layers and no others.

    That is the last parts of their names, or, where others have the same ones, a pattern that
    full names must match.
    """
    for name, layer in layers.items():
        # by `_modules`, since `children` names a child once even if its parent has it twice
        places = sum(list(p._modules.values()).count(layer) for p in model.modules())
        if places > 1:
            raise ValueError(
                f"{name} is one adapter in {places} places of the model; PEFT would adapt one of "
                "them and leave the others as they were: merge the adapters instead"
            )
    last_parts = {name.split(".")[-1] for name in layers}
    adapted = {f"{name}.original_layer" for name in layers}
    others = (
        isinstance(module, nn.Linear) and name not in adapted and name.split(".")[-1] in last_parts
        for name, module in model.named_modules()
    )
    return "|".join(map(re.escape, layers)) if any(others) else sorted(last_parts)


def _settings(layer: LoRALayer) -> tuple[int, float, float, bool, bool]:
    """Return what a layer shares with every other of its model."""
    rank_stabilized = layer.scaling != layer.alpha / layer.rank
    is_dora = isinstance(layer, DoRALayer)
    return layer.rank, layer.alpha, layer.dropout.p, is_dora, rank_stabilized


def save_peft_adapter(
    model: nn.Module, folder: str | os.PathLike, task_type: str | None = None
) -> None:
    """Write a model's adapters to a new folder that `PeftModel.from_pretrained` can load.

    The folder appears with both files complete, or not at all.

    Args:
        model: made by `add_adapters_to_model`.
        folder: must not exist yet, or be empty.
        task_type: as in `to_peft_config`.

    Raises:
        ValueError: as in `to_peft_config` and `to_peft_state`.
        FileExistsError: the folder holds files.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already and not empty; name another folder")
    config = to_peft_config(model, task_type)
    state = {}
    for name, layer in adapter_layers(model).items():
        state |= to_peft_state(layer, PREFIX + name)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as parent:
        finished = Path(parent, "adapter")
        config.save_pretrained(finished)
        save_file(state, finished / WEIGHTS, metadata={"format": "pt"})
        finished.replace(folder)


def load_peft_adapter(model: nn.Module, folder: str | os.PathLike) -> nn.Module:
    """Return a copy of a base model with the adapters that PEFT, or `save_peft_adapter`, wrote.

    PEFT itself says which layers the configuration names, and with which rank and alpha.

    Args:
        model: the base model that the adapters were trained on, without any. It stays as it is.
        folder: holds `adapter_config.json`, and `adapter_model.safetensors` or
            `adapter_model.bin`, of which only tensors are read.

    Raises:
        FileNotFoundError: the folder lacks one of them.
        ValueError: a file cannot be read, the configuration asks for something that this lab's
            layers do not have, or the weights are not those of this model.
    """
    folder = Path(folder)
    # PEFT would go and look for what is missing on the internet.
    if not (folder / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG_NAME}, so it is not a PEFT adapter")
    if not any((folder / name).is_file() for name in (WEIGHTS, WEIGHTS_NAME)):
        raise FileNotFoundError(
            f"{folder} has neither {WEIGHTS} nor {WEIGHTS_NAME}, so it is not a PEFT adapter"
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
        state = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # JSON's, pickle's, safetensors': each has its own
        raise ValueError(
            f"{folder} cannot be read as a PEFT adapter: {type(error).__name__}: {error}"
        ) from error
    _check_config(config, folder)
    with torch.random.fork_rng(devices=[]):  # PEFT draws weights, which the file replaces
        theirs = get_peft_model(copy.deepcopy(model), config).base_model.model
    adapted = copy.deepcopy(model).requires_grad_(False)
    for name, layer in theirs.named_modules():
        if isinstance(layer, lora.LoraLayer):
            adapted.set_submodule(name, _from_peft_layer(layer, adapted.get_submodule(name), name))
            from_peft_state(adapted.get_submodule(name), state, PREFIX + name)
    _check_others(state, adapter_layers(adapted), model, folder)
    return adapted


def _check_others(
    state: dict[str, Tensor], layers: dict[str, LoRALayer], model: nn.Module, folder: Path
) -> None:
    """Raise ValueError if a file holds more than the layers' tensors and the model's own weights.

    PEFT writes weights of the base beside an adapter of its output layer or embedding.
    """
    base = model.state_dict()
    for name, tensor in state.items():
        own = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        if own in base and torch.equal(tensor, base[own].cpu()):
            continue
        if own in base:
            raise ValueError(
                f"{folder} contains {own}, a weight of the base model, and the model has a "
                "different one"
            )
        if own.split(".lora_")[0] not in layers:
            raise ValueError(
                f"{folder} contains {name}, which belongs to no layer of the model that the "
                "configuration names"
            )


def _from_peft_layer(layer: lora.LoraLayer, base: nn.Module, name: str) -> LoRALayer:
    """Return this lab's layer with the settings of PEFT's, around `base`.

    Raises:
        ValueError: `base` is not a linear layer, or the rank is above what this lab allows.
    """
    if type(layer) is not lora.Linear or not isinstance(base, nn.Linear):
        raise ValueError(
            f"the configuration names {name}, a {type(base).__name__}; this lab's layers can "
            "replace only nn.Linear"
        )
    use_dora, dropout = layer.use_dora["default"], layer.lora_dropout["default"]
    return (DoRALayer if use_dora else LoRALayer)(
        base,
        layer.r["default"],
        layer.lora_alpha["default"],
        getattr(dropout, "p", 0.0),  # nn.Identity without dropout
        rank_stabilized=layer.use_rslora["default"],
    )


def _check_config(config: PeftConfig, folder: Path) -> None:
    """Raise ValueError if the configuration asks for what this lab's layers do not have."""
    if type(config) is not LoraConfig:
        found = getattr(config.peft_type, "value", config.peft_type)
        raise ValueError(f"{folder} has peft_type={found!r}; it must be 'LORA'")
    default = LoraConfig().to_dict()
    for name, value in config.to_dict().items():
        as_default = value == default[name] or not (value or default[name])  # None, [] and {} alike
        if name not in CARRIED | WITHOUT_EFFECT and not as_default:
            raise ValueError(
                f"{folder} has {name}={value!r}, which this lab's layers do not have; only "
                f"{', '.join(sorted(CARRIED))} can be read"
            )
    if config.init_lora_weights not in STARTS:
        raise ValueError(
            f"{folder} has init_lora_weights={config.init_lora_weights!r}, which may have changed "
            "the base weights, and these are not in the folder; only "
            f"{', '.join(map(repr, STARTS))} can be read"
        )
