"""What a check does with the student's own code: call it, and hand back plain tensors.

A check never touches a student's object itself. It builds a layer from given arrays, runs it,
asks for gradients, merges it, or calls a function, all through this module. So the object can be
elsewhere: in a notebook it is here, and when a class is graded it lives in another process and
the check holds a `Remote` that stands for it. Checks, and what they print, are the same.
"""

import contextlib
import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lab_utils.decomposition
import lab_utils.layers
from lab_utils.checks.report import CheckFailed, student_lines

# Where the code lives that an exercise asks the student to write (PEFT need not be installed).
PEFT = importlib.util.find_spec("peft")
LAB = Path(lab_utils.layers.__file__).parent
REFERENCE_LAYERS = (
    lab_utils.layers.__file__,
    *map(str, sorted((LAB / "mistakes").glob("*.py"))),  # answers but for a word
    *(PEFT.submodule_search_locations if PEFT else ()),
)
REFERENCE_MATHEMATICS = (lab_utils.decomposition.__file__, *REFERENCE_LAYERS)


@contextlib.contextmanager
def student_code(step: str, reference: tuple[str, ...]) -> Iterator[None]:
    """Run the student's code: `step` names it in messages, `reference` is what it may not call.

    Raises:
        CheckFailed: the code is not written yet, raised an error, or called the reference.
    """
    called = []

    def watch(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(reference):
            called.append(f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}")

    failure = cause = None
    # Warnings are dropped and stderr is sent to stdout: nbgrader gives a test cell that wrote
    # to stderr no marks, and a warning is not a wrong answer.
    with warnings.catch_warnings(), contextlib.redirect_stderr(sys.stdout):
        warnings.simplefilter("ignore")
        before = sys.getprofile()
        if reference:  # watching every call slows a training many times over
            sys.setprofile(watch)
        try:
            yield
        except NotImplementedError as error:
            failure, cause = f"{step} is not written yet (it raised NotImplementedError).", error
        except (Exception, SystemExit) as error:
            failure, cause = f"{step} raised {type(error).__name__}: {error}", error
        finally:
            sys.setprofile(before)
    if called:
        raise CheckFailed(
            f"{step} calls {called[0]}, which is the reference; this exercise asks for your own "
            "code, so a layer or function of lab_utils or PEFT, wrapped, subclassed or handed "
            "back, earns no marks."
        )
    if failure:
        raise CheckFailed(failure, student_lines(cause)) from cause


class Remote:
    """Stands for a student's object that lives in another process."""

    def ask(
        self, reference: tuple[str, ...], way: Callable, /, *arguments: Any, **named: Any
    ) -> Any:
        """Return what `way(the object, *arguments, **named)` returns in that process.

        `way` is a function of a module. Arguments and answer are numbers, texts, tensors,
        dtypes, None, and lists, tuples and dicts of these. What the call changed in a mutable
        argument is changed in the one that was given, too.

        Args:
            reference: the files whose code the student may not call; not there to be called.

        Raises:
            CheckFailed: as `way` does, or the process ended or answered with something else.
        """
        raise NotImplementedError


def call_function(
    function: Callable | Remote,
    *arguments: Any,
    reference: tuple[str, ...] = REFERENCE_MATHEMATICS,
    **named: Any,
) -> Any:
    """Call the student's function and return what it returns.

    Args:
        function: the student's.
        arguments, named: what to call it with.
        reference: the files whose code it may not call.

    Raises:
        CheckFailed: as in `student_code`.
    """
    if isinstance(function, Remote):
        return function.ask(reference, call_function, *arguments, reference=reference, **named)
    shown = [str(tuple(a.shape)) if isinstance(a, Tensor) else repr(a) for a in arguments]
    shown += [f"{name}={value!r}" for name, value in named.items()]
    name = getattr(function, "__name__", "the function")
    with student_code(f"{name}({', '.join(shown)})", reference):
        return function(*arguments, **named)


def probe(
    question: Callable, student: Any, *arguments: Any, step: str, reference: tuple[str, ...]
) -> Any:
    """Ask a question about the student's object: return `question(student, *arguments)`.

    A question is a function of a checks module. It does all that touches the student's object,
    and gives back what it saw; what that is worth is decided outside it. Arguments and answer
    are numbers, texts, tensors, None, and lists, tuples and dicts of these.

    Args:
        step: what the student's code is asked to do, for messages.
        reference: the files whose code the student may not call.

    Raises:
        CheckFailed: as in `student_code`.
    """
    named = {"step": step, "reference": reference}
    if isinstance(student, Remote):
        return student.ask(reference, _answer, question, *arguments, **named)
    return _answer(student, question, *arguments, **named)


def _answer(
    student: Any, question: Callable, *arguments: Any, step: str, reference: tuple[str, ...]
) -> Any:
    with student_code(step, reference):
        return question(student, *arguments)


def where_the_layer_is(method: Callable) -> Callable:
    """Make a method of `LayerSubject` run in the process that holds the student's layer."""

    @functools.wraps(method)
    def here_or_there(self: "LayerSubject", *arguments: Any, **named: Any) -> Any:
        if self.remote is None:
            return method(self, *arguments, **named)
        what = (_ask_layer, self.number, method.__name__)
        return self.remote.ask(REFERENCE_LAYERS, *what, *arguments, **named)

    return here_or_there


class LayerSubject:
    """One layer of the student's class, on a base layer made from given arrays.

    Args:
        layer_type: the student's class, or what stands for it.
        weight, bias: of the base layer; `bias` may be None.
        arguments: `rank`, `alpha`, `dropout` and whatever else the class takes.
        dtype: the layer is built in float32 and then cast, as `model.double()` does.
    """

    def __init__(
        self,
        layer_type: type | Remote,
        weight: Tensor,
        bias: Tensor | None,
        arguments: dict[str, Any],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        self.remote = layer_type if isinstance(layer_type, Remote) else None
        if self.remote is not None:
            given = (weight, bias, arguments, dtype)
            self.number, self.name = self.remote.ask(REFERENCE_LAYERS, _build_layer, *given)
            return
        self.name = getattr(layer_type, "__name__", repr(layer_type))
        for parent in getattr(layer_type, "__mro__", ()):
            if parent.__module__ == lab_utils.layers.__name__:
                raise CheckFailed(
                    f"{self.name} is or subclasses {parent.__module__}.{parent.__name__}, which is "
                    "the reference; this exercise asks for your own code."
                )
        out_features, in_features = weight.shape
        self.base = nn.Linear(in_features, out_features, bias=bias is not None)
        with torch.no_grad():
            self.base.weight.copy_(weight)
            if bias is not None:
                self.base.bias.copy_(bias)
        with self._running("__init__"):
            self.layer = layer_type(self.base, **arguments)
        if not isinstance(self.layer, nn.Module):
            raise CheckFailed(
                f"{self.name}(...) is a {type(self.layer).__name__}; it must be an nn.Module."
            )
        self.layer.to(dtype)
        self.layer.eval()

    def _running(self, method: str) -> contextlib.AbstractContextManager[None]:
        return student_code(f"{self.name}.{method}", REFERENCE_LAYERS)

    @where_the_layer_is
    def parameter(self, name: str) -> Tensor:
        """Return a copy of the parameter, or fail if the layer has none of this name."""
        parameter = getattr(self.layer, name, None)
        if not isinstance(parameter, nn.Parameter):
            found = "nothing" if parameter is None else f"a {type(parameter).__name__}"
            raise CheckFailed(
                f"{self.name}.{name} must be an nn.Parameter, so that an optimiser finds it; "
                f"found {found}."
            )
        return parameter.detach().clone()

    @where_the_layer_is
    def set_parameter(self, name: str, value: Tensor) -> None:
        """Give a parameter new values; one of another shape but the same size is viewed."""
        self.parameter(name)
        with torch.no_grad():
            parameter = getattr(self.layer, name)
            parameter.copy_(value.view_as(parameter))

    @where_the_layer_is
    def trainable(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of what an optimiser would train."""
        return {n: tuple(p.shape) for n, p in self.layer.named_parameters() if p.requires_grad}

    @where_the_layer_is
    def base_tensors(self) -> dict[str, Tensor]:
        """Return copies of the base layer's weight and bias as they are now."""
        return {name: p.detach().clone() for name, p in self.base.named_parameters()}

    @where_the_layer_is
    def forward(self, x: Tensor, training: bool = False, seed: int = 0) -> Tensor:
        """Return the output for `x`, in training or evaluation mode; `seed` is for dropout."""
        with torch.random.fork_rng(devices=[]), self._running("forward"):
            torch.manual_seed(seed)
            self.layer.train(training)
            output = self.layer(x.to(self.dtype, copy=True))  # the check needs its own later
        self.layer.eval()
        return self._tensor("forward", output).detach()

    @where_the_layer_is
    def gradients(self, x: Tensor, weights: Tensor) -> dict[str, Tensor | None]:
        """Return the gradients of `(output * weights).sum()` in `x` and every parameter."""
        x = x.to(self.dtype).clone().requires_grad_()
        self.layer.zero_grad()
        with self._running("forward"):
            output = self.layer(x)
        loss = (self._tensor("forward", output) * weights.to(self.dtype)).sum()
        if not loss.requires_grad:
            raise CheckFailed(
                f"the output of {self.name}.forward does not depend on a trainable parameter, "
                "so nothing could be trained; leave .data, .detach() and no_grad out of it."
            )
        with self._running("backward"):
            loss.backward()
        return {"x": x.grad} | {name: p.grad for name, p in self.layer.named_parameters()}

    @where_the_layer_is
    def merge(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of what the layer merges to."""
        with self._running("merge()"):
            merged = self.layer.merge()
        if not isinstance(merged, nn.Linear):
            raise CheckFailed(
                f"{self.name}.merge() must return an nn.Linear; found a {type(merged).__name__}."
            )
        bias = None if merged.bias is None else merged.bias.detach().clone()
        return merged.weight.detach().clone(), bias

    def _tensor(self, method: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise CheckFailed(
                f"{self.name}.{method} must return a tensor; found a {type(value).__name__}."
            )
        return value


# The layers of one notebook that a check works on from another process, in the order of their
# making. They stay: a check may come back to any of them.
_layers: list[LayerSubject] = []


def _build_layer(layer_type: type, *given: Any) -> tuple[int, str]:
    """Build a layer for a check in another process; return its number and its class's name."""
    _layers.append(LayerSubject(layer_type, *given))
    return len(_layers) - 1, _layers[-1].name


def _ask_layer(_: type, number: int, method: str, *arguments: Any, **named: Any) -> Any:
    return getattr(_layers[number], method)(*arguments, **named)
