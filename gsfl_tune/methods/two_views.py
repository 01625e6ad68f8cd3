"""Two augmented views of every image, whose predictions shall agree.

Source: Sajjadi et al., "Regularization With Stochastic Transformations and Perturbations for Deep
Semi-Supervised Learning", NeurIPS 2016, with the divergence of R-Drop (Liang et al., NeurIPS 2021)
in place of their squared difference.
"""

from __future__ import annotations

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes
from gsfl_tune.methods.agreement import symmetric_kl


class TwoViews(Method):
    """Adds weight * (KL(p || q) + KL(q || p)) / 2 of two views to their mean loss.

    A step costs twice that of one view. At weight 0 it is training on repeated augmentations
    (Hoffer et al., "Augment Your Batch", CVPR 2020).

    Args:
        weight: Of the disagreement.
    """

    views = 2
    head_passes = 2

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of both views, one after the other."""
        features = [passes.features(view) for view in batch.views]
        outputs = [passes.head(each) for each in features]
        first, second = (
            # A term that remembers images would count each of them twice.
            passes.loss(output, each, batch.targets, note=place == 0)
            for place, (output, each) in enumerate(zip(outputs, features, strict=True))
        )
        apart = symmetric_kl(outputs[0].logits, outputs[1].logits)
        return first.blended(second, 0.5).plus("disagreement", self.weight, apart)
