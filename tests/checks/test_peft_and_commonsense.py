"""Checks of lesson 06: right answers pass however they are written, wrong ones are named."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from answers import answers
from peft import (
    LoraConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import nn

from lab_utils import checks, peft_bridge
from lab_utils.adapters import adapter_layers, add_adapters_to_model

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def config(use_dora, rank=16, **other):
    arguments = {
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.05,
        "target_modules": TARGETS,
        "task_type": "CAUSAL_LM",
        "use_dora": use_dora,
    }
    return LoraConfig(**(arguments | other))


class RightConfig:
    def keywords(use_dora, rank=16):
        return config(use_dora, rank)

    def enum_and_set(use_dora, rank=16):
        found = LoraConfig(
            TaskType.CAUSAL_LM,
            r=rank,
            target_modules=set(TARGETS),
            lora_alpha=rank * 2.0,
            lora_dropout=1 / 20,
        )
        found.use_dora = use_dora
        return found

    def replaced(use_dora, rank=16):
        base = config(False)
        return dataclasses.replace(base, use_dora=use_dora, r=rank, lora_alpha=rank + rank)

    def branches(use_dora, rank=16):
        named = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.05, "bias": "none"}
        named |= {"target_modules": tuple(TARGETS), "task_type": "CAUSAL_LM"}
        return LoraConfig(use_dora=True, **named) if use_dora else LoraConfig(**named)


class WrongConfig:
    def always_dora(use_dora, rank=16):
        """use_dora ignored"""
        return config(True, rank)

    def never_dora(use_dora, rank=16):
        """use_dora ignored"""
        return config(False, rank)

    def swapped(use_dora, rank=16):
        """use_dora swapped"""
        return config(not use_dora, rank)

    def rank_ignored(use_dora, rank=16):
        """rank ignored"""
        return config(use_dora)

    def another_default(use_dora, rank=8):
        """another default rank"""
        return config(use_dora, rank)

    def alpha_left_out(use_dora, rank=16):
        """alpha left out"""
        return config(use_dora, rank, lora_alpha=LoraConfig().lora_alpha)

    def alpha_fixed(use_dora, rank=16):
        """alpha does not follow the rank"""
        return config(use_dora, rank, lora_alpha=32)

    def alpha_is_the_rank(use_dora, rank=16):
        """alpha is the rank"""
        return config(use_dora, rank, lora_alpha=rank)

    def alpha_is_the_scaling(use_dora, rank=16):
        """alpha is the scaling"""
        return config(use_dora, rank, lora_alpha=2)

    def stabilized(use_dora, rank=16):
        """use_rslora"""
        return config(use_dora, rank, use_rslora=True)

    def all_linear(use_dora, rank=16):
        """every linear layer"""
        return config(use_dora, rank, target_modules="all-linear")

    def attention_only(use_dora, rank=16):
        """attention only"""
        attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
        return config(use_dora, rank, target_modules=attention)

    def no_targets(use_dora, rank=16):
        """target_modules left out"""
        return config(use_dora, rank, target_modules=None)

    def no_dropout(use_dora, rank=16):
        """dropout left out"""
        return config(use_dora, rank, lora_dropout=0.0)

    def dropout_in_per_cent(use_dora, rank=16):
        """dropout in per cent"""
        return config(use_dora, rank, lora_dropout=5)

    def no_task(use_dora, rank=16):
        """task_type left out"""
        return config(use_dora, rank, task_type=None)

    def bias(use_dora, rank=16):
        """bias trained"""
        return config(use_dora, rank, bias="all")

    def for_inference(use_dora, rank=16):
        """inference_mode"""
        return config(use_dora, rank, inference_mode=True)

    def a_dict(use_dora, rank=16):
        """to return a peft.LoraConfig, found a dict"""
        return config(use_dora, rank).to_dict()

    def nothing(use_dora, rank=16):
        """to return a peft.LoraConfig, found None (is there a return?)"""
        config(use_dora, rank)

    def misspelt(use_dora, rank=16):
        """unexpected keyword argument 'rank'"""
        return LoraConfig(rank=rank)

    def blank(use_dora, rank=16):
        """is not written yet"""
        raise NotImplementedError()


def state(layer, prefix, a="lora_A.weight", b="lora_B.weight", m="lora_magnitude_vector"):
    found = {f"{prefix}.{a}": layer.lora_A.detach(), f"{prefix}.{b}": layer.lora_B.detach()}
    if hasattr(layer, "magnitude"):
        found[f"{prefix}.{m}"] = layer.magnitude.detach().flatten()
    return found


class RightState:
    def by_name(layer, prefix):
        return state(layer, prefix)

    def renamed(layer, prefix):
        names = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
        names["magnitude"] = "lora_magnitude_vector"
        return {
            f"{prefix}.{names[name]}": parameter.data.flatten()
            if name == "magnitude"
            else parameter.data
            for name, parameter in layer.named_parameters()
            if parameter.requires_grad
        }

    def from_a_state_dict(layer, prefix):
        tensors = layer.state_dict()
        found = {prefix + f".lora_{x}.weight": tensors[f"lora_{x}"].clone() for x in "BA"}
        if "magnitude" in tensors:
            found |= {prefix + ".lora_magnitude_vector": tensors["magnitude"][:, 0]}
        return found

    def in_float64(layer, prefix):
        return {name: tensor.double() for name, tensor in state(layer, prefix).items()}


class WrongState:
    def transposed_a(layer, prefix):
        """transposed factor"""
        found = state(layer, prefix)
        return found | {f"{prefix}.lora_A.weight": layer.lora_A.detach().T}

    def transposed_b(layer, prefix):
        """transposed factor"""
        found = state(layer, prefix)
        return found | {f"{prefix}.lora_B.weight": layer.lora_B.detach().T}

    def factors_swapped(layer, prefix):
        """factors swapped"""
        return state(layer, prefix, a="lora_B.weight", b="lora_A.weight")

    def scaling_in_b(layer, prefix):
        """scaling folded in"""
        scaled = layer.scaling * layer.lora_B.detach()
        return state(layer, prefix) | {f"{prefix}.lora_B.weight": scaled}

    def magnitude_missing(layer, prefix):
        """magnitude missing"""
        found = state(layer, prefix)
        found.pop(f"{prefix}.lora_magnitude_vector", None)
        return found

    def magnitude_not_flat(layer, prefix):
        """magnitude not flat"""
        found = state(layer, prefix)
        if hasattr(layer, "magnitude"):
            found[f"{prefix}.lora_magnitude_vector"] = layer.magnitude.detach()
        return found

    def magnitude_of_the_start(layer, prefix):
        """the magnitude before training"""
        found = state(layer, prefix)
        if hasattr(layer, "magnitude"):
            norm = layer.original_layer.weight.norm(dim=1)
            found[f"{prefix}.lora_magnitude_vector"] = norm.detach()
        return found

    def magnitude_over_norm(layer, prefix):
        """m / ||V|| for m"""
        found = state(layer, prefix)
        if hasattr(layer, "magnitude"):
            updated = layer.original_layer.weight + layer.scaling * layer.lora_B @ layer.lora_A
            factor = layer.magnitude.flatten() / updated.norm(dim=1)
            found[f"{prefix}.lora_magnitude_vector"] = factor.detach()
        return found

    def own_names(layer, prefix):
        """.weight left out"""
        return state(layer, prefix, a="lora_A", b="lora_B")

    def own_magnitude(layer, prefix):
        """this lab's name"""
        return state(layer, prefix, m="magnitude")

    def weight_after_the_magnitude(layer, prefix):
        """.weight after the magnitude"""
        return state(layer, prefix, m="lora_magnitude_vector.weight")

    def with_the_adapters_name(layer, prefix):
        """adapter name in the file"""
        return state(layer, prefix, a="lora_A.default.weight", b="lora_B.default.weight")

    def no_prefix(layer, prefix):
        """prefix left out"""
        return {name.removeprefix(prefix + "."): t for name, t in state(layer, prefix).items()}

    def no_dot(layer, prefix):
        """no dot after the prefix"""
        return {name.replace(prefix + ".", prefix): t for name, t in state(layer, prefix).items()}

    def everything(layer, prefix):
        """frozen tensors written"""
        weight = layer.original_layer.weight.detach()
        return state(layer, prefix) | {f"{prefix}.original_layer.weight": weight}

    def parameters(layer, prefix):
        """parameters, not tensors"""
        return state(layer, prefix) | {f"{prefix}.lora_A.weight": layer.lora_A}

    def in_place(layer, prefix):
        """in-place change of the layer"""
        layer.lora_B.data = layer.lora_B.data.clone() * 1.0
        found = {name: tensor.clone() for name, tensor in state(layer, prefix).items()}
        layer.lora_B.data.zero_()
        return found

    def arrays(layer, prefix):
        """expected .lora_A.weight as a tensor, found a NumPy array"""
        return {name: tensor.numpy() for name, tensor in state(layer, prefix).items()}

    def a_list(layer, prefix):
        """expected a dict from names to tensors, found a list"""
        return list(state(layer, prefix).values())

    def blank(layer, prefix):
        """is not written yet"""
        raise NotImplementedError()

    def the_bridge(layer, prefix):
        """calls lab_utils.peft_bridge.to_peft_state, which is the reference"""
        return peft_bridge.to_peft_state(layer, prefix)


class RightAccuracy:
    def index_of_the_highest(scores, answers):
        right = [row.index(max(row)) == answer for row, answer in zip(scores, answers, strict=True)]
        return sum(right) / len(right)

    def argmax(scores, answers):
        right = [
            torch.tensor(row).argmax() == answer
            for row, answer in zip(scores, answers, strict=True)
        ]
        return torch.stack(right).float().mean().item()

    def padded(scores, answers):
        rows = [torch.tensor(row) for row in scores]
        table = nn.utils.rnn.pad_sequence(rows, True, float("-inf"))
        return (table.argmax(dim=1) == torch.tensor(answers)).double().mean().item()

    def loop(scores, answers):
        count = 0
        for row, answer in zip(scores, answers, strict=True):
            if all(row[answer] >= score for score in row):
                count += 1
        return count / len(answers)


def right(scores, answers):
    return RightAccuracy.loop(scores, answers)


class WrongAccuracy:
    def per_cent(scores, answers):
        """in per cent"""
        return 100 * right(scores, answers)

    def counted(scores, answers):
        """counted"""
        return int(right(scores, answers) * len(answers) + 0.5)

    def lowest(scores, answers):
        """lowest score taken"""
        return right([[-score for score in row] for row in scores], answers)

    def errors(scores, answers):
        """error rate"""
        return 1 - right(scores, answers)

    def from_one(scores, answers):
        """choices counted from one"""
        best = [row.index(max(row)) for row in scores]
        return sum(a == b - 1 for a, b in zip(best, answers, strict=True)) / len(best)

    def from_one_again(scores, answers):
        """choices counted from one"""
        best = [row.index(max(row)) for row in scores]
        return sum(a - 1 == b for a, b in zip(best, answers, strict=True)) / len(best)

    def per_choice(scores, answers):
        """divided by the choices"""
        return right(scores, answers) * len(answers) / sum(map(len, scores))

    def mean_score(scores, answers):
        """mean score of the right choice"""
        return sum(row[a] for row, a in zip(scores, answers, strict=True)) / len(answers)

    def a_table(scores, answers):
        """raised ValueError: expected sequence of length"""
        table = torch.tensor(scores)
        return (table.argmax(dim=1) == torch.tensor(answers)).double().mean().item()

    def a_tensor(scores, answers):
        """a tensor, not a number"""
        return torch.tensor(right(scores, answers))

    def each_question(scores, answers):
        """no mean"""
        return [row.index(max(row)) == a for row, a in zip(scores, answers, strict=True)]

    def blank(scores, answers):
        """is not written yet"""
        raise NotImplementedError()


EXERCISES = {
    "make_config": (checks.check_make_config, RightConfig, WrongConfig),
    "to_peft_state": (checks.check_to_peft_state, RightState, WrongState),
    "choice_accuracy": (checks.check_choice_accuracy, RightAccuracy, WrongAccuracy),
}
HIDDEN = {
    checks.check_make_config: [{"rank": 24}],
    checks.check_to_peft_state: [{"in_features": 5, "out_features": 9, "rank": 3, "seed": 4}],
    checks.check_choice_accuracy: [{"questions": 31, "seed": 5}],
}


@pytest.mark.slow
def test_marks_do_not_depend_on_luck():
    for seed in range(20):
        checks.check_to_peft_state(RightState.by_name, seed=seed)
        checks.check_choice_accuracy(RightAccuracy.argmax, seed=seed)
        for wrong in (WrongAccuracy.lowest, WrongAccuracy.from_one, WrongAccuracy.errors):
            for aspect in ("equal", "ragged"):
                with pytest.raises(checks.CheckFailed, match="Known mistake"):
                    checks.check_choice_accuracy(wrong, aspect, seed=seed)


def test_a_half_right_answer_keeps_its_half():
    checks.check_make_config(WrongConfig.no_dropout, "method")
    checks.check_make_config(WrongConfig.no_dropout, "scaling")
    checks.check_to_peft_state(WrongState.magnitude_missing, "lora")
    checks.check_choice_accuracy(WrongAccuracy.a_table, "equal")
    for check, answer, aspect in (
        (checks.check_make_config, WrongConfig.no_dropout, "layers"),
        (checks.check_to_peft_state, WrongState.magnitude_missing, "dora"),
        (checks.check_choice_accuracy, WrongAccuracy.a_table, "ragged"),
    ):
        with pytest.raises(checks.CheckFailed):
            check(answer, aspect)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("answer", answers(RightState), ids=lambda answer: answer.__name__)
def test_what_the_check_calls_right_is_what_peft_writes(kind, answer):
    """The names and shapes of the check are PEFT's own, and PEFT computes the same from them."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(7, 4)

        def forward(self, x):
            return self.q_proj(x)

    block = Block()
    model = add_adapters_to_model(block, kind, 2, 3.0, target_modules=["q_proj"])
    (layer,) = adapter_layers(model).values()
    with torch.no_grad():
        layer.lora_B.normal_()
        if kind == "dora":
            layer.magnitude.mul_(1.5)
    wrapped = get_peft_model(block, peft_bridge.to_peft_config(model))
    found = answer(layer, "base_model.model.q_proj")
    expected = get_peft_model_state_dict(wrapped)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in expected.items()}
    set_peft_model_state_dict(wrapped, {name: tensor.float() for name, tensor in found.items()})
    x = torch.randn(3, 7)
    torch.testing.assert_close(wrapped(x), model(x))


def test_the_checks_do_not_load_peft():
    """It takes seconds, and five of seven lessons do not need it."""
    code = "import sys, lab_utils.checks; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
