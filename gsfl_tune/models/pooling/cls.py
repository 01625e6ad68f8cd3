"""Class tokens of transformers.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (the token); Oquab et al.,
"DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, appendix B.3 (token and
mean, joined for linear evaluation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.models._reads import full_precision
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
