"""Bilinear pooling.

Source: Lin, RoyChowdhury and Maji, "Bilinear CNN Models for Fine-grained Visual
Recognition", ICCV 2015.
"""

from __future__ import annotations

from torch import Tensor

from gsfl_tune.models.pooling._base import Pooling, products, signed_sqrt


class BilinearPooling(Pooling):
    """Takes the signed square root of the Gram matrix divided by h * w, flattened; D = C * C.

    Of two streams a and b, as in the source, ``sum_l a_l b_l^T`` over the positions l takes the
    place of the Gram matrix.

    Args:
        channels: Number of channels C, of both streams together.
        second: How many of them, the last ones, are of a second stream.
    """

    # Without a projection 2,048 channels would give 4.2 M dimensions.
    projected_channels = 128
    # With one position, the products contain no more information than the position itself.
    fewest_positions = 2
    takes_streams = True

    def __init__(self, channels: int, second: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.second = second
        self.dim = (channels - second) * (second or channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, D)."""
        return signed_sqrt(products(maps, self.second).flatten(1))
