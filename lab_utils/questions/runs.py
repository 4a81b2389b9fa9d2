"""What lessons 05 and 07 ask of a student's functions: call them, and watch what they run.

What was watched only names a mistake: whether an answer is right follows from what it returns.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from lab_utils import adapters, training


def ask_runs(
    function: Callable, arguments: list[Any], played: Tensor | None = None
) -> dict[str, Any]:
    """Return what the function returns, and the settings and numbers of each run of training.

    Args:
        played: magnitudes of `q_proj` after each step, `(steps, magnitudes)`. A run of DoRA on the
            regression task with as many steps takes them on in place of training.
    """
    runs: list[dict[str, Any]] = []
    train = training._train_and_evaluate

    def watched(run: training.Settings, *others: Any) -> dict:
        plays = played is not None and _steps(run) == len(played)
        runs.append({"settings": asdict(run), "numbers": {}, "played": plays})
        with _playing(played) if plays else contextlib.nullcontext():
            result = train(run, *others)
        runs[-1]["numbers"] = {
            key: float(value) for key, value in result.items() if type(value) in (int, float)
        }
        return result

    with mock.patch.object(training, "_train_and_evaluate", watched):
        result = function(*arguments)
    return {"result": result, "runs": runs}


def _steps(run: training.Settings) -> int:
    """Return how many steps a run of DoRA on the regression task takes; of any other run, 0."""
    if (run.adapter_type, run.task) != ("dora", "regression"):
        return 0
    return run.n_epochs * (len(training.TASKS[run.task]().train) // run.batch_size)


@contextlib.contextmanager
def _playing(magnitudes: Tensor) -> Iterator[None]:
    """Let each step of training set the magnitude of `q_proj`, in place, and do nothing else."""
    rows = iter(magnitudes)

    def step(model: nn.Module, *_: Any) -> tuple[float, float]:
        with torch.no_grad():
            magnitude = model.q_proj.magnitude
            magnitude.copy_(next(rows).view_as(magnitude))
        return 1.0, 1.0

    with mock.patch.object(training, "train_step", step):
        yield


def ask_models(function: Callable, arguments: list[Any]) -> dict[str, Any]:
    """Return what the function returns, and of each model that it adapts how, and what came of it.

    Of a model: the settings; `seed` and `fresh` of the generator (None without one); `inputs` that
    it read, one for each forward pass; and the gradient of each trained parameter at the end.
    """
    seen: list[dict[str, Any]] = []
    models: list[nn.Module] = []
    adapt = adapters.add_adapters_to_model

    def watched(*arguments: Any, **named: Any) -> nn.Module:
        generator = named.get("generator")  # as it is before anything is drawn from it
        seed = fresh = None
        if isinstance(generator, torch.Generator):
            seed = generator.initial_seed()
            start = torch.Generator().manual_seed(seed).get_state()
            fresh = torch.equal(generator.get_state(), start)
        adapted = adapt(*arguments, **named)
        given = inspect.signature(adapt).bind(*arguments, **named)
        given.apply_defaults()
        settings = given.arguments
        inputs: list[Tensor] = []

        def read(_: nn.Module, arguments: tuple) -> None:
            inputs.extend(a.detach().clone() for a in arguments[:1] if isinstance(a, Tensor))

        adapted.register_forward_pre_hook(read)
        seen.append(
            {
                "adapter_type": str(settings["adapter_type"]),
                "rank": int(settings["rank"]),
                "alpha": float(settings["alpha"]),
                "dropout": float(settings["dropout"]),
                "rank_stabilized": bool(settings["rank_stabilized"]),
                "target_modules": list(settings["target_modules"]),
                "seed": seed,
                "fresh": fresh,
                "inputs": inputs,
            }
        )
        models.append(adapted)
        return adapted

    with mock.patch.object(adapters, "add_adapters_to_model", watched):
        result = function(*arguments)
    for row, model in zip(seen, models, strict=True):
        row["gradients"] = {
            name: parameter.grad.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and parameter.grad is not None
        }
    return {"result": result, "models": seen}
