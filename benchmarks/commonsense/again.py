"""Train what lesson 06 compares anew, with seeds that neither chose a rate nor were reported.

    python -m benchmarks.commonsense.again --jobs 4     # 64 runs; can be continued

Both methods, with one rate for both. Prints their difference as reported and as found again.
Results: lab_utils/results/commonsense-again.jsonl.
"""

import argparse
import functools
from pathlib import Path

from benchmarks.commonsense.__main__ import add_machine_options, machine_of, start
from benchmarks.commonsense.runs import measure
from lab_utils.commonsense.measurement import PAIR, Run, at_each_rate, require_one_base
from lab_utils.comparison import RESULTS, read_results, sweep

SEEDS = range(30, 34)
RATES = (2e-4, 6e-4, 2e-3, 6e-3)  # those that lesson 06 compares
RUNS = [
    Run(adapter_type=method, rank=rank, learning_rate=rate, seed=seed, epochs=2, batch_size=64)
    for seed in SEEDS
    for rank in (8, 32)
    for rate in RATES
    for method in PAIR
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_machine_options(parser)
    parser.add_argument("--results", type=Path, default=RESULTS / "commonsense-again.jsonl")
    args = parser.parse_args()
    measured = functools.partial(measure, machine=machine_of(args))
    again = sweep(RUNS, args.results, n_jobs=args.jobs, measure=measured)
    before = read_results(RESULTS / "commonsense.jsonl", Run)
    require_one_base(before + again)
    reported = at_each_rate(before)
    for rank, by_rate in at_each_rate(again).items():
        for rate, found in by_rate.items():
            print(f"rank {rank}, rate {rate:g}, as reported: {reported[rank][rate]}")
            print(f"rank {rank}, rate {rate:g}, again: {found}")


if __name__ == "__main__":
    start(main)
