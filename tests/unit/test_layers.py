"""`lab_utils.layers`: LoRA and DoRA against the textbook form, against PEFT, and at the edges."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lab_utils.layers import DoRALayer, LoRALayer

IN, OUT, RANK = 24, 16, 4


def linear(in_features=IN, out_features=OUT, bias=True, dtype=torch.float32, seed=0):
    layer = nn.Linear(in_features, out_features, bias=bias, dtype=dtype)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            generator = torch.Generator().manual_seed(seed + i)
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def trained(layer, seed=10):
    """Move every adapter parameter away from its start, where DoRA is LoRA."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.3 * noise.to(parameter.dtype))
    return layer


def inputs(dtype=torch.float32, features=IN, seed=99):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, features, generator=generator, dtype=torch.float64).to(dtype)


def gradients(layer, forward, x):
    """The gradients of one scalar in the input and in every trained parameter."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    output = forward(x)
    # unequal weights, so that no error cancels in the sum
    (output * torch.linspace(-1, 2, output.numel()).view_as(output).to(output)).sum().backward()
    named = {n: p.grad.clone() for n, p in layer.named_parameters() if p.requires_grad}
    return {"output": output.detach(), "x": x.grad, **named}


def make_layer(layer_type, **fixed):
    """A maker of one kind of layer, always with the same `lora_A`."""
    return lambda base, **more: layer_type(
        base, RANK, 8.0, **fixed, **more, generator=torch.Generator().manual_seed(5)
    )


EVERY_KIND = [
    pytest.param(make_layer(LoRALayer), id="lora"),
    pytest.param(make_layer(DoRALayer), id="dora"),
    pytest.param(make_layer(DoRALayer, norm_dim=0), id="dora-input"),
]


@pytest.mark.parametrize("make", EVERY_KIND)
@pytest.mark.parametrize("bias", [True, False])
def test_before_training_the_layer_computes_what_the_base_does(make, bias):
    base = linear(bias=bias)
    layer = make(base)
    assert layer.lora_B.count_nonzero() == 0
    torch.testing.assert_close(layer(inputs()), base(inputs()), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("detach_norm", [True, False])
@pytest.mark.parametrize("norm_dim", [0, 1])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (12, 12)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_forward_is_the_reference(shape, norm_dim, detach_norm, dtype, tolerance):
    layer = trained(
        DoRALayer(linear(*shape, dtype=dtype), RANK, 8.0, 0.0, norm_dim, detach_norm=detach_norm)
    )
    x = inputs(dtype, features=shape[0])
    factored = gradients(layer, layer.forward, x)
    reference = gradients(layer, layer.reference_forward, x)
    assert factored.keys() == {"output", "x", "lora_A", "lora_B", "magnitude"}
    for name in factored:
        scale = reference[name].abs().max().item()
        torch.testing.assert_close(
            factored[name], reference[name], rtol=tolerance, atol=tolerance * scale, msg=name
        )


@pytest.mark.parametrize("norm_dim", [0, 1])
def test_dropout_draws_the_same_mask_in_forward_and_reference(norm_dim):
    layer = trained(DoRALayer(linear(dtype=torch.float64), RANK, 8.0, 0.5, norm_dim)).train()
    x = inputs(torch.float64)
    torch.manual_seed(3)
    factored = layer(x)
    torch.manual_seed(3)
    torch.testing.assert_close(factored, layer.reference_forward(x), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(factored, layer.eval()(x)), "dropout did nothing"


@pytest.mark.parametrize("make", EVERY_KIND)
def test_dropout_leaves_the_frozen_path_alone(make):
    base = linear()
    layer = make(base, dropout=0.9).train()  # lora_B is zero: only the frozen path speaks
    torch.testing.assert_close(layer(inputs()), base(inputs()), rtol=1e-6, atol=1e-5)


def undoing(base, left, **settings):
    """A layer whose update undoes all but a share `left` of W0: the hard case for a norm."""
    size = min(base.weight.shape)
    layer = DoRALayer(base, size, float(size), **settings)
    with torch.no_grad():
        exact = base.weight.double()
        A, B = (torch.eye(size), exact) if exact.shape[1] == size else (exact, torch.eye(size))
        layer.lora_A.copy_(A)
        layer.lora_B.copy_((left - 1) * B)
    return layer


def exact_norm(layer):
    """The norm of what the layer's tensors hold, in float64."""
    W0, A, B = (t.double() for t in (layer.original_layer.weight, layer.lora_A, layer.lora_B))
    V = W0 + layer.scaling * B @ A
    return torch.linalg.vector_norm(V, dim=layer.norm_dim)


def relative_error(found, expected):
    return ((found.detach().double() - expected).abs() / expected).max().item()


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-3)])
@pytest.mark.parametrize("norm_dim", [0, 1])
@pytest.mark.parametrize("detach_norm", [True, False])
@pytest.mark.parametrize("left", [1.5, 0.1, 1e-2, 1e-3])
@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (700, 300), (270, 290), (40, 30000)])
def test_norms_keep_their_digits(shape, left, detach_norm, norm_dim, dtype, tolerance, autocast):
    base = linear(*shape, bias=False).to(dtype)
    layer = undoing(base, left, norm_dim=norm_dim, detach_norm=detach_norm)
    expected = exact_norm(layer)
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        norm = layer._norm()
        merged = layer.merged_weight()
    assert norm.dtype == torch.float32
    assert relative_error(norm, expected) < tolerance
    # m is ||W0||, so that is what the merged weight's vectors have for a length
    lengths = torch.linalg.vector_norm(merged.double(), dim=norm_dim)
    assert relative_error(lengths, layer.base_norm.flatten().double()) < tolerance


@pytest.mark.parametrize("use_dora", [True, False])
def test_outputs_and_gradients_equal_those_of_peft(use_dora):
    base = linear()
    config = LoraConfig(r=RANK, lora_alpha=8.0, target_modules=["0"], use_dora=use_dora)
    theirs = get_peft_model(nn.Sequential(copy.deepcopy(base)), config)
    ours = trained((DoRALayer if use_dora else LoRALayer)(base, RANK, 8.0))
    peft_layer = theirs.base_model.model[0]
    with torch.no_grad():
        peft_layer.lora_A["default"].weight.copy_(ours.lora_A)
        peft_layer.lora_B["default"].weight.copy_(ours.lora_B)
        if use_dora:
            vector = peft_layer.lora_magnitude_vector["default"].weight
            vector.copy_(ours.magnitude.view_as(vector))

    mine = gradients(ours, ours.forward, inputs())
    other = gradients(theirs, theirs.forward, inputs())
    for name in mine:
        found = [value for key, value in other.items() if f".{name}" in f".{key}"]
        if name == "magnitude":
            found = [value for key, value in other.items() if "lora_magnitude_vector" in key]
        assert len(found) == 1, name
        expected = found[0].view_as(mine[name])
        torch.testing.assert_close(mine[name], expected, rtol=1e-5, atol=1e-5, msg=name)


def test_the_full_gradient_is_orthogonal_to_the_direction_and_the_detached_one_is_not():
    """Paper, eq. 6 against eq. 11: the full gradient cannot lengthen V.

    With `lora_A` the identity, the gradient of `lora_B` is that of V, so it can be seen.
    """
    along = {}
    for detach_norm in (True, False):
        layer = DoRALayer(linear(12, 16, dtype=torch.float64), 12, 12.0, detach_norm=detach_norm)
        with torch.no_grad():
            layer.lora_A.copy_(torch.eye(12))
            layer.lora_B.normal_(generator=torch.Generator().manual_seed(1))
        gradient = gradients(layer, layer.forward, inputs(torch.float64, 12))["lora_B"]
        along[detach_norm] = (gradient * layer.updated_weight()).sum(dim=1).abs().max().item()
    assert along[False] < 1e-10
    assert along[True] > 1e-2


@pytest.mark.parametrize("norm_dim", [0, 1])
def test_backward_saves_no_matrix_of_the_size_of_the_weight(norm_dim):
    """The factored forward keeps W0 itself for the backward pass and nothing else as large."""
    layer = trained(DoRALayer(linear(64, 48), 2, 4.0, norm_dim=norm_dim))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(inputs(features=64)[:, :1])
    own = layer.original_layer.weight.data_ptr()
    assert saved
    assert not [t.shape for t in saved if t.numel() >= 64 * 48 and t.data_ptr() != own]


def test_no_copy_of_the_weight_is_stored():
    base = linear()
    layer = DoRALayer(base, RANK)
    assert layer.original_layer is base
    others = {n: t for n, t in layer.state_dict().items() if n != "original_layer.weight"}
    assert all(t.numel() < base.weight.numel() for t in others.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", EVERY_KIND)
def test_half_precision(make, dtype):
    layer = trained(make(linear(dtype=dtype)))
    assert layer.lora_A.dtype == torch.float32
    x = inputs(dtype)
    found = gradients(layer, layer.forward, x)
    assert found["output"].dtype == dtype
    exact = trained(make(linear(dtype=dtype).float()))(x.float())
    error = (found["output"].float() - exact).norm() / exact.norm()
    assert error < 2 * torch.finfo(dtype).eps
    assert all(value.isfinite().all() for value in found.values())
    assert layer.merge().weight.dtype == dtype


@pytest.mark.parametrize("detach_norm", [True, False])
@pytest.mark.parametrize("norm_dim", [0, 1])
def test_zero_vectors_of_the_weight(norm_dim, detach_norm):
    base = linear()
    with torch.no_grad():
        base.weight.select(1 - norm_dim, 3).zero_()
    layer = DoRALayer(base, RANK, norm_dim=norm_dim, detach_norm=detach_norm)
    torch.testing.assert_close(layer(inputs()), base(inputs()), rtol=1e-6, atol=1e-5)
    for found in (gradients(layer, layer.forward, inputs()), layer.merge().state_dict()):
        assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", EVERY_KIND)
def test_merge_computes_the_same_and_changes_nothing(make, bias):
    layer = trained(make(linear(bias=bias, dtype=torch.float64), dropout=0.5)).eval()
    before = copy.deepcopy(layer.state_dict())
    random_state = torch.get_rng_state()
    merged = layer.merge()
    assert type(merged) is nn.Linear
    assert (merged.bias is not None) == bias
    x = inputs(torch.float64)
    torch.testing.assert_close(merged(x), layer(x), rtol=1e-10, atol=1e-10)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    merged.weight.data.zero_()
    assert layer.original_layer.weight.count_nonzero() > 0, "the merged weight is shared"


def test_trainable_params_and_freezing():
    lora, dora = LoRALayer(linear(), RANK), DoRALayer(linear(), RANK)
    dora_input = DoRALayer(linear(), RANK, norm_dim=0)
    assert lora.trainable_params == RANK * (IN + OUT)
    assert dora.trainable_params == RANK * (IN + OUT) + OUT
    assert dora_input.trainable_params == RANK * (IN + OUT) + IN
    for layer in (lora, dora, dora_input):
        assert not any(p.requires_grad for p in layer.original_layer.parameters())


def test_scaling():
    assert LoRALayer(linear(), 4, 8.0).scaling == 2.0
    assert LoRALayer(linear(), 4, 8.0, rank_stabilized=True).scaling == 4.0
    stabilized = trained(DoRALayer(linear(), 4, 8.0, rank_stabilized=True))
    plain = trained(DoRALayer(linear(), 4, 16.0))
    with torch.no_grad():
        for name in ("lora_A", "lora_B", "magnitude"):
            getattr(stabilized, name).copy_(getattr(plain, name))
    torch.testing.assert_close(stabilized(inputs()), plain(inputs()))


def test_magnitude_change():
    layer = DoRALayer(linear(), RANK)
    assert layer.get_magnitude_change().shape == (OUT,)
    assert layer.get_magnitude_change().count_nonzero() == 0
    with torch.no_grad():
        layer.magnitude[2] -= 0.5
    expected = torch.zeros(OUT)
    expected[2] = 0.5
    torch.testing.assert_close(layer.get_magnitude_change(), expected)


def test_a_generator_makes_lora_a_reproducible_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    lora = LoRALayer(linear(), RANK, generator=torch.Generator().manual_seed(5))
    after_linear = torch.get_rng_state()  # nn.Linear draws its own weight
    dora = DoRALayer(lora.original_layer, RANK, generator=torch.Generator().manual_seed(5))
    assert torch.equal(lora.lora_A, dora.lora_A)
    assert torch.equal(torch.get_rng_state(), after_linear)
    torch.set_rng_state(state)


@pytest.mark.parametrize("layer_type", [LoRALayer, DoRALayer])
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"rank": 0}, ValueError, ["rank is 0", "from 1 to 16"]),
        ({"rank": 17}, ValueError, ["rank is 17", "from 1 to 16"]),
        ({"rank": 2.5}, TypeError, ["rank is 2.5", "int"]),
        ({"rank": True}, TypeError, ["rank is True", "int"]),
        ({"alpha": 0.0}, ValueError, ["alpha is 0.0", "above 0"]),
        ({"alpha": float("nan")}, ValueError, ["alpha is nan", "above 0"]),
        ({"dropout": 1.0}, ValueError, ["dropout is 1.0", "below 1"]),
        ({"dropout": -0.1}, ValueError, ["dropout is -0.1", "at least 0"]),
    ],
)
def test_bad_arguments_are_named(layer_type, arguments, error, words):
    with pytest.raises(error) as raised:
        layer_type(linear(), **arguments)
    assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("layer_type", [LoRALayer, DoRALayer])
def test_bad_layers_are_named(layer_type):
    with pytest.raises(TypeError, match=r"original_layer is a Conv2d; it must be an nn\.Linear"):
        layer_type(nn.Conv2d(1, 1, 3))
    broken = linear()
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        layer_type(broken)
    assert broken.weight.requires_grad, "a layer that was refused must stay as it was"


def test_an_unknown_norm_dim_is_named():
    with pytest.raises(ValueError, match="norm_dim is 2; it must be 1"):
        DoRALayer(linear(), norm_dim=2)


def test_the_reference_layers_stay_short():
    import inspect

    import lab_utils.layers

    assert len(inspect.getsource(lab_utils.layers).splitlines()) < 275
