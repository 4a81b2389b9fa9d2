"""Before training: what the layer holds, and its output."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lab_utils.checks.layer.asking import (
    MODES,
    Answers,
    ask,
    ask_trained,
    compare,
    expect_base_unchanged,
    expect_parameters,
    expect_shape,
    other_shape,
    trained_names,
)
from lab_utils.checks.layer.case import Case, apply
from lab_utils.checks.layer.mistakes import (
    A_NOT_RANDOM,
    A_THE_SAME,
    A_ZERO,
    ADAPTER_FROZEN,
    B_NOT_ZERO,
    BASE_TRAINABLE,
    BIAS_LOST,
    BIAS_SCALED,
    BIAS_TWICE,
    COPIED,
    COPY_KEPT,
    DIM_AS_P,
    EXTRA_TRAINED,
    FROZEN_TWICE,
    LOGARITHM,
    LOST_DIMENSION,
    MAGNITUDE_ADDED,
    MAGNITUDE_FROZEN,
    MAGNITUDE_OF_ONES,
    MAGNITUDE_RELATIVE,
    MAGNITUDE_SCALED,
    NEVER_FILLED,
    NO_NORMALISATION,
    NOT_A_LENGTH,
    OTHER_NAME,
    OUTPUT_DOUBLED,
    RANDOM_MAGNITUDE,
    WHOLE_NORM,
    WRONG_AXIS,
    ZERO_DIVISION,
)
from lab_utils.checks.layer.unexplained import unexplained
from lab_utils.checks.report import CheckFailed, Comparison, Mistake, Report
from lab_utils.checks.values import close, listed


def start(report: Report, layer_type: Any, method: str, case: Case) -> None:
    for each in (case, case.other(), case.by_default()):
        _expect_parts(report, layer_type, method, each)
        if report.first_problem is not None:
            return
    _expect_start_output(report, layer_type, method, case)


def start_of_axis(report: Report, layer_type: Any, method: str, case: Case) -> None:
    names = trained_names(method)
    answers = ask(layer_type, case, {"kinds": ["kinds", names], "parameters": ["parameters"]})
    found = expect_parameters(answers, case, names)
    _expect_start_magnitude(report, layer_type, case, found["magnitude"])
    if report.first_problem is None:
        _expect_start_output(report, layer_type, method, case)


def _expect_parts(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Look at what the layer holds before it has computed anything."""
    names = trained_names(method)
    answers = ask(
        layer_type,
        case,
        {"kinds": ["kinds", names], "parameters": ["parameters"], "kept": ["kept"]},
    )
    found = expect_parameters(answers, case, names)
    for name in ("lora_A", "lora_B"):
        expect_shape(answers.name, name, found[name], case)
    for name in names:
        if not _expect_values(report, name, found[name]):
            return
    _expect_start_factors(report, layer_type, case, found["lora_A"], found["lora_B"])
    if method == "dora":
        _expect_start_magnitude(report, layer_type, case, found["magnitude"])
    _expect_trained(report, answers, found, names)
    kept = answers["kept"]
    report.expect(
        not kept["copies"],
        "no copy of the frozen weight",
        f"expected no second tensor of the frozen weight's shape, found {listed(kept['copies'])}.",
        COPY_KEPT,
    )
    expect_base_unchanged(report, kept, case, "building the layer")


def _expect_start_factors(
    report: Report, layer_type: Any, case: Case, lora_A: Tensor, lora_B: Tensor
) -> None:
    """Expect lora_B to be zero and lora_A to be random, in each layer anew."""
    zero = not lora_B.any()
    report.expect(zero, "lora_B starts at zero", "lora_B has other values.", B_NOT_ZERO)
    varied = lora_A.unique().numel() > lora_A.numel() / 2
    if varied:
        again = ask(layer_type, case, {"held": ["held", ["lora_A"]]}, seed=1)["held"]["lora_A"]
        report.expect(
            not torch.equal(again, lora_A),
            "lora_A is drawn again for each layer",
            "expected other values in lora_A of a second layer, found the same.",
            A_THE_SAME,
        )
    report.expect(
        varied and bool(lora_A.isfinite().all()),
        "lora_A starts at random",
        f"expected random values in lora_A, found {lora_A.unique().numel()} different values.",
        None if varied else A_ZERO if not lora_A.any() else A_NOT_RANDOM,
    )


def _expect_trained(
    report: Report, answers: Answers, found: dict[str, Tensor], names: Sequence[str]
) -> None:
    """Expect the adapter's parameters to be trainable, and nothing else."""
    frozen = [name for name in names if not found[name].requires_grad]
    report.expect(
        not frozen,
        f"{', '.join(names)} are trainable",
        f"expected {', '.join(names)} to require gradients, found requires_grad=False in "
        f"{', '.join(frozen)}.",
        MAGNITUDE_FROZEN if frozen == ["magnitude"] else ADAPTER_FROZEN,
    )
    kept = answers["kept"]
    where = kept["elsewhere"]
    report.expect(
        kept["original_layer"],
        "original_layer is the layer that was passed in",
        f"expected {answers.name}.original_layer to be the layer that was passed in, found "
        f"{f'it under the name {where[0]}' if where else 'something else'}.",
        OTHER_NAME if where else COPIED,
    )
    others = [name for name, p in found.items() if name not in names and p.requires_grad]
    extra = kept["trainable"] or others
    report.expect(
        not extra,
        "nothing else is trainable",
        f"expected the trainable parameters {', '.join(names)}, found also {', '.join(extra)}.",
        BASE_TRAINABLE if kept["trainable"] else EXTRA_TRAINED,
    )


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
        WRONG_AXIS if across else LOST_DIMENSION if flat else other_shape(found, case),
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
        *((one.expand_as(expected), WHOLE_NORM) for one in (expected.mean(), expected.max())),
        (weight.norm(p=dim).expand_as(expected), DIM_AS_P),
        (case.scaling * expected, MAGNITUDE_SCALED),
    ]
    if not close(found, expected):
        again = ask(layer_type, case, {"parameters": ["parameters"]}, seed=1)["parameters"]
        if not torch.equal(again["magnitude"], found):
            wrong = [(found, RANDOM_MAGNITUDE)]
    report.expect_close(found, expected, "magnitude starts as ||W0||", wrong)


def _expect_start_output(report: Report, layer_type: Any, method: str, case: Case) -> None:
    """Expect the frozen layer's output before training, also where it has a row of zeros."""

    trained: list[set[Mistake] | None] = []  # once it is asked for

    def look(each: Case) -> list[Comparison]:
        steps = {mode: ["forward", each.x, mode == "training", 0] for mode in MODES}
        answers = ask(layer_type, each, steps | {"kept": ["kept"]})
        expect_base_unchanged(report, answers["kept"], each, "forward")
        expected = apply(each.x, each.weight, each.bias)
        right = all(close(answers.output(mode), expected) for mode in MODES)
        if not right and not trained:
            trained.append(_explained_when_trained(layer_type, method, case))
        when_trained = trained[0] if trained else None
        wrong = functools.cache(lambda: list(_wrong_starts(method, each, when_trained)))
        vector = "row" if each.norm_dim else "column"
        zeros = f", with a {vector} of zeros and a short {vector} in the weight"
        of_zeros = zeros if (each.start_magnitude() == 0).any() else ""
        comparisons = [
            Comparison(
                f"output before training, in {mode} mode{of_zeros}",
                answers.output(mode),
                expected,
                wrong,
            )
            for mode in MODES
        ]
        return comparisons

    prop = "before training: the frozen layer's output"
    cases = (case, case.other(), case.with_zero_vector())
    compare(report, prop, cases, look, unexplained(layer_type, method, case))


def _explained_when_trained(layer_type: Any, method: str, case: Case) -> set[Mistake] | None:
    """Return what explains the output of a trained layer; None if it is right, or not known.

    Before training several ways to go wrong are one and the same.
    """
    if method == "lora":
        return None
    try:
        answers = ask_trained(layer_type, method, case, {"output": ["forward", case.x, False, 0]})
        output = answers.output("output")
    except CheckFailed:
        return None
    if close(output, apply(case.x, case.merged(method), case.bias)):
        return None
    wrong = case.wrong_layers(method)
    found = {mistake for w, b, mistake in wrong if close(output, apply(case.x, w, b))}
    return found | ({ZERO_DIVISION} if output.isfinite().all() else set())


OF_THE_BIAS = (BIAS_LOST, BIAS_TWICE, BIAS_SCALED)


def _wrong_starts(
    method: str, case: Case, trained: set[Mistake] | None
) -> Iterator[tuple[Tensor | None, Mistake | None]]:
    """Yield the output as known mistakes make it, with None for those that training contradicts.

    An output of None is that of a mistake that changes nothing here.

    Args:
        trained: what explains the output of a trained layer, where that is known.
    """

    def if_so(mistake: Mistake) -> Mistake | None:
        said = trained is None or mistake in trained or mistake in OF_THE_BIAS
        return mistake if said else None

    start = case.at_start()
    right = start.merged(method)
    for weight, bias, mistake in start.wrong_layers(method):
        changes_nothing = close(weight, right) and mistake not in OF_THE_BIAS
        output = None if changes_nothing else apply(case.x, weight, bias)
        said = if_so(mistake)
        if mistake is MAGNITUDE_RELATIVE and trained is None:
            said = NO_NORMALISATION  # here m is ||W0||, so that is one and the same
        # Without an update many mistakes change nothing, or double the output, but for the bias.
        if said in (FROZEN_TWICE, MAGNITUDE_ADDED):
            said = OUTPUT_DOUBLED
        yield output, said
    not_a_number = torch.where(case.start_magnitude() == 0, torch.nan, case.weight)
    yield apply(case.x, not_a_number, case.bias), if_so(ZERO_DIVISION)
