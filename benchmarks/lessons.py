"""Execute every lesson, and print how long its kernel was busy and which cell took longest.

    make bench

A student's budget: no cell over 30 s and all lessons together under 5 minutes, on 2 cores.
"""

import sys
from datetime import datetime
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import release


def seconds(cell: NotebookNode) -> float:
    """Return how long a code cell was executing."""
    timing = cell.metadata.get("execution", {})
    if "shell.execute_reply" not in timing:
        return 0.0  # an empty cell
    start, end = (
        datetime.fromisoformat(timing[key]) for key in ("iopub.status.busy", "shell.execute_reply")
    )
    return (end - start).total_seconds()


def main() -> None:
    total = 0.0
    print(f"{'lesson':28} {'all cells':>10} {'slowest':>10}   the slowest begins with")
    for text in sorted(release.SOLUTIONS.glob("*.py")):
        notebook = release.read_lesson(text)
        resources = {"metadata": {"path": str(release.SOLUTIONS)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        slowest = max(cells, key=seconds)
        busy = sum(map(seconds, cells))
        total += busy
        first = next(line for line in slowest.source.splitlines() if line.strip())
        print(f"{text.stem:28} {busy:8.1f} s {seconds(slowest):8.1f} s   {first[:50]}", flush=True)
    print(f"{'all lessons':28} {total:8.1f} s")


if __name__ == "__main__":
    main()
