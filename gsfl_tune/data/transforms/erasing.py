"""Random erasing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gsfl_tune.data.transforms._base import Transform
from gsfl_tune.experiment.data_config import AugmentConfig

_AREA = (0.02, 0.33)
_RATIO = 3.3


class RandomErasing(Transform):
    """Replaces a rectangle of an image by the mean colour.

    Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020; its ranges of area and
    aspect. A rectangle that would be longer than the image ends with it.

    Args:
        probability: Share of the images that are changed.
        fill: Mean of the three channels, of values in 0..255.
    """

    name = "erasing"
    width = 5

    def __init__(self, probability: float, fill: Sequence[float]) -> None:
        self.probability = probability
        self._fill = torch.tensor(fill)

    @classmethod
    def of(cls, config: AugmentConfig, mean: Sequence[float]) -> RandomErasing | None:
        """Makes it of ``data.augment.erasing``."""
        fill = [255 * value for value in mean]
        return cls(config.erasing, fill) if config.erasing > 0 else None

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Erases in place."""
        height, width = images.shape[1:3]
        fill = self._fill.to(images.device)
        for image, (chance, area, aspect, left, top) in zip(images, drawn.tolist(), strict=True):
            if chance >= self.probability:
                continue
            pixels = (_AREA[0] + (_AREA[1] - _AREA[0]) * area) * height * width
            ratio = math.exp((2 * aspect - 1) * math.log(_RATIO))
            h = min(height, max(1, round(math.sqrt(pixels * ratio))))
            w = min(width, max(1, round(math.sqrt(pixels / ratio))))
            y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
            image[y : y + h, x : x + w] = fill
        return images
