"""Generalised mean pooling.

Source: Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
TPAMI 2019.
"""

from __future__ import annotations

from torch import Tensor

from gsfl_tune.models._reads import full_precision, no_autocast
from gsfl_tune.models.pooling._base import Pooling

# Smallest activation, as in the source: powers are of positive numbers alone.
_SMALLEST = 1e-6


class GeneralisedMeanPooling(Pooling):
    """Computes (mean of x^p)^(1/p) over all positions, of max(x, 1e-6); D = C.

    p = 1 is the mean and a large p the maximum. The source learns p; features that are computed
    once have the one that they were computed with.

    Args:
        channels: Number of channels C.
        power: p, at least 1.
    """

    takes_power = True

    def __init__(self, channels: int, power: float = 3.0) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels
        self.power = power

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, C)."""
        with no_autocast(maps.device.type):
            positive = full_precision(maps).clamp(min=_SMALLEST)
            # In units of the maximum, so that no power leaves the range of float32.
            largest = positive.amax(dim=(2, 3), keepdim=True).detach()
            mean = (positive / largest).pow(self.power).mean(dim=(2, 3))
            return largest[:, :, 0, 0] * mean.pow(1 / self.power)
