"""Small changes of right answers, as students make them: none keeps its marks, and few no name."""

import copy
import itertools
import math
import statistics
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
from answers import changed_answers, function_of
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from lab_utils import adapters, checks, comparison, data, layers, training

CHANGES = Path(__file__).parent / "changes"
LESSONS = ("head_to_head.txt", "peft_and_commonsense.txt", "rank_and_magnitude.txt", "rslora.txt")
ANSWERS = [
    pytest.param(check, answer, id=f"{check.removeprefix('check_')}-{answer.name}")
    for path in map(CHANGES.joinpath, LESSONS)
    for check, found in changed_answers(path).items()
    for answer in found
]


def small_llama():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=2)
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def names():
    """What a lesson's cells above an exercise have made, of all lessons together."""
    task = data.language_task()
    modules = (adapters, checks, comparison, copy, data, itertools, layers, math, statistics)
    return {module.__name__.split(".")[-1]: module for module in (*modules, torch, training)} | {
        "F": F,
        "np": np,
        "stats": stats,
        "fmean": statistics.fmean,
        "LoraConfig": peft.LoraConfig,
        "get_peft_model": peft.get_peft_model,
        "small_llama": small_llama,
        "task": task,
        "inputs": task.train.inputs[:8],
        "targets": task.train.targets[:8],
    }


@pytest.mark.usefixtures("runs_are_made_once")
@pytest.mark.parametrize(("check", "answer"), ANSWERS)
def test_an_answer_is_told_what_is_so(check, answer, names, capsys):
    ask = getattr(checks, check)
    function = function_of(answer, names)
    if answer.told is None:
        ask(function)
        assert "FAIL" not in capsys.readouterr().out
        return
    with pytest.raises(checks.CheckFailed) as raised:
        ask(function)
    mistake = raised.value.mistake
    assert (mistake.name if mistake else "unnamed") == answer.told, str(raised.value)
    assert len(str(raised.value).splitlines()[0]) < 600
    assert capsys.readouterr().err == ""


def test_four_of_five_wrong_answers_are_named():
    wrong = [p.values[1] for p in ANSWERS if p.values[1].told is not None]
    named = [answer for answer in wrong if answer.told != "unnamed"]
    assert len(wrong) > 350
    assert len(named) >= 0.8 * len(wrong)
