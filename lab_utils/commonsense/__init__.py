"""A real language model on real commonsense questions, and what was measured with them.

`python -m benchmarks.commonsense` makes the measurement; `--help` lists its options.
"""

from lab_utils.commonsense.hub import HubUnreachable
from lab_utils.commonsense.language_model import NoLanguageModel, load_language_model
from lab_utils.commonsense.rows import TASKS, RowsError, example_rows, load_rows, tasks_in
from lab_utils.commonsense.scoring import choice_scores

__all__ = [
    "TASKS",
    "HubUnreachable",
    "NoLanguageModel",
    "RowsError",
    "choice_scores",
    "example_rows",
    "load_language_model",
    "load_rows",
    "tasks_in",
]
