"""How well a network finds the annotated parts of test images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.data import Dataset
from gsfl_tune.data.part_boxes import part_names, with_corners
from gsfl_tune.evidence.trained import TrainedModel
from gsfl_tune.training.part_scores import FOUND, boxes_seen, part_overlaps


def parts_report(
    model: TrainedModel, dataset: Dataset, index: NDArray[np.int64]
) -> dict[str, Any] | None:
    """Compares the parts that a network finds with annotations, which it does not see.

    Args:
        model: A network that finds parts.
        dataset: Its data.
        index: (n,) positions of test images.

    Returns:
        Of all parts and of each one (``parts``): ``shown``, how many of them are in the images,
        ``overlap``, their mean intersection over union, and ``found``, the share with at least one
        half. None if no part of these images is known.
    """
    section, side = model.config.training.part_rcnn, dataset.test.side
    names = part_names(dataset.annotations("pool"), whole=section.whole)
    own = dataset.annotations("test").rows(index)
    corners = with_corners(own, side, section.size, whole=section.whole, names=names)
    overlaps = part_overlaps(
        model.part_boxes(index), boxes_seen(corners, side, model.config.eval_image_size)
    )
    if not np.isfinite(overlaps).any():
        return None
    each = [{"part": name} | _scores(overlaps[:, place]) for place, name in enumerate(names)]
    return {"images": len(index), **_scores(overlaps), "parts": each}


def _scores(overlaps: NDArray[np.floating]) -> dict[str, Any]:
    known = overlaps[np.isfinite(overlaps)].astype(np.float64)
    if not len(known):
        return {"shown": 0, "overlap": None, "found": None}
    share = float((known >= FOUND).mean())
    return {"shown": len(known), "overlap": float(known.mean()), "found": share}
