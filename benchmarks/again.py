"""Train what lessons 04 and 05 report anew, with seeds that neither chose a rate nor were reported.

    python -m benchmarks.again                # 340 runs, three hours on 2 cores; can be continued
    python -m benchmarks.again --jobs 16

Prints each difference as reported and as found again. Results: lab_utils/results/again.jsonl.
"""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.search import command_line, measure_in_full, of_arm
from lab_utils.comparison import RESULTS, paired_difference, read_results, reported, sweep
from lab_utils.training import Settings

SEEDS = range(30, 50)
RANKS = (4, 8, 16, 32, 64)
LORA, DORA = ([Settings(adapter_type=m, rank=rank) for rank in RANKS] for m in ("lora", "dora"))
# What is compared: a baseline and another arm. The first pairs are the comparison of lesson 05.
PAIRS = [
    *zip(LORA, DORA, strict=True),
    *((LORA[1], Settings(adapter_type=m)) for m in ("dora-input", "lora-scaled", "dora-fixed")),
    (LORA[1], Settings(adapter_type="full")),
    (DORA[1], Settings(adapter_type="dora-full")),
    tuple(Settings(adapter_type=method, targets="all") for method in ("lora", "dora")),
]
ARMS = list(dict.fromkeys(arm for pair in PAIRS for arm in pair))


def main() -> None:
    options = command_line(__doc__, RESULTS / "again.jsonl").parse_args()
    before = [
        record
        for name in ("head-to-head", "ablations")
        for record in read_results(RESULTS / f"{name}.jsonl")
    ]
    rates = {arm: reported(of_arm(before, arm))[0]["learning_rate"] for arm in ARMS}
    runs = [replace(arm, learning_rate=rates[arm], seed=seed) for seed in SEEDS for arm in ARMS]
    again = sweep(runs, options.results, n_jobs=options.jobs, measure=measure_in_full)
    for baseline, other in PAIRS:
        print(f"Rank {other.rank}, as reported: {difference(before, baseline, other)}")
        found = paired_difference(of_arm(again, baseline), of_arm(again, other))
        print(f"Rank {other.rank}, again: {found}")


def difference(records: Sequence[dict], baseline: Settings, other: Settings):
    return paired_difference(*(reported(of_arm(records, arm)) for arm in (baseline, other)))


if __name__ == "__main__":
    main()
