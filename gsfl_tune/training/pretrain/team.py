"""Several processes that train one backbone without labels."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from gsfl_tune.training.pretrain.joint import Joined


class PretrainingRanks(Joined, Protocol):
    """Describes the group that a process is in: `gsfl_tune.training.process_group.Ranks`."""

    def send(self, state: dict[str, Any]) -> None:
        """Sends the state of rank 0 to all others: tensors and plain values."""

    def receive(self) -> dict[str, Any]:
        """Receives the state that rank 0 sends."""


class PretrainingTeam(Protocol):
    """Starts the other ranks, see `gsfl_tune.search.workers.pretraining_team`."""

    @property
    def size(self) -> int:
        """Returns the number of ranks, including this process."""

    def start(self, key: str, precision: str) -> PretrainingRanks:
        """Starts ranks 1.. for a pretraining; returns the group with this process as rank 0.

        Args:
            key: Name of the pretraining.
            precision: What this process computes in, ``bf16`` or ``fp32``.
        """

    def next_epoch(self) -> None:
        """Tells the other ranks to train the next epoch; this process trains it too."""

    def watching(self) -> AbstractContextManager[None]:
        """Watches the other ranks during a block; if one of them fails, raises its error."""

    def leave(self) -> None:
        """Releases the other ranks when the pretraining has ended or failed."""
