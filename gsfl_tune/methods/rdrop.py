"""R-Drop: two passes through dropout that shall agree.

Source: Liang et al., "R-Drop: Regularized Dropout for Neural Networks", NeurIPS 2021, equations 1
to 3, halved so that the cross-entropy keeps its size.
"""

from __future__ import annotations

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes
from gsfl_tune.methods.agreement import symmetric_kl


class RDrop(Method):
    """Adds weight * (KL(p || q) + KL(q || p)) / 2 of two passes to their mean loss.

    Dropout is in the head: features are computed once, and pass the head twice with other masks.
    Without dropout the passes are equal, and the term is 0.

    Args:
        weight: Of the disagreement; the paper's alpha / 2, as its loss is twice the mean of ours.
    """

    head_passes = 2

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of both passes."""
        features = passes.features(batch.inputs)
        outputs = passes.head(features), passes.head(features)
        first = passes.loss(outputs[0], features, batch.targets)
        second = passes.loss(outputs[1], features, batch.targets, note=False)
        apart = symmetric_kl(outputs[0].logits, outputs[1].logits)
        return first.blended(second, 0.5).plus("disagreement", self.weight, apart)
