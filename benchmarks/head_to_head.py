"""Train the runs behind lessons 04 and 05: every method and rank, each at its own learning rate.

    python -m benchmarks.head_to_head         # about 750 runs, hours on 2 cores; can be continued
    python -m benchmarks.head_to_head --jobs 16
    python -m benchmarks.head_to_head --dask tcp://scheduler:8786

Results: lab_utils/results/head-to-head.jsonl.
"""

from contextlib import nullcontext
from itertools import product

from joblib import parallel_config

from benchmarks.search import command_line, search
from lab_utils.comparison import RESULTS
from lab_utils.training import Settings

# Every arm of the comparison is tried at these, which show the whole curve; the search is finer.
WIDE = (3e-4, 8e-4, 2e-3, 5e-3, 1.2e-2, 3e-2)
RANKS = (4, 8, 16, 32)
COMPARED = [
    Settings(adapter_type="full"),
    *(
        Settings(adapter_type=method, rank=rank)
        for rank, method in product(RANKS, ("lora", "dora", "dora-input"))
    ),
]
# What else the gap between adapters and full fine-tuning may come from: the layers, or the rank.
CONTROLS = [
    Settings(adapter_type="full", targets="attention"),
    *(Settings(adapter_type=method, rank=64) for method in ("lora", "dora")),
]
FIRST = {arm: WIDE for arm in COMPARED} | {
    CONTROLS[0]: (8e-4, 1.3e-3, 2e-3, 3.2e-3),
    CONTROLS[1]: (3.2e-3, 5e-3, 7.7e-3),
    CONTROLS[2]: (3.2e-3, 5e-3, 7.7e-3),
}


def main() -> None:
    parser = command_line(__doc__, RESULTS / "head-to-head.jsonl")
    parser.add_argument("--dask", metavar="ADDRESS", help="send the runs to this Dask scheduler")
    options = parser.parse_args()
    cluster = nullcontext()
    if options.dask:
        from distributed import Client

        cluster = Client(options.dask)
    with cluster, parallel_config(backend="dask") if options.dask else nullcontext():
        search(COMPARED + CONTROLS, options.results, first=FIRST, n_jobs=options.jobs)


if __name__ == "__main__":
    main()
