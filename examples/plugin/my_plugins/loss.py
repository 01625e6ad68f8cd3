"""A term that keeps the shared part out of the discriminative one."""

from torch import Tensor

from gsfl_tune.losses import LossInput, LossTerm


class Decorrelation(LossTerm):
    """Mean squared correlation between the dimensions of s and those of d, over the batch."""

    def forward(self, batch: LossInput) -> Tensor:
        """The term before weighting, between 0 and 1."""
        s, d = _standardised(batch.shared), _standardised(batch.discriminative)
        correlations = s.T @ d / len(s)
        return correlations.square().mean()


def _standardised(part: Tensor) -> Tensor:
    centred = part - part.mean(dim=0)
    # A dimension that does not vary has no correlation, and no slope.
    return centred / (centred.square().mean(dim=0) + 1e-6).sqrt()
