"""Train the runs behind lesson 07: both scalings at a fixed alpha, over ranks and learning rates.

    python benchmarks/rslora.py             # 84 runs, half an hour on 2 cores; goes on where it was
    python benchmarks/rslora.py --jobs 16

Results: lab_utils/results/rslora.jsonl.
"""

import argparse
from itertools import product
from pathlib import Path

from lab_utils.comparison import RESULTS, sweep
from lab_utils.training import Settings

ALPHA = 16.0
RANKS = (4, 8, 16, 32, 64)
RATES = (2e-3, 5e-3, 1.2e-2, 3e-2)
SEEDS = range(3)


def every_run() -> list[Settings]:
    """Return the settings of all runs.

    At the default learning rate: LoRA at every rank with a fixed alpha in both scalings, and with
    alpha = 2 * rank in the usual one. At the highest rank: LoRA and DoRA in both scalings at
    every learning rate, since a larger scaling is, roughly, a larger learning rate.
    """
    by_rank = [
        Settings(adapter_type="lora", rank=rank, alpha=ALPHA, rank_stabilized=stabilized, seed=seed)
        for seed, rank, stabilized in product(SEEDS, RANKS, (False, True))
    ]
    growing_alpha = [
        Settings(adapter_type="lora", rank=rank, alpha=2.0 * rank, seed=seed)
        for seed, rank in product(SEEDS, RANKS)
    ]
    by_rate = [
        Settings(
            adapter_type=method,
            rank=RANKS[-1],
            alpha=ALPHA,
            rank_stabilized=stabilized,
            learning_rate=rate,
            seed=seed,
        )
        for seed, rate, method, stabilized in product(SEEDS, RATES, ("lora", "dora"), (False, True))
    ]
    return list(dict.fromkeys(by_rank + growing_alpha + by_rate))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=-1, help="runs at a time; -1: one a core")
    parser.add_argument("--results", type=Path, default=RESULTS / "rslora.jsonl")
    options = parser.parse_args()
    sweep(every_run(), options.results, n_jobs=options.jobs)


if __name__ == "__main__":
    main()
