"""Train the runs behind lessons 04 and 05: every method, rank, learning rate and seed.

    python benchmarks/head_to_head.py             # 390 runs, hours on 2 cores; goes on where it was
    python benchmarks/head_to_head.py --jobs 16
    python benchmarks/head_to_head.py --dask tcp://scheduler:8786

Results: lab_utils/results/head-to-head.jsonl.
"""

import argparse
from contextlib import nullcontext
from itertools import product
from pathlib import Path

from joblib import parallel_config

from lab_utils.comparison import RESULTS, sweep
from lab_utils.training import Settings

RATES = (3e-4, 8e-4, 2e-3, 5e-3, 1.2e-2, 3e-2)
SEEDS = range(5)
RANKS = (4, 8, 16, 32)


def every_run() -> list[Settings]:
    """Return the settings of all runs; full fine-tuning has no rank."""
    adapters = [
        Settings(adapter_type=method, rank=rank, learning_rate=rate, seed=seed)
        for seed, rank, rate, method in product(SEEDS, RANKS, RATES, ("lora", "dora", "dora-input"))
    ]
    full = [
        Settings(adapter_type="full", learning_rate=rate, seed=seed)
        for seed, rate in product(SEEDS, RATES)
    ]
    return full + adapters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=-1, help="runs at a time; -1: one a core")
    parser.add_argument("--dask", metavar="ADDRESS", help="send the runs to this Dask scheduler")
    parser.add_argument("--results", type=Path, default=RESULTS / "head-to-head.jsonl")
    options = parser.parse_args()
    cluster = nullcontext()
    if options.dask:
        from distributed import Client

        cluster = Client(options.dask)
    with cluster, parallel_config(backend="dask") if options.dask else nullcontext():
        sweep(every_run(), options.results, n_jobs=options.jobs)


if __name__ == "__main__":
    main()
