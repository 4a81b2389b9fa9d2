"""The question about a layer: build one, take it through some steps, and tell what came of each."""

import contextlib
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from lab_utils.questions.student_code import StudentCodeFailed, drawing_from, student_code


def ask_layer(
    layer_type: Any,
    base: dict[str, Tensor | None],
    arguments: dict[str, Any],
    dtype: torch.dtype,
    seed: int,
    steps: list[list[Any]],
) -> list[dict[str, Any]]:
    """Build a layer on a base and take it through the steps.

    Args:
        layer_type: the student's class.
        base: `weight` and `bias` of the `nn.Linear` to adapt.
        arguments: what else the class takes.
        dtype: the layer is built in float32 and then cast, as `model.double()` does.
        seed: of the random numbers that the layer starts with.
        steps: of each the name of a function below, and its arguments.

    Returns:
        For each step `{"result": ...}`, or `{"failed": a sentence, "lines": [...]}`. If the layer
        cannot be built, all of them failed alike.
    """
    built = _tried(lambda: _build(layer_type, base, arguments, dtype, seed))
    if "failed" in built:
        return [built for _ in steps]
    return [
        _tried(lambda step=step, given=given: STEPS[step](built["result"], *given))
        for step, *given in steps
    ]


class Subject:
    """A layer of the student's, and the base that it was given.

    No dataclass: when grading, this text is run for each question, and making one takes longer
    than many an answer.

    Attributes:
        changed: the tensors that were given new values, by name, and the shape of these.
        merged: what merge() has returned so far.
    """

    def __init__(self, name: str, base: nn.Linear, layer: nn.Module, dtype: torch.dtype) -> None:
        self.name, self.base, self.layer, self.dtype = name, base, layer, dtype
        self.changed: dict[str, torch.Size] = {}
        self.merged: list[nn.Linear] = []


def _tried(act: Any) -> dict[str, Any]:
    try:
        return {"result": act()}
    except StudentCodeFailed as failure:
        return {"failed": str(failure), "lines": failure.lines}


def _build(
    layer_type: Any,
    base: dict[str, Tensor | None],
    arguments: dict[str, Any],
    dtype: torch.dtype,
    seed: int,
) -> Subject:
    name = str(getattr(layer_type, "__name__", type(layer_type).__name__))
    for parent in getattr(layer_type, "__mro__", ()):
        if parent.__module__ == "lab_utils.layers" or parent.__module__.startswith("peft."):
            raise StudentCodeFailed(
                f"{name} is or subclasses {parent.__module__}.{parent.__name__}, which is the "
                "reference; this exercise asks for your own code."
            )
    out_features, in_features = base["weight"].shape
    bias = base["bias"] is not None
    with torch.random.fork_rng(devices=[]):  # nn.utils.skip_init imports SymPy, for a second
        linear = nn.Linear(in_features, out_features, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(base["weight"])
        if base["bias"] is not None:
            linear.bias.copy_(base["bias"])
    with drawing_from(seed), student_code(f"{name}.__init__"):
        layer = layer_type(linear, **arguments)
    if not isinstance(layer, nn.Module):
        raise StudentCodeFailed(f"{name}(...) is a {type(layer).__name__}, not an nn.Module.")
    with student_code(f"{name}.to({dtype})"):
        layer.to(dtype)
        linear.to(dtype)
    layer.eval()
    return Subject(name, linear, layer, dtype)


def parameters(subject: Subject) -> dict[str, Tensor]:
    """Return copies of all parameters, which require a gradient where they do."""
    return {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in _named(subject)}


def _named(subject: Subject) -> list[tuple[str, nn.Parameter]]:
    """Return each parameter once. One that has several names goes by that of the exercise."""
    found = {}
    for name, parameter in subject.layer.named_parameters(remove_duplicate=False):
        if name in TRAINED or id(parameter) not in found:
            found[id(parameter)] = name, parameter
    return list(found.values())


TRAINED = ("lora_A", "lora_B", "magnitude")
HELD_INSIDE = "parameter in a list, tuple or dict"


def kinds(subject: Subject, names: Collection[str]) -> dict[str, str]:
    """Return what each attribute of the layer is, an empty text if it has none.

    If it has none, but parameters in a list or another container of Python's, that is said.
    """
    own = [value for name, value in vars(subject.layer).items() if not name.startswith("_")]
    held = [
        item
        for value in own
        if isinstance(value, list | tuple | dict)
        for item in (value.values() if isinstance(value, dict) else value)
    ]
    missing = HELD_INSIDE if any(isinstance(item, nn.Parameter) for item in held) else ""
    found = {name: getattr(subject.layer, name, None) for name in names}
    return {n: missing if value is None else type(value).__name__ for n, value in found.items()}


def kept(subject: Subject) -> dict[str, Any]:
    """Return what has become of the base, and which other tensors of its size the layer keeps."""
    own = subject.layer.state_dict(keep_vars=True)
    pointers = {p.data_ptr() for p in subject.base.parameters()}
    shape = subject.base.weight.shape
    every = subject.layer.named_parameters(remove_duplicate=False)
    trained = {name for name, p in every if p.requires_grad}
    return {
        "original_layer": getattr(subject.layer, "original_layer", None) is subject.base,
        "elsewhere": [
            name
            for name, module in subject.layer.named_modules()
            if module is subject.base and name != "original_layer"
        ],
        "copies": [
            name
            for name, tensor in own.items()
            if tensor.shape == shape and tensor.data_ptr() not in pointers and name not in trained
        ],
        "trainable": [name for name, p in subject.base.named_parameters() if p.requires_grad],
        "training": subject.layer.training,
        **base(subject),
    }


def base(subject: Subject) -> dict[str, Tensor]:
    """Return copies of the base's weight and bias as they are now."""
    return {name: p.detach().clone() for name, p in subject.base.named_parameters()}


def held(subject: Subject, names: Collection[str]) -> dict[str, Tensor | None]:
    """Return copies of the tensors of these names, whether they are parameters or not."""
    found = {name: _held(subject.layer, name) for name in names}
    return {n: None if t is None else t.detach().clone() for n, t in found.items()}


def _held(layer: nn.Module, name: str) -> Tensor | None:
    """Return an attribute that is a tensor, or the weight of one that is an inner layer."""
    value = getattr(layer, name, None)
    if isinstance(value, nn.Module):
        value = getattr(value, "weight", None)
    return value if isinstance(value, Tensor) and value.is_floating_point() else None


def change(subject: Subject, values: dict[str, Tensor]) -> None:
    """Give tensors new values, and let them be trained.

    What is transposed, or has another shape but the same size, is filled as it is. Whether it is
    a parameter is another question.

    Raises:
        StudentCodeFailed: the layer has no such tensor, or one of another size.
    """
    for name, value in values.items():
        tensor = _held(subject.layer, name)
        if tensor is None or tensor.numel() != value.numel():
            raise StudentCodeFailed(f"{subject.name}.{name} is not as it has to be.")
        subject.changed[name] = value.shape
        if isinstance(tensor, nn.Parameter) or name in subject.layer._buffers:
            with torch.no_grad():
                tensor.copy_(in_shape(value, tensor.shape))
            tensor.requires_grad_()
        else:  # no call of layer.to() has reached it
            new = in_shape(value, tensor.shape).to(subject.dtype, copy=True)
            setattr(subject.layer, name, new.requires_grad_())


def in_shape(value: Tensor, shape: torch.Size) -> Tensor:
    """Return a matrix in the shape in which a layer holds it, which may be the transposed one."""
    return value.T if value.shape != shape == value.T.shape else value.reshape(shape)


def forward(subject: Subject, x: Tensor, training: bool, seed: int) -> dict[str, Any]:
    """Return the output for `x`, and what `x` is after the call; `seed` is for dropout."""
    given = x.to(subject.dtype, copy=True)
    with drawing_from(seed), _forward_of(subject, x):
        subject.layer.train(training)
        output = subject.layer(given)
    subject.layer.eval()
    output = output.detach().clone() if isinstance(output, Tensor) else output
    return {"output": output, "x": given}


def _forward_of(subject: Subject, x: Tensor) -> contextlib.AbstractContextManager[None]:
    return student_code(f"{subject.name}.forward(x), with x of shape {tuple(x.shape)},")


def outputs(subject: Subject, x: Tensor, seeds: list[int]) -> list[Any]:
    """Return the outputs for `x` in training mode, one for each seed."""
    return [forward(subject, x, True, seed)["output"] for seed in seeds]


def gradients(
    subject: Subject, x: Tensor, weights: Tensor, training: bool
) -> dict[str, Tensor | None] | None:
    """Return the gradients of `(output * weights).sum()` in `x` and every parameter.

    None stands for an output that depends on nothing trainable.

    Raises:
        StudentCodeFailed: the output is not a tensor of the size of `weights`, or the code raised.
    """
    given = x.to(subject.dtype, copy=True).requires_grad_()
    tensors = {name: _held(subject.layer, name) for name in subject.changed}
    for tensor in (*subject.layer.parameters(), *tensors.values()):
        tensor.grad = None
    with torch.random.fork_rng(devices=[]), _forward_of(subject, x):
        subject.layer.train(training)
        output = subject.layer(given)
    subject.layer.eval()
    if not isinstance(output, Tensor) or output.numel() != weights.numel():
        raise StudentCodeFailed(f"{subject.name}.forward gives no output to differentiate.")
    if not output.requires_grad:
        return None
    with student_code(f"the backward pass of {subject.name}.forward"):
        (output * weights.to(subject.dtype).view(output.shape)).sum().backward()
    found = {
        name: parameter.grad
        for name, parameter in subject.layer.named_parameters()
        if not any(parameter is tensor for tensor in tensors.values())
    }
    for name, tensor in tensors.items():
        found[name] = None if tensor.grad is None else in_shape(tensor.grad, subject.changed[name])
    return {"x": given.grad} | found


def learn(subject: Subject, x: Tensor, weights: Tensor, rate: float) -> Any:
    """Take a step of gradient descent on `(output * weights).sum()` with all that was changed.

    Returns:
        The output for `x` after it.
    """
    gradients(subject, x, weights, training=True)
    with torch.no_grad():  # by hand: the first optimiser of a process takes a second of imports
        for tensor in (_held(subject.layer, name) for name in subject.changed):
            if tensor.grad is not None:
                tensor.sub_(rate * tensor.grad)
    return forward(subject, x, False, 0)["output"]


def merge(subject: Subject, training: bool) -> dict[str, Any]:
    """Merge the layer in training or evaluation mode; return what it becomes."""
    subject.layer.train(training)
    with drawing_from(int(training)), student_code(f"{subject.name}.merge()"):
        merged = subject.layer.merge()
    mode = subject.layer.training
    subject.layer.eval()
    if not isinstance(merged, nn.Linear):
        return {"type": type(merged).__name__}
    bias = None if merged.bias is None else merged.bias.detach().clone()
    again = any(merged is earlier for earlier in subject.merged)
    subject.merged.append(merged)
    return {
        "type": "nn.Linear" if type(merged) is nn.Linear else type(merged).__name__,
        "weight": merged.weight.detach().clone(),
        "bias": bias,
        "new": merged is not subject.base,
        "again": again,
        "training": mode,
    }


STEPS = {
    step.__name__: step
    for step in (
        *(parameters, kinds, held, kept, base, change, forward),
        *(outputs, gradients, learn, merge),
    )
}
