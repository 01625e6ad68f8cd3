"""Feature alignment: an image and a copy in other surroundings shall have the same features.

Source: Peng et al., "Learning Invariant Representation via Contrastive Feature Alignment for
Clutter Robust SAR Target Recognition" (CFA), arXiv 2304.01747, whose abstract names variants of an
image with other clutter, and a squared distance of features weighted by channel, beside the loss of
classes. The equations here are choices of this project.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes, single_pass
from gsfl_tune.methods.attention import activation, attended_places, class_activation, enlarged

# Random numbers of an image: its partner, and the threshold.
_DRAWS = 2


class FeatureAlignment(Method):
    """Trains on images and on copies in the surroundings of others, whose features shall agree.

    With the discriminative parts d of an image and d' of its copy, and the classifier's weights W_y
    of the image's class, which get no gradient,

        loss = (L(image) + L(copy)) / 2
               + weight * sum over c of |W_yc| (d_c - d'_c)^2 / sum over c of |W_yc|

    The copy keeps the places that the image attends to: where the map of its own pass, enlarged and
    scaled to 0..1, is at least a threshold of U(0.2, 0.5), see `AttentionCrop`. The rest shows
    another image of the batch, and the mean colour at the places that this one attends to. An even
    map keeps the whole image. Terms with a state note the first pass.

    Args:
        weight: Of the distance.
        map: What attention is, as in `AttentionCrop`.
    """

    feature_passes = 2
    head_passes = 2
    reads_maps = True
    needs_images = True
    unmixed = True

    def __init__(self, weight: float, map: Literal["activation", "class"]) -> None:
        super().__init__()
        self.weight = weight
        self.map = map

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of images and copies; in the head stage of features as they are."""
        if passes.maps is None or passes.pool is None or passes.classifier is None:
            return single_pass(batch, passes)
        images, targets = batch.inputs, batch.targets
        maps = passes.maps(images)
        features = passes.pool(maps)
        output = passes.head(features)
        terms = passes.loss(output, features, targets)
        if self.map == "class":
            attention = class_activation(maps, batch.labels, passes)
        else:
            attention = activation(maps)
        copies = self._copies(batch, attention.to(images.dtype), passes)
        features = passes.pool(passes.maps(copies))
        other = passes.head(features)
        terms = terms.blended(passes.loss(other, features, targets, note=False), 0.5)
        apart = channel_distance(
            output.discriminative, other.discriminative, passes.classifier[batch.labels]
        )
        return terms.plus("alignment", self.weight, apart)

    def _copies(self, batch: Batch, attention: Tensor, passes: Passes) -> Tensor:
        """Returns images with the surroundings of others.

        Args:
            batch: The batch.
            attention: (B, h, w) to its images.
            passes: Through the model.
        """
        images = batch.inputs
        drawn = passes.draws(batch.positions, _DRAWS).to(images)
        order = drawn[:, 0].argsort(stable=True)
        large = enlarged(attention, (images.shape[2], images.shape[3]))
        inside = attended_places(large, drawn[:, 1])
        inside = (inside | ~inside.flatten(1).any(1)[:, None, None])[:, None]
        # Normalised images have their mean colour at 0.
        surroundings = (images * ~inside)[order]
        return torch.where(inside, images, surroundings)


def channel_distance(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """Computes the squared distance of features, a mean over images and by weight over channels.

    Args:
        one: (B, H).
        other: (B, H).
        weights: (B, H) of any sign, without gradient: their sizes count.
    """
    # Of half precision under autocast.
    one, other = (each.float() if each.element_size() < 4 else each for each in (one, other))
    sizes = weights.detach().to(one.dtype).abs()
    shares = sizes / sizes.sum(dim=1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)
    return (shares * (one - other).square()).sum(dim=1).mean()
