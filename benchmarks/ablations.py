"""Train the runs behind lesson 05's question why DoRA ends lower: one part changed at a time.

    python -m benchmarks.ablations            # about 200 runs, hours on 2 cores; can be continued
    python -m benchmarks.ablations --jobs 16

Each arm has rank 8 and its own learning rate. LoRA and DoRA as they are come from
benchmarks/head_to_head.py. Results: lab_utils/results/ablations.jsonl.
"""

from benchmarks.search import command_line, search
from lab_utils.comparison import RESULTS
from lab_utils.training import Settings

CHOOSING = range(3)
PAIR = ("lora", "dora")
ARMS = [
    # DoRA is LoRA with a norm and with an m: either of them alone, and both with another gradient.
    *(Settings(adapter_type=method) for method in ("dora-fixed", "lora-scaled", "dora-full")),
    # The same question under other settings.
    *(Settings(adapter_type=method, targets="all") for method in PAIR),
    *(Settings(adapter_type=method, alpha=8.0) for method in PAIR),
    *(Settings(adapter_type=method, max_norm=1e6) for method in PAIR),  # which no gradient reaches
]
FIRST = {
    arm: (7.7e-3, 1.2e-2, 1.9e-2, 3e-2) if arm.alpha == 8.0 else (5e-3, 7.7e-3, 1.2e-2, 1.9e-2)
    for arm in ARMS
}


def main() -> None:
    options = command_line(__doc__, RESULTS / "ablations.jsonl").parse_args()
    search(ARMS, options.results, first=FIRST, choosing=CHOOSING, n_jobs=options.jobs)


if __name__ == "__main__":
    main()
