"""Centre loss for any head.

Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV
2016. The term is twice theirs, as in GSFL, so that weights are comparable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes, squared
from gsfl_tune.losses.centers import ClassCenters


class Center(LossTerm):
    """Computes |d - c_y|^2 of the discriminative part and the centre of its class.

    Args:
        rate: Rate of the update c_k -= rate * sum(c_k - d_i) / (1 + n_k), after every optimiser
            step.
    """

    any_head = True
    centers: ClassCenters

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def build(self, sizes: Sizes) -> None:
        """Makes the centres, all at zero."""
        alone = torch.zeros(sizes.class_count, dtype=torch.int64)
        self.centers = ClassCenters(alone, sizes.latent_dim)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term, and stores the sums for the update."""
        if self.training:
            self.centers.accumulate(batch.discriminative, batch.labels)
        return squared(batch.discriminative, self.centers.centers[batch.labels])

    def sums(self) -> list[Tensor]:
        """Returns the sums over the batches since the last step."""
        return [self.centers.pending_sum, self.centers.pending_count]

    def after_step(self) -> None:
        """Moves the centres."""
        self.centers.step(self.rate)
