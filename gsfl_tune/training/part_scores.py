"""How well a network finds the annotated parts of images that it has not learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data import Annotations
from gsfl_tune.data.augment import center_matrix
from gsfl_tune.data.part_boxes import PartBoxes, boxes_of
from gsfl_tune.models import PartDetector
from gsfl_tune.training.process_group import Ranks

# A part is found where both boxes share at least half of what they cover together (PCP of Zhang et
# al., ECCV 2014; Everingham et al., IJCV 2010).
FOUND = 0.5


class PartScores:
    """Compares detected with annotated boxes of un-augmented images.

    Args:
        annotations: Of `gsfl_tune.methods.Method.prepared`, of all images of the pool.
        side: Side of their squares in pixels.
        size: Side of the images that the network sees, in pixels.
    """

    def __init__(self, annotations: Annotations, side: int, size: int) -> None:
        self._boxes = boxes_seen(annotations, side, size)
        # Overlaps, parts found, parts.
        self._sums = torch.zeros(3)

    @contextmanager
    def watching(self, detector: PartDetector, index: np.ndarray) -> Iterator[None]:
        """Scores what is found while a block passes images through the network.

        Args:
            detector: Of that network.
            index: (N,) positions of these images in the pool, in order.
        """
        with detector.noting() as noted:
            yield
        found = torch.cat([each.boxes for each in noted]).float().cpu().numpy()
        own = PartBoxes(self._boxes.boxes[index], self._boxes.seen[index])
        overlaps = part_overlaps(found, own)
        sums = np.nansum(overlaps), (overlaps >= FOUND).sum(), np.isfinite(overlaps).sum()
        self._sums = torch.tensor([float(each) for each in sums])

    def numbers(self, ranks: Ranks | None = None) -> dict[str, float]:
        """Returns the scores of the last block, over the images of all ranks.

        Returns:
            ``part_overlap``, the mean intersection over union of all parts that are in the images,
            and ``parts_found``, the share of those in which it is at least one half; nothing
            without such parts.
        """
        sums: Tensor = self._sums.clone()
        if ranks is not None:
            ranks.add_up([sums])
        overlap, found, count = sums.tolist()
        if not count:
            return {}
        return {"part_overlap": overlap / count, "parts_found": found / count}


def watching_parts(
    scores: PartScores | None, detector: PartDetector | None, part: str, index: np.ndarray
) -> AbstractContextManager[None]:
    """Scores what is found in images of the pool while a block passes them through a network.

    Args:
        scores: None without annotations.
        detector: Of the network; None if it has none.
        part: ``pool`` or ``test``, whose annotations no training reads.
        index: (N,) positions of the images.
    """
    if scores is None or detector is None or part != "pool":
        return nullcontext()
    return scores.watching(detector, index)


def boxes_seen(annotations: Annotations, side: int, size: int) -> PartBoxes:
    """Returns the boxes of parts in un-augmented images.

    Args:
        annotations: Of `gsfl_tune.methods.Method.prepared`.
        side: Side of their squares in pixels.
        size: Side of the images that the network sees, in pixels.
    """
    matrix = center_matrix(size, side).numpy()
    moved = annotations.moved(np.broadcast_to(matrix, (len(annotations), 2, 3)))
    return boxes_of(moved, size)


def part_overlaps(found: np.ndarray, boxes: PartBoxes) -> np.ndarray:
    """Returns the intersection over union of detected and annotated boxes.

    Args:
        found: (N, P, 4).
        boxes: Of the same images.

    Returns:
        (N, P), NaN where a part is not in the image or not known.
    """
    return np.where(boxes.seen == 1, _overlap(found.clip(0, 1), boxes.boxes), np.nan)


def _overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of boxes (..., 4)."""
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    common = (high - low).clip(0).prod(-1)
    both = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1)
    return np.asarray(common / np.maximum(both - common, 1e-12))
