"""Checks of lesson 06: `make_config`, `to_peft_state` and `choice_accuracy`."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import lab_utils
from lab_utils.checks.report import Mistake, Report, chosen
from lab_utils.checks.subject import probe
from lab_utils.layers import DoRALayer, LoRALayer

CONFIG = "2. PEFT: a configuration and a model"
FILES = "4. PEFT's file format"
SCORING = "5. Score a choice by its likelihood"

# What does the exercises' work: the same for all three, so that one kernel grades them. It is not
# imported here: the bridge would load PEFT.
LAB = Path(lab_utils.__file__).parent
REFERENCE = (str(LAB / "peft_bridge.py"), str(LAB / "commonsense" / "scoring.py"))

PAPERS_LAYERS = ("down_proj", "k_proj", "q_proj", "up_proj", "v_proj")
FIELDS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_dora",
    "use_rslora",
    "task_type",
    "bias",
    "inference_mode",
)


def _config(name: str, why: str) -> Mistake:
    return Mistake(name, why, CONFIG)


USE_DORA_IGNORED = _config("use_dora ignored", "Pass it on: LoraConfig(use_dora=use_dora).")
USE_DORA_SWAPPED = _config("use_dora swapped", "use_dora=True asks for DoRA.")
RANK_IGNORED = _config("rank ignored", "Pass it on: LoraConfig(r=rank).")
WRONG_DEFAULT = _config("another default rank", "Without a rank, make_config uses 16.")
ALPHA_LEFT_OUT = _config("alpha left out", "PEFT's default is 8, whatever the rank.")
ALPHA_FIXED = _config("alpha does not follow the rank", "The paper sets lora_alpha = 2 * rank.")
ALPHA_IS_RANK = _config("alpha is the rank", "The paper sets lora_alpha = 2 * rank.")
ALPHA_IS_SCALING = _config(
    "alpha is the scaling", "PEFT divides by the rank itself: lora_alpha = 2 * rank."
)
RANK_STABILIZED = _config("use_rslora", "The paper's scaling is alpha / rank: use_rslora=False.")
ALL_LINEAR = _config("every linear layer", 'The paper leaves "o_proj" and "gate_proj" out.')
ATTENTION_ONLY = _config("attention only", 'The paper adapts "up_proj" and "down_proj" too.')
NO_TARGETS = _config(
    "target_modules left out", "PEFT then guesses the layers from the kind of the model."
)
NO_DROPOUT = _config("dropout left out", "The paper uses lora_dropout=0.05.")
DROPOUT_PER_CENT = _config("dropout in per cent", "It is a probability: 0.05.")
NO_TASK = _config(
    "task_type left out", 'With task_type="CAUSAL_LM" the wrapped model can still generate.'
)
BIAS_TRAINED = _config(
    "bias trained", 'With bias other than "none" the base model is no longer frozen.'
)
NOTHING_TRAINED = _config(
    "inference_mode", "With inference_mode=True nothing is trainable: leave it at False."
)


def _file(name: str, why: str) -> Mistake:
    return Mistake(name, why, FILES)


PREFIX_LEFT_OUT = _file("prefix left out", "Every name starts with the prefix and a dot.")
WEIGHT_LEFT_OUT = _file(
    ".weight left out", "In PEFT lora_A and lora_B are layers, whose tensor is called weight."
)
ADAPTER_NAME = _file(
    "adapter name in the file", "PEFT takes the adapter's name, default, out before it writes."
)
OWN_NAME = _file("this lab's name", "PEFT calls the magnitude lora_magnitude_vector.")
WEIGHT_TOO_MUCH = _file(
    ".weight after the magnitude", "In the file the magnitude has no .weight after its name."
)
FROZEN_INCLUDED = _file("frozen tensors written", "Only what was trained is in the file.")
MAGNITUDE_MISSING = _file(
    "magnitude missing", "A DoRA layer has three trained tensors; without m it is another layer."
)
MAGNITUDE_IN_LORA = _file("a magnitude for LoRA", "A LoRA layer has none.")
TRANSPOSED = _file(
    "transposed factor", "PEFT keeps (rank, in) and (out, rank) too: write them as they are."
)
FACTORS_SWAPPED = _file("factors swapped", "lora_A is (rank, in), lora_B is (out, rank).")
SCALING_FOLDED_IN = _file(
    "scaling folded in", "PEFT multiplies by lora_alpha / r itself: write lora_B as it is."
)
NOT_FLAT = _file("magnitude not flat", "PEFT's magnitude has the shape (out,): use .flatten().")
START_MAGNITUDE = _file(
    "the magnitude before training", "Write layer.magnitude, which was trained, not base_norm."
)
FACTOR_WRITTEN = _file("m / ||V|| for m", "Write the magnitude itself; PEFT takes the norm.")
GRADIENT_KEPT = _file("parameters, not tensors", "Write tensor.detach(): a file has no gradients.")
IN_PLACE = _file("in-place change of the layer", "The layer is to be written, not changed.")


def _score(name: str, why: str) -> Mistake:
    return Mistake(name, why, SCORING)


PER_CENT = _score("in per cent", "Return the share itself, between 0 and 1.")
COUNTED = _score("counted", "Divide the number of right answers by the number of questions.")
LOWEST = _score(
    "lowest score taken", "A log-likelihood is negative, and the highest is the likeliest."
)
ERROR_RATE = _score("error rate", "Return the share of right answers.")
FROM_ONE = _score("choices counted from one", "answers counts from 0, like an index.")
PER_CHOICE = _score(
    "divided by the choices", "Divide by the number of questions, not of all their choices."
)
MEAN_SCORE = _score(
    "mean score of the right choice", "A question counts 1 if its right choice is likeliest, or 0."
)


def check_make_config(make_config: Callable, aspect: str | None = None, *, rank: int = 6) -> None:
    """Check a `make_config(use_dora, rank=16) -> peft.LoraConfig`.

    Args:
        aspect: `"method"` (use_dora), `"scaling"` (rank and alpha) or `"layers"` (what is
            adapted, dropout and the rest); all of them if None.
        rank: the rank to ask for; not 1, 2, 4, 8 or 16, whose alphas or defaults would agree.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("method", "scaling", "layers")):
        with Report(f"make_config · {name} · rank {rank}") as report:
            for use_dora in (True, False):
                call = f"make_config({use_dora}, rank={rank})"
                found = _ask(make_config, use_dora, rank)
                if not _is_config(report, call, found):
                    break
                if name == "method":
                    _expect_method(report, call, found, use_dora, _ask(make_config, not use_dora))
                elif name == "scaling":
                    _expect_scaling(report, call, found, rank)
                    if use_dora:
                        _expect_default_rank(report, _ask(make_config, use_dora))
                else:
                    _expect_layers(report, call, found)


def _ask(make_config: Callable, use_dora: bool, rank: int | None = None) -> dict | str:
    arguments = (use_dora,) if rank is None else (use_dora, rank)
    step = f"make_config{arguments}" if rank else f"make_config({use_dora})"
    # PEFT is what the student is to use here
    return probe(ask_config, make_config, use_dora, rank, step=step, reference=REFERENCE)


def ask_config(student: Callable, use_dora: bool, rank: int | None) -> dict | str:
    """Return the fields of the student's configuration, or the name of the type of what is none."""
    config = student(use_dora) if rank is None else student(use_dora, rank=rank)
    if type(config).__name__ != "LoraConfig" or not type(config).__module__.startswith("peft."):
        return f"a {type(config).__name__}"
    found = {name: getattr(config, name) for name in FIELDS}
    found["task_type"] = None if config.task_type is None else str(config.task_type).split(".")[-1]
    targets = config.target_modules
    found["target_modules"] = (
        targets if targets is None or isinstance(targets, str) else sorted(targets)
    )
    return found


def _is_config(report: Report, call: str, found: dict | str) -> bool:
    return report.expect(
        isinstance(found, dict),
        f"{call} is a LoraConfig of PEFT's",
        f"expected {call} to return a peft.LoraConfig, found {found}.",
    )


def _expect_method(
    report: Report, call: str, found: dict, use_dora: bool, other: dict | str
) -> None:
    same = isinstance(other, dict) and other["use_dora"] == found["use_dora"]
    report.expect(
        found["use_dora"] is use_dora,
        f"{call} has use_dora={use_dora}",
        f"expected use_dora={use_dora} in {call}, found {found['use_dora']!r}.",
        USE_DORA_IGNORED if same else USE_DORA_SWAPPED,
    )


def _expect_scaling(report: Report, call: str, found: dict, rank: int) -> None:
    report.expect(
        found["r"] == rank,
        f"{call} has r={rank}",
        f"expected r={rank} in {call}, found {found['r']}.",
        RANK_IGNORED,
    )
    alpha = found["lora_alpha"]
    wrong = {8: ALPHA_LEFT_OUT, 32: ALPHA_FIXED, 16: ALPHA_FIXED, 2: ALPHA_IS_SCALING}
    report.expect(
        alpha == 2 * rank,
        f"{call} has lora_alpha={2 * rank}",
        f"expected lora_alpha={2 * rank} in {call}, found {alpha}.",
        (wrong | {rank: ALPHA_IS_RANK}).get(alpha),
    )
    report.expect(
        not found["use_rslora"],
        f"{call} scales by alpha / rank",
        f"expected use_rslora=False in {call}, found {found['use_rslora']!r}.",
        RANK_STABILIZED,
    )


def _expect_default_rank(report: Report, found: dict | str) -> None:
    if _is_config(report, "make_config(True)", found):
        report.expect(
            (found["r"], found["lora_alpha"]) == (16, 32),
            "make_config(True) has r=16 and lora_alpha=32",
            f"expected r=16 and lora_alpha=32 in make_config(True), found r={found['r']} and "
            f"lora_alpha={found['lora_alpha']}.",
            WRONG_DEFAULT if found["r"] != 16 else None,
        )


def _expect_layers(report: Report, call: str, found: dict) -> None:
    targets = found["target_modules"]
    attention = sorted(("q_proj", "k_proj", "v_proj", "o_proj"))
    every = sorted((*PAPERS_LAYERS, "o_proj", "gate_proj"))
    mistake = None
    if targets is None:
        mistake = NO_TARGETS
    elif targets in ("all-linear", every):
        mistake = ALL_LINEAR
    elif targets in (attention, sorted(("q_proj", "k_proj", "v_proj")), ["q_proj", "v_proj"]):
        mistake = ATTENTION_ONLY
    report.expect(
        targets == list(PAPERS_LAYERS),
        f"{call} adapts {', '.join(PAPERS_LAYERS)}",
        f"expected the target_modules {list(PAPERS_LAYERS)} in {call}, found {targets!r}.",
        mistake,
    )
    wrong = {0.0: NO_DROPOUT, 5: DROPOUT_PER_CENT, 0.5: DROPOUT_PER_CENT}
    for name, value, mistake in (
        ("lora_dropout", 0.05, wrong.get(found["lora_dropout"])),
        ("task_type", "CAUSAL_LM", NO_TASK if found["task_type"] is None else None),
        ("bias", "none", BIAS_TRAINED),
        ("inference_mode", False, NOTHING_TRAINED),
    ):
        report.expect(
            found[name] == value,
            f"{call} has {name}={value!r}",
            f"expected {name}={value!r} in {call}, found {found[name]!r}.",
            mistake,
        )


def check_to_peft_state(
    to_peft_state: Callable,
    aspect: str | None = None,
    *,
    in_features: int = 7,
    out_features: int = 4,
    rank: int = 2,
    prefix: str = "base_model.model.blocks.0.q_proj",
    seed: int = 0,
) -> None:
    """Check a `to_peft_state(layer, prefix) -> dict`.

    Args:
        aspect: `"lora"` or `"dora"`, the kind of the layer; both if None.
        in_features, out_features, rank, seed: of the layer; no two sizes the same, so that no
            transposed factor fits.
        prefix: what every name starts with.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    generator = torch.Generator().manual_seed(seed)
    weight, lora_A, lora_B, magnitude = (
        torch.randn(*shape, generator=generator)
        for shape in (
            (out_features, in_features),
            (rank, in_features),
            (out_features, rank),
            (out_features, 1),
        )
    )
    arrays = {
        "weight": weight,
        "lora_A": lora_A,
        "lora_B": lora_B,
        "magnitude": magnitude.abs() + 1.0,
    }
    for name in chosen(aspect, ("lora", "dora")):
        title = f"to_peft_state · {name} · {in_features} → {out_features}, rank {rank}"
        with Report(title) as report:
            found = probe(
                ask_state,
                to_peft_state,
                name,
                arrays,
                prefix,
                step=f'to_peft_state({"LoRALayer" if name == "lora" else "DoRALayer"}, "{prefix}")',
                reference=REFERENCE,
            )
            if report.expect(
                isinstance(found, dict),
                "the result is a dict",
                f"expected a dict from names to tensors, found {found}.",
            ):
                _expect_state(report, found, name, arrays, prefix)


SCALING = 1.5  # of the layers that are written; not 1, which would hide it


def ask_state(student: Callable, method: str, arrays: dict[str, Tensor], prefix: str) -> object:
    """Return what the student makes of a trained layer: its tensors, and what came of the layer."""
    out_features, in_features = arrays["weight"].shape
    base = nn.Linear(in_features, out_features, bias=False)
    rank = len(arrays["lora_A"])
    layer = {"lora": LoRALayer, "dora": DoRALayer}[method](base, rank, alpha=SCALING * rank)
    trained = ("lora_A", "lora_B", "magnitude")[: 2 if method == "lora" else 3]
    with torch.no_grad():
        base.weight.copy_(arrays["weight"])
        for name in trained:
            getattr(layer, name).copy_(arrays[name])
    result = student(layer, prefix)
    if not isinstance(result, dict):
        return f"a {type(result).__name__}"
    return {
        "tensors": {
            str(name): value.detach().clone()
            if isinstance(value, Tensor)
            else f"a {type(value).__name__}"
            for name, value in result.items()
        },
        "with_gradient": [
            str(name)
            for name, value in result.items()
            if isinstance(value, Tensor) and value.requires_grad
        ],
        "changed": [n for n in trained if not torch.equal(getattr(layer, n), arrays[n])],
    }


def _expect_state(
    report: Report, found: dict, method: str, arrays: dict[str, Tensor], prefix: str
) -> None:
    lora_A, lora_B, magnitude = arrays["lora_A"], arrays["lora_B"], arrays["magnitude"]
    expected = {f"{prefix}.lora_A.weight": lora_A, f"{prefix}.lora_B.weight": lora_B}
    if method == "dora":
        expected[f"{prefix}.lora_magnitude_vector"] = magnitude.flatten()
    tensors = found["tensors"]
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    report.expect(
        not missing and not extra,
        f"the names are {', '.join(name.removeprefix(prefix) for name in expected)}",
        f"expected the names {', '.join(expected)}; found {', '.join(tensors) or 'none'}.",
        _name_mistake(missing, extra, prefix, method),
    )
    weight = arrays["weight"]
    start = weight.norm(dim=1)
    updated = (weight + SCALING * lora_B @ lora_A).norm(dim=1)
    mistakes = {
        ".lora_A.weight": [
            (lora_A.T, TRANSPOSED),
            (lora_B, FACTORS_SWAPPED),
            (SCALING * lora_A, SCALING_FOLDED_IN),
        ],
        ".lora_B.weight": [
            (lora_B.T, TRANSPOSED),
            (lora_A, FACTORS_SWAPPED),
            (SCALING * lora_B, SCALING_FOLDED_IN),
        ],
        ".lora_magnitude_vector": [
            (magnitude, NOT_FLAT),
            (magnitude.T, NOT_FLAT),
            *((value, START_MAGNITUDE) for value in (start, start.view(-1, 1))),
            (magnitude.flatten() / updated, FACTOR_WRITTEN),
            (magnitude.flatten() / start, FACTOR_WRITTEN),
        ],
    }
    for name, value in expected.items():
        if name not in tensors:
            continue
        short = name.removeprefix(prefix)
        if isinstance(tensors[name], str):
            report.expect(
                False,
                f"{short} is a tensor",
                f"expected {short} as a tensor, found {tensors[name]}.",
            )
            continue
        report.expect_close(tensors[name], value, short, mistakes[short])
    attached = ", ".join(found["with_gradient"])
    problem = f"expected tensors without gradients, found {attached} with requires_grad."
    report.expect(not attached, "the tensors are detached", problem, GRADIENT_KEPT)
    changed = ", ".join(found["changed"])
    problem = f"{changed} of the layer has other values after the call."
    report.expect(not changed, "the layer stays as it was", problem, IN_PLACE)


def _name_mistake(missing: list[str], extra: list[str], prefix: str, method: str) -> Mistake | None:
    def any_extra(test: Callable[[str], bool]) -> bool:
        return any(test(name) for name in extra)

    rules = [
        (any_extra(lambda n: ".default" in n), ADAPTER_NAME),
        (any_extra(lambda n: n.endswith("magnitude_vector.weight")), WEIGHT_TOO_MUCH),
        (any_extra(lambda n: "original_layer" in n or "base_norm" in n), FROZEN_INCLUDED),
        (any_extra(lambda n: not n.startswith(f"{prefix}.")), PREFIX_LEFT_OUT),
        (any_extra(lambda n: n.endswith((".lora_A", ".lora_B"))), WEIGHT_LEFT_OUT),
        (method == "lora" and any_extra(lambda n: "magnitude" in n), MAGNITUDE_IN_LORA),
        (any_extra(lambda n: n.removesuffix(".weight").endswith(".magnitude")), OWN_NAME),
        (any("magnitude" in name for name in missing) and not extra, MAGNITUDE_MISSING),
    ]
    return next((mistake for holds, mistake in rules if holds), None)


def check_choice_accuracy(
    choice_accuracy: Callable, aspect: str | None = None, *, questions: int = 15, seed: int = 0
) -> None:
    """Check a `choice_accuracy(scores, answers) -> float`.

    Args:
        aspect: `"equal"` (every question has four choices) or `"ragged"` (two to five);
            both if None.
        questions, seed: how many questions to draw, 8 or more, and from which seed.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("equal", "ragged")):
        with Report(f"choice_accuracy · {name} · {questions} questions") as report:
            scores, answers = _draw_questions(questions, seed, ragged=name == "ragged")
            found = probe(
                ask_accuracy,
                choice_accuracy,
                [list(row) for row in scores],
                list(answers),
                step="choice_accuracy(scores, answers)",
                reference=REFERENCE,
            )
            if not report.expect_number(found, "the accuracy"):
                continue

            def share(pick: Callable[[list[float], int], bool], total: int = questions) -> float:
                return sum(map(pick, scores, answers)) / total  # noqa: B023 called at once

            expected = share(lambda row, answer: row.index(max(row)) == answer)
            choices = sum(map(len, scores))
            wrong = [
                (100 * expected, PER_CENT),
                (questions * expected, COUNTED),
                (share(lambda row, answer: row.index(min(row)) == answer), LOWEST),
                (1 - expected, ERROR_RATE),
                (share(lambda row, answer: row.index(max(row)) + 1 == answer), FROM_ONE),
                (share(lambda row, answer: row.index(max(row)) == answer + 1), FROM_ONE),
                (questions * expected / choices, PER_CHOICE),
                (share(lambda row, answer: row[answer]), MEAN_SCORE),
                (share(lambda row, answer: math.exp(row[answer])), MEAN_SCORE),
            ]
            report.expect(
                math.isclose(found, expected, abs_tol=1e-6),
                f"the accuracy of {questions} questions",
                f"expected {expected:.4f} of {questions} questions, found {found:.4f}.",
                next((m for value, m in wrong if math.isclose(found, value, abs_tol=1e-6)), None),
            )


def ask_accuracy(student: Callable, scores: list[list[float]], answers: list[int]) -> object:
    """Return the student's number, or the name of the type of what is none."""
    found = student(scores, answers)
    return found if isinstance(found, int | float) else f"a {type(found).__name__}"


def _draw_questions(questions: int, seed: int, ragged: bool) -> tuple[list[list[float]], list[int]]:
    """Return log-likelihoods and answers of which two thirds of the questions are answered right.

    Shares of right, wrong and lowest choices all differ, so that no two rules agree.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [2 + i % 4 if ragged else 4 for i in range(questions)]
    scores = [(-6 * torch.rand(size, generator=generator) - 0.1).tolist() for size in sizes]
    answers = []
    for i, row in enumerate(scores):
        by_score = sorted(range(len(row)), key=row.__getitem__)
        # every third question is answered wrong; every sixth has its right choice lowest
        right = i % 3
        answers.append(by_score[-1] if right else by_score[0] if i % 6 == 0 else by_score[-2])
    return scores, answers
