"""Which part of a batch belongs to one of several processes that train together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchShare:
    """The place of a process among those that divide every batch between them.

    Attributes:
        rank: 0..size-1.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> slice:
        """This process' part of `count` things: parts follow each other and differ by one."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


WHOLE_BATCH = BatchShare()
