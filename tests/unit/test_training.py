"""Training: runs of a seed differ in the method alone, and the same call gives the same numbers."""

import math

import pytest
import torch
from torch import nn

from lab_utils import data, models, training
from lab_utils.adapters import METHODS, add_adapters_to_model
from lab_utils.comparison import RESULTS, paired_difference, read_results
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.memory import PeakMemory
from lab_utils.training import Settings, WeightRecorder, train_and_evaluate

ADAPTED = ("lora", "dora", "dora-input")


@pytest.fixture(autouse=True)
def small_language_task(monkeypatch):
    """A language task of a few steps, so that every method can train on it."""
    torch.manual_seed(0)
    base = models.TinyLanguageModel(d_model=16, n_heads=2, n_blocks=2, context=16).eval()
    text = bytes(range(32, 127)) * 20
    parts = {part: data.windows(text, 16) for part in ("train", "validation", "test")}
    task = data.Task("language", base, data.next_byte_loss, **parts)
    monkeypatch.setitem(data.TASKS, "language", lambda: task)
    return task


def run(method, **settings):
    return train_and_evaluate(method, n_epochs=2, rank=4, verbose=False, **settings)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_holds_what_it_says(method):
    result = run(method, seed=3, learning_rate=1e-2)
    steps = 2 * (118 // 8)
    assert result["adapter_type"] == method
    assert result["seed"] == 3
    assert result["learning_rate"] == 1e-2
    assert len(result["train_losses"]) == 2
    assert result["final_train_loss"] == result["train_losses"][-1]
    assert len(result["validation_losses"]) == 3
    assert result["validation_loss"] == result["validation_losses"][-1]
    assert len(result["step_losses"]) == len(result["gradient_norms"]) == steps
    assert result["seconds"] > 0
    assert result["peak_memory"] > 0
    assert math.isfinite(result["test_loss"])
    expected = 8 if method.startswith("dora") else 0
    assert len(result["magnitude_history"]) == expected
    for history in result["magnitude_history"].values():
        assert history.shape == (3, 16)
        assert torch.equal(history[0], history[-1]) == (method == "dora-fixed")
    if method == "frozen":
        assert result["trainable_params"] == 0
        assert result["validation_losses"][0] == result["validation_losses"][-1]
    else:
        assert result["trainable_params"] > 0
        assert result["train_losses"][1] < result["train_losses"][0]


def test_the_methods_of_a_seed_differ_in_nothing_but_the_method():
    runs = {method: run(method, seed=1)["pairing"] for method in METHODS}
    for what in ("base", "batches"):
        assert len({pairing[what] for pairing in runs.values()}) == 1, what
    assert len({runs[method]["lora_A"] for method in ADAPTED}) == 1
    other = run("lora", seed=2)["pairing"]
    assert other["base"] == runs["lora"]["base"]
    assert other["batches"] != runs["lora"]["batches"]
    assert other["lora_A"] != runs["lora"]["lora_A"]


def test_a_method_that_changes_the_base_can_be_paired(monkeypatch):
    """Such as PiSSA, which moves the largest part of a weight into its adapter."""

    class PrincipalLoRALayer(LoRALayer):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            with torch.no_grad():
                U, S, V = torch.linalg.svd(self.original_layer.weight, full_matrices=False)
                self.lora_A.copy_(S[: self.rank, None] * V[: self.rank])
                self.lora_B.copy_(U[:, : self.rank] / self.scaling)
                self.original_layer.weight -= self.scaling * self.lora_B @ self.lora_A

    lora = [run("lora", seed=seed) for seed in range(2)]
    monkeypatch.setitem(training.ADAPTERS, "lora", PrincipalLoRALayer)
    pissa = [run("lora", seed=seed) for seed in range(2)]
    assert pissa[0]["pairing"] == lora[0]["pairing"] | {"lora_A": None}
    assert pissa[0]["validation_losses"][0] == pytest.approx(lora[0]["validation_losses"][0])
    assert paired_difference(lora, pissa).seeds == 2


def test_the_base_of_committed_runs_is_the_one_that_is_fingerprinted():
    committed = read_results(RESULTS / "head-to-head.jsonl")
    base = training.fingerprint(models.load_pretrained().parameters())
    assert {r["pairing"]["base"] for r in committed if r["task"] == "language"} == {base}


def test_the_same_call_gives_the_same_numbers_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = run("dora")
    torch.manual_seed(2)
    second = run("dora")
    for key in ("step_losses", "gradient_norms", "validation_losses", "test_loss", "pairing"):
        assert first[key] == second[key], key


def test_training_leaves_the_base_alone(small_language_task):
    before = {k: v.clone() for k, v in small_language_task.base.state_dict().items()}
    for method in METHODS:
        run(method, learning_rate=1e-2)
    after = small_language_task.base.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_decay_acts_on_matrices_and_not_on_a_magnitude(small_language_task):
    model = add_adapters_to_model(small_language_task.base, "dora", rank=2)
    optimizer = training.make_optimizer(model, 1e-3, weight_decay=0.5)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in training.trainable_parameters(model).items():
        assert decay[id(parameter)] == (0.0 if name.endswith("magnitude") else 0.5), name


def test_a_magnitude_without_gradient_stays_although_weights_decay():
    layer = DoRALayer(nn.Linear(4, 3), rank=2)
    optimizer = training.make_optimizer(layer, 0.1, weight_decay=0.5)
    before = layer.magnitude.detach().clone()
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(layer.magnitude, before)


def test_gradients_are_clipped_and_the_rate_falls_along_a_cosine():
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    batch = torch.full((1, 3), 10.0), torch.full((1, 1), 1e3)
    loss, norm = training.train_step(model, batch, nn.functional.mse_loss, optimizer, max_norm=0.5)
    assert loss > 1e5
    assert norm > 1e3
    assert (model.weight - before).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_on_step_is_called_before_training_and_after_every_step():
    calls = []
    result = run("lora", on_step=lambda step, model, loss: calls.append((step, loss)))
    assert [step for step, _ in calls] == list(range(len(result["step_losses"]) + 1))
    assert math.isnan(calls[0][1])
    assert [loss for _, loss in calls[1:]] == result["step_losses"]


@pytest.mark.parametrize("method", METHODS)
def test_recorded_weights_are_those_that_the_layers_multiply_with(method, small_language_task):
    last = 2 * (118 // 8)
    recorder = WeightRecorder(["blocks.1.v_proj"], [0, last])
    models_seen = []
    run(
        method,
        on_step=lambda *call: (recorder(*call), models_seen.append(call[1])),
        learning_rate=1e-2,
    )
    base = small_language_task.base.get_submodule("blocks.1.v_proj").weight
    torch.testing.assert_close(recorder.weights[0]["blocks.1.v_proj"], base.detach())
    x = torch.randn(5, 16)
    layer = models_seen[-1].get_submodule("blocks.1.v_proj")
    after = recorder.weights[last]["blocks.1.v_proj"]
    torch.testing.assert_close(layer(x).detach(), x @ after.T)
    assert torch.equal(after, base) == (method == "frozen")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapter_type": "dorra"}, "adapter_type is 'dorra'; it must be one of 'lora'"),
        ({"adapter_type": "lora", "task": "poetry"}, "task is 'poetry'; it must be one of"),
        ({"adapter_type": "lora", "n_epochs": 0}, "n_epochs is 0; it must be a whole number"),
        ({"adapter_type": "lora", "batch_size": 1.5}, "batch_size is 1.5; it must be"),
        ({"adapter_type": "lora", "learning_rate": 0.0}, "learning_rate is 0.0; it must be"),
        ({"adapter_type": "lora", "learning_rate": math.nan}, "learning_rate is nan; it must be"),
        ({"adapter_type": "lora", "learning_rate": "fast"}, "learning_rate is 'fast'; it must be"),
        ({"adapter_type": "lora", "n_epochs": True}, "n_epochs is True; it must be a whole number"),
        ({"adapter_type": "lora", "rank": None}, "rank is None; it must be a whole number above 0"),
        ({"adapter_type": "lora", "rank": "8"}, "rank is '8'; it must be a whole number above 0"),
        ({"adapter_type": "lora", "alpha": -16.0}, "alpha is -16.0; it must be a finite number"),
        (
            {"adapter_type": "lora", "max_norm": -1.0},
            "max_norm is -1.0; it must be a finite number",
        ),
        ({"adapter_type": "full", "max_norm": math.nan}, "max_norm is nan; it must be a finite"),
        ({"adapter_type": "full", "weight_decay": -0.1}, "weight_decay is -0.1; it must be a"),
        ({"adapter_type": "lora", "seed": -1}, "seed is -1; it must be a whole number, 0 or more"),
        (
            {"adapter_type": "lora", "seed": 0.5},
            "seed is 0.5; it must be a whole number, 0 or more",
        ),
        ({"adapter_type": "lora", "rank_stabilized": "no"}, "rank_stabilized is 'no'; it must be"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_a_batch_larger_than_the_data_is_named():
    with pytest.raises(ValueError, match="batch_size is 9; the task has 8 examples"):
        training.batch_order(8, 9, 1, 0)


def test_methods_without_an_adapter_have_no_rank():
    assert Settings(adapter_type="full", rank=4) == Settings(adapter_type="full", rank=32)
    assert Settings(adapter_type="lora", rank=4).alpha == 8.0


def test_peak_memory_counts_what_was_held_at_once():
    with PeakMemory() as memory:
        a = torch.zeros(1000)  # 4 kB
        b = a.view(10, 100)  # a view takes nothing
        del a, b
        c = torch.zeros(2000)
        d = c + 1
    assert memory.peak == 16_000
    assert d is not None


def test_peak_memory_sees_the_backward_pass():
    weight = torch.zeros(100, 100, requires_grad=True)  # made outside: does not count
    with PeakMemory() as memory:
        (weight * 2).sum().backward()
    assert memory.peak >= 40_000  # the product or the gradient


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@CUDA
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu_the_same_call_gives_the_same_numbers(method):
    first, second = run(method, device="cuda"), run(method, device="cuda")
    for key in ("step_losses", "gradient_norms", "validation_losses", "test_loss", "pairing"):
        assert first[key] == second[key], key
    assert first["device"] == "cuda"
    on_cpu = run(method)
    assert first["pairing"] == on_cpu["pairing"]
    assert first["test_loss"] == pytest.approx(on_cpu["test_loss"], rel=1e-3)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "device is 'gpu'; it must be a name such as"),
        ("", "device is ''; it must be"),
        (None, "device is None; it must be"),
        ("cuda:99", "device is 'cuda:99', which this machine or its PyTorch does not have"),
        ("xla", "device is 'xla', which this machine or its PyTorch does not have"),
    ],
)
def test_a_device_that_is_not_there_is_named(device, words):
    with pytest.raises(ValueError, match=words):
        run("lora", device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_a_fingerprint_sees_every_number_shape_and_dtype(dtype):
    tensor = torch.arange(6, dtype=dtype).view(2, 3)
    prints = [
        training.fingerprint([other])
        for other in (
            tensor,
            tensor.T,
            tensor.view(3, 2),
            tensor + 1,
            tensor.double(),
            tensor[0, 0],
        )
    ]
    assert len(set(prints)) == len(prints)
    assert training.fingerprint([tensor.T.contiguous()]) == training.fingerprint([tensor.T])
    if torch.cuda.is_available():
        assert training.fingerprint([tensor.cuda()]) == prints[0]
