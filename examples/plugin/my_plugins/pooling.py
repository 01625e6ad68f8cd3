"""Generalised mean pooling.

Source: Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
TPAMI 2019.
"""

from typing import ClassVar

from torch import Tensor

from gsfl_tune.models import Pooling


class GeneralisedMean(Pooling):
    """(mean of x^p)^(1/p) over all positions: p = 1 is the average, a large p the maximum."""

    power: ClassVar[float]

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, C)."""
        positive = maps.float().clamp(min=1e-6)
        return positive.pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)


class Gem3(GeneralisedMean):
    """Power 3."""

    power = 3.0


class Gem5(GeneralisedMean):
    """Power 5."""

    power = 5.0
