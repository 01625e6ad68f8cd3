"""A floor of the variance of the shared part.

Source: the variance term of Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization
for Self-Supervised Learning", ICLR 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.losses._base import LossInput, LossTerm

# As published: keeps the slope of the root bounded where all images give the same.
_EPSILON = 1e-4


class SharedVariance(LossTerm):
    """Averages max(0, floor - sqrt(Var(s_j) + 1e-4)) over the dimensions j of the shared part.

    The shared-centre term draws s to one point a group; this keeps it from becoming the same for
    all images. The variance is that over the images that are seen together, with B - 1 as divisor;
    of a single image there is none, and the term is 0.

    Args:
        floor: Standard deviation of each dimension that costs nothing.
    """

    def __init__(self, floor: float = 1.0) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        s = batch.shared
        if len(s) < 2:
            return s.new_zeros(())
        deviation = torch.sqrt(s.var(dim=0) + _EPSILON)
        return (self.floor - deviation).clamp(min=0).mean()
