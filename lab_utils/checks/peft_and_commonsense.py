"""Checks of lesson 06: `make_config`, `to_peft_state` and `choice_accuracy`."""

import functools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lab_utils
from lab_utils.checks.diagnosis import (
    expect_kept,
    expect_numbers,
    misfit,
    nothing_returned,
    only_explanation,
    returned_kind,
    roundings,
    tell_apart,
)
from lab_utils.checks.report import CheckFailed, Mistake, Report, chosen, named
from lab_utils.checks.subject import call, check, probe
from lab_utils.checks.values import apart, describe, differ, is_plain, listed, near, number
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.questions.peft_and_commonsense import ask_config, ask_state, plain

CONFIG = "2. PEFT: a configuration and a model"
FILES = "4. PEFT's file format"
SCORING = "5. Score a choice by its likelihood"

# The reference solutions: the same files for all three exercises, so that one kernel grades them.
# The bridge is not imported here, since it would load PEFT.
LAB = Path(lab_utils.__file__).parent
REFERENCE = (str(LAB / "peft_bridge.py"), str(LAB / "commonsense" / "scoring.py"))

PAPERS_LAYERS = ("down_proj", "k_proj", "q_proj", "up_proj", "v_proj")
# Linear layers of a Llama, those that the paper adapts among them.
LLAMA = [
    *(
        f"model.layers.{block}.{part}_proj"
        for block in (0, 1, 12)
        for part in (
            *("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"),
            *("mlp.gate", "mlp.up", "mlp.down"),
        )
    ),
    "lm_head",
]
CLOSE = 1e-4  # relative: allows for rounding in float32


def _config(name: str, why: str) -> Mistake:
    return Mistake(name, why, CONFIG)


USE_DORA_IGNORED = _config("use_dora ignored", "Pass it on: LoraConfig(use_dora=use_dora).")
NO_CONFIG = _config("not a LoraConfig", "Return the object itself: peft.LoraConfig(...).")
USE_DORA_TEXT = _config("a text, not a truth value", "Pass use_dora on as it is.")
RANK_FLOAT = _config("rank as a float", "Pass rank on as it is, a whole number.")
ALPHA_TEXT = _config("a text, not a number", "lora_alpha is a number: 2 * rank.")
SWAPPED = _config("rank and alpha swapped", "r is the rank, and lora_alpha twice that.")
ALPHA_OTHER = _config("another alpha", "The paper sets lora_alpha = 2 * rank.")
UNKNOWN_LAYER = _config(
    "a name that no layer has",
    "The layers of a Llama are q_proj, k_proj, v_proj, up_proj and down_proj.",
)
USE_DORA_SWAPPED = _config("use_dora swapped", "use_dora=True asks for DoRA.")
RANK_OTHER = _config("another rank", "The rank is the one that is asked for: r=rank.")
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
PATTERN_OF_PARTS = _config(
    "a pattern that fits no whole name",
    "PEFT compares a text with the whole name of a layer: give a list, or a pattern such as "
    'r".*(q|k)_proj".',
)
SOME_LAYERS = _config("layers left out", "The paper adapts five kinds of layers.")
MORE_LAYERS = _config("more layers than asked for", "The paper adapts five kinds of layers.")
NO_TARGETS = _config(
    "target_modules left out", "PEFT then guesses the layers from the kind of the model."
)
NO_DROPOUT = _config("dropout left out", "The paper uses lora_dropout=0.05.")
DROPOUT_PER_CENT = _config("dropout in per cent", "It is a probability: 0.05.")
DROPOUT_TEXT = _config("a text, not a number", "lora_dropout is a number: 0.05.")
OTHER_LAYERS = _config(
    "other layers than asked for", "The paper adapts q_proj, k_proj, v_proj, up_proj and down_proj."
)
SOME_BLOCKS = _config(
    "some blocks only", "A pattern has to match the layers of every block, whatever its number."
)
DROPOUT_OTHER = _config("another dropout", "The paper uses lora_dropout=0.05.")
OTHER_TASK = _config("another task_type", 'A language model is "CAUSAL_LM".')
NOT_DEFAULT = _config("a field that was not asked for", "Leave everything else at PEFT's default.")
NO_TASK = _config(
    "task_type left out", 'With task_type="CAUSAL_LM" PEFT wraps and saves a language model.'
)
BIAS_TRAINED = _config(
    "bias trained", 'With bias other than "none" the base model is no longer frozen.'
)
NOTHING_TRAINED = _config(
    "inference_mode", "With inference_mode=True nothing is trainable: leave it at False."
)


def _file(name: str, why: str) -> Mistake:
    return Mistake(name, why, FILES)


OTHER_PREFIX = _file("another prefix", "Every name starts with the prefix that is given.")
DOTS = _file("two dots after the prefix", "Every name starts with the prefix and one dot.")
NO_DOT = _file("no dot after the prefix", "Every name starts with the prefix and a dot.")
SPELLING = _file("capital letters", "lora_A and lora_B have a capital A and B.")
EARLIER_NAMES = _file(
    "names of an earlier call",
    "Begin with an empty dict inside the function: one outside it keeps the names of every call.",
)
MORE_WRITTEN = _file("more than the trained tensors", "Only what was trained is in the file.")
FACTOR_MISSING = _file("a factor missing", "Both lora_A and lora_B are in the file.")
NO_DICT = _file("no dict", "Return a dict from names to tensors.")
PRODUCT = _file("product of the factors", "Write lora_A and lora_B, not B A.")
PREFIX_LEFT_OUT = _file("prefix left out", "Every name starts with the prefix and a dot.")
WEIGHT_LEFT_OUT = _file(
    ".weight left out", "In PEFT lora_A and lora_B are layers, whose tensor is called weight."
)
ADAPTER_NAME = _file(
    "adapter name in the file", "PEFT removes the adapter's name, default, before it writes."
)
OWN_NAME = _file("this lab's name", "PEFT calls the magnitude lora_magnitude_vector.")
WEIGHT_TOO_MUCH = _file(
    ".weight after the magnitude", "In the file the magnitude has no .weight after its name."
)
FROZEN_INCLUDED = _file("frozen tensors written", "Only what was trained is in the file.")
MAGNITUDE_MISSING = _file(
    "magnitude missing", "A DoRA layer has three trained tensors; without m it is another layer."
)
MAGNITUDE_ASSUMED = _file(
    "a magnitude taken for granted", 'A LoRA layer has none: check hasattr(layer, "magnitude").'
)
MAGNITUDE_IN_LORA = _file("a magnitude for LoRA", "A LoRA layer has none.")
TRANSPOSED = _file(
    "transposed factor", "PEFT keeps (rank, in) and (out, rank) too: write them as they are."
)
FACTORS_SWAPPED = _file("factors swapped", "lora_A is (rank, in), lora_B is (out, rank).")
REORDERED = _file("entries in another order", "Write each tensor as the layer has it.")
RESHAPED = _file("another shape", "The numbers are right: write them in PEFT's shapes.")
SIGN_LOST = _file("sign changed", "Write each tensor as the layer has it, including its sign.")
CHANGE_WRITTEN = _file("change of the magnitude", "Write layer.magnitude itself.")
MEAN_WRITTEN = _file("mean of the magnitude", "PEFT's magnitude has one number for each output.")
ERASED = _file("zeros written", "Write the layer's own numbers: layer.lora_A, layer.lora_B.")
NESTED = _file("a dict in a dict", "The whole name is one key: prefix.lora_A.weight.")
SCALING_FOLDED_IN = _file(
    "scaling folded in", "PEFT multiplies by lora_alpha / r itself: write lora_B as it is."
)
MAGNITUDE_FOLDED_IN = _file(
    "magnitude folded in", "PEFT multiplies by the magnitude itself: write each factor as it is."
)
MERGED_WRITTEN = _file(
    "the merged weight written", "The file holds what was trained: lora_A, lora_B, the magnitude."
)
NOT_FLAT = _file("magnitude not flat", "PEFT's magnitude has the shape (out,): use .flatten().")
START_MAGNITUDE = _file(
    "the magnitude before training", "Write layer.magnitude, which was trained, not base_norm."
)
FACTOR_WRITTEN = _file("m / ||V|| for m", "Write the magnitude itself; PEFT takes the norm.")
GRADIENT_KEPT = _file("parameters, not tensors", "Write tensor.detach(): a file has no gradients.")
IN_PLACE = _file(
    "in-place change of the layer",
    "Write the layer's tensors to the state; do not change the layer.",
)
LAYER_FROZEN = _file(
    "layer frozen",
    "tensor.detach() is a new tensor; requires_grad_(False) changes the layer's own.",
)
PRECISION_LOST = _file(
    "precision lost", "Write the numbers as they are: a dtype with fewer bits rounds them."
)
SQUEEZED = _file(
    "factors squeezed", "With rank 1 squeeze() loses a dimension: flatten the magnitude alone."
)
NO_TENSORS = _file("no tensors", "A file holds tensors: write them as they are.")
NOT_FLAT_FACTOR = _file("factors flattened", "Only the magnitude is flat; factors are matrices.")
UPDATED_NORM = _file("||V|| for m", "Write the magnitude itself; PEFT takes the norm.")
STATE_ROUNDED = _file("rounded", "Write the numbers as they are.")


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
ROUNDED = _score("rounded", "Return the share itself; round what you print.")
ONE_QUESTION = _score(
    "one question only", "Go through all questions: return comes after the loop, and counts add up."
)
NEGATIVE = _score("sign", "Return the share of right answers, from 0 to 1.")
LITTLE_PRECISION = _score("precision lost", "Compute with plain floats: float16 has three digits.")
BOUND = _score(
    "a bound on the probability",
    "A question is answered right if its right choice has the highest score, however likely it is.",
)
NUMBERS_COMPARED = _score(
    "how often each index occurs",
    "Compare question by question: the choice of each with the answer of the same.",
)
STOPPED = _score(
    "stopped at the first wrong answer",
    "return and break end a loop: go through all questions, and divide after it.",
)
CONSTANT = _score(
    "the same for all scores",
    "The result does not depend on the scores: count question by question.",
)
NOTHING_COUNTED = _score(
    "nothing counted",
    "No question counts as right. Compare the index of the highest score with the answer, divide "
    "with /, not //, and let no choice win that is not there.",
)
ALL_COUNTED = _score(
    "every question counted", "A question counts if the index of its highest score is the answer."
)
FROM_ZERO = _score(
    "search from another number",
    "A log-likelihood is never above 0, and may be below any number: begin with the first score, "
    "or with float('-inf').",
)
LENIENT = _score(
    "not compared with the highest", "A question counts if its right choice has the highest score."
)
CHOICES_CUT = _score("choices left out", "Look at all choices of a question, however many.")
SCORES_ROUNDED = _score(
    "scores rounded before they are compared",
    "Two close scores become equal: compare them as they are.",
)
SECOND_HIGHEST = _score("another choice than the highest", "Take the index of max(row).")
NOT_EQUAL = _score("compared with < or >", "The index of the highest score must be the answer: ==.")
MISALIGNED = _score("scores and answers misaligned", "zip(scores, answers) goes through both.")
CORRECTED = _score("corrected for chance", "Return the share itself, from 0 to 1.")
COMMONEST_ANSWER = _score(
    "scores not used", "The model's answer is the index of the highest score."
)
WEIGHTED = _score(
    "questions weighted", "Each question counts the same, however many choices it has."
)
QUESTION_LEFT_OUT = _score("a question left out", "Go through all questions.")
PADDED = _score(
    "padding that wins", "A choice that is not there must not win: pad with float('-inf')."
)
TOO_MANY_DIVIDED = _score("divided by another number", "Divide by the number of questions.")
ALWAYS_FIRST = _score(
    "first choice taken",
    "The model's answer is the choice with the highest score. (A search that begins at 0 never "
    "finds a log-likelihood above it: begin with float('-inf').)",
)
ALWAYS_LAST = _score(
    "last choice taken",
    "The model's answer is the choice with the highest score. (Once a row is sorted, that is "
    "always the last: look for it in the row as it was.)",
)
BEST_KEPT = _score(
    "the best of earlier questions kept", "Start again for each question: best = -math.inf."
)
BALANCED = _score(
    "mean over the right answers' indices",
    "Each question counts the same, whichever of its choices is the right one.",
)
COMMONEST = _score(
    "scores ranked, not their places",
    "The answer is an index: the position of the highest score, not the rank of a choice.",
)
EACH_QUESTION = _score("no mean", "Average over the questions: one number for all of them.")
MEAN_SCORE = _score(
    "mean score of the right choice",
    "A question counts 1 if its right choice is the likeliest, otherwise 0.",
)


@check(forbids=REFERENCE, seeded=True, needs=["transformers"])
def check_make_config(
    make_config: Callable, aspect: str | None = None, *, rank: int = 6, seed: int = 0
) -> None:
    """Check a `make_config(use_dora, rank=16) -> peft.LoraConfig`.

    Args:
        aspect: `"method"` (use_dora), `"scaling"` (rank and alpha) or `"layers"` (what is
            adapted, dropout and the rest); all of them if None.
        rank: a rank to ask for; not 1, 2, 4, 8, 16 or 32, whose alphas or defaults would agree.
        seed: of another rank that is asked for.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    others = [other for other in range(3, 60) if other not in (4, 8, 16, 32, rank)]
    drawn = torch.randint(len(others), (), generator=torch.Generator().manual_seed(seed))
    ranks = (rank, others[int(drawn)])
    for name in chosen(aspect, ("method", "scaling", "layers")):
        with Report(f"make_config · {name} · ranks {ranks[0]} and {ranks[1]}") as report:
            found = {
                (use_dora, r): _ask(make_config, use_dora, r)
                for r in ranks
                for use_dora in (r == ranks[0], r != ranks[0])  # not in turns: a state would fit
            }
            if not all(_is_config(report, _call(*asked), a) for asked, a in found.items()):
                continue
            if name == "method":
                _expect_method(report, found)
            elif name == "scaling":
                _expect_scaling(report, found)
                _expect_default_rank(report, _ask(make_config, True))
            else:
                for (use_dora, r), answer in found.items():
                    _expect_layers(report, _call(use_dora, r), answer, use_dora, r)


def _call(use_dora: bool, rank: int | None = None) -> str:
    return f"make_config({use_dora})" if rank is None else f"make_config({use_dora}, rank={rank})"


def _ask(make_config: Callable, use_dora: bool, rank: int | None = None) -> dict[str, Any]:
    # PEFT is what the student is to use here
    return probe(
        ask_config,
        make_config,
        *(use_dora, rank, LLAMA),
        step=_call(use_dora, rank),
        reference=REFERENCE,
    )


def _is_config(report: Report, call: str, answer: dict[str, Any]) -> bool:
    kind = answer.get("class", "")
    right = kind.startswith("peft.") and kind.endswith(".LoraConfig")
    what = kind if kind else describe(answer.get("returned"))
    return report.expect(
        right,
        f"{call} is a LoraConfig of PEFT's",
        f"expected {call} to return a peft.LoraConfig, found {what}.",
        nothing_returned(answer.get("returned", ""), CONFIG) or NO_CONFIG,
    )


def _expect_method(report: Report, found: dict[tuple[bool, int], dict]) -> None:
    values = {asked: answer["fields"]["use_dora"] for asked, answer in found.items()}
    mistake = None
    if any(isinstance(value, str) for value in values.values()):
        mistake = USE_DORA_TEXT
    elif len(set(map(repr, values.values()))) == 1:
        mistake = USE_DORA_IGNORED
    elif all(value is (not use_dora) for (use_dora, _), value in values.items()):
        mistake = USE_DORA_SWAPPED
    for (use_dora, rank), value in values.items():
        call = _call(use_dora, rank)
        report.expect(
            value == use_dora,
            f"{call} has use_dora={use_dora}",
            f"expected use_dora={use_dora} in {call}, found {value!r}.",
            mistake,
        )


def _expect_scaling(report: Report, found: dict[tuple[bool, int], dict]) -> None:
    fields = {asked: answer["fields"] for asked, answer in found.items()}
    of_rank, of_alpha = _wrong_scaling(
        [(rank, f["r"], f["lora_alpha"]) for (_, rank), f in fields.items()]
    )
    for (use_dora, rank), values in fields.items():
        call, r, alpha = _call(use_dora, rank), values["r"], values["lora_alpha"]
        report.expect(
            r == rank and isinstance(r, int),
            f"{call} has r={rank}",
            f"expected r={rank} in {call}, found {r!r}.",
            of_rank,
        )
        report.expect(
            number(alpha) == 2 * rank,
            f"{call} has lora_alpha={2 * rank}",
            f"expected lora_alpha={2 * rank} in {call}, found {alpha!r}.",
            of_alpha,
        )
        report.expect(
            not values["use_rslora"],
            f"{call} scales by alpha / rank",
            f"expected use_rslora=False in {call}, found {values['use_rslora']!r}.",
            RANK_STABILIZED,
        )


def _wrong_scaling(cases: list[tuple[int, Any, Any]]) -> tuple[Mistake | None, Mistake | None]:
    """Return what is wrong with the ranks and with the alphas, over all calls.

    Args:
        cases: the rank that was asked for, and the rank and the alpha that were found.
    """
    ranks, alphas = ([case[index] for case in cases] for index in (1, 2))
    if all(r == 2 * asked and alpha == asked for asked, r, alpha in cases):
        return SWAPPED, SWAPPED
    of_rank = None
    if len(set(map(repr, ranks))) == 1:
        of_rank = RANK_IGNORED
    elif all(r == asked for asked, r, _ in cases):
        of_rank = RANK_FLOAT
    elif all(isinstance(r, int) for r in ranks):
        of_rank = RANK_OTHER
        if all(alpha == 2 * r for _, r, alpha in cases):
            return of_rank, of_rank  # alpha follows from it
    if any(isinstance(alpha, str) for alpha in alphas):
        objects = any(str(alpha).startswith("<") for alpha in alphas)  # how `plain` shows them
        return of_rank, None if objects else ALPHA_TEXT
    if of_rank is RANK_IGNORED and all(alpha == 2 * r for _, r, alpha in cases):
        return of_rank, RANK_IGNORED  # alpha follows from it
    if len(set(map(repr, alphas))) == 1:
        return of_rank, {8: ALPHA_LEFT_OUT, 2: ALPHA_IS_SCALING}.get(alphas[0], ALPHA_FIXED)
    if all(alpha == asked for asked, _, alpha in cases):
        return of_rank, ALPHA_IS_RANK
    return of_rank, ALPHA_OTHER


def _expect_default_rank(report: Report, answer: dict[str, Any]) -> None:
    if _is_config(report, _call(True), answer):
        r, alpha = answer["fields"]["r"], answer["fields"]["lora_alpha"]
        report.expect(
            (r, alpha) == (16, 32),
            "make_config(True) has r=16 and lora_alpha=32",
            f"expected r=16 and lora_alpha=32 in make_config(True), found r={r!r} and "
            f"lora_alpha={alpha!r}.",
            WRONG_DEFAULT if r != 16 and alpha == 2 * r else None,
        )


def _expect_layers(
    report: Report, call: str, answer: dict[str, Any], use_dora: bool, rank: int
) -> None:
    from lab_utils.peft_bridge import LoraConfig  # here: it loads PEFT, which takes seconds

    default = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        target_modules=list(PAPERS_LAYERS),
        task_type="CAUSAL_LM",
        use_dora=use_dora,
    )
    fields, targets = answer["fields"], answer["fields"]["target_modules"]
    adapted = {name.split(".")[-1] for name in answer["adapted"]}
    right = [name for name in LLAMA if name.endswith(PAPERS_LAYERS)]
    report.expect(
        sorted(answer["adapted"]) == sorted(right),
        f"{call} adapts {', '.join(PAPERS_LAYERS)}",
        f"expected target_modules {list(PAPERS_LAYERS)} in {call}, found {targets!r}: it adapts "
        f"{', '.join(sorted(adapted)) or 'no layer'} of a Llama.",
        _wrong_targets(targets, adapted),
    )
    dropout = fields["lora_dropout"]
    per_cent = dropout == 5
    mistakes = {
        "lora_dropout": NO_DROPOUT
        if dropout == 0
        else DROPOUT_TEXT
        if isinstance(dropout, str)
        else DROPOUT_PER_CENT
        if per_cent
        else DROPOUT_OTHER,
        "task_type": NO_TASK if fields["task_type"] is None else OTHER_TASK,
        "bias": BIAS_TRAINED,
        "inference_mode": NOTHING_TRAINED,
    }
    asked = ("r", "lora_alpha", "use_dora", "use_rslora", "target_modules")  # checked elsewhere
    for name in [*mistakes, *(name for name in fields if name not in mistakes)]:
        if name in asked:
            continue
        expected = plain(getattr(default, name, None))
        same = fields[name] == expected
        if not same or name in mistakes:
            report.expect(
                same,
                f"{call} has {name}={expected!r}",
                f"expected {name}={expected!r} in {call}, found {fields[name]!r}.",
                mistakes.get(name, NOT_DEFAULT),
            )
    report.expect(
        fields.keys() == vars(default).keys() & fields.keys(),
        f"{call} has everything else by default",
        f"expected the fields of a LoraConfig in {call}, found others.",
    )


def _wrong_targets(targets: Any, adapted: set[str]) -> Mistake | None:
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    if targets is None:
        return NO_TARGETS
    if isinstance(targets, str) and targets != "all-linear" and not adapted:
        return PATTERN_OF_PARTS
    ends = [name.split(".")[-1] for name in LLAMA]
    if isinstance(targets, list) and any(t.split(".")[-1] not in ends for t in targets):
        return UNKNOWN_LAYER
    if adapted >= {*PAPERS_LAYERS, "o_proj", "gate_proj"}:
        return ALL_LINEAR
    if adapted and adapted <= attention:
        return ATTENTION_ONLY
    if adapted < set(PAPERS_LAYERS):
        return SOME_LAYERS
    if adapted > set(PAPERS_LAYERS):
        return MORE_LAYERS
    return SOME_BLOCKS if adapted == set(PAPERS_LAYERS) else OTHER_LAYERS


PREFIX, INNER = "base_model.model.blocks.0.q_proj", ".inner"  # of a layer, and of one inside it


@check(forbids=REFERENCE, seeded=True, needs=["transformers"])
def check_to_peft_state(
    to_peft_state: Callable,
    aspect: str | None = None,
    *,
    in_features: int = 7,
    out_features: int = 4,
    rank: int = 2,
    prefix: str = PREFIX,
    seed: int = 0,
) -> None:
    """Check a `to_peft_state(layer, prefix) -> dict`.

    Args:
        aspect: `"lora"` or `"dora"`, the kind of the layer; both if None.
        in_features, out_features, rank, seed: of the layer; no two sizes the same, so that no
            transposed factor fits. A second layer has rank 1 and float64.
        prefix: what every name starts with.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("lora", "dora")):
        title = f"to_peft_state · {name} · {in_features} → {out_features}, rank {rank}"
        with Report(title) as report:
            for case, where, dtype in (
                (rank, prefix, torch.float32),
                (1, prefix + INNER, torch.float64),
            ):
                layer = _draw_layer(name, in_features, out_features, case, seed, dtype)
                kind = "LoRALayer" if name == "lora" else "DoRALayer"
                try:
                    found = probe(
                        ask_state,
                        to_peft_state,
                        *(name, layer["weight"], layer["trained"], SCALING, where, layer["x"]),
                        step=f"to_peft_state({kind} of rank {case}, {where!r})",
                        reference=REFERENCE,
                    )
                except CheckFailed as failure:
                    assumed = name == "lora" and "'magnitude'" in str(failure)
                    raise named(failure, MAGNITUDE_ASSUMED if assumed else None) from failure
                if report.expect(
                    "returned" not in found,
                    f"rank {case}: the result is a dict",
                    "expected a dict from names to tensors, found "
                    f"{describe(found.get('returned'))}.",
                    nothing_returned(found.get("returned", ""), FILES) or NO_DICT,
                ):
                    _expect_state(report, found, name, layer, where)


SCALING = 1.5  # of the layers that are written; not 1, which would hide it


def _draw_layer(
    method: str, in_features: int, out_features: int, rank: int, seed: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Return the tensors of a trained layer, and what it makes of an `x`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    weight, x = draw(out_features, in_features), draw(3, in_features)
    trained = {"lora_A": draw(rank, in_features), "lora_B": draw(out_features, rank)}
    magnitude = draw(out_features, 1).abs() + 1.0
    magnitude[0] *= -1.0  # training may take it there
    if method == "dora":
        trained["magnitude"] = magnitude
    base = torch.nn.Linear(in_features, out_features, bias=False, dtype=dtype)
    with torch.no_grad():
        base.weight.copy_(weight)
        layer = {"lora": LoRALayer, "dora": DoRALayer}[method](base, rank, alpha=SCALING * rank)
        for name, value in trained.items():
            getattr(layer, name).copy_(value)
    output = layer(x)
    output.sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    return {
        "weight": weight,
        "trained": trained,
        "x": x,
        "output": output.detach(),
        "gradients": gradients,
    }


def _expect_state(
    report: Report, found: dict[str, Any], method: str, layer: dict[str, Any], prefix: str
) -> None:
    weight, trained = layer["weight"], layer["trained"]
    lora_A, lora_B = trained["lora_A"], trained["lora_B"]
    rank = len(lora_A)
    expected = {f"{prefix}.lora_A.weight": lora_A, f"{prefix}.lora_B.weight": lora_B}
    if method == "dora":
        expected[f"{prefix}.lora_magnitude_vector"] = trained["magnitude"].flatten()
    written = found["written"]
    missing = [name for name in expected if name not in written]
    extra = [name for name in written if name not in expected]
    texts = all(isinstance(name, str) for name in found["names"])
    report.expect(
        not missing and not extra and texts,
        f"rank {rank}: the names are {', '.join(n.removeprefix(prefix) for n in expected)}",
        f"expected the names {', '.join(expected)}; found {listed(list(written), 4) or 'none'}.",
        NESTED
        if any(isinstance(value, dict) for value in written.values())
        else _name_mistake(missing, extra, prefix, method),
    )
    mistakes = _wrong_tensors(weight, trained)
    for name, value in expected.items():
        if name not in written:
            continue
        short = name.removeprefix(prefix)
        tensor = written[name]
        if not report.expect(
            isinstance(tensor, Tensor),
            f"rank {rank}: {short} is a tensor",
            f"expected {short} as a tensor, found {describe(tensor)}.",
            NO_TENSORS,
        ):
            continue
        whole = not tensor.is_floating_point() and not tensor.is_complex()
        narrow = whole or torch.finfo(tensor.dtype).eps > torch.finfo(value.dtype).eps
        if whole or (narrow and near(tensor, value, 0.02)):
            mistake = PRECISION_LOST
        else:
            mistake = only_explanation(tensor, mistakes[short], _same_tensor)
            mistake = mistake or _other_places(tensor, value)
        problem = differ(tensor, value)
        if narrow and _same_tensor(tensor, value):
            problem = (
                f"expected {value.dtype}, as in the layer, or a wider one, found {tensor.dtype}"
            )
        report.expect(
            _same_tensor(tensor, value) and not narrow,
            f"rank {rank}: {short}",
            f"{short}, rank {rank}: {problem}.",
            mistake,
        )
    attached = ", ".join(found["with gradient"])
    problem = f"expected tensors without gradients, found {attached} with requires_grad."
    report.expect(not attached, f"rank {rank}: the tensors are detached", problem, GRADIENT_KEPT)
    _expect_untouched(report, found, layer)


def _other_places(found: Tensor, expected: Tensor) -> Mistake | None:
    """Return whether the right numbers were written in another order or shape."""
    if not is_plain(found) or found.numel() != expected.numel():
        return None
    one, other = (t.detach().double().flatten().sort().values for t in (found, expected))
    if not near(one, other, CLOSE):
        return None
    return REORDERED if found.shape == expected.shape else RESHAPED


def _same_tensor(found: Tensor, expected: Tensor) -> bool:
    return near(found, expected, CLOSE)


def _expect_untouched(report: Report, found: dict[str, Any], layer: dict[str, Any]) -> None:
    rank = len(layer["trained"]["lora_A"])
    before = layer["trained"] | found["frozen"]
    changed = [
        name
        for name, value in before.items()
        if name not in found["values"]
        or found["values"][name].dtype != value.dtype
        or not near(found["values"][name], value, 0.0)
    ]
    report.expect(
        not changed,
        f"rank {rank}: the layer's numbers stay as they were",
        f"{listed(changed)} of the layer has other values, another shape or another dtype after "
        "the call.",
        IN_PLACE,
    )
    if changed:
        return
    frozen = [name for name in layer["trained"] if name not in found["trainable"]]
    report.expect(
        not frozen,
        f"rank {rank}: the layer stays trainable",
        f"{listed(frozen)} of the layer cannot be trained after the call.",
        LAYER_FROZEN,
    )
    gradients = {n: g for n, g in found["gradients"].items() if n in layer["trained"]}
    same = (
        found["output"] is not None
        and not found["replaced"]
        and found["same mode"]
        and near(found["output"], layer["output"], CLOSE)
    )
    if not frozen:
        right = {name: layer["gradients"][name] for name in layer["trained"]}
        same = same and all(g is not None for g in gradients.values())
        same = same and near(gradients, right, CLOSE)
    report.expect(
        same,
        f"rank {rank}: the layer works as before",
        "the layer has other parameters, another mode, another output or other gradients after the "
        "call.",
        IN_PLACE,
    )


def _wrong_tensors(
    weight: Tensor, trained: dict[str, Tensor]
) -> dict[str, list[tuple[Mistake, Tensor]]]:
    """Return, for the end of each name, what would be written after each known mistake."""
    lora_A, lora_B = trained["lora_A"], trained["lora_B"]
    wrong = {}
    for short, own, other in (
        (".lora_A.weight", lora_A, lora_B),
        (".lora_B.weight", lora_B, lora_A),
    ):
        wrong[short] = [
            (PRODUCT, lora_B @ lora_A),
            *((FACTORS_SWAPPED, value) for value in (other, other.T)),
            *((SCALING_FOLDED_IN, f * own) for f in (SCALING, SCALING**0.5, 1 / SCALING)),
            *((SIGN_LOST, value) for value in (-own, own.abs())),
            (ERASED, torch.zeros_like(own)),
            *(
                (TRANSPOSED, f * own.T)
                for f in (1, SCALING, SCALING**0.5, 1 / SCALING)
                if len(lora_A) > 1
            ),
            *([(SQUEEZED, own.squeeze())] if len(lora_A) == 1 else []),
            *((NOT_FLAT_FACTOR, own.flatten()) for _ in range(len(lora_A) > 1)),
            *roundings(own, STATE_ROUNDED),
        ]
    magnitude = trained.get("magnitude")
    if magnitude is not None:
        flat = magnitude.flatten()
        wrong[".lora_B.weight"].append((MAGNITUDE_FOLDED_IN, flat[:, None] * lora_B))
        start, updated = weight.norm(dim=1), (weight + SCALING * lora_B @ lora_A).norm(dim=1)
        wrong[".lora_magnitude_vector"] = [
            (NOT_FLAT, magnitude),
            (NOT_FLAT, magnitude.T),
            *((START_MAGNITUDE, value) for value in (start, start.view(-1, 1))),
            (FACTOR_WRITTEN, flat / updated),
            (CHANGE_WRITTEN, flat / start),
            (UPDATED_NORM, updated),
            *((SIGN_LOST, value) for value in (-flat, flat.abs())),
            *((CHANGE_WRITTEN, v) for v in (flat - start, (flat - start).abs(), flat / start - 1)),
            *((MEAN_WRITTEN, v) for v in (flat.mean(), flat.mean().view(1), flat.norm())),
            (ERASED, torch.zeros_like(flat)),
            *((SCALING_FOLDED_IN, f * flat) for f in (SCALING, SCALING**0.5, 1 / SCALING)),
            *roundings(flat, STATE_ROUNDED),
        ]
    return wrong


def _name_mistake(missing: list[str], extra: list[str], prefix: str, method: str) -> Mistake | None:
    def any_extra(test: Callable[[str], bool]) -> bool:
        return any(test(name) for name in extra)

    ends = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
    right = {f"{prefix}.{end}".lower() for end in ends}
    given = [
        other for root in (prefix.removesuffix(INNER), PREFIX) for other in (root, root + INNER)
    ]
    earlier = {f"{other}.{end}" for other in given for end in ends if other != prefix}
    rules = [
        (not missing and any_extra(lambda n: n in earlier), EARLIER_NAMES),
        (extra == [f"{prefix}.weight"], MERGED_WRITTEN),
        (any_extra(lambda n: ".default" in n), ADAPTER_NAME),
        (any_extra(lambda n: n.endswith("magnitude_vector.weight")), WEIGHT_TOO_MUCH),
        (any_extra(lambda n: "original_layer" in n or "base_norm" in n), FROZEN_INCLUDED),
        (any_extra(lambda n: n.lower() in right and n not in missing), SPELLING)
        if any(name.lower() in {n.lower() for n in missing} for name in extra)
        else (False, SPELLING),
        (any_extra(lambda n: n.lstrip(".").startswith(("lora_", "magnitude"))), PREFIX_LEFT_OUT),
        (any_extra(lambda n: n.startswith(f"{prefix}..")), DOTS),
        (
            any_extra(lambda n: n.startswith(prefix) and n[len(prefix) :][:1] not in ("", ".")),
            NO_DOT,
        ),
        (any_extra(lambda n: not n.startswith(prefix) and n.endswith(ends)), OTHER_PREFIX),
        (any_extra(lambda n: n.endswith((".lora_A", ".lora_B"))), WEIGHT_LEFT_OUT),
        (method == "lora" and any_extra(lambda n: "magnitude" in n), MAGNITUDE_IN_LORA),
        (any_extra(lambda n: "magnitude" in n), OWN_NAME),
        (any("magnitude" in name for name in missing) and not extra, MAGNITUDE_MISSING),
        (bool(missing) and not extra, FACTOR_MISSING),
        (bool(extra) and not missing, MORE_WRITTEN),
    ]
    return next((mistake for holds, mistake in rules if holds), None)


@check(forbids=REFERENCE, seeded=True, needs=["transformers"])
def check_choice_accuracy(
    choice_accuracy: Callable, aspect: str | None = None, *, questions: int = 15, seed: int = 0
) -> None:
    """Check a `choice_accuracy(scores, answers) -> float`.

    Args:
        aspect: `"equal"` (every question has four choices) or `"ragged"` (two to five);
            both if None.
        questions, seed: how many questions to draw, 8 or more, and from which seed. Four
            other calls have more.

    Raises:
        CheckFailed: with what was expected, what was found, and the mistake if it is known.
    """
    for name in chosen(aspect, ("equal", "ragged")):
        ragged = name == "ragged"
        with Report(f"choice_accuracy · {name} · {questions} questions") as report:
            draws, expected, predicted = _draw_accuracies(questions, seed, ragged)
            try:
                calls = [call(choice_accuracy, *draw, reference=REFERENCE) for draw in draws]
            except CheckFailed as failure:
                raise named(failure, misfit(failure, SCORING)) from failure
            why = functools.partial(_wrong_accuracy, draws=draws)
            found = expect_numbers(report, [c.result for c in calls], "the accuracy", why)
            if found is None:
                continue
            mistake = only_explanation(
                found, [*predicted, *roundings(expected, ROUNDED, range(1, 5))]
            ) or _of_two(found, expected, predicted, [len(scores) for scores, _ in draws])
            for (scores, _), right, value in zip(draws, expected, found, strict=True):
                report.expect(
                    near(value, right),
                    f"the accuracy of {len(scores)} questions",
                    f"accuracy of {len(scores)} questions: {apart(right, value)}.",
                    mistake,
                )
            if ragged:
                expect_kept(report, [*map(list, draws)], [c.after for c in calls], SCORING)


@functools.lru_cache(maxsize=32)  # the same for every answer
def _draw_accuracies(
    questions: int, seed: int, ragged: bool
) -> tuple[list[tuple[list, list]], list[float], list[tuple[Mistake, list[float]]]]:
    """Return five draws, their accuracies, and what each known mistake gives for them.

    Drawn again until all mistakes differ from each other and from the right accuracies. If all
    questions have the same number of choices, none is padded.
    """
    for again in range(1000):
        draws = [
            _draw_questions(questions + 7 * i, seed + 100003 * again + i, ragged, 3 + i % 3)
            for i in range(5)
        ]
        firsts_and_lasts = zip(*(_hits(*draw)[:: len(draw[0]) - 1] for draw in draws), strict=True)
        if any(len(set(hits)) == 1 for hits in firsts_and_lasts):
            continue  # it must show if one of them is left out
        expected = [_share(scores, answers) for scores, answers in draws]
        wrong = [_wrong_shares(scores, answers) for scores, answers in draws]
        predicted = [
            (of_one[0][0], [value for _, value in of_one])
            for of_one in zip(*wrong, strict=True)
            if ragged or of_one[0][0] is not PADDED
        ]
        if tell_apart(expected, [*predicted, *roundings(expected, ROUNDED, range(1, 5))]):
            return draws, expected, predicted
    raise AssertionError(f"no {questions} questions tell all mistakes apart, seed {seed}")


def _of_two(
    found: list[float],
    expected: list[float],
    predicted: list[tuple[Mistake, list[float]]],
    questions: list[int],
) -> Mistake | None:
    """Return what is wrong if the share that a mistake gives was also written in another form."""
    if near([-value for value in found], expected):
        return NEGATIVE
    for dtype in (torch.float16, torch.bfloat16):
        if near(found, torch.tensor(expected).to(dtype).tolist(), 1e-9):
            return LITTLE_PRECISION
    again = []
    for mistake, values in predicted:
        again += [
            (mistake, [100 * value for value in values]),
            (mistake, [n * value for n, value in zip(questions, values, strict=True)]),
            (mistake, [1 - value for value in values]),
            *roundings(values, mistake, range(1, 5)),
        ]
    constant = near(found, found[:1] * len(found))
    return only_explanation(found, again) or (CONSTANT if constant else None)


def _wrong_accuracy(value: Any, draws: list[tuple[list, list]]) -> Mistake | None:
    try:
        each = len(value) in [len(scores) for scores, _ in draws] and not isinstance(value, str)
    except TypeError:
        each = False
    if each:
        return EACH_QUESTION
    return returned_kind(value, "a number", SCORING)


def _best(row: list[float]) -> int:
    """Return the index of the highest score."""
    return row.index(max(row))


def _hits(scores: list[list[float]], answers: list[int]) -> list[bool]:
    return [_best(row) == answer for row, answer in zip(scores, answers, strict=True)]


def _share(scores: list[list[float]], answers: list[int]) -> float:
    return sum(_hits(scores, answers)) / len(scores)


def _wrong_shares(scores: list[list[float]], answers: list[int]) -> list[tuple[Mistake, float]]:
    """Return the share that each known mistake gives for some questions."""

    def mean(value: Callable[[list[float], int], float]) -> float:
        """Return the mean over the questions of what a function makes of scores and answer."""
        return statistics.fmean(map(value, scores, answers))

    def share(chosen: Callable[[list[float]], int]) -> float:
        """Return the share of questions where a rule chooses the answer."""
        return mean(lambda row, answer: chosen(row) == answer)

    return [
        *_of_another_choice(share, scores),
        *_by_another_measure(mean),
        *_otherwise_averaged(scores, answers),
        (COMMONEST_ANSWER, max(map(answers.count, answers)) / len(answers)),
        (MISALIGNED, _share(scores, answers[::-1])),
        *((MISALIGNED, _share(scores, answers[by:] + answers[:by])) for by in (1, -1)),
        *(
            (MISALIGNED, sum(map(int.__eq__, map(_best, one), other)) / divisor)
            for one, other in ((scores[1:], answers), (scores, answers[1:]))
            for divisor in (len(answers), len(answers) - 1)
        ),
        (BEST_KEPT, statistics.fmean(map(int.__eq__, _best_so_far(scores), answers))),
        (
            NUMBERS_COMPARED,
            (Counter(map(_best, scores)) & Counter(answers)).total() / len(answers),
        ),
    ]


def _best_so_far(scores: list[list[float]]) -> Iterator[int]:
    """Yield for each question where the highest score of it and all before it stands."""
    highest, index = -math.inf, 0
    for row in scores:
        if max(row) > highest:
            highest, index = max(row), _best(row)
        yield index


def _of_another_choice(
    share: Callable[[Callable[[list[float]], int]], float], scores: list[list[float]]
) -> list[tuple[Mistake, float]]:
    """Return the shares of questions where another choice than the best one is the answer."""
    shortest, widest = min(map(len, scores)), max(map(len, scores))

    def order(row: list[float]) -> list[int]:
        return sorted(range(len(row)), key=row.__getitem__)

    def padded(row: list[float], value: float) -> list[float]:
        return row + [value] * (widest - len(row))

    def best_of(part: slice, row: list[float]) -> int:
        return row.index(max(row[part])) if row[part] else 0

    cuts = [*map(slice, (shortest, 4, 3, 2)), slice(-1), slice(1, None)]
    roundings_ = (int, round, math.floor, lambda s: round(s, 1), lambda s: round(s, 2))
    return [
        (LOWEST, share(lambda row: row.index(min(row)))),
        (SECOND_HIGHEST, share(lambda row: order(row)[-2])),
        (SECOND_HIGHEST, share(lambda row: _best(row[::-1]))),
        (FROM_ONE, share(lambda row: _best(row) + 1)),
        (FROM_ONE, share(lambda row: _best(row) - 1)),
        (ALWAYS_FIRST, share(lambda row: 0)),
        (ALWAYS_LAST, share(lambda row: len(row) - 1)),
        (FROM_ZERO, share(lambda row: _best(row) if max(row) > -1 else 0)),
        (FROM_ZERO, share(lambda row: _best(row) if max(row) > -1 else -1)),
        *((PADDED, share(lambda row, v=v: _best(padded(row, v)))) for v in (0.0, -1.0, -5.0)),
        *(
            (CHOICES_CUT, share(lambda row, part=part: best_of(part, row)))
            for part in cuts
            if any(row[part] != row for row in scores)
        ),
        *((SCORES_ROUNDED, share(lambda row, f=f: _best([*map(f, row)]))) for f in roundings_),
        (COMMONEST, share(lambda row: order(row).index(len(row) - 1))),
        (COMMONEST, share(lambda row: order(row).index(0))),
    ]


def _by_another_measure(
    mean: Callable[[Callable[[list[float], int], float]], float],
) -> list[tuple[Mistake, float]]:
    """Return what the mean is if a question counts by something else than its best choice."""

    def beaten(row: list[float], choice: int) -> int:
        """Return how many scores of a question are lower than that of a choice."""
        return sum(score < row[choice] for score in row)

    def probability(row: list[float], choice: int) -> float:
        """Return the share that a choice has of the probability of all."""
        return math.exp(row[choice]) / sum(map(math.exp, row))

    def softmax(row: list[float]) -> float:
        """Return the probability of the best choice."""
        return 1 / sum(math.exp(score - max(row)) for score in row)

    return [
        (MEAN_SCORE, mean(lambda row, answer: row[answer])),
        (MEAN_SCORE, mean(lambda row, answer: math.exp(row[answer]))),
        (MEAN_SCORE, mean(lambda row, answer: max(row))),
        (MEAN_SCORE, mean(probability)),
        (MEAN_SCORE, mean(lambda row, answer: -math.log(probability(row, answer)))),
        (MEAN_SCORE, mean(lambda row, answer: softmax(row) * (_best(row) == answer))),
        (MEAN_SCORE, mean(lambda row, answer: softmax(row))),
        (LENIENT, mean(lambda row, answer: row[answer] > min(row))),
        (LENIENT, mean(lambda row, answer: row[answer] >= sorted(row)[-2])),
        (LENIENT, mean(lambda row, answer: row[answer] > sum(row) / len(row))),
        (LENIENT, mean(lambda row, answer: row[answer] > row[0])),
        (LENIENT, mean(lambda row, answer: row[answer] >= row[0])),
        (LENIENT, mean(lambda row, answer: 1 / (len(row) - beaten(row, answer)))),
        (LENIENT, mean(lambda row, answer: max(0, 3 - len(row) + beaten(row, answer)) / 2)),
        (LENIENT, mean(lambda row, answer: beaten(row, answer) / (len(row) - 1))),
        (LENIENT, mean(lambda row, answer: abs(_best(row) - answer) < 2)),
        *(
            (BOUND, mean(lambda row, answer, p=p: probability(row, answer) > p))
            for p in (0.5, 0.25)
        ),
        (BOUND, mean(lambda row, answer: probability(row, answer) > 1 / len(row))),
        (NOT_EQUAL, mean(lambda row, answer: _best(row) < answer)),
        (NOT_EQUAL, mean(lambda row, answer: _best(row) <= answer)),
        (NOT_EQUAL, mean(lambda row, answer: _best(row) > answer)),
        (NOT_EQUAL, mean(lambda row, answer: _best(row) >= answer)),
    ]


def _otherwise_averaged(
    scores: list[list[float]], answers: list[int]
) -> list[tuple[Mistake, float]]:
    """Return what becomes of the right hits if they are not averaged over the questions."""
    hits, sizes = _hits(scores, answers), [len(row) for row in scores]
    count, n, choices = sum(hits), len(hits), sum(sizes)
    right, guessed = count / n, statistics.fmean(1 / size for size in sizes)
    by_question = list(zip(hits, sizes, strict=True))
    until = [*hits, False].index(False)  # how many are right before the first wrong one
    wrong = [
        *((PER_CENT, round(100 * right, digits)) for digits in (0, 1, 2, 15)),
        (COUNTED, count),
        *((ERROR_RATE, error) for error in (1 - right, 100 * (1 - right))),
        *((PER_CHOICE, count / divisor) for divisor in (choices, max(sizes), sizes[0])),
        *((TOO_MANY_DIVIDED, count / divisor) for divisor in (n - 1, n + 1)),
        (NOTHING_COUNTED, 0.0),
        (ALL_COUNTED, 1.0),
        *((ONE_QUESTION, hit / divisor) for hit in (hits[0], hits[-1]) for divisor in (1, n)),
        *(
            (QUESTION_LEFT_OUT, (count - hit) / divisor)
            for hit in (hits[0], hits[-1])
            for divisor in (n, n - 1)
        ),
        *((CORRECTED, (right - chance) / (1 - chance)) for chance in (1 / 4, 1 / 2, guessed)),
        (CORRECTED, sum((hit - 1 / of) / (1 - 1 / of) for hit, of in by_question) / n),
        *((STOPPED, until / divisor) for divisor in (until + 1, n)),
        (
            BALANCED,
            statistics.fmean(
                statistics.fmean(
                    hit for hit, other in zip(hits, answers, strict=True) if other == a
                )
                for a in set(answers)
            ),
        ),
    ]
    if min(sizes) == max(sizes):
        return wrong
    weighted = sum(size * hit for hit, size in by_question)
    by_size = [
        statistics.fmean(hit for hit, of in by_question if of == size) for size in set(sizes)
    ]
    kept = [[hit for hit, of in by_question if of == size] for size in (sizes[0], 4)]
    kept.append([hit for hit, of in by_question if of > 2])
    return [
        *wrong,
        *((WEIGHTED, weighted / divisor) for divisor in (choices, 4 * n, n * sizes[0])),
        (WEIGHTED, statistics.fmean(by_size)),
        *((QUESTION_LEFT_OUT, sum(some) / of) for some in kept for of in (len(some), n)),
    ]


def _draw_questions(
    questions: int, seed: int, ragged: bool, period: int
) -> tuple[list[list[float]], list[int]]:
    """Return log-likelihoods and answers; about one in `period` is not the highest score.

    Shares of right, wrong and lowest choices all differ, so that no two rules agree.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [2 + i % 4 if ragged else 4 for i in range(questions)]
    scores = [(-6 * torch.rand(size, generator=generator) - 0.1).tolist() for size in sizes]
    answers = []
    for row, luck in zip(scores, torch.rand(questions, generator=generator).tolist(), strict=True):
        by_score = sorted(range(len(row)), key=row.__getitem__)
        # some questions are answered wrong; about half of these have their right choice lowest
        place = -1 if luck > 1 / period else -2 if luck > 0.5 / period else 0
        answers.append(by_score[place])
    return scores, answers
