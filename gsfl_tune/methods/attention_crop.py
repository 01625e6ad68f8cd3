"""Second looks at an image by the network's own attention: the region enlarged, and left out.

Sources: Hu et al., "See Better Before Looking Closer: Weakly Supervised Data Augmentation Network
for Fine-Grained Visual Classification", arXiv 1901.09891 (WS-DAN), equations 4 to 8; its
thresholds and padding as in Rao et al., "Counterfactual Attention Learning for Fine-Grained Visual
Categorization and Re-identification", ICCV 2021.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes, single_pass
from gsfl_tune.methods.attention import (
    activation,
    attended_crop,
    attended_drop,
    class_activation,
    enlarged,
)


class AttentionCrop(Method):
    """Trains on the image, on the region that it attends to, and on what is left without it.

    The attention A of an image comes from the map of its own pass, enlarged to the image and scaled
    to 0..1. With thresholds a from U(0.4, 0.6) and b from U(0.2, 0.5), drawn for each image,

    - the crop is the rectangle around {A >= a}, padded by a tenth of the side, enlarged to the
      whole size;
    - the drop is the image with {A >= b} in the mean colour.

    The loss is ``(L(image) + crop * L(crop) + drop * L(drop)) / (1 + crop + drop)``; a pass of
    weight 0 is not taken. Terms with a state note the first pass. WS-DAN learns several attention
    maps with a layer of its own and takes one of them at random; here the map is that of the
    backbone, so that the model is the same and prediction is that of one pass.

    Args:
        crop: Weight of the loss of the crop.
        drop: Weight of the loss of the drop.
        map: ``activation``, the mean absolute activation over the channels; or ``class``, how much
            a position adds to the score of the image's class.
    """

    # Of one with both.
    feature_passes = 3
    head_passes = 3
    reads_maps = True
    needs_images = True
    unmixed = True

    def __init__(self, crop: float, drop: float, map: Literal["activation", "class"]) -> None:
        super().__init__()
        self.crop = crop
        self.drop = drop
        self.map = map
        self.feature_passes = self.head_passes = 1 + (crop > 0) + (drop > 0)

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the mean loss of the passes; in the head stage of a single one."""
        if passes.maps is None or passes.pool is None:
            return single_pass(batch, passes)
        images, targets = batch.inputs, batch.targets
        maps = passes.maps(images)
        features = passes.pool(maps)
        terms = passes.loss(passes.head(features), features, targets)
        if self.map == "class":
            attention = class_activation(maps, batch.labels, passes)
        else:
            attention = activation(maps)
        attention = enlarged(attention.to(images.dtype), (images.shape[2], images.shape[3]))
        seen = 1.0
        for weight, changed in self._changed(batch, attention, passes):
            features = passes.pool(passes.maps(changed))
            own = passes.loss(passes.head(features), features, targets, note=False)
            terms = terms.blended(own, seen / (seen + weight))
            seen += weight
        return terms

    def _changed(
        self, batch: Batch, attention: Tensor, passes: Passes
    ) -> list[tuple[float, Tensor]]:
        """Returns weights and images of the further passes."""
        images = batch.inputs
        drawn = passes.draws(batch.positions, 2).to(images)
        found = []
        if self.crop > 0:
            found.append((self.crop, attended_crop(images, attention, drawn[:, 0])))
        if self.drop > 0:
            found.append((self.drop, attended_drop(images, attention, drawn[:, 1])))
        return found
