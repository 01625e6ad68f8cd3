"""Grad-CAM of both parts: maps of shown test images, and their correlation on a sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gsfl_tune.data import Dataset
from gsfl_tune.evidence.gradcam import (
    activation_maps,
    class_score,
    enlarged,
    group_directions,
    overlap,
    shared_score,
)
from gsfl_tune.evidence.pictures import Picture, choose_for_gradcam, gradcam_picture
from gsfl_tune.evidence.trained import TrainedModel, spread_index

# Images on which the two parts are compared.
MOST_IMAGES = 96
_SIDE = 96

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Cams:
    """Holds the maps of shown images, and the similarity of both parts' maps on a sample.

    Attributes:
        chosen: (P,) positions of the test images that are shown.
        labels: (P,) their classes.
        predicted: (P,) predicted classes.
        heats: For each part (P, side, side); the shared part comes second, if there is one.
        overlaps: Correlation of the two parts' maps for each image of the sample.
        sampled: Images of the sample.
        image_size: Side of the network's input.
    """

    chosen: Positions
    labels: Positions
    predicted: Positions
    heats: list[NDArray[np.float32]]
    overlaps: NDArray[np.float64]
    sampled: int
    image_size: int

    def numbers(self) -> dict[str, Any] | None:
        """Returns ``images`` and ``overlap`` of the two parts; None if there is one part."""
        if not len(self.overlaps):
            return None
        std = float(self.overlaps.std(ddof=1)) if len(self.overlaps) > 1 else 0.0
        mean = float(self.overlaps.mean())
        return {"images": self.sampled, "overlap": {"mean": mean, "std": std}}

    def pictures(self, folder: Path, dataset: Dataset) -> list[Picture]:
        """Draws one picture per image."""
        squares = dataset.test.gather(self.chosen)
        rows = zip(self.chosen.tolist(), self.labels, self.predicted, squares, strict=True)
        return [
            gradcam_picture(
                folder,
                place + 1,
                square,
                self.image_size,
                [heat[place] for heat in self.heats],
                true=dataset.classes[label],
                predicted=dataset.classes[said],
                further={"image": image, "label": int(label), "predicted": int(said)},
            )
            for place, (image, label, said, square) in enumerate(rows)
        ]


def look(
    model: TrainedModel,
    logits: NDArray[np.floating],
    labels: Positions,
    *,
    index: Positions,
    shared: NDArray[np.floating] | None,
    groups: Positions | None,
) -> Cams:
    """Computes the maps of the evidence for the predicted class and for its group.

    Args:
        model: One retrained network.
        logits: (N, C) its logits of all test images.
        labels: (N,) their classes.
        index: (M,) positions of test images to draw the sample from.
        shared: (M, H) their shared parts, if the network has them.
        groups: (C,) group of every class.

    Raises:
        NoMaps: If the feature map has one position.
    """
    chosen = choose_for_gradcam(logits, labels)
    sample = index[spread_index(labels[index], MOST_IMAGES)]
    positions = np.concatenate([chosen, sample])
    predicted = logits.argmax(axis=1)
    said = torch.from_numpy(predicted[positions])
    directions: Tensor | None = None
    if shared is not None and groups is not None:
        table = group_directions(shared, groups[labels[index]], int(groups.max()) + 1)
        directions = torch.from_numpy(table[groups[predicted[positions]]])
    parts: list[list[Tensor]] = [[]] if directions is None else [[], []]
    start = 0
    for images in model.images("test", positions):
        rows = slice(start, start + len(images))
        start += len(images)
        scores = [class_score(said[rows].to(images.device))]
        if directions is not None:
            scores.append(shared_score(directions[rows].to(images.device)))
        for part, maps in zip(parts, activation_maps(model.network, images, scores), strict=True):
            part.append(maps.cpu())
    whole = [torch.cat(part) for part in parts]
    count = len(chosen)
    return Cams(
        chosen,
        labels[chosen],
        predicted[chosen],
        [enlarged(maps[:count], _SIDE) for maps in whole],
        overlap(whole[0][count:], whole[1][count:]) if len(whole) == 2 else np.zeros(0),
        len(sample),
        model.config.eval_image_size,
    )
