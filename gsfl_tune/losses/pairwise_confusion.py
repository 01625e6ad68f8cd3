"""Pairwise confusion.

Source: Dubey et al., "Pairwise Confusion for Fine-Grained Visual Classification", ECCV 2018,
their Euclidean confusion.
"""

from __future__ import annotations

from torch import Tensor

from gsfl_tune.losses._base import LossInput, LossTerm


class PairwiseConfusion(LossTerm):
    """Averages |p_i - p_j|^2 of the predicted probabilities over pairs of different classes.

    It keeps a network from being certain of what tells similar classes apart in training images
    alone. All pairs of the images that are seen together count: those of a batch, or of the piece
    of it that a process passes at once. It is 0 where all of them are of one class.
    """

    any_head = True

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        p = batch.logits.softmax(dim=1)
        squares = p.square().sum(dim=1)
        apart = squares[:, None] + squares[None] - 2 * p @ p.T
        differ = batch.labels[:, None] != batch.labels[None]
        return (apart * differ).sum() / differ.sum().clamp(min=1)
