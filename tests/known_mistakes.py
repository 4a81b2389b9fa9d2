"""Which mistakes the checks of a lesson can name."""

import inspect
import sys

from lab_utils import checks
from lab_utils.checks.report import Mistake

PARTS = "lab_utils.checks.layer."  # what the checks of layers ask, a module each


def mistakes_of(check):
    """The mistakes that stand in the module of a check, or in those that its parts come from.

    Args:
        check: the name of one, as a lesson's cell has it.
    """
    module = sys.modules[inspect.unwrap(getattr(checks, check)).__module__]
    parts = {getattr(value, "__module__", "") for value in vars(module).values()}
    modules = [module, *(sys.modules[p] for p in sorted(parts) if p.startswith(PARTS))]
    values = [value for found in modules for value in vars(found).values()]
    values += [v for value in values if isinstance(value, dict) for v in value.values()]
    return list(dict.fromkeys(value for value in values if type(value) is Mistake))
