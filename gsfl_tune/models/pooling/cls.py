"""Class tokens of transformers.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (the token); Oquab et al.,
"DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, appendix B.3 (token and
mean, joined for linear evaluation; of the last four blocks as well); Caron et al., "Emerging
Properties in Self-Supervised Vision Transformers", ICCV 2021, appendix F (the last four).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gsfl_tune.models._reads import LAST_BLOCKS, Reads, full_precision
from gsfl_tune.models.pooling._base import Pooling


class ClassToken(Pooling):
    """Takes the class token of the last layer; D = C."""

    reads = "tokens"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels

    def forward(self, maps: Tensor) -> Tensor:
        """Pools tokens (B, 1 + h w, C), class token first, to (B, C)."""
        return full_precision(maps[:, 0])


class ClassTokenAndMean(Pooling):
    """Joins the class token of the last layer and the mean over its positions; D = 2 C."""

    reads = "tokens"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = 2 * channels

    def forward(self, maps: Tensor) -> Tensor:
        """Pools tokens (B, 1 + h w, C), class token first, to (B, 2 C)."""
        tokens = full_precision(maps)
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


class LastBlocksAndMean(Pooling):
    """Joins class tokens of the last n blocks and the mean over positions of the last block.

    Each token has passed through the norm behind the last block. D = (n + 1) C / n of the n C
    channels that n blocks have.
    """

    reads: ClassVar[Reads]

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = self.size(channels)

    @classmethod
    def size(cls, channels: int) -> int:
        """Returns D for the channels of all blocks together."""
        return channels + channels // LAST_BLOCKS[cls.reads]

    def forward(self, maps: Tensor) -> Tensor:
        """Pools tokens (B, 1 + h w, n C), class token first, to (B, n C + C)."""
        tokens = full_precision(maps)
        last = tokens[:, 1:, -(self.dim - self.channels) :]
        return torch.cat([tokens[:, 0], last.mean(dim=1)], dim=1)


class LastTwoBlocksAndMean(LastBlocksAndMean):
    """Reads the last two blocks."""

    reads = "last2"


class LastFourBlocksAndMean(LastBlocksAndMean):
    """Reads the last four blocks."""

    reads = "last4"
