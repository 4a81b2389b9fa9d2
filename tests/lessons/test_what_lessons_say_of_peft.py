"""What lessons 01, 02, 06 and 07 say of PEFT's DoRA is what the installed PEFT does."""

import math

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModelForCausalLM, get_peft_model
from prose import said
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

RANK, ALPHA = 3, 12


def adapted(linear, **settings):
    """PEFT's DoRA layer around a linear layer, away from its start."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], use_dora=True, **settings)
    layer = get_peft_model(nn.Sequential(linear), config).base_model.model[0]
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        layer.lora_magnitude_vector["default"].weight.mul_(1.5)
    return layer


def parts(layer):
    """A, B and m."""
    return (
        layer.lora_A["default"].weight,
        layer.lora_B["default"].weight,
        layer.lora_magnitude_vector["default"].weight,
    )


def test_its_dropout_has_the_form_of_lesson_02():
    said(
        "02-from-scratch",
        r"$$W_0 x + \Bigl(\frac{m}{\lVert V \rVert} - 1\Bigr) \odot W_0\,\mathrm{drop}(x) + "
        r"\frac{m}{\lVert V \rVert} \odot s\,BA\,\mathrm{drop}(x)$$",
    )
    linear, x = nn.Linear(7, 5), torch.randn(11, 7)
    W0, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    layer = adapted(linear, lora_dropout=0.5).train()
    A, B, m = parts(layer)
    torch.manual_seed(0)
    found = layer(x)
    torch.manual_seed(0)
    dropped = F.dropout(x, 0.5)
    update = ALPHA / RANK * B @ A
    factor = m / (W0 + update).norm(dim=1)
    expected = F.linear(x, W0, bias) + (factor - 1) * F.linear(dropped, W0)
    torch.testing.assert_close(found, expected + factor * F.linear(dropped, update))


def test_it_has_one_magnitude_per_output_and_detaches_the_norm():
    said(
        "06-peft-and-commonsense",
        "It has one magnitude per *output* neuron and no other kind",
        "PEFT always detaches the norm",
    )
    linear, x, weights = nn.Linear(7, 5), torch.randn(11, 7), torch.randn(11, 5)
    W0, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    layer = adapted(linear)
    A, B, m = parts(layer)
    assert m.shape == (5,)
    (layer(x) * weights).sum().backward()
    found = B.grad.clone()
    gradients = []
    for detached in (True, False):
        B.grad = None
        V = W0 + ALPHA / RANK * B @ A
        norm = V.norm(dim=1, keepdim=True)
        weight = m[:, None] * V / (norm.detach() if detached else norm)
        (F.linear(x, weight, bias) * weights).sum().backward()
        gradients.append(B.grad.clone())
    torch.testing.assert_close(found, gradients[0])
    assert not torch.allclose(found, gradients[1], rtol=0.1)


def test_a_row_of_zeros_gives_nan():
    said("01-mathematics", "434 in one, and DoRA gave NaN), so never divide by zero")
    linear = nn.Linear(7, 5)
    with torch.no_grad():
        linear.weight[2] = 0
    layer = get_peft_model(
        nn.Sequential(linear), LoraConfig(r=RANK, target_modules=["0"], use_dora=True)
    )
    assert layer(torch.randn(3, 7)).isnan().any(dim=0).tolist() == [
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("use_rslora", [False, True])
def test_its_scalings_are_those_of_lesson_07(use_rslora):
    said("07-rslora-challenge", "In PEFT it is `use_rslora=True`")
    layer = adapted(nn.Linear(7, 5), use_rslora=use_rslora)
    expected = ALPHA / (math.sqrt(RANK) if use_rslora else RANK)
    assert layer.scaling["default"] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_task_type_decides_how_it_wraps_and_what_it_saves():
    said("06-peft-and-commonsense", "so that PEFT wraps and saves it as a language model")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    for task_type in ("CAUSAL_LM", None):
        base = LlamaForCausalLM(LlamaConfig(vocab_size=8, num_hidden_layers=1, **sizes))
        config = LoraConfig(target_modules=["q_proj"], use_dora=True, task_type=task_type)
        model = get_peft_model(base, config)
        assert isinstance(model, PeftModelForCausalLM) == (task_type is not None)
        assert model.peft_config["default"].to_dict()["task_type"] == task_type
