"""Divides batches between processes that train together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchShare:
    """Identifies a process among those that share every batch.

    Attributes:
        rank: 0..size-1.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> slice:
        """Returns this process' part of `count` items; part sizes differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


WHOLE_BATCH = BatchShare()
