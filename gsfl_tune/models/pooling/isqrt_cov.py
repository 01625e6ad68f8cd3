"""Covariance pooling with a matrix square root by iteration (iSQRT-COV).

Source: Li, Xie, Wang and Gao, "Towards Faster Training of Global Covariance Pooling Networks by
Iterative Matrix Square Root Normalization", CVPR 2018, equations 1 to 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.models._reads import full_precision, no_autocast
from gsfl_tune.models.pooling._base import Pooling

ITERATIONS = 5

# Smallest trace: that of an image without any contrast is 0.
_SMALLEST = 1e-12


class IsqrtCovPooling(Pooling):
    """Takes the square root of the covariance over positions, upper triangle; D = C (C + 1) / 2.

    The covariance S is divided by its trace. Five coupled Newton-Schulz steps from Y = S, Z = 1,

        Y <- Y (3 - Z Y) / 2,    Z <- (3 - Z Y) Z / 2,

    bring Y near the square root, which is multiplied by the square root of the trace. All of it
    is in float32: half precision does not converge. The source reduces the channels to 256 by a
    layer that is learned; here it is the fixed PCA projection of the other second-order poolings.
    """

    places: Tensor

    # 8,256 dimensions, about those of compact bilinear pooling.
    projected_channels = 128
    # With one position the covariance is 0.
    fewest_positions = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dim = channels * (channels + 1) // 2
        rows, columns = torch.triu_indices(channels, channels)
        self.register_buffer("places", rows * channels + columns)

    @classmethod
    def operations(cls, channels: int) -> float:
        """Counts three products of (C, C) matrices a step."""
        return 3 * ITERATIONS * 2.0 * channels**3

    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to (B, C (C + 1) / 2)."""
        with no_autocast(maps.device.type):
            descriptors = full_precision(maps).flatten(2)
            centred = descriptors - descriptors.mean(dim=2, keepdim=True)
            covariance = centred @ centred.transpose(1, 2) / centred.shape[2]
            trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
            trace = trace.clamp(min=_SMALLEST)
            root = _root(covariance / trace) * trace.sqrt()
            return root.flatten(1)[:, self.places]


def _root(matrix: Tensor) -> Tensor:
    """Returns about the square root of matrices (B, C, C) with a trace of 1."""
    identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    root, inverse = matrix, identity.expand_as(matrix)
    for _ in range(ITERATIONS):
        factor = (3 * identity - inverse @ root) / 2
        root, inverse = root @ factor, factor @ inverse
    return root
