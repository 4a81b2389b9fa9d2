"""What a kernel may use."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Limits:
    """What one kernel may use, and what all kernels of a submission may use together.

    Memory is that of all processes of a kernel. Each process gets twice as much address space,
    because PyTorch maps more than it touches.
    """

    cell_seconds: float = 30
    submission_seconds: int = 1800  # all of its kernels
    cpu_seconds: int = 300
    memory_bytes: int = 4 << 30
    processes: int = 64
    threads: int = 128  # of all its processes
    open_files: int = 256  # of each process
    file_bytes: int = 64 << 20
    scratch_bytes: int = 256 << 20  # of all its files, which are in memory
    output_bytes: int = 256 << 10  # of a cell; the rest is dropped
    submission_output_bytes: int = 8 << 20  # of all cells
    message_bytes: int = 16 << 20  # of one message; a larger one is never received

    @property
    def worker_seconds(self) -> float:
        """How long a worker may take for a submission, which should end by itself long before."""
        return 1.5 * self.submission_seconds + 300

    def of_a_process(self) -> dict[str, int]:
        """Return the limits that Linux enforces for each process, by their name in `resource`."""
        return {
            "RLIMIT_AS": 2 * self.memory_bytes,
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_CORE": 0,
            "RLIMIT_NPROC": self.threads,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
        }

    def describe(self) -> dict[str, float]:
        """Return the limits as plain values, for a cache key."""
        return asdict(self)
