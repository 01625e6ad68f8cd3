"""What the sections of all stages have in common."""

from __future__ import annotations

from typing import Protocol

from gsfl_tune.training.optim import Rates


class StageConfig(Rates, Protocol):
    """Names what every stage has in its section."""

    @property
    def epochs(self) -> int:
        """Returns the number of epochs."""

    @property
    def batch_size(self) -> int:
        """Returns the number of images in a batch."""

    @property
    def clip_norm(self) -> float:
        """Returns the largest norm of gradients; 0 without a limit."""
