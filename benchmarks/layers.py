"""Time and memory of a training step of one layer: ours, the textbook's and PEFT's.

    python -m benchmarks.layers --device cuda --results lab_utils/results/layers.jsonl

A step is the forward and the backward pass, with gradients of the input and of what is trained.
Every form is timed as it is and compiled (`torch.compile(fullgraph=True)`; where that is refused,
with the graph breaks it needs), and on a GPU also recorded as a CUDA graph and replayed, both
uncompiled and compiled. The forms take turns, round after round, so that a warm or busy machine
favours none, and what counts is a form's time divided by LoRA's in the same round. On a CPU one
thread works, and its own time counts, not the wall clock's, which others on the machine lengthen.
"""

import argparse
import json
import platform
import statistics
import time
import types
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from lab_utils.comparison import made_with
from lab_utils.layers import DoRALayer, LoRALayer
from lab_utils.memory import PeakMemory

SHAPES = {"cuda": ("4096x4096", "4096x11008"), "cpu": ("128x128", "2048x2048")}
TOKENS = {"cuda": 4096, "cpu": 256}
DTYPES = {"cuda": ("bfloat16",), "cpu": ("float32",)}


class Frozen(nn.Module):
    """A linear layer in which nothing is trained. (PyTorch compiles no `nn.Linear` by itself.)"""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight = base.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def ours(layer_type: type, base: nn.Linear, rank: int, **settings) -> nn.Module:
    return layer_type(base, rank, 2 * rank, **settings)


class Reference(nn.Module):
    """The textbook form of a `DoRALayer`."""

    def __init__(self, layer: DoRALayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.reference_forward(x)


def reference(base: nn.Linear, rank: int, **settings) -> nn.Module:
    return Reference(ours(DoRALayer, base, rank, **settings))


def peft(base: nn.Linear, rank: int, use_dora: bool, dtype: torch.dtype | None) -> nn.Module:
    """PEFT's layer, with adapters in `dtype`, or in that of the base if None."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["0"], use_dora=use_dora)
    layer = inject_adapter_in_model(config, nn.Sequential(base))[0]
    for parameter in layer.parameters():
        if parameter.requires_grad and dtype:
            parameter.data = parameter.data.to(dtype)
    return layer


FORMS: dict[str, Callable[[nn.Linear, int], nn.Module]] = {
    "frozen": Frozen,
    "LoRA": partial(ours, LoRALayer),
    "DoRA": partial(ours, DoRALayer),
    "DoRA, full gradient": partial(ours, DoRALayer, detach_norm=False),
    "DoRA, norm_dim=0": partial(ours, DoRALayer, norm_dim=0),
    "DoRA, norm_dim=0, full gradient": partial(ours, DoRALayer, norm_dim=0, detach_norm=False),
    "DoRA textbook": reference,
    "DoRA textbook, full gradient": partial(reference, detach_norm=False),
    "LoRA, PEFT": partial(peft, use_dora=False, dtype=torch.float32),
    "DoRA, PEFT": partial(peft, use_dora=True, dtype=torch.float32),
    "LoRA, PEFT, adapter in the base's dtype": partial(peft, use_dora=False, dtype=None),
    "DoRA, PEFT, adapter in the base's dtype": partial(peft, use_dora=True, dtype=None),
}


class Step:
    """A training step of one layer, in one of the ways.

    Attributes:
        graph_breaks: how often `torch.compile` falls back to Python; None if it was not asked.
        memory: the most bytes held at once beyond the layer, its input and the output's gradient:
            what waits for the backward pass, what comes and goes, and the gradients. None where it
            cannot be seen (compiled on a CPU).
    """

    def __init__(
        self, layer: nn.Module, x: Tensor, grad: Tensor, *, compiled: bool, recorded: bool
    ) -> None:
        self.layer = layer  # which a recording needs, but does not keep
        self.parameters = [x, *(p for p in layer.parameters() if p.requires_grad)]
        forward, self.graph_breaks = compile_layer(layer, x) if compiled else (layer, None)

        def step() -> None:
            for parameter in self.parameters:
                parameter.grad = None
            forward(x).backward(grad)

        self.run = step
        if not x.is_cuda:
            step()
            with PeakMemory() as memory:
                if not compiled:
                    step()
            self.memory = None if compiled else memory.peak
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles, and makes what a recording must find there
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        for parameter in self.parameters:
            parameter.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        if recorded:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            self.run = graph.replay
        else:
            step()
        torch.cuda.synchronize()
        self.memory = torch.cuda.max_memory_allocated() - before


def compile_layer(layer: nn.Module, x: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return a compiled layer, in one piece if that can be, and how many graph breaks it has."""

    def forward(x: Tensor) -> Tensor:
        return layer(x)

    # Compilations are kept by code, and one that failed is remembered for all that share it.
    code = forward.__code__.replace(co_name=f"forward_{id(layer)}")
    own = types.FunctionType(code, forward.__globals__, closure=forward.__closure__)
    try:
        compiled = torch.compile(own, fullgraph=True, dynamic=False)
        compiled(x)
        return compiled, 0
    except torch._dynamo.exc.Unsupported:
        breaks = torch._dynamo.utils.counters["graph_break"]
        before = breaks.total()
        compiled = torch.compile(own, dynamic=False)
        compiled(x)
        return compiled, breaks.total() - before


def milliseconds(step: Callable[[], None], repeats: int, device: torch.device) -> float:
    """Return how long a step takes, from the mean of some that follow one another."""
    step()
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / repeats
    started = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - started) * 1e3 / repeats


def measure(
    shape: str, dtype: torch.dtype, way: str, args: argparse.Namespace, device: torch.device
) -> list[dict]:
    """Measure every form of one shape in one way; a form that fails has an `error` and no time."""
    in_features, out_features = map(int, shape.split("x"))
    generator = torch.Generator(device).manual_seed(0)
    like = {"device": device, "dtype": dtype}
    x, grad = (
        torch.randn(args.tokens, n, generator=generator, **like)
        for n in (in_features, out_features)
    )
    x.requires_grad_()
    found, steps = {}, {}
    for form in args.forms:
        torch.manual_seed(0)
        compiled, recorded = "compiled" in way, "recorded" in way
        try:
            layer = FORMS[form](nn.Linear(in_features, out_features, bias=False, **like), args.rank)
            step = Step(layer.train(), x, grad, compiled=compiled, recorded=recorded)
        except Exception as error:
            found[form] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            continue
        steps[form] = step
        found[form] = {"memory": step.memory, "graph_breaks": step.graph_breaks}
    repeats = {form: 1 for form in steps}
    for form, step in steps.items():
        repeats[form] = max(1, round(args.milliseconds / milliseconds(step.run, 1, device)))
    rounds = [
        {form: milliseconds(step.run, repeats[form], device) for form, step in steps.items()}
        for _ in range(args.rounds)
    ]
    for form in steps:
        times = [of_round[form] for of_round in rounds]
        found[form]["milliseconds"] = round(statistics.median(times), 4)
        found[form]["rounds"] = [round(t, 4) for t in times]
        if "LoRA" in steps:
            ratios = [of_round[form] / of_round["LoRA"] for of_round in rounds]
            found[form]["times_lora"] = round(statistics.median(ratios), 3)
    settings = {
        "in_features": in_features,
        "out_features": out_features,
        "tokens": args.tokens,
        "rank": args.rank,
        "dtype": str(dtype).removeprefix("torch."),
        "way": way,
    }
    return [{"form": form, **settings, **found[form]} for form in args.forms]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--results", type=Path, help="JSON lines; made anew for this device, others' lines stay")
    add("--shapes", nargs="+", help="in_features x out_features, such as 4096x11008")
    add("--tokens", type=int)
    add("--rank", type=int, default=16)
    add("--dtypes", nargs="+")
    add("--ways", nargs="+", help="plain, compiled, recorded, 'compiled and recorded'")
    add("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    add("--rounds", type=int, default=7)
    add("--milliseconds", type=float, default=100, help="of one form in one round, about")
    args = parser.parse_args()
    device = torch.device(args.device)
    args.tokens = args.tokens or TOKENS[device.type]
    on_gpu = device.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)
    ways = args.ways or ["plain", "compiled"] + on_gpu * ["recorded", "compiled and recorded"]
    name = torch.cuda.get_device_name(device) if on_gpu else cpu_name()
    packages = {package: installed(package) for package in ("peft", "triton")}
    made = made_with() | packages | {"cuda": torch.version.cuda if on_gpu else None}
    records = []
    for shape in args.shapes or SHAPES[device.type]:
        for dtype in args.dtypes or DTYPES[device.type]:
            for way in ways:
                for record in measure(shape, getattr(torch, dtype), way, args, device):
                    records.append(record | {"device": name, "made_with": made})
                    print(line(record), flush=True)
                if args.results:
                    write(args.results, records, name)


def line(record: dict) -> str:
    """Return a record as a line for a terminal."""
    shape = f"{record['in_features']}x{record['out_features']}"
    about = f"{shape} {record['dtype']} {record['way']:21} {record['form']:40}"
    if "error" in record:
        return f"{about} {record['error']}"
    memory = "" if record["memory"] is None else f"{record['memory'] / 1e6:8.1f} MB"
    breaks = "" if record["graph_breaks"] is None else f" {record['graph_breaks']} breaks"
    times = f"{record['times_lora']:6.3f}" if "times_lora" in record else ""
    return f"{about} {record['milliseconds']:9.3f} ms {times} {memory}{breaks}"


def write(path: Path, records: list[dict], device: str) -> None:
    """Replace the records of a device in a results file."""
    old = path.read_text("utf-8").splitlines() if path.exists() else []
    kept = [one for one in map(json.loads, old) if one["device"] != device]
    text = "".join(json.dumps(one) + "\n" for one in kept + records)
    path.write_text(text, "utf-8")


def cpu_name() -> str:
    """Return the processor's model if Linux reports it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def installed(package: str) -> str | None:
    """Return the version of a package, or None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
