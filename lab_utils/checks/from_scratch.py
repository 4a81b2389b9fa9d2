"""Checks of lesson 02: the student's `LoRALayer` and `DoRALayer`."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lab_utils.checks.report import CheckFailed, Mistake, Report, chosen, close
from lab_utils.checks.subject import LayerSubject

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
BASE_TRAINABLE = Mistake(
    "base weight trainable",
    "Freeze the original layer: original_layer.requires_grad_(False).",
    LORA,
)
IN_PLACE = Mistake(
    "in-place change of the base layer",
    "The adapter and the merged layer are new; the pretrained weight stays as it was.",
    LORA,
)
BIAS_LOST = Mistake("bias lost", "The output and the merged layer need the base's bias.", LORA)
BIAS_CHANGED = Mistake(
    "bias changed", "The bias is added once, and neither the scaling nor m acts on it.", LORA
)
SCALING_LEFT_OUT = Mistake("scaling left out", "Multiply B A by scaling = alpha / rank.", LORA)
SCALING_TWICE = Mistake("scaling applied twice", "Multiply B A by alpha / rank once.", LORA)
SCALING_OTHER = Mistake(
    "another scaling", "scaling is alpha / rank: not alpha, not alpha / sqrt(rank).", LORA
)
UPDATE_LEFT_OUT = Mistake("update left out", "Add scaling * B A to the frozen weight.", LORA)
RANDOM_MAGNITUDE = Mistake(
    "random magnitude",
    "The magnitude starts as ||W0||, so that the first output is that of the frozen layer.",
    HOLDS,
)
MAGNITUDE_FROZEN = Mistake(
    "magnitude frozen", "Make it an nn.Parameter and let gradients reach it.", HOLDS
)
MAGNITUDE_UNUSED = Mistake(
    "magnitude unused", "The trained magnitude is what multiplies each direction.", HOLDS
)
NO_NORMALISATION = Mistake(
    "no normalisation", "Divide W0 + scaling * B A by its norm before m multiplies it.", NORM
)
NORM_OF_BASE = Mistake(
    "norm of W0 instead of V",
    "Divide by the norm of the updated weight, which changes as B A is trained.",
    NORM,
)
UPDATE_ON_DIRECTION = Mistake(
    "update added to the direction",
    "Add scaling * B A to W0 itself and divide the sum, not W0 alone, by its norm.",
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
DETACHED_TOO_MUCH = Mistake(
    "gradient cut off", "Detach the norm alone, not the weight that it divides.", DETACH
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
NORM_MISSING_IN_MERGE = Mistake(
    "norm missing from the merged weight", "The merged weight is m * V / ||V||.", MERGE
)


class Case:
    """One layer to check: its sizes, and every array that the check works with, from one seed.

    The layer is not square, because a square one hides a wrong axis; and the arrays are those
    of a trained adapter, because DoRA starts as LoRA and LoRA starts as the frozen layer.
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
    ) -> None:
        self.rank, self.alpha, self.norm_dim, self.dtype = rank, alpha, norm_dim, dtype
        self.scaling = alpha / rank
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.weight = draw(out_features, in_features)
        self.bias = draw(out_features) if bias else None
        self.lora_A = draw(rank, in_features)
        self.lora_B = draw(out_features, rank)
        self.base_norm = self.length(self.weight)
        self.magnitude = self.base_norm * (1.5 + draw(*self.base_norm.shape).abs())
        self.x = draw(2, 3, in_features)
        self.output_weights = draw(2, 3, out_features)

    def __str__(self) -> str:
        out_features, in_features = self.weight.shape
        return (
            f"{in_features} → {out_features}, rank {self.rank}, alpha {self.alpha:g}, "
            f"{'bias' if self.bias is not None else 'no bias'}, {self.dtype}"
        )

    def updated(self, scaling: float | None = None) -> Tensor:
        """Return `V = W0 + scaling * B A`."""
        return self.weight + (self.scaling if scaling is None else scaling) * (
            self.lora_B @ self.lora_A
        )

    def length(self, matrix: Tensor) -> Tensor:
        return matrix.norm(dim=self.norm_dim, keepdim=True)

    def merged(self, method: str, scaling: float | None = None) -> Tensor:
        """Return `W'` of a right layer; with another scaling, that of a wrong one."""
        updated = self.updated(scaling)
        return updated if method == "lora" else self.magnitude * updated / self.length(updated)

    def apply(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self.x, weight, bias)

    def wrong_weights(self, method: str) -> Iterator[tuple[Tensor, Mistake]]:
        """Yield `W'` as each known mistake would make it, likeliest first."""
        updated, m = self.updated(), self.magnitude
        if method == "dora":
            start = self.base_norm
            normed = updated / self.length(updated)
            across = updated.norm(dim=1 - self.norm_dim, keepdim=True)
            update = self.scaling * self.lora_B @ self.lora_A
            on_direction = self.weight / start + update
            yield m * updated, NO_NORMALISATION
            yield m * updated / across, WRONG_AXIS
            yield m * updated / start, NORM_OF_BASE
            yield from ((w, MAGNITUDE_UNUSED) for w in (start * normed, normed, updated))
            yield m * self.weight / start, UPDATE_LEFT_OUT
            yield m * on_direction, UPDATE_ON_DIRECTION
            yield m * on_direction / self.length(on_direction), UPDATE_ON_DIRECTION
            yield self.weight + m * update / self.length(update), NORMALISED_UPDATE
        yield self.merged(method, scaling=1.0), SCALING_LEFT_OUT
        yield self.merged(method, scaling=self.scaling**2), SCALING_TWICE
        yield self.merged(method, scaling=self.alpha), SCALING_OTHER
        yield self.merged(method, scaling=self.alpha / math.sqrt(self.rank)), SCALING_OTHER
        yield self.weight, UPDATE_LEFT_OUT

    def wrong_outputs(self, method: str) -> Iterator[tuple[Tensor, Mistake]]:
        """Yield the output as each known mistake would make it, likeliest first."""
        right = self.merged(method)
        for weight, mistake in self.wrong_weights(method):
            yield self.apply(weight, self.bias), mistake
        if self.bias is not None:
            yield self.apply(right, None), BIAS_LOST
            yield self.apply(right, 2 * self.bias), BIAS_CHANGED
            if method == "dora" and self.norm_dim == 1:
                scale = (self.magnitude / self.length(self.updated())).flatten()
                yield self.apply(right, scale * self.bias), BIAS_CHANGED
            for weight, mistake in self.wrong_weights(method):
                yield self.apply(weight, None), mistake


def check_lora_layer(layer_type: type, aspect: str | None = None, **sizes) -> None:
    """Check a `LoRALayer(original_layer, rank=8, alpha=16.0, dropout=0.0)`.

    Args:
        aspect: `"start"` (parameters, and the output before training), `"forward"`,
            `"dropout"` or `"merge"`; all of them if None.
        sizes: arguments of `Case`: `in_features`, `out_features`, `rank`, `alpha`, `bias`,
            `dtype`, `seed`.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    aspects = {"start": _start, "forward": _forward, "dropout": _dropout, "merge": _merge}
    for name in chosen(aspect, aspects):
        case = Case(**sizes)
        with Report(f"LoRALayer · {name} · {case}") as report:
            aspects[name](report, layer_type, "lora", case)


def check_dora_layer(layer_type: type, aspect: str | None = None, **sizes) -> None:
    """Check a `DoRALayer(original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1)`.

    Args:
        aspect: `"start"` (parameters, and the output before training), `"forward"`, `"axis"`
            (both with `norm_dim=0`), `"gradients"`, `"dropout"` or `"merge"`; all if None.
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
            aspects[name](report, layer_type, "dora", case)


def _build(layer_type: type, method: str, case: Case, dropout: float = 0.0) -> LayerSubject:
    arguments = {"rank": case.rank, "alpha": case.alpha, "dropout": dropout}
    if method == "dora":
        arguments["norm_dim"] = case.norm_dim
    return LayerSubject(layer_type, case.weight, case.bias, arguments, case.dtype)


def _trained(layer_type: type, method: str, case: Case) -> LayerSubject:
    """Build the layer and give it the case's arrays: an adapter that was trained."""
    subject = _build(layer_type, method, case)
    for name in ("lora_A", "lora_B"):
        _expect_shape(subject, name, getattr(case, name))
        subject.set_parameter(name, getattr(case, name))
    if method == "dora":
        _expect_magnitude_size(subject, case)
        subject.set_parameter("magnitude", case.magnitude)
    return subject


def _expect_shape(subject: LayerSubject, name: str, expected: Tensor) -> None:
    found = tuple(subject.parameter(name).shape)
    if found != tuple(expected.shape):
        sizes = {"lora_A": "(rank, in_features)", "lora_B": "(out_features, rank)"}[name]
        raise CheckFailed(
            f"{subject.name}.{name} must have the shape {sizes} = {tuple(expected.shape)}; "
            f"found {found}. See the section “{LORA}”."
        )


def _expect_magnitude_size(subject: LayerSubject, case: Case) -> None:
    found = subject.parameter("magnitude")
    if found.numel() != case.magnitude.numel():
        across = found.numel() == case.weight.shape[case.norm_dim]
        raise CheckFailed(
            f"{subject.name}.magnitude with norm_dim={case.norm_dim} must have the shape "
            f"{tuple(case.magnitude.shape)}; found {tuple(found.shape)}."
            + (f"\n{WRONG_AXIS}" if across else ""),
            mistake=WRONG_AXIS if across else None,
        )


def _start(report: Report, layer_type: type, method: str, case: Case) -> None:
    subject = _build(layer_type, method, case)
    for name in ("lora_A", "lora_B"):
        _expect_shape(subject, name, getattr(case, name))
    zero = not subject.parameter("lora_B").any()
    report.expect(zero, "lora_B starts at zero", "lora_B holds other values.", B_NOT_ZERO)
    nonzero = bool(subject.parameter("lora_A").any())
    report.expect(nonzero, "lora_A starts at random", "lora_A holds only zeros.", A_ZERO)
    trained = ["lora_A", "lora_B"]
    if method == "dora":
        _expect_start_magnitude(report, subject, case)
        trained.append("magnitude")
    _expect_trainable(report, subject, trained)
    output = subject.forward(case.x)
    mistakes = [] if case.bias is None else [(case.apply(case.weight, None), BIAS_LOST)]
    expected = case.apply(case.weight, case.bias)
    report.expect_close(output, expected, "before training: the frozen layer's output", mistakes)
    _expect_base_unchanged(report, subject, case)


def _expect_start_magnitude(report: Report, subject: LayerSubject, case: Case) -> None:
    _expect_magnitude_size(subject, case)
    found = subject.parameter("magnitude").view_as(case.base_norm)
    whatever_else = [(found, RANDOM_MAGNITUDE)]
    report.expect_close(found, case.base_norm, "magnitude starts as ||W0||", whatever_else)


def _expect_trainable(report: Report, subject: LayerSubject, trained: list[str]) -> None:
    found = subject.trainable()
    missing = [name for name in trained if name not in found]
    extra = [name for name in found if name not in trained]
    report.expect(
        not missing,
        f"{', '.join(trained)} are trainable",
        f"{', '.join(missing)} is no parameter with requires_grad.",
        MAGNITUDE_FROZEN if missing == ["magnitude"] else None,
    )
    report.expect(
        not extra,
        "nothing else is trainable",
        f"expected the trainable parameters {', '.join(trained)}, found also {', '.join(extra)}.",
        BASE_TRAINABLE,
    )


def _expect_base_unchanged(report: Report, subject: LayerSubject, case: Case) -> None:
    now = subject.base_tensors()
    same = torch.equal(now["weight"].float(), case.weight) and (
        case.bias is None or torch.equal(now["bias"].float(), case.bias)
    )
    problem = "the base layer's weight or bias has other values than before."
    report.expect(same, "the base layer stays as it was", problem, IN_PLACE)


def _forward(report: Report, layer_type: type, method: str, case: Case) -> None:
    subject = _trained(layer_type, method, case)
    output = subject.forward(case.x)
    _expect_base_unchanged(report, subject, case)
    expected = case.apply(case.merged(method), case.bias)
    prop = "output of a trained layer" + ("" if case.norm_dim else " with norm_dim=0")
    report.expect_close(output, expected, prop, list(case.wrong_outputs(method)))


def _axis(report: Report, layer_type: type, method: str, case: Case) -> None:
    _expect_start_magnitude(report, _build(layer_type, method, case), case)
    _forward(report, layer_type, method, case)


def _gradients(report: Report, layer_type: type, method: str, case: Case) -> None:
    found = _trained(layer_type, method, case).gradients(case.x, case.output_weights)
    for name, expected in _textbook_gradients(case, detach_norm=True).items():
        prop = f"gradient of {name}"
        gradient = found.get(name)
        if gradient is None:
            mistake = MAGNITUDE_FROZEN if name == "magnitude" else DETACHED_TOO_MUCH
            report.expect(False, prop, f"{prop}: expected one, found none.", mistake)
            continue
        full = _textbook_gradients(case, detach_norm=False)[name]
        nothing = torch.zeros_like(expected)
        mistakes = [(full, NOT_DETACHED), (nothing, DETACHED_TOO_MUCH)]
        report.expect_close(gradient.view_as(expected), expected, prop, mistakes)
    base = [name for name, value in found.items() if value is not None and name not in TRAINED]
    problem = f"expected gradients of {', '.join(TRAINED)} only, found also {', '.join(base)}."
    report.expect(not base, "no gradient for the base layer", problem, BASE_TRAINABLE)


TRAINED = ("lora_A", "lora_B", "magnitude", "x")


def _textbook_gradients(case: Case, detach_norm: bool) -> dict[str, Tensor]:
    """Return the gradients of the formula itself, with the norm a constant or not."""
    lora_A, lora_B, magnitude, x = (
        tensor.clone().requires_grad_()
        for tensor in (case.lora_A, case.lora_B, case.magnitude, case.x)
    )
    updated = case.weight + case.scaling * lora_B @ lora_A
    norm = case.length(updated.detach() if detach_norm else updated)
    output = F.linear(x, magnitude * updated / norm, case.bias)
    (output * case.output_weights).sum().backward()
    gradients = (lora_A.grad, lora_B.grad, magnitude.grad, x.grad)
    return dict(zip(TRAINED, gradients, strict=True))


def _dropout(report: Report, layer_type: type, method: str, case: Case) -> None:
    expected = case.apply(case.weight, case.bias)
    fresh = _build(layer_type, method, case, dropout=0.5)
    # lora_B is zero here, so whatever dropout does to B A cannot be seen, and what it does
    # to the frozen path can. (PEFT's form of dropout, which lesson 02 explains, passes too.)
    outputs = [fresh.forward(case.x, training=True, seed=seed) for seed in (1, 2)]
    report.expect(
        all(close(output, expected) for output in outputs),
        "in training, the frozen path sees every input",
        "with dropout=0.5 and lora_B = 0, the output in training differs from the base layer's.",
        DROPOUT_ON_FROZEN,
    )
    for name in ("lora_A", "lora_B"):
        _expect_shape(fresh, name, getattr(case, name))
        fresh.set_parameter(name, getattr(case, name))
    in_evaluation = [fresh.forward(case.x, seed=seed) for seed in (1, 2)]
    in_training = [fresh.forward(case.x, training=True, seed=seed) for seed in (1, 2)]
    report.expect(
        not close(in_training[0], in_training[1]),
        "in training, inputs of B A are dropped at random",
        "with dropout=0.5, two passes in training mode gave the same output.",
        DROPOUT_UNUSED,
    )
    report.expect(
        close(in_evaluation[0], in_evaluation[1]),
        "in evaluation, nothing is dropped",
        "with dropout=0.5, two passes after layer.eval() gave different outputs.",
        DROPOUT_IN_EVAL,
    )


def _merge(report: Report, layer_type: type, method: str, case: Case) -> None:
    subject = _trained(layer_type, method, case)
    output = subject.forward(case.x)
    weight, bias = subject.merge()
    mistakes = list(case.wrong_weights(method))
    if method == "dora":
        wrong = (case.magnitude * case.updated(), case.updated())
        mistakes = [*((w, NORM_MISSING_IN_MERGE) for w in wrong), *mistakes]
    report.expect_close(weight, case.merged(method), "weight of merge()", mistakes)
    if case.bias is None:
        problem = "expected no bias, as in the base layer, found one."
        report.expect(bias is None, "no bias in merge()", problem)
    else:
        kept = bias is not None and close(bias, case.bias)
        problem = "expected the bias of the base layer in merge(), found another or none."
        report.expect(kept, "bias of merge()", problem, BIAS_LOST)
    _expect_base_unchanged(report, subject, case)
    problem = "the adapted layer gives another output after merge() than before."
    same = close(subject.forward(case.x), output)
    report.expect(same, "the adapted layer still works", problem, IN_PLACE)
