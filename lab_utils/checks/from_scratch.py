"""Checks of lesson 02: the student's `LoRALayer` and `DoRALayer`."""

import copy
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lab_utils.checks.diagnosis import other_kind
from lab_utils.checks.report import (
    CheckFailed,
    Comparison,
    Mistake,
    Report,
    chosen,
    close,
    kind_of,
    named,
)
from lab_utils.checks.subject import REFERENCE_LAYERS, check, name_of, probe
from lab_utils.questions.layers import ask_layer

LORA = "1. A LoRA layer"
HOLDS = "2. What a DoRA layer holds"
NORM = "3. Divide by the norm"
AXIS = "4. Which axis?"
DETACH = "5. The norm is a constant in the backward pass"
DROPOUT = "6. Dropout on the low-rank path only"
MERGE = "7. Merge"

B_NOT_ZERO = Mistake(
    "lora_B is not zero", "Start lora_B at zeros, so that the update starts at zero.", LORA
)
A_ZERO = Mistake(
    "lora_A is zero",
    "With lora_A and lora_B both zero their gradients are zero, and nothing is ever learned.",
    LORA,
)
A_NOT_RANDOM = Mistake(
    "lora_A is not random",
    "Rows that are alike get gradients that are alike: fill it with nn.init.kaiming_uniform_.",
    LORA,
)
A_THE_SAME = Mistake(
    "the same lora_A every time",
    "Draw it anew for each layer: without torch.manual_seed, or a generator's, in __init__.",
    LORA,
)
RANK_IGNORED = Mistake("rank ignored", "rank is an argument: lora_A has as many rows.", LORA)
NO_PARAMETER = Mistake(
    "no nn.Parameter",
    "An optimiser finds what is an nn.Parameter of the layer: wrap the tensor in one.",
    LORA,
)
OTHER_NAME = Mistake(
    "another name",
    "Checks, optimisers and files find it by the name that the exercise says.",
    LORA,
)
NO_SUPER = Mistake(
    "super().__init__() left out", "An nn.Module calls it before it gets layers or tensors.", LORA
)
BIAS_ASSUMED = Mistake(
    "a bias taken for granted", "original_layer.bias may be None: ask before you use it.", LORA
)
SOME_SHAPES = Mistake(
    "only some shapes of x",
    "F.linear(x, weight), like x @ weight.T, takes any leading dimensions.",
    LORA,
)
NEVER_FILLED = {
    name: Mistake(
        f"{name} is never given values",
        "torch.empty and torch.Tensor(sizes) hold whatever was in memory before, here NaN: fill "
        f"{name} {how}.",
        section,
    )
    for name, how, section in (
        ("lora_A", "with nn.init.kaiming_uniform_", LORA),
        ("lora_B", "with zeros", LORA),
        ("magnitude", "with the norms of W0", HOLDS),
    )
}
FACTOR_TRANSPOSED = Mistake(
    "factor transposed", "lora_A is (rank, in_features), lora_B is (out_features, rank).", LORA
)
INNER_MODULE = Mistake(
    "parameter of an inner module",
    "Keep lora_A and lora_B as nn.Parameter on the layer itself, not in an nn.Linear.",
    LORA,
)
BASE_TRAINABLE = Mistake(
    "base weight trainable",
    "Freeze the original layer, bias included: original_layer.requires_grad_(False).",
    LORA,
)
ADAPTER_FROZEN = Mistake(
    "adapter frozen",
    "Freeze original_layer, not the whole layer: lora_A and lora_B are what is trained.",
    LORA,
)
EXTRA_TRAINED = Mistake(
    "something else trainable", "Nothing but the adapter's own parameters is trained.", LORA
)
COPIED = Mistake(
    "original layer not kept",
    "Keep the layer itself, self.original_layer = original_layer: a copy takes its memory again.",
    LORA,
)
IN_PLACE = Mistake(
    "in-place change of the base layer",
    "The adapter and the merged layer are new; the pretrained weight stays as it was.",
    LORA,
)
X_CHANGED = Mistake(
    "in-place change of the input",
    "Operators such as *=, and methods that end in _, write into the caller's x.",
    LORA,
)
NO_RETURN = Mistake("nothing returned", "A method without return returns None.", LORA)
BIAS_LOST = Mistake("bias lost", "The output and the merged layer need the base's bias.", LORA)
BIAS_TWICE = Mistake(
    "bias added twice", "original_layer(x) has added the bias already: add it once.", LORA
)
BIAS_SCALED = Mistake(
    "bias scaled", "The bias is added last: neither m nor the norm acts on it.", LORA
)
BIAS_MADE_UP = Mistake(
    "another bias", "A new nn.Linear has a random bias: copy the base's, or pass bias=False.", MERGE
)
BIAS_OF_ZEROS = Mistake(
    "a bias of zeros", "Where the base has no bias, nor has the merged layer: bias=False.", MERGE
)
MERGED_COARSE = Mistake(
    "precision lost", "The merged layer has the dtype of the base's weight.", MERGE
)
SCALING_LEFT_OUT = Mistake("scaling left out", "Multiply B A by scaling = alpha / rank.", LORA)
SCALING_TWICE = Mistake("scaling applied twice", "Multiply B A by alpha / rank once.", LORA)
SCALING_OTHER = Mistake(
    "another scaling", "scaling is alpha / rank: not alpha, not alpha / sqrt(rank).", LORA
)
SCALING_MULTIPLIED = Mistake(
    "alpha times rank", "scaling is alpha / rank: a larger rank makes it smaller.", LORA
)
SCALING_UPSIDE_DOWN = Mistake("scaling upside down", "scaling is alpha / rank.", LORA)
ALPHA_LEFT_OUT = Mistake("alpha left out", "scaling is alpha / rank, not 1 / rank.", LORA)
SCALING_WHOLE = Mistake(
    "whole-number division", "Use / and not //: a scaling may be a fraction.", LORA
)
SCALING_FIXED = Mistake(
    "scaling of the defaults", "scaling is alpha / rank, of the arguments that are passed.", LORA
)
FROZEN_SCALED = Mistake(
    "frozen weight scaled", "The scaling belongs to B A alone: W0 x and b are as they were.", LORA
)
OUTPUT_DOUBLED = Mistake(
    "twice the frozen output", "Before training the output is W0 x + b, once.", LORA
)
UPDATE_LEFT_OUT = Mistake("update left out", "Add scaling * B A to the frozen weight.", LORA)
UPDATE_SUBTRACTED = Mistake("update subtracted", "Add scaling * B A, do not subtract it.", LORA)
FROZEN_LEFT_OUT = Mistake("frozen weight left out", "The update is added to W0 x.", LORA)
FROZEN_TWICE = Mistake(
    "frozen output added twice", "W' contains W0: do not add original_layer(x) to W' x.", LORA
)
GRADIENT_CUT = Mistake(
    "gradient cut off",
    "Leave .data, .detach() and no_grad out of forward; DoRA's norm alone is detached.",
    LORA,
)
RANDOM_MAGNITUDE = Mistake(
    "random magnitude",
    "The magnitude starts as ||W0||, so that the first output is that of the frozen layer.",
    HOLDS,
)
MAGNITUDE_OF_ONES = Mistake(
    "magnitude of ones or zeros",
    "The magnitude starts as ||W0||, so that the first output is that of the frozen layer.",
    HOLDS,
)
MAGNITUDE_SCALED = Mistake(
    "magnitude scaled", "The scaling belongs to B A alone: m starts as ||W0||.", HOLDS
)
MAGNITUDE_FROZEN = Mistake(
    "magnitude frozen", "Make it an nn.Parameter and let gradients reach it.", HOLDS
)
MAGNITUDE_UNUSED = Mistake(
    "magnitude unused", "The trained magnitude is what multiplies each direction.", HOLDS
)
MAGNITUDE_ADDED = Mistake(
    "magnitude as a change", "m is the whole length: it is not added to another one.", HOLDS
)
POSITIVE_MAGNITUDE = Mistake(
    "magnitude made positive",
    "Multiply by m as it is: training may take it to zero or below.",
    HOLDS,
)
LOST_DIMENSION = Mistake(
    "summed dimension dropped",
    "Pass keepdim=True, so that the magnitude keeps two dimensions.",
    HOLDS,
)
NO_NORMALISATION = Mistake(
    "no normalisation", "Divide W0 + scaling * B A by its norm before m multiplies it.", NORM
)
NORM_OF_BASE = Mistake(
    "norm of W0 instead of V",
    "Divide by the norm of the updated weight, which changes as B A is trained.",
    NORM,
)
NORM_UNSCALED = Mistake(
    "scaling left out of the norm", "The norm is that of V = W0 + scaling * B A.", NORM
)
NOT_A_LENGTH = Mistake(
    "not the Euclidean length",
    "The norm is the square root of the sum of squares of each vector, taken once.",
    NORM,
)
WHOLE_NORM = Mistake(
    "one norm for the whole matrix", "Each row (norm_dim=0: each column) has a length.", NORM
)
DIM_AS_P = Mistake(
    "norm_dim taken as p",
    "The first argument of norm is its order: write norm(dim=norm_dim, keepdim=True).",
    NORM,
)
ANOTHER_EPS = Mistake(
    "another eps", "What keeps from dividing by zero must be far smaller than any norm.", NORM
)
LOGARITHM = Mistake("logarithm of the magnitude", "m is the length itself.", HOLDS)
FACTOR_ON_UPDATE = Mistake(
    "factor on the update only", "m / ||V|| multiplies W0 and the update alike.", NORM
)
NORM_OF_UPDATE = Mistake(
    "norm of the update alone", "The norm is that of V = W0 + scaling * B A.", NORM
)
ZERO_DIVISION = Mistake(
    "division by a zero norm",
    "A row of zeros has norm 0, and 0/0 is NaN: divide by norm.clamp_min(1e-8).",
    NORM,
)
UPDATE_ON_DIRECTION = Mistake(
    "update added to the direction",
    "Add scaling * B A to W0 itself and divide the sum, not W0 alone, by its norm.",
    NORM,
)
UPDATE_OUTSIDE = Mistake(
    "update added after the norm",
    "W0 + scaling * B A as a whole is divided by its norm and multiplied by m.",
    NORM,
)
NORMALISED_UPDATE = Mistake(
    "only the update normalised", "The norm is that of W0 + scaling * B A, not of B A.", NORM
)
WRONG_AXIS = Mistake(
    "norm over the wrong axis",
    "norm_dim is the dimension that the norm sums over; 1 gives one magnitude per output.",
    AXIS,
)
NOT_DETACHED = Mistake(
    "norm not detached", "Treat the norm as a constant: norm.detach() (paper, eq. 11).", DETACH
)
DROPOUT_ON_FROZEN = Mistake(
    "dropout on the frozen path", "Drop inputs of B A only: W0 must see every input.", DROPOUT
)
DROPOUT_UNUSED = Mistake(
    "dropout unused", "Pass the input of B A through nn.Dropout(dropout).", DROPOUT
)
DROPOUT_IN_EVAL = Mistake(
    "dropout in evaluation",
    "nn.Dropout rests after layer.eval(); F.dropout needs training=.",
    DROPOUT,
)
DROPPED_ELSEWHERE = Mistake(
    "not the input dropped",
    "Drop inputs of A: not what A or B gives, not entries of a weight.",
    DROPOUT,
)
NOT_RESCALED = Mistake(
    "kept inputs not rescaled",
    "What is kept is divided by 1 - dropout, as nn.Dropout does.",
    DROPOUT,
)
P_MIRRORED = Mistake(
    "dropout mirrored",
    "dropout is the probability of dropping an input, not of keeping it.",
    DROPOUT,
)
MASK_FIXED = Mistake(
    "the same inputs dropped at every pass", "Draw anew at each pass, as nn.Dropout does.", DROPOUT
)
VECTORS_DROPPED = Mistake(
    "whole vectors dropped", "Each input is dropped or kept by itself, as in nn.Dropout.", DROPOUT
)
MASK_SHARED = Mistake(
    "one mask for all vectors", "Each input of each vector is dropped or kept by itself.", DROPOUT
)
OTHER_IN_TRAINING = Mistake(
    "another output in training",
    "Only dropout tells training from evaluation, and with dropout=0.0 nothing does.",
    DROPOUT,
)
P_FIXED = Mistake(
    "another dropout probability", "Pass the argument on: nn.Dropout(dropout).", DROPOUT
)
NORM_MISSING_IN_MERGE = Mistake(
    "norm missing from the merged weight", "The merged weight is m * V / ||V||.", MERGE
)
MERGED_RANDOM = Mistake(
    "random weight in merge()", "A new nn.Linear has random weights: copy W' into it.", MERGE
)
ADAPTER_CHANGED = Mistake(
    "adapter changed by merge()", "merge() makes a new layer; the adapter can be trained on.", MERGE
)
MODE_CHANGED = Mistake(
    "mode changed by merge()", "merge() needs neither eval() nor train(): leave the mode.", MERGE
)


class Case:
    """One layer to check: its sizes, and every array that the check works with, from one seed.

    The layer is not square, because a square one hides a wrong axis; and the arrays are those
    of a trained adapter, because DoRA starts as LoRA and LoRA starts as the frozen layer. One
    magnitude is negative and one is zero: nothing keeps training from either.
    """

    def __init__(
        self,
        in_features: int = 7,
        out_features: int = 4,
        rank: int = 2,
        alpha: float = 3.0,
        bias: bool = True,
        norm_dim: int = 1,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        given_norm_dim: int | None = None,
    ) -> None:
        """Draw everything from the seed.

        Args:
            given_norm_dim: what the layer is told, where that is not the axis that it has.
        """
        self.rank, self.alpha, self.norm_dim, self.dtype = rank, alpha, norm_dim, dtype
        self.seed = seed
        self.leading: tuple[int, ...] = (2, 3)  # dimensions of x
        self.scaling = alpha / rank
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.weight = draw(out_features, in_features)
        self.bias = draw(out_features) if bias else None
        self.lora_A = draw(rank, in_features)
        self.lora_B = draw(out_features, rank)
        self.magnitude = self.start_magnitude() * (1.5 + draw(*self.start_magnitude().shape).abs())
        flat = self.magnitude.view(-1)
        flat[0], flat[1] = -flat[0], 0.0
        self.x = self.all_of_x = draw(2, 3, in_features)
        self.output_weights = draw(2, 3, out_features)
        self.given = {"rank": rank, "alpha": alpha}  # None of it where the defaults are looked at
        self.given_norm_dim = norm_dim if given_norm_dim is None else given_norm_dim
        if self.given_norm_dim != 1:
            self.given["norm_dim"] = self.given_norm_dim

    def __str__(self) -> str:
        out_features, in_features = self.weight.shape
        return (
            f"{in_features} → {out_features}, rank {self.rank}, alpha {self.alpha:g}, "
            f"{'bias' if self.bias is not None else 'no bias'}, {self.dtype}"
        )

    def other(self) -> "Case":
        """Return a case of other sizes, rank and alpha, with a bias where this one has none.

        An explanation of both outputs is not a coincidence of one case's numbers.
        """
        out_features, in_features = self.weight.shape
        in_features, out_features = in_features + 3, out_features + 1
        rank = self.rank + 1 if self.rank < out_features - 1 else self.rank - 1
        other = Case(
            in_features + (in_features == out_features),
            out_features,
            rank,
            2 * rank + 1.3,  # so that alpha / rank is neither whole nor near 1
            self.bias is None,
            self.norm_dim,
            self.dtype,
            self.seed + 1000,
            self.given_norm_dim,
        )
        return other if self.leading == other.leading else other.shaped(*self.leading)

    def by_default(self) -> "Case":
        """Return a case that is given no rank, no alpha, no dropout and no norm_dim."""
        case = Case(11, 9, 8, 16.0, dtype=self.dtype, seed=self.seed + 2000)
        case.given = {}
        return case

    def shaped(self, *leading: int) -> "Case":
        """Return this case with x, and what weighs outputs, in other leading dimensions.

        Without any, x is one vector.
        """
        changed = copy.copy(self)
        for name in ("x", "output_weights"):
            value = getattr(self, name)
            value = value if leading else value[0, 0]
            setattr(changed, name, value.reshape(*leading, value.shape[-1]))
        changed.leading = leading
        return changed

    def along(self, norm_dim: int, given: int) -> "Case":
        """Return a case of the same sizes with this norm_dim, where the layer is told another."""
        out_features, in_features = self.weight.shape
        bias = self.bias is not None
        sizes = (in_features, out_features, self.rank, self.alpha, bias)
        case = Case(*sizes, norm_dim, self.dtype, self.seed, given)
        return case if self.leading == case.leading else case.shaped(*self.leading)

    def at_start(self) -> "Case":
        """Return this case before training."""
        start = copy.copy(self)
        start.lora_B = torch.zeros_like(self.lora_B)
        start.magnitude = self.start_magnitude()
        return start

    def with_zero_vector(self) -> "Case":
        """Return this case with a row of zeros (norm_dim=1) or a column of zeros in the weight."""
        changed = copy.copy(self)
        changed.weight = self.weight.clone()
        changed.weight.select(1 - self.norm_dim, 2).zero_()
        return changed

    def inputs(self) -> dict[str, Tensor]:
        """Return inputs of every shape that a layer takes."""
        flat = self.all_of_x.flatten(0, 1)
        return {
            "of shape (2, 3, in)": self.all_of_x,
            "that is a batch of vectors": flat,
            "that is one vector": flat[0],
            "that is a batch of one": flat[:1],
            "that is an empty batch": flat[:0],
            "with four dimensions": self.all_of_x[:, None],
        }

    def update(self, scaling: float | None = None) -> Tensor:
        """Return `scaling * B A`."""
        return (self.scaling if scaling is None else scaling) * (self.lora_B @ self.lora_A)

    def start_magnitude(self) -> Tensor:
        return self.length(self.weight)

    def length(self, matrix: Tensor) -> Tensor:
        return matrix.norm(dim=self.norm_dim, keepdim=True)

    def factor(self) -> Tensor:
        """Return `m / ||V||`."""
        return self.magnitude / self.length(self.weight + self.update()).clamp_min(1e-8)

    def scalings(self) -> Iterator[tuple[float, Mistake]]:
        """Yield the scaling as each known mistake makes it."""
        yield 1.0, SCALING_LEFT_OUT
        yield self.scaling**2, SCALING_TWICE
        yield self.alpha, SCALING_OTHER
        yield self.alpha / math.sqrt(self.rank), SCALING_OTHER
        for size in self.weight.shape:
            yield self.alpha / size, SCALING_OTHER
        yield self.alpha * self.rank, SCALING_MULTIPLIED
        yield self.rank / self.alpha, SCALING_UPSIDE_DOWN
        yield 1 / self.rank, ALPHA_LEFT_OUT
        yield float(self.alpha // self.rank), SCALING_WHOLE
        yield 2.0, SCALING_FIXED
        yield -self.scaling, UPDATE_SUBTRACTED

    def scaled(self, scaling: float) -> "Case":
        """Return this case with another scaling, as a wrong layer has it."""
        changed = copy.copy(self)
        changed.scaling = scaling
        return changed

    def merged(self, method: str, scaling: float | None = None) -> Tensor:
        """Return `W'` of a right layer; with another scaling, that of a wrong one."""
        updated = self.weight + self.update(scaling)
        if method == "lora":
            return updated
        return self.magnitude * updated / self.length(updated).clamp_min(1e-8)

    def wrong_weights(self, method: str) -> Iterator[tuple[Tensor, Mistake]]:
        """Yield `W'` as each known mistake would make it; as many for every case."""
        if method == "dora":
            update, m, start = self.update(), self.magnitude, self.start_magnitude()
            updated = self.weight + update
            length, start = (n.clamp_min(1e-8) for n in (self.length(updated), start))
            across = updated.norm(dim=1 - self.norm_dim, keepdim=True).clamp_min(1e-8)
            on_direction = self.weight / start + update
            yield m * updated, NO_NORMALISATION
            yield m * updated / across, WRONG_AXIS
            yield m * updated / start, NORM_OF_BASE
            unscaled = self.length(self.weight + update / self.scaling).clamp_min(1e-8)
            yield m * updated / unscaled, NORM_UNSCALED
            yield m * updated / length**2, NOT_A_LENGTH
            yield (
                m * updated / updated.abs().sum(self.norm_dim, keepdim=True).clamp_min(1e-8),
                NOT_A_LENGTH,
            )
            yield (
                m * updated / updated.abs().amax(self.norm_dim, keepdim=True).clamp_min(1e-8),
                NOT_A_LENGTH,
            )
            yield m * updated / updated.norm(), WHOLE_NORM
            yield m * updated / updated.norm(p=self.norm_dim), DIM_AS_P
            yield m.abs() * updated / length, POSITIVE_MAGNITUDE
            yield m.clamp_min(0) * updated / length, POSITIVE_MAGNITUDE
            yield from ((w, MAGNITUDE_UNUSED) for w in (start * updated / length, updated))
            yield updated / length, MAGNITUDE_UNUSED
            yield (start + m) * updated / length, MAGNITUDE_ADDED
            yield (1 + m) * updated / length, MAGNITUDE_ADDED
            yield m * self.weight / start, UPDATE_LEFT_OUT
            yield m * on_direction, UPDATE_ON_DIRECTION
            yield m * on_direction / self.length(on_direction).clamp_min(1e-8), UPDATE_ON_DIRECTION
            yield m * self.weight / start + update, UPDATE_OUTSIDE
            yield m * self.weight / length + update, UPDATE_OUTSIDE
            yield self.weight + m * update / self.length(update), NORMALISED_UPDATE
            yield m * update / self.length(update), FROZEN_LEFT_OUT
            yield self.weight + m * update / length, FACTOR_ON_UPDATE
            yield m * updated / self.length(update).clamp_min(1e-8), NORM_OF_UPDATE
            yield m.exp() * updated / length, LOGARITHM
            for eps in (1e-2, 0.1, 1.0):
                yield m * updated / (self.length(updated) + eps), ANOTHER_EPS
        else:
            yield self.update(), FROZEN_LEFT_OUT
        for scaling, mistake in self.scalings():
            yield self.merged(method, scaling), mistake
        yield self.weight, UPDATE_LEFT_OUT

    def wrong_layers(self, method: str) -> Iterator[tuple[Tensor, Tensor | None, Mistake]]:
        """Yield weight and bias as each known mistake would make them; as many for every case."""
        right, bias = self.merged(method), self.bias
        for weight, mistake in self.wrong_weights(method):
            yield weight, bias, mistake
            yield weight, None, mistake
        twice = None if bias is None else 2 * bias
        yield self.weight + right, twice, FROZEN_TWICE
        yield self.weight + right, bias, FROZEN_TWICE
        for scaled in (self.scaling * right, self.scaling * self.merged(method, 1.0)):
            yield scaled, None if bias is None else self.scaling * bias, FROZEN_SCALED
            yield scaled, bias, FROZEN_SCALED
        yield right, None, BIAS_LOST
        yield right, twice, BIAS_TWICE
        if method == "dora" and self.norm_dim == 1:
            scaled = None if bias is None else self.factor().flatten() * bias
            yield right, scaled, BIAS_SCALED


def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


MODES = ("evaluation", "training")


class Answers:
    """What came of each step that a layer was taken through, by the names of the steps."""

    def __init__(self, name: str, replies: dict[str, dict[str, Any]]) -> None:
        self.name = name  # of the student's class
        self._replies = replies

    def __getitem__(self, step: str) -> Any:
        """Return what came of a step.

        Raises:
            CheckFailed: the student's code failed in it.
        """
        reply = self._replies[step]
        if "failed" in reply:
            failure = CheckFailed(str(reply["failed"]), [str(line) for line in reply["lines"]])
            raise named(failure, reply.get("mistake"))
        return reply["result"]

    def fails(self, step: str) -> bool:
        return "failed" in self._replies[step]

    def output(self, step: str) -> Tensor:
        """Return the output of a step `forward`.

        Raises:
            CheckFailed: it is not a tensor.
        """
        return self.tensor(self[step]["output"], "forward")

    def tensor(self, value: Any, method: str) -> Tensor:
        if not isinstance(value, Tensor):
            failure = CheckFailed(
                f"{self.name}.{method} must return a tensor; found {kind_of(value)}."
            )
            raise named(failure, other_kind(value, "a tensor", LORA))
        return value


def ask(
    layer_type: Any,
    case: Case,
    steps: dict[str, list[Any]],
    *,
    dropout: float = 0.0,
    seed: int = 0,
) -> Answers:
    """Build a layer of the student's on the case's base, and take it through the steps.

    Args:
        steps: by a name of our own, the name of a step of `lab_utils.questions.layers` and its
            arguments.
    """
    replies = _ask(layer_type, case, case.bias, steps, dropout, seed)
    failed = [reply for reply in replies.values() if "failed" in reply]
    for reply in failed:
        if "before Module.__init__() call" in reply["failed"]:
            reply["mistake"] = NO_SUPER
    if case.bias is None and any("NoneType" in reply["failed"] for reply in failed):
        zeros = torch.zeros(len(case.weight))
        with_bias = _ask(layer_type, case, zeros, steps, dropout, seed)
        for name, reply in replies.items():
            if "failed" in reply and "failed" not in with_bias[name]:
                reply["mistake"] = BIAS_ASSUMED
    return Answers(name_of(layer_type), replies)


def _ask(
    layer_type: Any,
    case: Case,
    bias: Tensor | None,
    steps: dict[str, list[Any]],
    dropout: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    replies = probe(
        ask_layer,
        layer_type,
        {"weight": case.weight, "bias": bias},
        case.given | ({"dropout": dropout} if case.given else {}),
        case.dtype,
        seed,
        list(steps.values()),
        step=name_of(layer_type),
        reference=REFERENCE_LAYERS,
    )
    return {name: dict(reply) for name, reply in zip(steps, replies, strict=True)}


@check(forbids=REFERENCE_LAYERS, seeded=True)
def check_lora_layer(layer_type: type, aspect: str | None = None, **sizes) -> None:
    """Check a `LoRALayer(original_layer, rank=8, alpha=16.0, dropout=0.0)`.

    Args:
        aspect: `"start"` (parameters, and the output before training), `"forward"` (output and
            gradients of a trained layer), `"dropout"` or `"merge"`; all of them if None.
        sizes: arguments of `Case`: `in_features`, `out_features`, `rank`, `alpha`, `bias`,
            `dtype`, `seed`.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    aspects = {"start": _start, "forward": _forward, "dropout": _dropout, "merge": _merge}
    for name in chosen(aspect, aspects):
        case = Case(**sizes)
        with Report(f"LoRALayer · {name} · {case}") as report:
            case = _with_x_that_is_taken(layer_type, case)
            aspects[name](report, layer_type, "lora", case)
            if name == "forward":
                _gradients(report, layer_type, "lora", case)


@check(forbids=REFERENCE_LAYERS, seeded=True)
def check_dora_layer(layer_type: type, aspect: str | None = None, **sizes) -> None:
    """Check a `DoRALayer(original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1)`.

    Args:
        aspect: `"start"` (parameters, and the output before training), `"forward"`, `"axis"`
            (all of it with `norm_dim=0`), `"gradients"`, `"dropout"` or `"merge"`; all if None.
        sizes: arguments of `Case`, as in `check_lora_layer`.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    aspects = {
        "start": _start,
        "forward": _forward,
        "axis": _axis,
        "gradients": _gradients,
        "dropout": _dropout,
        "merge": _merge,
    }
    for name in chosen(aspect, aspects):
        case = Case(**sizes, norm_dim=0 if name == "axis" else 1)
        with Report(f"DoRALayer · {name} · {case}") as report:
            case = _with_x_that_is_taken(layer_type, case)
            if name in ("gradients", "dropout", "merge"):
                case = _with_its_axis(layer_type, case)
            aspects[name](report, layer_type, "dora", case)


def _with_x_that_is_taken(layer_type: Any, case: Case) -> Case:
    """Return the case with x in a shape that the layer takes, if there is one.

    That a layer takes any shape is asked once, with its output.
    """
    shapes = {"three": ["forward", case.x, False, 0], "two": ["forward", case.x[0], False, 0]}
    shapes["one"] = ["forward", case.x[0, 0], False, 0]
    answers = ask(layer_type, case, shapes)
    if answers.fails("three") and not answers.fails("two"):
        return case.shaped(-1)
    if answers.fails("three") and not answers.fails("one"):
        return case.shaped()
    return case


def _with_its_axis(layer_type: Any, case: Case) -> Case:
    """Return the case along the axis that the layer has: a wrong one costs the points of others."""
    answers = ask(layer_type, case, {"held": ["held", ["magnitude"]]})
    found = None if answers.fails("held") else answers["held"]["magnitude"]
    across = case.weight.shape[case.norm_dim]
    if found is None or found.numel() != across or across == case.magnitude.numel():
        return case
    return case.along(1 - case.norm_dim, given=case.given_norm_dim)


# ---- before training


def _start(report: Report, layer_type: Any, method: str, case: Case) -> None:
    for each in (case, case.other(), case.by_default()):
        _expect_parts(report, layer_type, method, each)
        if report.first_problem is not None:
            return
    _expect_start_output(report, layer_type, method, case)


def _trained_names(method: str) -> tuple[str, ...]:
    return ("lora_A", "lora_B") + (("magnitude",) if method == "dora" else ())


def _expect_parts(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Look at what the layer holds before it has computed anything."""
    names = _trained_names(method)
    answers = ask(
        layer_type,
        case,
        {"kinds": ["kinds", names], "parameters": ["parameters"], "kept": ["kept"]},
    )
    found = _expect_parameters(answers, case, names)
    for name in ("lora_A", "lora_B"):
        _expect_shape(answers.name, name, found[name], getattr(case, name))
    for name in names:
        if not _expect_values(report, name, found[name]):
            return
    zero = not found["lora_B"].any()
    report.expect(zero, "lora_B starts at zero", "lora_B has other values.", B_NOT_ZERO)
    lora_A = found["lora_A"]
    varied = lora_A.unique().numel() > lora_A.numel() / 2
    if varied:
        again = ask(layer_type, case, {"held": ["held", ["lora_A"]]}, seed=1)["held"]["lora_A"]
        report.expect(
            not torch.equal(again, lora_A),
            "lora_A is drawn anew for each layer",
            "expected other values in lora_A of a second layer, found the same.",
            A_THE_SAME,
        )
    report.expect(
        varied and bool(lora_A.isfinite().all()),
        "lora_A starts at random",
        f"expected random values in lora_A, found {lora_A.unique().numel()} different values.",
        None if varied else A_ZERO if not lora_A.any() else A_NOT_RANDOM,
    )
    if method == "dora":
        _expect_start_magnitude(report, layer_type, case, found["magnitude"])
    frozen = [name for name in names if not found[name].requires_grad]
    report.expect(
        not frozen,
        f"{', '.join(names)} are trainable",
        f"expected {', '.join(names)} to require gradients, found requires_grad=False in "
        f"{', '.join(frozen)}.",
        MAGNITUDE_FROZEN if frozen == ["magnitude"] else ADAPTER_FROZEN,
    )
    kept = answers["kept"]
    report.expect(
        kept["original_layer"],
        "original_layer is the layer that was passed in",
        f"expected {answers.name}.original_layer to be the layer that was passed in, found "
        "something else.",
        COPIED,
    )
    others = [name for name, p in found.items() if name not in names and p.requires_grad]
    extra = kept["trainable"] or others
    report.expect(
        not extra,
        "nothing else is trainable",
        f"expected the trainable parameters {', '.join(names)}, found also {', '.join(extra)}.",
        BASE_TRAINABLE if kept["trainable"] else EXTRA_TRAINED,
    )
    report.expect(
        not kept["copies"],
        "no copy of the frozen weight",
        f"expected no second tensor of the frozen weight's shape, found {kept['copies']}.",
        COPIED,
    )
    _expect_base_unchanged(report, kept, case, "building the layer")


def _expect_parameters(answers: Answers, case: Case, names: Collection[str]) -> dict[str, Tensor]:
    """Return all parameters of the layer, or fail if one of these names is not among them."""
    kinds, found = answers["kinds"], answers["parameters"]
    for name in names:
        if name in found:
            continue
        inner = [other for other in found if name in other.split(".")]
        what, mistake = f"a {kinds[name]}" if kinds[name] else "nothing", None
        if inner:
            what, mistake = f"the parameter {inner[0]} of an inner module", INNER_MODULE
        elif kinds[name] in ("Tensor", "list", "tuple", "ndarray", "Buffer"):
            mistake = NO_PARAMETER
        elif not kinds[name]:
            shape = getattr(case, name).shape
            like = [n for n, p in found.items() if p.shape == shape and n not in names]
            if like:
                what, mistake = f"nothing, but a parameter {like[0]} of its shape", OTHER_NAME
        raise named(
            CheckFailed(
                f"{answers.name}.{name} must be an nn.Parameter of the layer itself, so that an "
                f"optimiser finds it by this name; found {what}."
            ),
            mistake,
        )
    return found


def _expect_values(report: Report, name: str, found: Tensor) -> bool:
    """Expect a parameter to have finite values, and fail if it has none."""
    missing = found.isnan()
    return not missing.any() or report.expect(
        False,
        f"{name} holds numbers",
        f"expected {name} to be filled with numbers, found NaN in {int(missing.sum())} of its "
        f"{found.numel()} entries.",
        NEVER_FILLED[name] if missing.all() else None,
    )


def _expect_shape(layer: str, name: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape:
        sizes = {"lora_A": "(rank, in_features)", "lora_B": "(out_features, rank)"}[name]
        along = {"lora_A": 0, "lora_B": 1}[name]  # the dimension that is the rank
        transposed = found.shape == expected.T.shape
        by_default = [*expected.shape]
        by_default[along] = 8
        failure = CheckFailed(
            f"{layer}.{name} must have the shape {sizes} = {tuple(expected.shape)}; "
            f"found {tuple(found.shape)}."
        )
        ignored = RANK_IGNORED if [*found.shape] == by_default else None
        raise named(failure, FACTOR_TRANSPOSED if transposed else ignored)


def _expect_start_magnitude(report: Report, layer_type: Any, case: Case, found: Tensor) -> None:
    expected = case.start_magnitude()
    prop = f"magnitude has the shape {('(1, in_features)', '(out_features, 1)')[case.norm_dim]}"
    across = found.numel() == case.weight.shape[case.norm_dim] != expected.numel()
    flat = found.shape == expected.flatten().shape
    if not report.expect(
        found.shape == expected.shape,
        prop,
        f"expected a magnitude of shape {tuple(expected.shape)} with norm_dim={case.norm_dim}, "
        f"found {tuple(found.shape)}.",
        WRONG_AXIS if across else LOST_DIMENSION if flat else _one_number(found, case),
    ):
        return
    weight, dim = case.weight, case.norm_dim
    wrong = [
        (expected**2, NOT_A_LENGTH),
        (weight.abs().sum(dim, keepdim=True), NOT_A_LENGTH),
        (weight.abs().amax(dim, keepdim=True), NOT_A_LENGTH),
        (weight.mean(dim, keepdim=True), NOT_A_LENGTH),
        (weight.abs().mean(dim, keepdim=True), NOT_A_LENGTH),
        (expected / weight.shape[dim] ** 0.5, NOT_A_LENGTH),
        *((weight.std(dim, correction=n, keepdim=True), NOT_A_LENGTH) for n in (0, 1)),
        (expected.log(), LOGARITHM),
        (weight.sum(dim, keepdim=True), NOT_A_LENGTH),
        (torch.ones_like(expected), MAGNITUDE_OF_ONES),
        (torch.zeros_like(expected), MAGNITUDE_OF_ONES),
        (weight.norm().expand_as(expected), WHOLE_NORM),
        (weight.norm(p=dim).expand_as(expected), DIM_AS_P),
        (case.scaling * expected, MAGNITUDE_SCALED),
    ]
    if not close(found, expected):
        again = ask(layer_type, case, {"parameters": ["parameters"]}, seed=1)["parameters"]
        if not torch.equal(again["magnitude"], found):
            wrong = [(found, RANDOM_MAGNITUDE)]
    report.expect_close(found, expected, "magnitude starts as ||W0||", wrong)


def _one_number(found: Tensor, case: Case) -> Mistake | None:
    """Return the mistake that makes one number of a weight's norm."""
    for p, mistake in ((2, WHOLE_NORM), (case.norm_dim, DIM_AS_P)):
        if found.numel() == 1 and close(found.flatten(), case.weight.norm(p=p).flatten()):
            return mistake
    return None


def _compare(
    report: Report,
    prop: str,
    cases: Sequence[Case],
    look: Callable[[Case], tuple[list[Comparison], list[Mistake]]],
) -> None:
    """Expect what `look` compares in every case, and name what explains the differences of all.

    Where the student's code fails in a later case, what the earlier ones show comes first.
    """
    comparisons: list[Comparison] = []
    mistakes: list[Mistake] = []
    for case in cases:
        try:
            found, mistakes = look(case)
        except CheckFailed:
            if all(comparison.is_right() for comparison in comparisons):
                raise
            break
        comparisons += found
    report.expect_cases(prop, comparisons, mistakes)


def _expect_start_output(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Expect the frozen layer's output before training, also where it has a row of zeros."""

    def look(each: Case) -> tuple[list[Comparison], list[Mistake]]:
        steps = {mode: ["forward", each.x, mode == "training", 0] for mode in MODES}
        answers = ask(layer_type, each, steps | {"kept": ["kept"]})
        _expect_base_unchanged(report, answers["kept"], each, "forward")
        expected = apply(each.x, each.weight, each.bias)
        wrong = list(_wrong_starts(method, each))
        zeros = f", with a {'row' if each.norm_dim else 'column'} of zeros in the weight"
        of_zeros = zeros if (each.start_magnitude() == 0).any() else ""
        comparisons = [
            Comparison(
                f"output before training, in {mode} mode{of_zeros}",
                answers.output(mode),
                expected,
                [output for output, _ in wrong],
            )
            for mode in MODES
        ]
        return comparisons, [mistake for _, mistake in wrong]

    prop = "before training: the frozen layer's output"
    _compare(report, prop, (case, case.other(), case.with_zero_vector()), look)


def _wrong_starts(method: str, case: Case) -> Iterator[tuple[Tensor, Mistake]]:
    start = case.at_start()
    right = start.merged(method)
    for weight, bias, mistake in start.wrong_layers(method):
        # Without an update many mistakes change nothing, or double the output, but for the bias.
        if mistake in (FROZEN_TWICE, MAGNITUDE_ADDED):
            mistake = OUTPUT_DOUBLED
        output = apply(case.x, weight, bias)
        if close(weight, right) and mistake not in (BIAS_LOST, BIAS_TWICE, BIAS_SCALED):
            output = torch.full_like(output, torch.inf)  # so that it explains nothing
        yield output, mistake
    not_a_number = torch.where(case.start_magnitude() == 0, torch.nan, case.weight)
    yield apply(case.x, not_a_number, case.bias), ZERO_DIVISION


def _expect_base_unchanged(report: Report, now: dict, case: Case, after: str) -> None:
    same = torch.equal(now["weight"].float(), case.weight) and (
        case.bias is None or torch.equal(now["bias"].float(), case.bias)
    )
    problem = f"the base layer's weight or bias has other values after {after} than before."
    report.expect(same, f"the base layer stays as it was after {after}", problem, IN_PLACE)


# ---- the output


def _trained_values(method: str, case: Case) -> dict[str, Tensor]:
    return {name: getattr(case, name) for name in _trained_names(method)}


def _ask_trained(
    layer_type: Any,
    method: str,
    case: Case,
    steps: dict[str, list[Any]],
    dropout: float = 0.0,
) -> Answers:
    """Build the layer, give it the case's arrays as if it was trained, and take the steps."""
    names = _trained_names(method)
    steps = {
        "kinds": ["kinds", names],
        "parameters": ["parameters"],
        "held": ["held", names],
        "change": ["change", _trained_values(method, case)],
        **steps,
    }
    answers = ask(layer_type, case, steps, dropout=dropout)
    found = answers["held"]
    for name in names:
        if found[name] is None:
            _expect_parameters(answers, case, [name])
    for name in ("lora_A", "lora_B"):
        if found[name].shape != getattr(case, name).T.shape:
            _expect_shape(answers.name, name, found[name], getattr(case, name))
    if method == "dora" and found["magnitude"].numel() != case.magnitude.numel():
        across = found["magnitude"].numel() == case.weight.shape[case.norm_dim]
        failure = CheckFailed(
            f"{answers.name}.magnitude with norm_dim={case.norm_dim} must have the shape "
            f"{tuple(case.magnitude.shape)}; found {tuple(found['magnitude'].shape)}."
        )
        raise named(failure, WRONG_AXIS if across else _one_number(found["magnitude"], case))
    answers["change"]
    return answers


def _forward(report: Report, layer_type: Any, method: str, case: Case) -> None:
    refused: dict[str, Answers] = {}  # what came of shapes of x that fail, where others do not

    def look(each: Case) -> tuple[list[Comparison], list[Mistake]]:
        inputs = each.inputs()
        steps = {name: ["forward", x, False, 0] for name, x in inputs.items()}
        answers = _ask_trained(layer_type, method, each, steps | {"base": ["base"]})
        wrong = list(each.wrong_layers(method))
        taken = {name: x for name, x in inputs.items() if not answers.fails(name)}
        for name in inputs:
            if name not in taken:
                refused.setdefault(name, answers)
        if not taken:
            answers.output(next(iter(inputs)))
        comparisons = [
            Comparison(
                f"output for an x {name}, {each}",
                answers.output(name),
                apply(x, each.merged(method), each.bias),
                [apply(x, weight, bias) for weight, bias, _ in wrong],
            )
            for name, x in taken.items()
        ]
        changed = [name for name, x in taken.items() if not _is_as_before(answers[name]["x"], x)]
        report.expect(
            not changed,
            "forward leaves x as it is",
            f"the x {' and '.join(changed[:1])} has other values after forward than before.",
            X_CHANGED,
        )
        _expect_base_unchanged(report, answers["base"], each, "forward")
        return comparisons, [mistake for _, _, mistake in wrong]

    prop = "output of a trained layer" + ("" if case.norm_dim else " with norm_dim=0")
    cases = (case, case.other(), *([case.by_default()] if case.norm_dim == 1 else []))
    _compare(report, prop, cases, look)
    for name, answers in refused.items():
        try:
            answers.output(name)
        except CheckFailed as failure:
            report.expect(False, "forward takes an x of any leading dimensions", *_said(failure))
            break


def _said(failure: CheckFailed) -> tuple[str, Mistake]:
    """Return what a failure says, and what is wrong where other shapes of x do not fail."""
    mistake = failure.mistake or SOME_SHAPES
    return str(failure).removesuffix(f"\n{failure.mistake}"), mistake


def _is_as_before(now: Tensor, before: Tensor) -> bool:
    return torch.equal(now.float(), before)


def _axis(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Expect with norm_dim=0 what is expected with norm_dim=1.

    What is wrong with both in the same way has cost its points already, except for the output:
    without a norm there is no axis.
    """
    with_rows = case.along(1, given=1)
    for part in (_start_of_axis, _forward, _gradients, _merge, _dropout):
        failure = _failure(part, layer_type, method, case)
        if failure is not None and (part is not _forward or failure.mistake in NO_NORM_CONCERNED):
            usual = _failure(part, layer_type, method, with_rows)
            if usual is not None and _is_alike(usual, failure):
                report.expect(
                    True, f"{PARTS[part.__name__]}: nothing else is wrong with norm_dim=0", ""
                )
                continue
        if failure is None:
            report.expect(True, f"{PARTS[part.__name__]} with norm_dim=0", "")
            continue
        problem = str(failure).removesuffix(f"\n{failure.mistake}")
        if failure.student_lines:
            raise failure
        report.expect(False, f"{PARTS[part.__name__]} with norm_dim=0", problem, failure.mistake)
        return


def _failure(part: Callable, layer_type: Any, method: str, case: Case) -> CheckFailed | None:
    """Return how a part of the check fails, if it does."""
    try:
        with Report("", quiet=True) as report:
            part(report, layer_type, method, case)
    except CheckFailed as failure:
        return failure
    return None


def _is_alike(one: CheckFailed, other: CheckFailed) -> bool:
    if one.mistake is None and other.mistake is None:
        return str(one).split(":")[0] == str(other).split(":")[0]
    return one.mistake == other.mistake


def _start_of_axis(report: Report, layer_type: Any, method: str, case: Case) -> None:
    names = _trained_names(method)
    answers = ask(layer_type, case, {"kinds": ["kinds", names], "parameters": ["parameters"]})
    found = _expect_parameters(answers, case, names)
    _expect_start_magnitude(report, layer_type, case, found["magnitude"])
    if report.first_problem is None:
        _expect_start_output(report, layer_type, method, case)


PARTS = {
    "_start_of_axis": "start",
    "_forward": "output",
    "_gradients": "gradients",
    "_merge": "merge()",
    "_dropout": "dropout",
}
# Mistakes in the output that have nothing to do with the norm.
NO_NORM_CONCERNED = (
    *(SCALING_LEFT_OUT, SCALING_TWICE, SCALING_OTHER, SCALING_MULTIPLIED, SCALING_UPSIDE_DOWN),
    *(ALPHA_LEFT_OUT, SCALING_WHOLE, SCALING_FIXED, UPDATE_SUBTRACTED),
    *(BIAS_LOST, BIAS_TWICE, BIAS_ASSUMED, SOME_SHAPES, X_CHANGED, IN_PLACE, POSITIVE_MAGNITUDE),
)


# ---- gradients


def _gradients(report: Report, layer_type: Any, method: str, case: Case) -> None:
    for each in (case, case.other()):
        given = [each.x, each.output_weights]
        answers = _ask_trained(
            layer_type,
            method,
            each,
            {
                "output": ["forward", each.x, False, 0],
                "in training": ["forward", each.x, True, 0],
                "training": ["gradients", *given, True],
                "evaluation": ["gradients", *given, False],
                "learned": ["learn", *given, RATE],
            },
        )
        each, expected = _as_answered(answers.output("output"), method, each)
        if each is None:
            if report.first_problem is None:
                raise CheckFailed(
                    "the output of a trained layer is not right yet; its gradients are looked at "
                    "once it is. The check of forward says what is wrong."
                )
            return
        if not close(answers.output("in training"), expected):
            raise CheckFailed(
                "with dropout=0.0 the output in training mode is not that in evaluation mode; its "
                "gradients are looked at once it is. The check of dropout says more."
            )
        for mode in ("training", "evaluation"):
            _expect_gradients(report, answers, answers[mode], method, each, mode)
            if report.first_problem is not None:
                return
        learned = answers.tensor(answers["learned"], "forward")
        _expect_learned(report, learned, method, each)


def _as_answered(output: Tensor, method: str, case: Case) -> tuple[Case | None, Tensor]:
    """Return the case as the layer has it, and its output: with another scaling, or its bias lost.

    Those cost the points of forward. What else the layer does can be told all the same; in place
    of the case None says that it cannot.
    """
    twice = None if case.bias is None else 2 * case.bias
    for scaling in (case.scaling, *(scaling for scaling, _ in case.scalings())):
        for bias in (case.bias, None, twice):
            expected = apply(case.x, case.merged(method, scaling), bias)
            if close(output, expected):
                answered = case.scaled(scaling)
                answered.bias = bias
                return answered, expected
    return None, output


RATE = 0.05  # of the step of gradient descent that a check takes


def _expect_gradients(
    report: Report, answers: Answers, found: dict | None, method: str, case: Case, mode: str
) -> None:
    names = (*_trained_names(method), "x")
    if found is None:
        report.expect(
            False,
            f"in {mode} mode, gradients of {', '.join(names)}",
            f"in {mode} mode the output of forward depends on nothing trainable, so nothing could "
            "be trained.",
            GRADIENT_CUT,
        )
        return
    right, full = (_textbook_gradients(case, method, detached) for detached in (True, False))
    if (
        method == "dora"
        and mode == "evaluation"
        and all(found[n] is not None and close(found[n].view_as(full[n]), full[n]) for n in names)
    ):
        return  # a norm that is a constant in training mode only is right, too
    for name in names:
        prop = f"in {mode} mode, gradient of {name}"
        gradient = found[name]
        if gradient is None:
            mistake = MAGNITUDE_FROZEN if name == "magnitude" else GRADIENT_CUT
            report.expect(False, prop, f"{prop}: expected one, found none.", mistake)
            continue
        nothing = torch.zeros_like(right[name])
        cut = MAGNITUDE_FROZEN if name == "magnitude" else GRADIENT_CUT
        mistakes = [(full[name], NOT_DETACHED)] if method == "dora" else []
        if name == "x":
            mistakes += [(part, GRADIENT_CUT) for part in _parts_of_x(case, method)]
        gradient = (
            gradient.view_as(right[name]) if gradient.numel() == nothing.numel() else gradient
        )
        report.expect_close(gradient, right[name], prop, [*mistakes, (nothing, cut)])
    start = answers["parameters"]  # what was trainable from the start, the check of start says
    base = [
        name
        for name, value in found.items()
        if value is not None and name not in names and not start[name].requires_grad
    ]
    problem = f"expected gradients of {', '.join(names)} only, found also {', '.join(base)}."
    report.expect(not base, f"in {mode} mode, no others", problem, BASE_TRAINABLE)


def _parts_of_x(case: Case, method: str) -> list[Tensor]:
    """Return the gradient of x through the frozen path alone, and through the update alone."""
    factor = case.factor() if method == "dora" else 1.0
    return [case.output_weights @ (factor * part) for part in (case.weight, case.update())]


def _textbook_gradients(case: Case, method: str, detach_norm: bool) -> dict[str, Tensor]:
    """Return the gradients of the formula itself, with the norm a constant or not."""
    given = {**_trained_values(method, case), "x": case.x}
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    weight = case.weight + case.scaling * leaves["lora_B"] @ leaves["lora_A"]
    if method == "dora":
        norm = case.length(weight.detach() if detach_norm else weight)
        weight = leaves["magnitude"] * weight / norm
    (F.linear(leaves["x"], weight, case.bias) * case.output_weights).sum().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def _expect_learned(report: Report, found: Tensor, method: str, case: Case) -> None:
    """Expect the output after a step with all that is trainable: a base that moves shows here."""
    stepped = copy.copy(case)
    for name, gradient in _textbook_gradients(case, method, True).items():
        if name != "x":
            setattr(stepped, name, getattr(case, name) - RATE * gradient)
    expected = apply(case.x, stepped.merged(method), case.bias)
    report.expect_close(found, expected, "output after a step of gradient descent")


# ---- dropout

P = 0.3  # not 0.5, which is its own mirror
SEEDS = tuple(range(6))
ROWS = 24  # inputs with one entry, for each feature


def _dropout(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Look at inputs with one entry: it is dropped, or it is not, with nothing in between."""
    rows = torch.eye(case.weight.shape[1]).repeat(ROWS, 1) * 1.5
    if len(case.leading) == 2:
        rows = rows[None]
    without = _ask_trained(
        layer_type,
        method,
        case,
        {
            "evaluation": ["forward", case.x, False, 1],
            "training": ["forward", case.x, True, 1],
            "once more": ["forward", case.x, True, 2],
        },
    )
    plain, again, other = map(without.output, ("evaluation", "training", "once more"))
    nothing = any(close(again, frozen) for frozen in _frozen_ways(method, case, case.x).values())
    if not report.expect(
        close(again, plain),
        "with dropout=0.0, training and evaluation give the same",
        "with dropout=0.0, the output in training differs from that in evaluation"
        f"{': every input is dropped' if nothing else ''}.",
        P_FIXED if not close(again, other) else P_MIRRORED if nothing else OTHER_IN_TRAINING,
    ):
        return
    twice = [["forward", case.x, False, seed] for seed in (1, 2)]
    fresh = _ask_trained(
        layer_type,
        method,
        case.at_start(),
        {"evaluation": twice[0], "training": ["outputs", case.x, SEEDS]},
        dropout=P,
    )
    own = fresh.output("evaluation")
    outputs = [fresh.tensor(output, "forward") for output in fresh["training"]]
    # lora_B is zero here, so whatever dropout does to B A cannot be seen, and what it does
    # to the frozen path can. (PEFT's form of dropout, which lesson 02 explains, passes too.)
    report.expect(
        all(close(output, own) for output in outputs),
        "in training, the frozen path sees every input",
        f"with dropout={P} and lora_B = 0, the output in training differs from that in evaluation.",
        None if all(close(output, outputs[0]) for output in outputs) else DROPOUT_ON_FROZEN,
    )
    answers = _ask_trained(
        layer_type,
        method,
        case,
        {
            "first": twice[0],
            "second": twice[1],
            "rows": ["forward", rows, False, 0],
            "dropped": ["outputs", rows, SEEDS],
            "given": ["forward", case.x, True, 3],
            "whole": ["outputs", case.x, SEEDS],
        },
        dropout=P,
    )
    first, second = answers.output("first"), answers.output("second")
    case = _as_answered(first, method, case)[0] or case
    report.expect(
        close(first, second),
        "in evaluation, nothing is dropped",
        f"with dropout={P}, two passes after layer.eval() gave different outputs.",
        DROPOUT_IN_EVAL,
    )
    report.expect(
        _is_as_before(answers["given"]["x"], case.x),
        "in training, forward leaves x as it is",
        "in training, the x that was passed in has other values after forward than before.",
        X_CHANGED,
    )
    if report.first_problem is None:
        tensors = [answers.tensor(output, "forward") for output in answers["dropped"]]
        dropped, whole = torch.stack(tensors), answers.output("rows")
        if len(case.leading) == 2:
            rows, dropped, whole = rows.flatten(0, -2), dropped.flatten(1, -2), whole.flatten(0, -2)
        if dropped.shape[1:] != whole.shape or whole.shape != (*rows.shape[:1], len(case.weight)):
            raise CheckFailed(
                f"for {tuple(rows.shape)} inputs, found {tuple(whole.shape)} outputs."
            )
        if close(whole, apply(rows, case.merged(method), case.bias)):
            if _expect_dropped(report, method, case, rows, whole, dropped):
                together = [answers.tensor(output, "forward") for output in answers["whole"]]
                _expect_single(report, method, case, first, torch.stack(together), dropped)
        else:  # for another reason, so no name is sure
            _expect_two_values(report, whole, dropped)
        report.expect(
            not close(dropped[0], dropped[1]),
            "in training, the next pass drops others",
            "two passes in training mode dropped the same inputs, although the seed was another.",
            MASK_FIXED,
        )


def _expect_dropped(
    report: Report, method: str, case: Case, rows: Tensor, whole: Tensor, dropped: Tensor
) -> bool:
    """Compare each output in training with the two that there may be.

    Args:
        whole: the layer's own outputs for the rows in evaluation, `(rows, out)`.
        dropped: those in training, `(seeds, rows, out)`.
    """
    ways = _frozen_ways(method, case, rows)
    found = {way: _shares(dropped, frozen, whole) for way, frozen in ways.items()}
    right = [
        way
        for way, (all_or_nothing, share, scale) in found.items()
        if all_or_nothing and abs(share - P) < 0.1 and abs(scale * (1 - P) - 1) < 1e-3
    ]
    all_or_nothing, share, scale = found["ours"]
    if not all_or_nothing:
        all_or_nothing, share, scale = found["PEFT's"]
    what = (
        f"its part of B A was dropped as a whole in {share:.0%} of the outputs, and else "
        f"multiplied by {scale:.3g}"
        if all_or_nothing
        else "a part of what B A gives is there and a part is not"
    )
    if not dropped.isfinite().all():
        what = "NaN or infinity was found"
    return report.expect(
        bool(right),
        f"in training, each input of B A is dropped with probability {P}, else divided by {1 - P}",
        f"for an x with one entry and dropout={P}, expected its part of B A either dropped "
        f"({P:.0%} of the time) or divided by {1 - P}; found that {what}.",
        _wrong_dropout(all_or_nothing, share, scale),
    )


def _expect_single(
    report: Report, method: str, case: Case, whole: Tensor, together: Tensor, dropped: Tensor
) -> None:
    """Expect each input of each vector to be dropped by itself.

    Args:
        whole: outputs for x in evaluation.
        together: those in training, of several seeds.
        dropped: those in training for inputs with one entry, each of them `ROWS` times.
    """
    size = whole.shape[-1]
    whole, together = whole.reshape(-1, size), together.reshape(len(together), -1, size)
    x = case.x.reshape(-1, case.x.shape[-1])
    found = [_shares(together, frozen, whole) for frozen in _frozen_ways(method, case, x).values()]
    report.expect(
        not any(all_or_nothing for all_or_nothing, _, _ in found),
        "in training, an input is dropped without the rest of its vector",
        f"with dropout={P} every vector was dropped as a whole, or kept as a whole.",
        VECTORS_DROPPED,
    )
    alike = dropped.view(len(dropped), ROWS, -1, size)
    report.expect(
        not close(alike, alike[:, :1].expand_as(alike)),
        "in training, an input is dropped for one vector and not for another",
        f"with dropout={P} the same inputs were dropped for all vectors of a pass.",
        MASK_SHARED,
    )


def _frozen_ways(method: str, case: Case, x: Tensor) -> dict[str, Tensor]:
    """Return the frozen part of the output in either form of dropout that is right."""
    factor = case.factor() if method == "dora" else torch.ones(())
    return {
        "ours": apply(x, factor * case.weight, case.bias),
        "PEFT's": apply(x, case.weight, case.bias),
    }


def _expect_two_values(report: Report, whole: Tensor, dropped: Tensor) -> None:
    """Expect two outputs for each input with one entry, which average to that in evaluation.

    What either should be is not known, since the output in evaluation is not right.
    """
    features = len(whole) // ROWS
    whole = whole[:features].double()
    samples = dropped.double().view(-1, *whole.shape)  # (seeds * ROWS, features, out)
    size = 1e-3 * samples.abs().amax((0, 2))

    def is_near(value: Tensor) -> Tensor:
        return (samples - value).abs().amax(-1) <= size

    first = is_near(samples[0])
    other = samples[first.double().argmin(0), torch.arange(features)]
    both = bool((first | is_near(other)).all())
    share = first.double().mean(0)
    constant = first.all(0) & ((samples[0] - whole).abs().amax(-1) <= size)  # m may be zero
    ends = [(share, samples[0], other), (1 - share, other, samples[0])]
    fits = [
        ((low + (1 - P) * (high - low) - whole).abs().amax(-1) <= size) & ((part - P).abs() < 0.2)
        for part, low, high in ends
    ]
    report.expect(
        both and bool((fits[0] | fits[1] | constant).all()) and not constant.all(),
        f"in training, each input of B A is dropped with probability {P}, else divided by {1 - P}",
        f"for an x with one entry and dropout={P}, expected two outputs in training whose mean is "
        "that in evaluation. (That one is not right yet either: the check of forward says why.)",
    )


def _shares(dropped: Tensor, frozen: Tensor, whole: Tensor) -> tuple[bool, float, float]:
    """Return whether every output is the frozen part plus nothing or plus a multiple of the rest,
    in which share it is nothing, and the multiple."""
    rest = (whole - frozen).double()
    extra = (dropped - frozen).double()
    seen = rest.square().sum(-1) > 1e-8 * (frozen.double().square().sum(-1) + 1)
    multiple = (extra * rest).sum(-1) / rest.square().sum(-1).clamp_min(1e-30)
    left = extra - multiple.unsqueeze(-1) * rest
    size = rest.abs().amax(-1, keepdim=True) + frozen.double().abs().amax(-1, keepdim=True)
    fits = (left.abs() <= 1e-4 * size).all(-1)
    multiple = multiple[:, seen]
    is_dropped = multiple.abs() < 1e-3
    kept = multiple[~is_dropped]
    scale = kept.median().item() if kept.numel() else 0.0
    same = bool(((kept - scale).abs() < 1e-2).all())
    return bool(fits.all()) and same, is_dropped.double().mean().item(), scale


def _wrong_dropout(all_or_nothing: bool, share: float, scale: float) -> Mistake | None:
    if not all_or_nothing:
        return DROPPED_ELSEWHERE
    if share == 0:
        return DROPOUT_UNUSED
    if abs(scale - 1) < 1e-3:
        return NOT_RESCALED
    if abs(scale * (1 - share) - 1) < 0.2 and abs(share - (1 - P)) < 0.1:
        return P_MIRRORED
    if abs(scale * (1 - share) - 1) < 0.2:
        return P_FIXED
    return None


# ---- merge


def _merge(report: Report, layer_type: Any, method: str, case: Case) -> None:
    def look(each: Case) -> tuple[list[Comparison], list[Mistake]]:
        answers = _ask_trained(
            layer_type,
            method,
            each,
            {
                "before": ["forward", each.x, False, 0],
                "kept before": ["kept"],
                "evaluation": ["merge", False],
                "training": ["merge", True],
                "after": ["forward", each.x, False, 0],
                "now": ["held", _trained_names(method)],
                "trainable": ["parameters"],
                "kept": ["kept"],
            },
            dropout=P,
        )
        for mode in MODES:
            _expect_merged(report, answers, answers[mode], mode, method, each)
        _expect_base_unchanged(report, answers["kept"], each, "merge()")
        _expect_adapter_kept(report, answers, method, each)
        wrong = list(_wrong_merges(method, each))
        weights = {mode: answers[mode]["weight"] for mode in MODES}
        if _is_random(weights, each.merged(method)):
            problem = "expected the weight of W' in the merged layer, found random numbers."
            report.expect(False, "weight of merge()", problem, MERGED_RANDOM)
        for weight in weights.values():
            coarse = weight.dtype in (torch.float16, torch.bfloat16) and weight.dtype != each.dtype
            report.expect(
                not coarse,
                "merge() keeps the precision",
                f"expected a merged weight of {each.dtype}, found {weight.dtype}.",
                MERGED_COARSE,
            )
        # The output of a layer that is wrong by itself costs the points of forward, and merge()
        # is to compute the same.
        before = answers.output("before")
        own = [
            weight
            for weight, mistake in wrong
            if mistake not in TOO_LITTLE
            and any(close(apply(each.x, weight, bias), before) for bias in (each.bias, None))
        ]
        comparisons = [
            Comparison(
                f"weight of merge() in {mode} mode",
                weights[mode],
                next((w for w in own if close(weights[mode], w)), each.merged(method)),
                [weight for weight, _ in wrong],
            )
            for mode in MODES
        ]
        return comparisons, [mistake for _, mistake in wrong]

    cases = [case, case.other()]
    if method == "dora":
        cases.append(case.with_zero_vector().at_start())
    _compare(report, "weight of merge()", cases, look)


# A layer that does so little does it without merge(), too: what it merges shows nothing.
TOO_LITTLE = (UPDATE_LEFT_OUT, FROZEN_LEFT_OUT, MAGNITUDE_UNUSED)


def _is_random(weights: dict[str, Tensor], expected: Tensor) -> bool:
    """Return whether the two merged weights differ, and neither is right: nothing filled them."""
    one, other = weights.values()
    if one.shape != expected.shape or other.shape != expected.shape:
        return False
    return not any(close(a, b) for a, b in ((one, other), (one, expected), (other, expected)))


def _expect_merged(
    report: Report, answers: Answers, merged: dict, mode: str, method: str, case: Case
) -> None:
    if merged["type"] != "nn.Linear":
        kind = merged["type"]
        failure = CheckFailed(f"{answers.name}.merge() must return an nn.Linear; found a {kind}.")
        example = {"NoneType": None, "Tensor": torch.zeros(1), "Parameter": torch.zeros(1)}
        example |= {"tuple": (), "list": [], "dict": {}, "OrderedDict": {}}
        known = other_kind(example[kind], "an nn.Linear", MERGE) if kind in example else None
        raise named(failure, known)
    _expect_merged_bias(report, merged["bias"], method, case)
    report.expect(
        merged["training"] is (mode == "training"),
        f"merge() leaves the layer in {mode} mode",
        f"the layer was in {mode} mode before merge(), and is in the other one after it.",
        MODE_CHANGED,
    )
    report.expect(
        merged["new"],
        "merge() returns a new layer",
        "expected a new nn.Linear, found the layer that was passed in.",
        IN_PLACE,
    )


def _wrong_merges(method: str, case: Case) -> Iterator[tuple[Tensor, Mistake]]:
    for weight, mistake in case.wrong_weights(method):
        yield weight, NORM_MISSING_IN_MERGE if mistake is NO_NORMALISATION else mistake
    if method == "dora":
        yield case.factor() * case.weight, UPDATE_LEFT_OUT
        length = case.length(case.weight + case.update())
        yield torch.where(length == 0, torch.nan, case.merged(method)), ZERO_DIVISION


def _expect_merged_bias(report: Report, bias: Tensor | None, method: str, case: Case) -> None:
    prop = "bias of merge()"
    if case.bias is None:
        zero = bias is not None and not bias.any()
        report.expect(
            bias is None,
            "no bias in merge()",
            f"expected no bias, as in the base layer, found {'zeros' if zero else 'one'}.",
            BIAS_OF_ZEROS if zero else BIAS_MADE_UP,
        )
    elif bias is None:
        report.expect(False, prop, f"{prop}: expected the base's, found none.", BIAS_LOST)
    else:
        mistakes = [(2 * case.bias, BIAS_TWICE), (torch.zeros_like(case.bias), BIAS_LOST)]
        if method == "dora" and case.norm_dim == 1:
            mistakes.append((case.factor().flatten() * case.bias, BIAS_SCALED))
        if not close(bias, case.bias) and not any(close(bias, wrong) for wrong, _ in mistakes):
            mistakes.append((bias, BIAS_MADE_UP))
        report.expect_close(bias, case.bias, prop, mistakes)


def _turned(value: Tensor, shape: torch.Size) -> Tensor:
    """Return the values of a matrix in the shape in which a layer holds them."""
    return value.T if value.shape != shape == value.T.shape else value.reshape(shape)


def _expect_adapter_kept(report: Report, answers: Answers, method: str, case: Case) -> None:
    now, expected = answers["now"], _trained_values(method, case)
    changed = [
        name
        for name, value in expected.items()
        if now[name] is None or not torch.equal(now[name].float(), _turned(value, now[name].shape))
    ]
    same = close(answers.output("after"), answers.output("before"))
    report.expect(
        not changed and same,
        "merge() leaves the adapter as it was",
        f"expected the adapter as it was before merge(), found other values in "
        f"{', '.join(changed) or 'the output'}.",
        ADAPTER_CHANGED,
    )
    before = answers["kept before"]["trainable"]
    trainable = [name for name in answers["kept"]["trainable"] if name not in before]
    start, end = answers["parameters"], answers["trainable"]
    frozen = [n for n in start if n in end and start[n].requires_grad > end[n].requires_grad]
    report.expect(
        not trainable and not frozen,
        "merge() leaves frozen what is frozen, and trainable what is trainable",
        f"after merge(), {', '.join(trainable or frozen)} "
        f"{'requires gradients' if trainable else 'requires none'}.",
        BASE_TRAINABLE if trainable else None,
    )
