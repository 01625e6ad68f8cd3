"""How well a detector finds parts: where they are, how large, and whether they are there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

PARTS = "parts"
"""Name of parts in `Sizes.extras`."""


def part_errors(
    scores: Tensor, found: Tensor, presence: Tensor, boxes: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the losses of a detector that gives every part one box.

    - Place: the cross-entropy between the detector's distribution over the positions of the map and
      the one with the centre of the part as its mean: bilinear weights of the four positions around
      it. In one dimension that is the distribution focal loss of Li et al., "Generalized Focal
      Loss", NeurIPS 2020, equation 6, without its factor (there is one object to find).
    - Overlap: 1 - GIoU of both boxes (Rezatofighi et al., CVPR 2019).
    - Presence: the binary cross-entropy of being in the view.

    Unknown parts have no loss, those that are not in the view that of presence alone. Each is a
    mean over the parts of an image, then over images: none counts more as it shows more parts.

    Args:
        scores: (B, P, h, w) of positions, before the softmax.
        found: (B, P, 4) left, top, right, bottom, as shares of the sides.
        presence: (B, P), before the sigmoid.
        boxes: (B, P, 4) true boxes, inside the view.
        seen: (B, P) 1 where a part is in the view, 0 where it is not, NaN where nobody knows.

    Returns:
        Scalars.
    """
    known, shown = torch.isfinite(seen), seen == 1
    wanted = place_weights((boxes[..., :2] + boxes[..., 2:]) / 2, scores.shape[2:])
    place = -(wanted * scores.flatten(2).log_softmax(dim=2)).sum(dim=2)
    # Overlap is defined for boxes with an area alone; others do not count.
    whole = torch.cat([torch.zeros_like(boxes[..., :2]), torch.ones_like(boxes[..., :2])], dim=2)
    overlap = generalized_box_iou_loss(found, torch.where(shown[..., None], boxes, whole))
    there = functional.binary_cross_entropy_with_logits(
        presence, shown.to(presence.dtype), reduction="none"
    )
    return _mean(place, shown), _mean(overlap, shown), _mean(there, known)


def place_weights(centres: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Returns the distribution over the positions of a map whose mean is a point.

    Centres that are nearer to an edge than the outermost positions have these alone.

    Args:
        centres: (..., 2) x and y as shares of the sides.
        size: h and w of the map.

    Returns:
        (..., h w), bilinear weights of the positions around the point; they sum to 1.
    """
    height, width = size
    across, down = (_hat(centres[..., axis], count) for axis, count in enumerate((width, height)))
    return (down[..., :, None] * across[..., None, :]).flatten(-2)


def _hat(places: Tensor, count: int) -> Tensor:
    """Returns weights (..., count) of positions around places, which are shares of a side."""
    positions = torch.arange(count, dtype=places.dtype, device=places.device)
    at = (places * count - 0.5).clamp(0, count - 1)
    return (1 - (at[..., None] - positions).abs()).clamp(min=0)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Returns the mean over the counted parts of an image, then over images (B, P)."""
    kept = torch.where(counted, values, torch.zeros_like(values)).sum(dim=1)
    return (kept / counted.sum(dim=1).clamp(min=1)).mean()
