"""Whether the Hugging Face hub can be reached, asked once and fast, and where copies are kept."""

import os
from pathlib import Path


class HubUnreachable(RuntimeError):
    """Something is only on the Hugging Face hub, which does not answer."""


def cache_folder() -> Path:
    """Return where the lab keeps what it fetched: `DORA_LAB_CACHE`, or `~/.cache/dora-lab`."""
    return Path(os.environ.get("DORA_LAB_CACHE") or Path.home() / ".cache" / "dora-lab")


def hub_problem(timeout: float = 5.0) -> str | None:
    """Return why the hub cannot be used, or None if it answers.

    Downloads try again for minutes when there is no network; this asks once.
    """
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session
    except ImportError:
        return "the package huggingface_hub is missing (pip install huggingface_hub)"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=timeout)
    except Exception as error:  # of the HTTP library that huggingface_hub happens to use
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__})"
    return None


def require_hub(what: str, instead: str) -> None:
    """Raise `HubUnreachable` unless the hub answers.

    Args:
        what: is to be fetched, for the message.
        instead: what to do without the hub, for the message.
    """
    if problem := hub_problem():
        raise HubUnreachable(f"{what} cannot be fetched: {problem}. Without the hub, {instead}.")
