"""What lesson 04 asks of a student's functions: adapt this model, take these steps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lab_utils.data import next_byte_loss
from lab_utils.models import TinyLanguageModel


def small_model(state: dict[str, Tensor], n_blocks: int) -> TinyLanguageModel:
    """Return a language model of 16 features with these weights, in training mode."""
    with torch.random.fork_rng(devices=[]):
        model = TinyLanguageModel(d_model=16, n_heads=2, n_blocks=n_blocks, context=8)
    model.load_state_dict(state)
    return model.train()


def copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by their names as they are now."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def ask_adapted(
    add_adapters_to_model: Callable,
    adapter_type: str,
    state: dict[str, Tensor],
    n_blocks: int,
    rank: int,
    alpha: float,
    inputs: Tensor,
    targets: Tensor,
    values: dict[str, Tensor],
    rate: float,
) -> dict[str, Any]:
    """Adapt a model, give the adapters known values, and take a step of gradient descent.

    Args:
        values: new values of the adapters' parameters, by name.
        rate: of the gradient descent.
    """
    training = adapter_type == "lora"  # one of the two finds the base in the other mode
    base = small_model(state, n_blocks).train(training)
    adapted = add_adapters_to_model(base, adapter_type, rank=rank, alpha=alpha)
    if not isinstance(adapted, nn.Module) or isinstance(adapted, nn.ModuleList | nn.ModuleDict):
        return {"module": False, "returned": adapted}  # or what cannot be called
    named = dict(adapted.named_parameters(remove_duplicate=False))
    first = {id(parameter): name for name, parameter in reversed(named.items())}
    seen = {
        "module": True,
        "same object": adapted is base,
        "base": copies(base.state_dict()),
        "base keeps its mode": all(module.training == training for module in base.modules()),
        "base trainable": [name for name, p in base.named_parameters() if p.requires_grad],
        "parameters": copies(named),
        "trainable": [name for name, p in named.items() if p.requires_grad],
        "shared": {name: first[id(p)] for name, p in named.items() if first[id(p)] != name},
        "scalings": {
            name: float(module.scaling)
            for name, module in adapted.named_modules(remove_duplicate=False)
            if isinstance(getattr(module, "scaling", None), int | float)
        },
        "at the start": adapted.eval()(inputs).detach(),
    }
    with torch.no_grad():
        for name, value in values.items():
            if name in named and named[name].numel() == value.numel():
                named[name].copy_(value.view_as(named[name]))
    seen["output"] = adapted(inputs).detach()
    output = adapted.train()(inputs)
    seen["output in training"] = output.detach()
    if output.requires_grad:
        next_byte_loss(output, targets).backward()
        trained = [p for p in adapted.parameters() if p.requires_grad]
        if trained:
            torch.optim.SGD(trained, lr=rate).step()
    seen["after a step"] = copies(named)
    with torch.no_grad():
        for parameter in named.values():
            parameter.zero_()
    seen["base at the end"] = copies(base.state_dict())
    return seen


def ask_defaults(
    add_adapters_to_model: Callable, adapter_type: str, state: dict[str, Tensor], n_blocks: int
) -> list[list[float]]:
    """Return rank and scaling of each adapter, if neither rank nor alpha is passed."""
    adapted = add_adapters_to_model(small_model(state, n_blocks), adapter_type)
    return [
        [len(module.lora_A), float(module.scaling)]
        for module in adapted.modules()
        if hasattr(module, "lora_A")
    ]


def ask_type(
    add_adapters_to_model: Callable,
    adapter_type: Any,
    state: dict[str, Tensor],
    n_blocks: int,
    inputs: Tensor,
) -> dict[str, Any]:
    """Ask for adapters of a type; say what was raised, or what came back."""
    base = small_model(state, n_blocks)
    try:
        adapted = add_adapters_to_model(base, adapter_type)
    except NotImplementedError:  # not an answer: the exercise is not written yet
        raise
    except Exception as error:
        return {
            "raised": type(error).__name__,
            "ValueError": isinstance(error, ValueError),
            "text": str(error)[:300],
            "base": copies(base.state_dict()),
        }
    if isinstance(adapted, nn.Module):
        return {"raised": None, "output": adapted.eval()(inputs).detach()}
    exception = adapted if isinstance(adapted, type) else type(adapted)
    return {
        "raised": None,
        "returned": adapted,
        "exception": issubclass(exception, BaseException),
    }


def ask_steps(
    train_step: Callable,
    state: dict[str, Tensor],
    frozen: list[str],
    optimizer: str,
    groups: list[dict[str, Any]],
    named: dict[str, Any],
    batches: list[list[Tensor]],
    max_norm: float | None,
) -> list[dict[str, Any]]:
    """Take a step on each batch; say what was returned, and what is there afterwards.

    Args:
        frozen: names of parameters that are not trained.
        optimizer: the name of a class of `torch.optim`.
        groups: its parameter groups, with names instead of parameters.
        named: its other arguments.
        max_norm: the limit to ask for; with None none is passed.
    """
    model = small_model(state, 1)
    parameters = dict(model.named_parameters())
    for name in frozen:
        parameters[name].requires_grad_(False)
    groups = [group | {"params": [parameters[n] for n in group["params"]]} for group in groups]
    moving = getattr(torch.optim, optimizer)(groups, **named)
    modes, steps, reached, places = [], [], [], []

    def weights() -> Tensor:
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p: reached.append(bool(p.grad.any()))
            )
    # a copy of the model has the same hook
    model.register_forward_pre_hook(
        lambda module, _: modes.append((module is model, module.training))
    )
    moving.register_step_pre_hook(
        lambda *_: steps.append(
            any(p.grad is not None and p.grad.any() for p in model.parameters())
        )
    )
    moving.register_step_pre_hook(lambda *_: places.append(weights()))
    moving.register_step_post_hook(lambda *_: places.append(weights()))
    limit = {} if max_norm is None else {"max_norm": max_norm}
    rows = []
    for inputs, targets in batches:
        for seen in (modes, steps, reached, places):
            seen.clear()
        places.append(weights())
        settings = _settings(moving)
        batch = inputs.clone(), targets.clone()
        returned = train_step(model, batch, moving, **limit)
        places.append(weights())
        rows.append(
            {
                "returned": returned,
                "this model": any(own for own, _ in modes),
                "training": all(mode for _, mode in modes) and model.training,
                "batch kept": all(map(torch.equal, batch, (inputs, targets))),
                "backward": bool(reached),
                "gradients": any(reached),
                "settings changed": _settings(moving) != settings,
                "steps": list(steps),  # whether there was a gradient, at each
                "moved besides": any(
                    not torch.allclose(before, after, rtol=0, atol=0, equal_nan=True)
                    for before, after in zip(places[::2], places[1::2], strict=True)
                ),
                "thawed": any(parameters[name].requires_grad for name in frozen),
                "left": any(p.grad is not None and p.grad.any() for p in model.parameters()),
                "weights": places[-1],
            }
        )
        model.train()
    return rows


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return what each group of an optimiser says besides its parameters."""
    return [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
