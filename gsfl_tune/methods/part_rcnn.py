"""Parts: a detector learns annotated parts, and their features are joined to the global one.

Source: Zhang et al., "Part-based R-CNNs for Fine-grained Category Detection", ECCV 2014. See
`gsfl_tune.models.PartDetector` for what differs.
"""

from __future__ import annotations

import torch

from gsfl_tune.data import Annotations, Batch
from gsfl_tune.data.part_boxes import boxes_of, with_corners
from gsfl_tune.losses import LossTerms
from gsfl_tune.losses.parts import part_errors
from gsfl_tune.methods._base import Method, Passes, single_pass
from gsfl_tune.models import Detections, PartSettings


class PartRcnn(Method):
    """Trains on joint features, and a detector on the boxes of parts.

    With f' as the joint feature and the errors of `gsfl_tune.losses.parts.part_errors`,

        loss = L(f') + weight * (place + overlap + presence)

    Annotations are read in training alone. The backbone learns from both losses.

    Args:
        weight: Of the detector's loss.
        size: Side of the box around a point, as a share of the object's.
        width: Channels of the detector and of the features of a part.
        whole: Whether the box of the object is a part too.
    """

    reads_maps = True
    annotated = True
    unblended = True

    def __init__(self, weight: float, size: float, width: int, whole: bool) -> None:
        super().__init__()
        self.weight = weight
        self.size = size
        self.width = width
        self.whole = whole

    def detector(self, count: int, dim: int) -> PartSettings:
        """Returns the sizes of the detector."""
        return PartSettings(count, dim, self.width)

    def prepared(self, annotations: Annotations, side: int) -> Annotations:
        """Makes boxes of the points, before views move them."""
        return with_corners(annotations, side, self.size, whole=self.whole)

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of images and of their parts; in the head stage of features."""
        if passes.maps is None or passes.parts is None:
            return single_pass(batch, passes)
        features, found = passes.parts(passes.maps(batch.inputs))
        terms = passes.loss(passes.head(features), features, batch.targets)
        boxes, seen = _targets(batch, found)
        place, overlap, presence = part_errors(
            found.scores, found.boxes, found.presence, boxes, seen
        )
        terms = terms.plus("part_place", self.weight, place)
        terms = terms.plus("part_overlap", self.weight, overlap)
        return terms.plus("part_presence", self.weight, presence)


def _targets(batch: Batch, found: Detections) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns boxes (B, P, 4) and whether they are seen (B, P), where the detections are."""
    like = found.boxes
    if batch.annotations is None or batch.side is None:
        # Inputs that are not images, to test the memory: nothing is known.
        return torch.zeros_like(like), torch.full_like(like[..., 0], torch.nan)
    known = boxes_of(batch.annotations[0], batch.side)
    boxes, seen = (torch.from_numpy(each) for each in (known.boxes, known.seen))
    return boxes.to(like), seen.to(like)
