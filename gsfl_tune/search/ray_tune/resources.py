"""What a trial occupies, as the search knows it."""

from __future__ import annotations

from typing import Protocol


class Resources(Protocol):
    """Describes what a trial occupies and how many fit, see `gsfl_tune.cluster.Slots`."""

    @property
    def cpu(self) -> float:
        """Returns the CPU cores per trial."""
        ...

    @property
    def gpu(self) -> float:
        """Returns the GPUs per trial."""
        ...

    @property
    def count(self) -> int:
        """Returns the number of parallel trials."""
        ...

    @property
    def per_node(self) -> int:
        """Returns how many of them one machine holds."""
        ...

    @property
    def threads(self) -> int:
        """Returns the CPU threads of one process of a trial."""
        ...

    @property
    def workers(self) -> int:
        """Returns the number of processes of a trial."""
        ...

    @property
    def shard(self) -> bool:
        """Returns whether these divide trained parameters too, and may be on several nodes."""
        ...

    def of(self, backbone: str) -> Resources:
        """Returns those of trials with a backbone, see ``search.resources.per_backbone``."""
        ...

    def at_most(self, count: int) -> Resources:
        """Returns the same for no more than `count` parallel trials."""
        ...
