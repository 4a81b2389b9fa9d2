"""Train a LoRA or DoRA adapter of PEFT on the right answers, in steps that a GPU does not wait for.

The base is in bfloat16 on a GPU, and everything that an adapter computes is in float32 (TF32 inside
products): DoRA divides by norms, and with a magnitude rounded to bfloat16 its weight would differ
from the base's by up to 0.4% before training.
"""

import copy
import gc
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lab_utils.adapters import trainable_parameters
from lab_utils.commonsense.scoring import (
    Batch,
    Text,
    line_length,
    log_likelihoods,
    make_batch,
    pack,
)

# What the paper adapts in LLaMA (table 8); alpha = 2 * rank is the paper's too.
TARGETS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")


def add_peft_adapters(base: nn.Module, method: str, rank: int, seed: int, dtype: torch.dtype):
    """Return a copy of a language model with trainable adapters in its layers.

    Args:
        base: `LlamaForCausalLM` in float32; it stays as it is.
        method: `"lora"` or `"dora"`. Both get the same `lora_A` from the same seed.
        rank: of the adapters; alpha is twice that.
        seed: of `lora_A`.
        dtype: of everything but the adapters, which are float32.
    """
    from peft import LoraConfig, inject_adapter_in_model  # a second, and scoring does not need it

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=list(TARGETS),
        use_dora=method == "dora",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # PEFT draws from the global generator of the CPU
        model = inject_adapter_in_model(config, copy.deepcopy(base))
    # PEFT gives an adapter its base's dtype when it makes it: so in float32, and now the base.
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return model


def make_batches(texts: Sequence[Text], batch_size: int, epochs: int, seed: int) -> list[Batch]:
    """Return the batches of a training, in order: the same ones for the same arguments.

    Each epoch shuffles the texts again; its last batch may have fewer. All batches have one shape,
    so that one CUDA graph serves them all.

    A text's tokens share a weight of 1 / answer tokens / texts of the batch: the sum over a batch
    is the mean over texts of their mean, in which a long answer counts as much as a short one.

    Raises:
        ValueError: there are no texts.
    """
    if not texts:
        raise ValueError("there are no texts to train on")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(texts), generator=generator) for _ in range(epochs)]
    groups = [
        [
            Text(texts[i].tokens, texts[i].start, 1 / texts[i].answer_length / len(indices))
            for i in indices
        ]
        for order in orders
        for indices in order.split(batch_size)
    ]
    length = line_length(texts)
    packed = [pack(group, length) for group in groups]
    shape = (
        max(len(lines) for lines in packed),
        max(sum(text.answer_length for text in group) for group in groups),
    )
    return [
        make_batch(group, lines, length, shape) for group, lines in zip(groups, packed, strict=True)
    ]


def learning_rates(peak: float, steps: int, warmup: float = 0.1) -> Tensor:
    """Return the rate of each step: a linear rise over the first tenth, then a linear fall to 0."""
    rising = max(1, round(warmup * steps))
    up = torch.arange(1, rising + 1) / rising
    down = torch.arange(steps - rising, 0, -1) / (steps - rising + 1)
    return peak * torch.cat([up, down])[:steps]


def train(
    model: nn.Module,
    batches: Sequence[Batch],
    learning_rate: float,
    *,
    max_norm: float = 1.0,
    compiled: bool = False,
    cuda_graphs: bool = True,
    on_step: Callable[[], object] = lambda: None,
) -> dict:
    """Train the adapters of a model in place: AdamW without weight decay, clipped gradients.

    Args:
        model: from `add_peft_adapters`.
        batches: from `make_batches`; a step each.
        learning_rate: the highest, see `learning_rates`.
        max_norm: gradients of all adapters together are clipped to this length.
        compiled: fuse the operations of each layer with `torch.compile`.
        cuda_graphs: on a GPU, record the whole step once and replay it.
            Else, and on a CPU, operations are launched one by one.
        on_step: called after each step; a GPU is then not done with it.

    Returns:
        `losses`, the mean negative log-likelihood per answer token (nats) of each step, before it;
        `seconds` of the steps; `setup_seconds` of what came before them (recording, compiling).
    """
    device = model.lm_head.weight.device
    on_gpu = device.type == "cuda"
    parameters = list(trainable_parameters(model).values())
    rate = torch.zeros((), device=device)  # a tensor, which recorded steps read anew
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, weight_decay=0.0, fused=True, capturable=on_gpu
    )
    rates = learning_rates(learning_rate, len(batches)).to(device)
    losses = torch.zeros(len(batches), device=device)
    batches = [batch.to(device) for batch in batches]

    def step(batch: Batch) -> Tensor:
        loss = -log_likelihoods(model, batch).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # recorded steps need the tensors to stay
        return loss.detach()

    model.train()
    started = time.perf_counter()
    if compiled:
        _compile_layers(model)
    stream = torch.cuda.Stream(device) if on_gpu else None
    if on_gpu or compiled:
        _warm_up(step, batches[0], optimizer, stream)
    take = _recorded(step, batches[0], stream) if on_gpu and cuda_graphs else step
    _wait_for(device)
    ready = time.perf_counter()
    for i, batch in enumerate(batches):
        rate.copy_(rates[i])
        losses[i].copy_(take(batch))
        on_step()
    _wait_for(device)
    return {
        "losses": losses.tolist(),
        "seconds": time.perf_counter() - ready,
        "setup_seconds": ready - started,
    }


def _compile_layers(model: nn.Module) -> None:
    """Let `torch.compile` fuse each layer's operations: one compilation serves all 30 layers."""
    # one for each method, rank and shape of batches; beyond the limit layers would run uncompiled
    torch._dynamo.config.recompile_limit = 64
    for layer in model.model.layers:
        layer.compile(dynamic=False)


def _warm_up(
    step: Callable[[Batch], Tensor], batch: Batch, optimizer, stream: torch.cuda.Stream | None
) -> None:
    """Take steps while the rate is 0, and forget them: nothing is trained.

    That compiles what is to be compiled, and makes the gradients, the optimiser's state and what
    cuBLAS keeps for the stream, which must be there before a step is recorded on it.
    """
    if stream:
        stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(batch)
    if stream:
        torch.cuda.current_stream().wait_stream(stream)
    for state in optimizer.state.values():
        for tensor in state.values():
            tensor.zero_()


def _recorded(
    step: Callable[[Batch], Tensor], batch: Batch, stream: torch.cuda.Stream
) -> Callable[[Batch], Tensor]:
    """Return a `step` for batches of this shape that replays a CUDA graph, recorded here."""
    inputs = Batch(*(tensor.clone() for tensor in batch.tensors()))
    graph = torch.cuda.CUDAGraph()
    # What an earlier run left behind must go first: freed while a step is recorded, by Python's
    # garbage collector at a time of its own, it would spoil the recording.
    gc.collect()
    gc.disable()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            loss = step(inputs)
    finally:
        gc.enable()

    def replay(batch: Batch) -> Tensor:
        for to, tensor in zip(inputs.tensors(), batch.tensors(), strict=True):
            to.copy_(tensor)
        graph.replay()
        return loss

    return replay


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
