"""Train the runs behind lesson 07: both scalings at a fixed alpha, over ranks and learning rates.

    python -m benchmarks.rslora               # about 240 runs, hours on 2 cores; can be continued
    python -m benchmarks.rslora --jobs 16
    python -m benchmarks.rslora --again       # ranks 4 and 64, three seeds that had no part in it

Results: lab_utils/results/rslora.jsonl, and rslora-again.jsonl of the other seeds.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from benchmarks.search import command_line, search
from lab_utils.comparison import RESULTS, sweep
from lab_utils.training import Settings

ALPHA = 16.0
RANKS = (4, 8, 16, 32, 64)
WIDE = (2e-3, 5e-3, 1.2e-2, 3e-2)
SEEDS = range(9)
CHOOSING = range(3)
AGAIN = range(30, 33)
# At the highest rank every method and rule is tried at every rate, since a larger scaling is,
# roughly, a larger learning rate.
SEARCHED = [
    Settings(adapter_type=method, rank=RANKS[-1], alpha=ALPHA, rank_stabilized=stabilized)
    for method, stabilized in product(("lora", "dora"), (False, True))
]


def at_one_rate(ranks: Sequence[int] = RANKS, seeds: Sequence[int] = SEEDS) -> list[Settings]:
    """Return the settings of the runs at the default learning rate.

    LoRA at every rank with a fixed alpha in both scalings, and with alpha = 2 * rank in the usual
    one; DoRA at the highest rank in both.
    """
    arms = [
        Settings(adapter_type="lora", rank=rank, alpha=alpha, rank_stabilized=stabilized)
        for rank in ranks
        for alpha, stabilized in ((ALPHA, False), (ALPHA, True), (2.0 * rank, False))
    ]
    return [replace(arm, seed=seed) for seed in seeds for arm in dict.fromkeys(arms + SEARCHED)]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="train other seeds")
    options = parser.parse_args()
    if options.again:
        runs = at_one_rate((RANKS[0], RANKS[-1]), AGAIN)
        sweep(runs, options.folder / "rslora-again.jsonl", n_jobs=options.jobs)
        return
    results = options.folder / "rslora.jsonl"
    first = {arm: WIDE for arm in SEARCHED}
    search(SEARCHED, results, first=first, choosing=CHOOSING, n_jobs=options.jobs)
    sweep(at_one_rate(), results, n_jobs=options.jobs)


if __name__ == "__main__":
    main()
