"""Adapters to PEFT's file format and back, so that what is trained here runs there.

A PEFT adapter is a folder of two files: `adapter_config.json` says how the layers are adapted, and
`adapter_model.safetensors` holds what was trained. PEFT's LoRA layer is this lab's under other
names; three things are to be known of its DoRA layer:

- it has one magnitude per output neuron (`norm_dim=1`) and no other;
- it always detaches the norm, so a layer with `detach_norm=False` gives the same outputs there,
  and other gradients;
- its dropout also acts on the part that the magnitude adds to `W0 x` (lesson 02, section 6).
"""

import os
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig
from peft.utils import CONFIG_NAME
from peft.utils import SAFETENSORS_WEIGHTS_NAME as WEIGHTS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lab_utils.adapters import adapter_layers, add_adapters_to_model
from lab_utils.layers import DoRALayer, LoRALayer

PREFIX = "base_model.model."  # where a model's own names start within PEFT's wrapper

# What this lab's layers have. In every other field a configuration must hold PEFT's default ...
CARRIED = {"r", "lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora"}
# ... but for these, which have no effect on what the loaded layers compute.
WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
}


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

    Raises:
        ValueError: the state lacks a tensor of the layer or has one that it has not, or a shape
            differs. The layer is then unchanged.
    """
    expected = to_peft_state(layer, prefix)
    found = {name: tensor for name, tensor in state.items() if name.startswith(f"{prefix}.")}
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
                f"{tuple(tensor.shape)} in the model: the base model or the rank is another"
            )
    with torch.no_grad():
        layer.lora_A.copy_(found[f"{prefix}.lora_A.weight"])
        layer.lora_B.copy_(found[f"{prefix}.lora_B.weight"])
        if isinstance(layer, DoRALayer):
            magnitude = found[f"{prefix}.lora_magnitude_vector"]
            layer.magnitude.copy_(magnitude.view_as(layer.magnitude))


def to_peft_config(model: nn.Module, task_type: str | None = None) -> LoraConfig:
    """Return the configuration with which PEFT adapts a base model as this one is adapted.

    Args:
        model: made by `add_adapters_to_model`.
        task_type: what PEFT's wrapper is to offer besides `forward`, such as `"CAUSAL_LM"`.

    Raises:
        ValueError: the model has no adapters, they differ in more than their weights, or PEFT
            would adapt other layers than the model does.
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
    targets = sorted({name.split(".")[-1] for name in layers})
    adapted = {f"{name}.original_layer" for name in layers}
    others = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in adapted and name.split(".")[-1] in targets
    ]
    if others:
        raise ValueError(
            f"{', '.join(others)} has no adapter, and PEFT, which takes layers by the last part "
            "of their names, would give it one; adapt every layer of the same name, or none"
        )
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        use_dora=use_dora,
        use_rslora=use_rslora,
        task_type=task_type,
        inference_mode=True,  # as PEFT writes it; who loads the adapter says if it is trained on
    )


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

    Args:
        model: the base model that the adapters were trained on, without any. It stays as it is.
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        FileNotFoundError: the folder lacks one of them.
        ValueError: the configuration asks for something that this lab's layers have not, or the
            weights are not those of this model.
    """
    for name in (CONFIG_NAME, WEIGHTS):
        if not Path(folder, name).is_file():  # PEFT would go and look for it on the internet
            raise FileNotFoundError(f"{folder} has no {name}, so it is no adapter of PEFT's")
    config = PeftConfig.from_pretrained(str(folder))
    _check_config(config, folder)
    adapted = add_adapters_to_model(
        model,
        "dora" if config.use_dora else "lora",
        config.r,
        config.lora_alpha,
        config.lora_dropout,
        target_modules=sorted(config.target_modules),
        rank_stabilized=config.use_rslora,
    )
    state = load_file(Path(folder, WEIGHTS))
    layers = adapter_layers(adapted)
    for name, layer in layers.items():
        from_peft_state(layer, state, PREFIX + name)
    strange = [name for name in state if name.removeprefix(PREFIX).split(".lora_")[0] not in layers]
    if strange:
        raise ValueError(f"{folder} holds {strange[0]}, a layer that the model does not have")
    return adapted


def _check_config(config: PeftConfig, folder: str | os.PathLike) -> None:
    """Raise ValueError if the configuration asks for what this lab's layers do not have."""
    if type(config) is not LoraConfig:
        raise ValueError(f"{folder} has peft_type={config.peft_type.value!r}; it must be 'LORA'")
    default = LoraConfig().to_dict() | {"init_lora_weights": config.init_lora_weights}
    for name, value in config.to_dict().items():
        if name not in CARRIED | WITHOUT_EFFECT and value != default[name]:
            raise ValueError(
                f"{folder} has {name}={value!r}, which this lab's layers do not have; only "
                f"{', '.join(sorted(CARRIED))} can be read"
            )
    # Other ways to start, such as "pissa", change the base weights, which are not in the folder.
    if config.init_lora_weights not in (True, False, "gaussian"):
        raise ValueError(
            f"{folder} has init_lora_weights={config.init_lora_weights!r}, which may have changed "
            "the base weights; only True, False and 'gaussian' can be read"
        )
    if isinstance(config.target_modules, str) or not config.target_modules:
        raise ValueError(
            f"{folder} has target_modules={config.target_modules!r}; it must be a list of the "
            "last parts of layers' names"
        )
