"""Independence of the shared and the discriminative part.

Sources: Gretton et al., "Measuring Statistical Dependence with Hilbert-Schmidt Norms", ALT 2005,
for HSIC; the median of the distances as width of the Gaussian kernel is theirs too.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.losses._base import LossInput, LossTerm

Measure = Literal["hsic_linear", "hsic_gaussian", "cosine"]

_TINY = 1e-12


class Independence(LossTerm):
    """Measures how much the parts s and d of the images of a batch depend on each other.

    HSIC is tr(K H L H) / (B - 1)^2 with kernel matrices K of s and L of d and H = I - 1 / B.

    Args:
        measure: ``hsic_linear``: kernels are inner products; HSIC is the squared norm of the
            covariance of s and d, and grows with their lengths. ``hsic_gaussian``: kernels
            exp(-|x - y|^2 / (2 m)) with the median m of the squared distances in the batch. It
            sees any dependence, and no scale: m is part of the gradient. ``cosine``: the mean of
            cos(s_i, d_i)^2, image by image.
    """

    def __init__(self, measure: Measure = "hsic_gaussian") -> None:
        super().__init__()
        self.measure = measure

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        s, d = batch.shared, batch.discriminative
        if self.measure == "cosine":
            return functional.cosine_similarity(s, d, dim=1).square().mean()
        if len(s) < 2:
            return s.new_zeros(())
        if self.measure == "hsic_linear":
            covariance = (s - s.mean(dim=0)).T @ (d - d.mean(dim=0)) / (len(s) - 1)
            return covariance.square().sum()
        return (_centred(_gaussian(s)) * _gaussian(d)).sum() / (len(s) - 1) ** 2


def _gaussian(x: Tensor) -> Tensor:
    squares = x.square().sum(dim=1)
    apart = (squares[:, None] + squares[None] - 2 * x @ x.T).clamp(min=0)
    above = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    middle = apart[above[0], above[1]].median()
    return torch.exp(-apart / (2 * middle.clamp(min=_TINY)))


def _centred(kernel: Tensor) -> Tensor:
    """Returns H K H."""
    rows = kernel - kernel.mean(dim=0, keepdim=True)
    return rows - rows.mean(dim=1, keepdim=True)
