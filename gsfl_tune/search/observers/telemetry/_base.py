"""What both kinds of telemetry have in common."""

from __future__ import annotations

from gsfl_tune.search.observers.base import Watcher


class Telemetry(Watcher):
    """Receives the events of a search until it is closed."""

    def close(self) -> None:
        """Sends what is left and frees the port."""
