"""Checks of lesson 02: the student's `LoRALayer` and `DoRALayer`."""

from lab_utils.checks.layer.asking import with_its_axis, with_x_that_is_taken
from lab_utils.checks.layer.axis import axis
from lab_utils.checks.layer.case import Case
from lab_utils.checks.layer.dropout import dropout
from lab_utils.checks.layer.forward import forward
from lab_utils.checks.layer.gradients import gradients
from lab_utils.checks.layer.merge import merge
from lab_utils.checks.layer.start import start
from lab_utils.checks.report import Report, chosen
from lab_utils.checks.subject import REFERENCE_LAYERS, check


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
    aspects = {"start": start, "forward": forward, "dropout": dropout, "merge": merge}
    for name in chosen(aspect, aspects):
        case = Case(**sizes)
        with Report(f"LoRALayer · {name} · {case}") as report:
            case = with_x_that_is_taken(layer_type, case)
            aspects[name](report, layer_type, "lora", case)
            if name == "forward":
                gradients(report, layer_type, "lora", case)


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
        "start": start,
        "forward": forward,
        "axis": axis,
        "gradients": gradients,
        "dropout": dropout,
        "merge": merge,
    }
    for name in chosen(aspect, aspects):
        case = Case(**sizes, norm_dim=0 if name == "axis" else 1)
        with Report(f"DoRALayer · {name} · {case}") as report:
            case = with_x_that_is_taken(layer_type, case)
            if name in ("gradients", "dropout", "merge"):
                case = with_its_axis(layer_type, case)
            aspects[name](report, layer_type, "dora", case)
