"""The checks of the exercises, one module per lesson or exercise; they name the mistakes they know.

Every function `check_*` in a module here is a check: `checks.check_decompose(decompose)`.
"""

import importlib
import pkgutil

from lab_utils.checks.report import CheckFailed

_modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
_checks = {
    name: value
    for module in _modules
    for name, value in vars(module).items()
    if name.startswith("check_")
}
globals().update(_checks)
__all__ = ["CheckFailed", *sorted(_checks)]
