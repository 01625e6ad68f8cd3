"""Recurrent attention: regions that the network proposes are seen enlarged, scale by scale.

Source: Fu, Zheng and Mei, "Look Closer to See Better: Recurrent Attention Convolutional Neural
Network for Fine-grained Image Recognition", CVPR 2017 (RA-CNN), sections 3.3 and 3.4.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes, single_pass
from gsfl_tune.models import Recurrence, joined


class RecurrentAttentionMethod(Method):
    """Trains on the image and on regions of it, each proposed from the scale before.

    With the unit features f_1, ..., f_n of the scales, their sum of unit length f, and the
    probability p_s of the true class at scale s,

        loss = (L(f) + L(f_1) + ... + L(f_n)) / (n + 1)
               + weight * sum over s of mean(max(0, p_s - p_(s+1) + margin))

    The second line is the paper's rank loss: a finer scale shall be surer than the one before by a
    margin. p_s is a constant in it, a reference for the finer scale: the loss could else be lowered
    by unlearning the coarse one. The paper trains the classification and the proposals in turn,
    with a network for each scale; here one network learns from both at once. f is what predicts,
    and terms with a state note its pass.

    Args:
        scales: Number n of scales, the whole image included.
        weight: Of the rank loss.
        margin: Of probabilities.
        steepness: Of the edges of a region, per pixel.
        width: Channels between the two layers of a proposal.
        start: Where regions start.
    """

    # With the usual number of scales.
    feature_passes = 3
    head_passes = 4
    reads_maps = True
    needs_images = True
    unmixed = True

    def __init__(
        self,
        scales: int,
        weight: float,
        margin: float,
        steepness: float,
        width: int,
        start: Literal["response", "middle"],
    ) -> None:
        super().__init__()
        self.weight = weight
        self.margin = margin
        self.steepness = steepness
        self.recurrence = Recurrence(scales, width, steepness, start)
        self.feature_passes, self.head_passes = scales, scales + 1

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of all scales; in the head stage of features."""
        if passes.maps is None or passes.pool is None or passes.recurrent is None:
            return single_pass(batch, passes)
        targets = batch.targets
        scales = passes.recurrent.scales(batch.inputs, passes.maps, passes.pool)
        joint = joined(scales)
        terms = passes.loss(passes.head(joint), joint, targets)
        probabilities = []
        for seen, features in enumerate(scales, 1):
            output = passes.head(features)
            own = passes.loss(output, features, targets, note=False)
            terms = terms.blended(own, seen / (seen + 1))
            probabilities.append(_true_class(output.logits, batch.labels))
        rank = rank_loss(torch.stack(probabilities), self.margin)
        return terms.plus("rank", self.weight, rank)


def rank_loss(probabilities: Tensor, margin: float) -> Tensor:
    """Computes by how much finer scales are not surer than coarse ones.

    Args:
        probabilities: (S, B) of the true class, the coarsest scale first; of each pair the coarse
            one gets no gradient.
        margin: By which a finer scale shall be surer.

    Returns:
        The sum over neighbouring scales of ``max(0, p_s - p_(s+1) + margin)``, a mean over images.
    """
    coarse, fine = probabilities[:-1].detach(), probabilities[1:]
    return (coarse - fine + margin).clamp(min=0).sum(dim=0).mean()


def _true_class(logits: Tensor, labels: Tensor) -> Tensor:
    # Of half precision under autocast.
    logits = logits.float() if logits.element_size() < 4 else logits
    return logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
