"""Train the runs behind lesson 03, and keep how far each moved magnitudes and directions.

    python -m benchmarks.weight_changes            # 23 runs, 15 minutes on 2 cores
    python -m benchmarks.weight_changes --again    # 9 runs of seeds that took part in nothing

Every method trains at the learning rate that benchmarks/head_to_head.py chose for it. Results:

    lab_utils/results/weight-changes.jsonl        delta M and delta D of every attention layer at
                                                  four checkpoints, how much of the change is
                                                  magnitude, and how many rows became longer; the
                                                  same for random updates of that size; five seeds
                                                  of each method at rank 8
    lab_utils/results/weight-changes-again.jsonl  the same for three other seeds, with `--again`
    lab_utils/results/one-layer.safetensors       one layer's adapters at ranks 4 to 32 and nine
                                                  steps of the training, for the explorer
"""

from dataclasses import asdict
from pathlib import Path

import torch
from joblib import Parallel, delayed
from safetensors.torch import save_file
from tqdm.auto import tqdm

from benchmarks.search import command_line
from lab_utils import decomposition
from lab_utils.comparison import (
    RESULTS,
    as_record,
    choose_learning_rate,
    of_the_search,
    read_results,
    select,
    sweep,
)
from lab_utils.data import language_task
from lab_utils.models import attention_layers
from lab_utils.training import Settings, WeightRecorder, batch_order, train_and_evaluate

RANK_OF = {"full": None, "lora": 8, "dora": 8}
SEEDS = range(5)
# Those that neither chose a rate nor were looked at when the lesson was written.
AGAIN = range(30, 33)
RANKS = (4, 8, 16, 32)
LAYER = "blocks.1.q_proj"


def chosen_rate(method: str, rank: int | None) -> float:
    """Return the learning rate that was best on validation data."""
    records = read_results(RESULTS / "head-to-head.jsonl")
    found = select(records, adapter_type=method, rank=rank, targets=None)
    return choose_learning_rate(of_the_search(found))


def checkpoints(run: Settings, count: int) -> list[int]:
    """Return `count` steps of a run at equal distances, the last of them its end."""
    n_epochs, batches, _ = batch_order(
        len(language_task().train), run.batch_size, run.n_epochs, run.seed
    ).shape
    return [round(n_epochs * batches * i / count) for i in range(1, count + 1)]


def changes(run: Settings) -> dict:
    """Return the record of a run, with what it did to every attention layer's weight."""
    names = attention_layers(language_task().base)
    recorder = WeightRecorder(names, [0, *checkpoints(run, 4)])
    record = as_record(train(run, recorder))
    before = recorder.weights.pop(0)
    generator = torch.Generator().manual_seed(run.seed)
    record["changes"] = [
        {
            "layer": name,
            "step": step,
            **measures(before[name], after[name]),
            "random": measures(
                before[name],
                decomposition.random_update(before[name], after[name], generator),
            ),
        }
        for step, after in recorder.weights.items()
        for name in names
    ]
    return record


def measures(before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
    """Return what is kept of the change of one weight."""
    return {
        "delta_m": decomposition.magnitude_change(before, after),
        "delta_d": decomposition.direction_change(before, after),
        "magnitude_share": decomposition.magnitude_share(before, after),
        "longer": (after.norm(dim=1) > before.norm(dim=1)).float().mean().item(),
    }


def one_layer(method: str, rank: int) -> dict[str, torch.Tensor]:
    """Return one layer's trained parameters at nine steps, by `method/rank/step/parameter`."""
    run = Settings(adapter_type=method, rank=rank, learning_rate=chosen_rate(method, rank))
    steps = [0, *checkpoints(run, 8)]
    kept = {}

    def record(step, model, loss):
        if step in steps:
            layer = model.get_submodule(LAYER)
            for name, parameter in layer.named_parameters():
                if parameter.requires_grad:
                    kept[f"{method}/{rank}/{step}/{name}"] = parameter.detach().clone()

    train(run, record)
    return kept


def train(run: Settings, on_step) -> dict:
    return train_and_evaluate(verbose=False, on_step=on_step, **asdict(run))


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="train other seeds, without explorer")
    options = parser.parse_args()
    name, seeds = ("weight-changes-again", AGAIN) if options.again else ("weight-changes", SEEDS)
    rates = {method: chosen_rate(method, rank) for method, rank in RANK_OF.items()}
    runs = [
        Settings(adapter_type=method, rank=rank, seed=seed, learning_rate=rates[method])
        for seed in seeds
        for method, rank in RANK_OF.items()
    ]
    sweep(runs, options.folder / f"{name}.jsonl", n_jobs=options.jobs, measure=changes)
    if options.again:
        return
    parallel = Parallel(n_jobs=options.jobs, return_as="generator")
    jobs = [delayed(one_layer)(method, rank) for rank in RANKS for method in ("lora", "dora")]
    tensors = {}
    for kept in tqdm(parallel(jobs), total=len(jobs), unit="run"):
        tensors |= kept
    save_file(tensors, options.folder / "one-layer.safetensors", metadata={"layer": LAYER})


if __name__ == "__main__":
    main()
