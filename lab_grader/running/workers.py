"""Many calls of one function, on the cores of this machine or on those of many."""

import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from joblib.externals.loky import as_completed, get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError


class WorkerError(Exception):
    """A call failed; its text says how."""


class ClusterError(Exception):
    """The workers of a cluster cannot be used."""


def run(
    function: str | Callable, calls: dict[str, Any], jobs: int, dask: str | None = None
) -> Iterator[tuple[str, Any]]:
    """Call `function` with each value; yield the key and the answer as soon as each is there.

    A call that fails yields a `WorkerError` in place of its answer, and stops no other.

    Args:
        function: itself, or `"module:name"`, which the worker imports and the caller need not.
        jobs: how many calls run at a time on this machine.
        dask: the address of a Dask scheduler, whose workers run them instead.

    Raises:
        ClusterError: the cluster has no workers, or some with several threads.
    """
    if dask is not None:
        yield from _run_on_cluster(function, calls, dask)
        return
    done = set()
    try:
        for key, answer in _run_here(function, calls, jobs):
            done.add(key)
            yield key, answer
    except TerminatedWorkerError:  # one was killed, and those beside it with it
        for key in calls.keys() - done:
            try:
                yield from _run_here(function, {key: calls[key]}, jobs)
            except TerminatedWorkerError as error:
                yield key, WorkerError(f"its worker process was killed: {error}")


def _run_here(
    function: str | Callable, calls: dict[str, Any], jobs: int
) -> Iterator[tuple[str, Any]]:
    # joblib's own executor, and not joblib.Parallel, which for one job at a time has no worker:
    # a worker may be killed, this process may not.
    executor = get_reusable_executor(max_workers=jobs, env={"OMP_NUM_THREADS": "1"})
    futures = [executor.submit(_attempt, function, key, value) for key, value in calls.items()]
    for future in as_completed(futures):
        yield future.result()


def _attempt(function: str | Callable, key: str, value: Any) -> tuple[str, Any]:
    try:
        if isinstance(function, str):
            function = pkgutil.resolve_name(function)
        return key, function(value)
    except Exception as error:
        return key, WorkerError(f"{type(error).__name__}: {error}")


def _run_on_cluster(
    function: str | Callable, calls: dict[str, Any], address: str
) -> Iterator[tuple[str, Any]]:
    from dask import distributed  # an extra: needed for --dask only

    with distributed.Client(address, set_as_default=False) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise ClusterError(f"the scheduler at {address} has no workers.")
        crowded = [name for name, worker in workers.items() if worker["nthreads"] != 1]
        if crowded:  # what a check prints goes to the stdout of its process
            raise ClusterError(
                f"the workers {', '.join(crowded)} have several threads; start them with "
                "--nworkers N --nthreads 1."
            )
        futures = {
            client.submit(_attempt, function, key, value, pure=False, retries=1): key
            for key, value in calls.items()
        }
        for future in distributed.as_completed(futures, loop=client.loop):
            if future.status == "finished":
                yield future.result()
            else:
                yield futures[future], WorkerError(f"{future.exception()}")
