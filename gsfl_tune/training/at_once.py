"""How many trials this machine can run at once."""

from __future__ import annotations

from gsfl_tune.experiment.config import Config
from gsfl_tune.training.workspace import resolve_device


def most_at_once(config: Config) -> int | None:
    """Returns how many trials may run at once here; None for as many as there are resources for.

    Ray does not count Apple's GPUs. All trials would share the one that there is, and its memory.
    """
    if config.search.max_concurrent is not None:
        return config.search.max_concurrent
    return 1 if resolve_device(config.training.device).type == "mps" else None
