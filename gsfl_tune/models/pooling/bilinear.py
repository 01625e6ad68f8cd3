"""Bilinear pooling.

Source: Lin, RoyChowdhury and Maji, "Bilinear CNN Models for Fine-grained Visual
Recognition", ICCV 2015.
"""

from __future__ import annotations

from torch import Tensor

from gsfl_tune.models.pooling._base import Pooling, gram, signed_sqrt


class BilinearPooling(Pooling):
    """Takes the signed square root of the Gram matrix divided by h * w, flattened; D = C * C."""

    # Without a projection 2,048 channels would give 4.2 M dimensions.
    projected_channels = 128
    # With one position, the products contain no more information than the position itself.
    fewest_positions = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels * channels

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, C * C)."""
        return signed_sqrt(gram(maps).flatten(1))
