"""The question about a function: call it."""

from collections.abc import Callable
from typing import Any


def ask_call(function: Callable, arguments: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    """Return what the function returns, and what its arguments are after the call."""
    result = function(*arguments, **named)
    return {"result": result, "after": [*arguments, *named.values()]}
