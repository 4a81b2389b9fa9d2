"""Many calls of one function, on the cores of this machine or on those of many.

A call on this machine may be given a bound on its time and on its memory. One that goes beyond
them, or ends its process, is reported; another process takes its place and the others go on.
"""

import contextlib
import faulthandler
import functools
import itertools
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

import psutil
from pebble import ProcessExpired, ProcessPool

from lab_grader.places import about_file

PATIENCE_SECONDS = 5  # for a process to end in an orderly way
# The environment sets up libraries that checks use by variables whose names begin so.
SETTINGS = (
    *("ACCELERATE_", "ATEN_", "DNNL_", "GOMP_", "HF_", "KMP_", "MKL_", "MPL", "NPY_", "NUMEXPR_"),
    *("OMP_", "ONEDNN_", "OPENBLAS_", "PEFT_", "PYTORCH_", "TORCH", "TRANSFORMERS_"),
)
MOST_NAMED, LONGEST_VERSION = 5, 20  # of what a worker has in another version


class WorkerError(Exception):
    """A call failed; its text says how, in one sentence."""


class ClusterError(Exception):
    """The workers of a cluster cannot be used."""


class Workers:
    """Processes on this machine that make calls: those of one function, then those of another.

    They start with the first call, and end with `close`, or with this process, however it ends.

    Args:
        most: how many there are, and so how many calls are made at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pool: ProcessPool | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def run(
        self,
        function: str | Callable,
        calls: dict[str, Any],
        *,
        seconds: float | None = None,
        memory_bytes: int | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Call `function` with each value; yield the key and the answer as soon as each is there.

        A call that fails yields a `WorkerError` in place of its answer, and stops no other. Where
        not all answers are taken, the processes end.

        Args:
            function: itself, or `"module:name"`, which the worker imports and the caller need not.
            seconds: how long a call may take, from when it begins; the process of one that takes
                longer is ended.
            memory_bytes: how much address space a process may take beyond what it had before its
                first call of this function, imports included. On Linux.

        Raises:
            ValueError: there are calls, and no process to make them.
        """
        if calls and self._most < 1:
            raise ValueError(f"{self._most} processes for {len(calls)} calls: expected at least 1")
        waiting = iter(calls.items())
        while True:
            running: dict[Any, str] = {}
            unanswered: set[str] = set()
            try:
                while True:
                    for key, value in itertools.islice(waiting, self._most + 1 - len(running)):
                        unanswered.add(key)
                        arguments = (function, key, value, seconds, memory_bytes)
                        future = self._started().schedule(_attempt, arguments, timeout=seconds)
                        running[future] = key
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        key, error = running.pop(future), future.exception()
                        if isinstance(error, BrokenProcessPool):
                            raise error
                        unanswered.remove(key)
                        yield (key, _described(error, seconds)) if error else future.result()
            except RuntimeError as error:  # the pool is broken; what waits goes on in another
                for key in unanswered:
                    yield key, WorkerError(f"its worker process was killed: {error}")
            finally:
                if unanswered:  # nobody waits for the calls that are under way
                    self.close()

    def _started(self) -> ProcessPool:
        """Return the pool, which is started if there is none."""
        if self._pool is None:
            # A process of its own even for one call at a time: that may be killed, this may not.
            self._pool = ProcessPool(
                max_workers=self._most,
                initializer=_begin,
                context=multiprocessing.get_context("spawn"),
            )
        return self._pool


def _described(error: BaseException, seconds: float | None) -> WorkerError:
    match error:
        case TimeoutError():
            return WorkerError(f"it took more than {seconds:g} s, and was stopped")
        case ProcessExpired(exitcode=code) if code and code < 0:
            return WorkerError(f"its worker process was killed by {signal.Signals(-code).name}")
        case ProcessExpired(exitcode=code):
            return WorkerError(f"its worker process ended with the exit code {code}")
        case _:
            return WorkerError(f"{type(error).__name__}: {error}")


def forget_settings() -> None:
    """Let nothing that the environment tells a library stop grading, or change a mark.

    A backend that is not installed would end the import of Matplotlib, and with `PYTHONWARNINGS` or
    `-W`, the warning that a function is deprecated would end what calls it. Such warnings are
    printed; others stay as they are.
    """
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.simplefilter("default")


def _begin() -> None:
    """Prepare a worker process."""
    forget_settings()
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # so that it leaves no files
    time.sleep(PATIENCE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _bounded(seconds: float | None, memory_bytes: int | None, mapped_before: int) -> Iterator[None]:
    """Bound the memory of what is done here; end this process if it takes far too long.

    The end on time is for a worker whose parent is gone or far away, and cannot end it.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    if memory_bytes is not None and sys.platform == "linux":  # others have no such limit
        most = mapped_before + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    if seconds is not None:
        faulthandler.dump_traceback_later(seconds + PATIENCE_SECONDS, exit=True)
    try:
        yield
    finally:
        if seconds is not None:
            faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, before)


@functools.cache
def _mapped_before(function: Callable) -> int:
    """Return how many bytes of addresses this process had when this was first asked for it."""
    return psutil.Process().memory_info().vms


def _attempt(
    function: str | Callable,
    key: str,
    value: Any,
    seconds: float | None = None,
    memory_bytes: int | None = None,
) -> tuple[str, Any]:
    try:
        if isinstance(function, str):
            function = pkgutil.resolve_name(function)
        # Of a partial function each call has another copy.
        mapped = _mapped_before(getattr(function, "func", function))
        with _bounded(seconds, memory_bytes, mapped):
            return key, function(value)
    except MemoryError:
        more = f"more than {memory_bytes >> 20:,} MB of" if memory_bytes else "all"
        return key, WorkerError(f"it took {more} memory, and was stopped")
    except OSError as error:
        return key, WorkerError(about_file(error))
    except Exception as error:
        return key, WorkerError(f"{type(error).__name__}: {error}")


def run_on_cluster(
    function: str | Callable,
    calls: dict[str, Any],
    address: str,
    *,
    seconds: float | None = None,
    memory_bytes: int | None = None,
    alike: str | None = None,
) -> Iterator[tuple[str, Any]]:
    """Make the calls as `Workers.run` does, on the workers of a Dask cluster.

    Args:
        address: of its scheduler.
        alike: `"module:name"` of a function that returns names and their versions, which have to
            be the same in the workers as here.

    Raises:
        ClusterError: the cluster has no workers, some with several threads, or some that differ.
    """
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
        if alike is not None:
            here = pkgutil.resolve_name(alike)()
            for name, there in client.run(_tried, alike, on_error="return").items():
                _refuse_if_different(name, here, there)
        futures = {
            client.submit(
                _attempt, function, key, value, seconds, memory_bytes, pure=False, retries=1
            ): key
            for key, value in calls.items()
        }
        for future in distributed.as_completed(futures, loop=client.loop):
            if future.status == "finished":
                yield future.result()
            else:
                yield futures[future], WorkerError(f"{future.exception()}")


def _tried(function: str) -> Any:
    return pkgutil.resolve_name(function)()


def _refuse_if_different(worker: str, here: dict[str, str], there: Any) -> None:
    if not isinstance(there, dict):
        raise ClusterError(
            f"the worker {worker} cannot say which versions it has ({there!r}); install this lab "
            "there as it is here."
        )
    names = sorted(n for n in {*here, *there} if here.get(n) != there.get(n))
    if names:
        told = [
            f"{n} is {_short(there.get(n))} there and {_short(here.get(n))} here" for n in names
        ]
        more = f", and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
        raise ClusterError(
            f"the worker {worker} is not as this machine is, and might give other marks: "
            f"{'; '.join(told[:MOST_NAMED])}{more}. Install the same versions there."
        )


def _short(version: str | None) -> str:
    """Return a version, or the beginning of a file's hash, as a sentence shows it."""
    return "missing" if version is None else version[:LONGEST_VERSION]
