"""TrivialAugment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gsfl_tune.data.transforms._base import Transform
from gsfl_tune.data.transforms.operations import Operations, Ranges, named
from gsfl_tune.experiment.data_config import AugmentConfig

_BINS = 31
# The "wide" space. Translations are shares of 224 pixels, as published numbers are pixels of
# ImageNet's crops.
_WIDE = Ranges(shear=0.99, shift=32 / 224, angle=135.0, factor=0.99, bits=6)


class TrivialAugment(Transform):
    """Applies one operation, drawn evenly of 14, at a strength that is drawn evenly of 31.

    Source: Mueller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
    Augmentation", ICCV 2021, wide space.

    Args:
        fill: Mean of the three channels, of values in 0..255.
    """

    name = "trivial"
    width = 3

    def __init__(self, fill: Sequence[float]) -> None:
        self._operations = Operations(_WIDE, fill)

    @classmethod
    def of(cls, config: AugmentConfig, mean: Sequence[float]) -> TrivialAugment | None:
        """Makes it of ``data.augment.policy``."""
        return cls([255 * value for value in mean]) if config.policy == "trivial" else None

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images one by one."""
        changed = []
        for image, row in zip(images, drawn.tolist(), strict=True):
            name, strength, sign = _decoded(row)
            changed.append(self._operations.apply(image, name, sign * strength))
        return torch.stack(changed)

    def matrices(self, drawn: Tensor, size: int) -> Tensor:
        """Tells where points go."""
        found = []
        for row in drawn.tolist():
            name, strength, sign = _decoded(row)
            found.append(self._operations.matrix(name, sign * strength, size))
        return torch.stack(found) if found else torch.empty(0, 2, 3)


def _decoded(row: Sequence[float]) -> tuple[str, float, float]:
    """Returns the operation, its strength 0..1, and its sign."""
    which, how, sign = row
    strength = min(_BINS - 1, int(how * _BINS)) / (_BINS - 1)
    return named(which), strength, 1.0 if sign < 0.5 else -1.0
