"""Average pooling."""

from __future__ import annotations

from torch import Tensor

from gsfl_tune.models._reads import full_precision
from gsfl_tune.models.pooling._base import Pooling


class AveragePooling(Pooling):
    """Averages over all positions; D = C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, C)."""
        return full_precision(maps).mean(dim=(2, 3))
