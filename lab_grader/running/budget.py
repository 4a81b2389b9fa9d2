"""What all cells of a submission may take together: time and output."""

import json
import time

from nbformat import NotebookNode

from lab_grader.sandbox.limits import Limits


class Budget:
    """What is left of the time and the output of a submission."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._deadline = time.monotonic() + limits.submission_seconds
        self._output_bytes = limits.submission_output_bytes

    def is_spent(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() > self._deadline

    def cell_bytes(self) -> int:
        """Return how much output of the next cell is kept."""
        return min(self.limits.output_bytes, self._output_bytes)

    def take(self, outputs: list[NotebookNode]) -> None:
        """Count the outputs of a cell."""
        self._output_bytes = max(0, self._output_bytes - len(json.dumps(outputs)))
