"""`lab_utils.layers`: LoRA and DoRA against the textbook form, against PEFT, and at the edges."""

import copy
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
                parameter.add_(0.3 * noise.to(parameter))
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


def settings_of(make):
    """What else a kind of layer can be asked for."""
    return [{}] if type(make(linear())) is LoRALayer else [{}, {"detach_norm": False}]


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


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-3)])
@pytest.mark.parametrize("norm_dim", [0, 1])
@pytest.mark.parametrize("detach_norm", [True, False])
@pytest.mark.parametrize("left", [1.5, 1e-2, 1e-3])
@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (270, 290), (40, 30000)])
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
@pytest.mark.parametrize(
    ("dtype", "autocast", "tolerance"),
    [
        pytest.param(torch.float32, None, 1e-5, id="float32"),
        pytest.param(torch.bfloat16, None, 2e-2, id="bfloat16"),
        pytest.param(torch.float32, torch.bfloat16, 2e-2, id="autocast"),
        pytest.param(torch.bfloat16, torch.bfloat16, 2e-2, id="bfloat16 under autocast"),
        pytest.param(torch.float16, None, 4e-3, id="float16"),
    ],
)
def test_outputs_and_gradients_equal_those_of_peft(use_dora, dtype, autocast, tolerance):
    base = linear(64, 48, dtype=dtype)
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

    def under_autocast(forward):
        def wrapped(x):
            with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                return forward(x)

        return wrapped

    x = inputs(dtype, 64)
    mine = gradients(ours, under_autocast(ours), x)
    other = gradients(theirs, under_autocast(theirs), x)
    for name in mine:
        found = [value for key, value in other.items() if f".{name}" in f".{key}"]
        if name == "magnitude":
            found = [value for key, value in other.items() if "lora_magnitude_vector" in key]
        assert len(found) == 1, name
        expected = found[0].view_as(mine[name]).float()
        gap = (mine[name].float() - expected).norm() / expected.norm()
        assert gap < tolerance, (name, gap)


@pytest.mark.parametrize("make", EVERY_KIND)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_compiles_in_one_piece(make, autocast):
    for settings in settings_of(make):
        assert_compiles(make, "aot_eager", autocast, settings)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_the_default_compiler_compiles_a_layer():
    assert_compiles(make_layer(DoRALayer), "inductor", False, {"detach_norm": False})


def assert_compiles(make, backend, autocast, settings):
    torch.compiler.reset()
    base = linear(40, 30, dtype=torch.float32 if autocast else torch.bfloat16)
    layer = trained(make(base, **settings))
    x = inputs(base.weight.dtype, 40)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = gradients(layer, layer, x)
        found = gradients(layer, compiled, x)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        gap = (found[name].float() - value.float()).norm() / value.float().norm()
        assert gap < 2e-2, (name, gap)


@pytest.mark.parametrize("make", EVERY_KIND)
def test_no_value_of_a_tensor_decides_what_is_done(make):
    """On tensors without values: a look at one raises, as it makes the host wait for a GPU."""
    for settings in settings_of(make):
        layer = make(linear(), **settings)
        with FakeTensorMode(allow_non_fake_inputs=True):
            layer(torch.empty(3, IN, requires_grad=True)).sum().backward()
            with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
                layer.lora_A.grad.sum().item()


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@CUDA
@pytest.mark.parametrize("matmul_precision", ["highest", "high"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm_dim", [0, 1])
@pytest.mark.parametrize(
    ("shape", "rank"), [((1000, 3000), 3), ((777, 515), 16), ((600, 600), 200)]
)
def test_on_a_gpu_norms_keep_their_digits(shape, rank, norm_dim, dtype, matmul_precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(matmul_precision)
    try:
        base = linear(*shape, bias=False).cuda().to(dtype)
        layer = trained(DoRALayer(base, rank, 2.0 * rank, norm_dim=norm_dim))
        with torch.autocast("cuda", dtype=torch.bfloat16):
            norm = layer._norm()
        assert relative_error(norm, exact_norm(layer)) < 1e-6
    finally:
        torch.set_float32_matmul_precision(before)


@CUDA
@pytest.mark.parametrize("norm_dim", [0, 1])
def test_on_a_gpu_norms_keep_their_digits_where_an_update_undoes_the_weight(norm_dim):
    layer = trained(DoRALayer(linear(777, 515, bias=False).cuda(), 16, 16.0, norm_dim=norm_dim))
    with torch.no_grad():
        update = layer.scaling * layer.lora_B.double() @ layer.lora_A.double()
        layer.original_layer.weight.copy_(-0.999 * update)
    # in float32 about 1e-5; products in TF32, even three for each, give 1e-4
    assert relative_error(layer._norm(), exact_norm(layer)) < 3e-5


@CUDA
@pytest.mark.parametrize("make", [LoRALayer, DoRALayer])
def test_a_seed_gives_the_same_start_on_a_gpu(make):
    starts = [
        make(linear().to(device), RANK, generator=torch.Generator().manual_seed(5)).lora_A
        for device in ("cpu", "cuda")
    ]
    assert starts[1].is_cuda and torch.equal(starts[0], starts[1].cpu())


@CUDA
@pytest.mark.parametrize("make", EVERY_KIND)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("size", [40, 600])
def test_on_a_gpu_a_step_is_recorded_and_replayed(size, compiled, make):
    torch.compiler.reset()
    for settings in settings_of(make):
        layer = trained(make(linear(size, size).cuda().to(torch.bfloat16), **settings))
        forward = torch.compile(layer, fullgraph=True) if compiled else layer
        x = inputs(torch.bfloat16, size).cuda().requires_grad_()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                forward(x).sum().backward()
        torch.cuda.current_stream().wait_stream(stream)
        layer.zero_grad()
        x.grad = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = forward(x)
            output.sum().backward()
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
            layer.lora_B.mul_(2)
        graph.replay()
        expected = layer(x)
        gap = (output.float() - expected.float()).norm() / expected.float().norm()
        assert gap < 2e-2
        found = {"x": x.grad.float(), "lora_B": layer.lora_B.grad.clone()}
        layer.zero_grad()
        x.grad = None
        expected.sum().backward()
        for name, grad in (("x", x.grad.float()), ("lora_B", layer.lora_B.grad)):
            assert (found[name] - grad).norm() < 2e-2 * grad.norm(), name


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


HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@HALF
@pytest.mark.parametrize("make", EVERY_KIND)
def test_half_precision(make, dtype):
    layer = trained(make(linear(dtype=dtype)))
    assert layer.lora_A.dtype == torch.float32
    x = inputs(dtype)
    found = gradients(layer, layer.forward, x)
    assert found["output"].dtype == dtype
    exact_layer = trained(make(linear(dtype=dtype).float()))
    exact = gradients(exact_layer, exact_layer.forward, x.float())
    for name, value in found.items():
        gap = ((value.float() - exact[name]).norm() / exact[name].norm()).item()
        assert gap < 2 * torch.finfo(dtype).eps, (name, gap)
    assert layer.merge().weight.dtype == dtype


@HALF
@pytest.mark.parametrize("norm_dim", [0, 1])
def test_activations_in_half_precision_are_not_copied_to_float32(norm_dim, dtype):
    layer = trained(DoRALayer(linear(dtype=dtype), RANK, norm_dim=norm_dim))
    tokens = 1000  # an activation has more numbers than the weight

    class Float32Activations(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                    assert tensor.numel() < tokens * min(IN, OUT), operation
            return result

    x = inputs(dtype).reshape(-1, IN).repeat(100, 1).requires_grad_()
    assert x.shape == (tokens, IN)
    with Float32Activations():
        layer(x).backward(torch.ones(tokens, OUT, dtype=dtype))


@pytest.mark.parametrize("make", EVERY_KIND)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_under_autocast_the_output_has_the_dtype_of_nn_linear(
    make, bias, base_dtype, x_dtype, autocast
):
    base = linear(bias=bias, dtype=base_dtype)
    layer = make(base)
    with torch.autocast("cpu", dtype=autocast):
        expected, found = base(inputs(x_dtype)), layer(inputs(x_dtype))
    assert found.dtype == expected.dtype == autocast
    gap = (found.float() - expected.float()).norm() / expected.float().norm()
    assert gap < 2 * torch.finfo(autocast).eps


@HALF
@pytest.mark.parametrize("norm_dim", [0, 1])
@pytest.mark.parametrize("detach_norm", [True, False])
def test_a_small_change_of_a_magnitude_is_not_rounded_away(norm_dim, detach_norm, dtype):
    """A factor rounded to half precision would stay where it is: the nearest is 0.4 % away."""
    layer = DoRALayer(linear(dtype=dtype), RANK, norm_dim=norm_dim, detach_norm=detach_norm)
    x = inputs(dtype)
    before = layer(x).double().norm()
    with torch.no_grad():
        layer.magnitude.mul_(1 + torch.finfo(dtype).eps * 0.4)
    grown = (layer(x).double().norm() / before - 1).item()
    assert grown == pytest.approx(torch.finfo(dtype).eps * 0.4, rel=0.5)


@HALF
@pytest.mark.parametrize("norm_dim", [0, 1])
@pytest.mark.parametrize("length", [0.0, 1e-3, 300.0, 5e3])
def test_an_adapted_layer_cast_to_half_precision(length, norm_dim, dtype):
    """Norms of 0, and those whose squares float16 cannot hold, are norms like any other."""
    base = linear()
    with torch.no_grad():
        vector = base.weight.select(1 - norm_dim, 3)
        vector.mul_(length / vector.norm())
    layer = DoRALayer(base, RANK, norm_dim=norm_dim).to(dtype)
    assert {p.dtype for p in layer.parameters()} == {dtype}
    x = inputs(dtype)
    expected = base(x)
    for found in (layer(x), layer.reference_forward(x), layer.merge()(x)):
        assert found.dtype == dtype
        gap = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
        assert gap < 2 * torch.finfo(dtype).eps
    assert all(v.isfinite().all() for v in gradients(layer, layer, x).values())


@HALF
@pytest.mark.parametrize("norm_dim", [0, 1])
def test_where_an_update_undoes_the_weight_half_precision_keeps_the_larger_terms_digits(
    norm_dim, dtype
):
    """As the docstring says: `W0 x` and the update's part are rounded, each by itself."""
    layer = undoing(linear(16, 16, bias=False, dtype=dtype), 0.01, norm_dim=norm_dim)
    x = inputs(dtype, 16)
    reference = layer.reference_forward(x)
    norm_scale = (layer.magnitude / layer._norm().view_as(layer.magnitude)).abs()
    terms = x.float().abs() @ (norm_scale * layer.original_layer.weight.float().abs()).T
    rounding = 2 * torch.finfo(dtype).eps * terms
    assert ((layer(x).float() - reference.float()).abs() <= rounding).all()
    exact = copy.deepcopy(layer).double().reference_forward(x.double())
    gap = (reference.double() - exact).norm() / exact.norm()
    assert gap < torch.finfo(dtype).eps, "the reference is rounded at its end alone"


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
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        gradients(layer, layer.forward, inputs())
        optimizer.step()
    merged = layer.merge().weight.select(1 - norm_dim, 3)
    if norm_dim == 1:
        assert merged.count_nonzero() == 0, "a row of zeros stays zero"
    else:
        assert merged.count_nonzero() == OUT, "a column can learn a length"


@pytest.mark.parametrize("norm_dim", [0, 1])
def test_weights_loaded_after_adapting_are_the_ones_that_are_used(norm_dim):
    layer = trained(DoRALayer(linear(), RANK, norm_dim=norm_dim))
    other = linear(seed=5)
    layer.original_layer.load_state_dict(other.state_dict())
    for found in (layer.reference_forward(inputs()), layer.merge()(inputs())):
        torch.testing.assert_close(layer(inputs()), found, rtol=1e-5, atol=1e-5)
    expected = torch.linalg.vector_norm(other.weight, dim=norm_dim, keepdim=True)
    torch.testing.assert_close(layer.base_norm, expected)
    torch.testing.assert_close(
        layer.get_magnitude_change(), (layer.magnitude - expected).abs().flatten()
    )


def test_a_layer_without_values_is_named():
    with pytest.raises(ValueError, match="on the meta device and has no values; load the"):
        DoRALayer(nn.Linear(4, 3, device="meta"), 2)


@pytest.mark.parametrize("shape", [(IN,), (0, IN), (2, 0, IN), (1, 2, 3, IN)])
@pytest.mark.parametrize("make", EVERY_KIND)
def test_inputs_of_any_shape(make, shape):
    for dtype in (torch.float32, torch.bfloat16):
        layer = trained(make(linear(dtype=dtype)))
        x = torch.ones(shape, dtype=dtype, requires_grad=True)
        y = layer(x)
        assert y.shape == (*shape[:-1], OUT)
        y.sum().backward()
        assert layer.lora_A.grad.isfinite().all()


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
        ({"alpha": "16"}, TypeError, ["alpha is '16'", "a number"]),
        ({"dropout": None}, TypeError, ["dropout is None", "a number"]),
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
    with pytest.raises(ValueError, match="contains NaN or infinity"):
        layer_type(broken)
    assert broken.weight.requires_grad, "a layer that was refused must stay as it was"


def test_an_unknown_norm_dim_is_named():
    with pytest.raises(ValueError, match="norm_dim is 2; it must be 1"):
        DoRALayer(linear(), norm_dim=2)


def test_the_reference_layers_stay_short():
    import inspect

    import lab_utils.layers

    assert len(inspect.getsource(lab_utils.layers).splitlines()) < 275
