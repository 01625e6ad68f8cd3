"""RandAugment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gsfl_tune.data.transforms._base import Transform
from gsfl_tune.data.transforms.operations import Operations, Ranges, named
from gsfl_tune.experiment.data_config import AugmentConfig

# Those of AutoAugment, from which the paper takes its operations. Translations are shares of 331
# pixels, as published numbers are pixels of its ImageNet crops.
_RANGES = Ranges(shear=0.3, shift=150 / 331, angle=30.0, factor=0.9, bits=4)
_LARGEST = 30


class RandAugment(Transform):
    """Applies several operations one after the other, each drawn evenly of 14, at one strength.

    Source: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search
    Space", NeurIPS 2020; strengths 0 to 30, linear, as torchvision has them.

    Args:
        operations: How many an image.
        magnitude: Strength of all, 0 to 30.
        fill: Mean of the three channels, of values in 0..255.
    """

    name = "rand"

    def __init__(self, operations: int, magnitude: int, fill: Sequence[float]) -> None:
        self.width = 2 * operations
        self._strength = magnitude / _LARGEST
        self._operations = Operations(_RANGES, fill)

    @classmethod
    def of(cls, config: AugmentConfig, mean: Sequence[float]) -> RandAugment | None:
        """Makes it of ``data.augment.policy``."""
        if config.policy != "rand":
            return None
        fill = [255 * value for value in mean]
        return cls(config.rand_operations, config.rand_magnitude, fill)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images one by one."""
        changed = []
        for image, row in zip(images, drawn.tolist(), strict=True):
            for name, strength in self._decoded(row):
                image = self._operations.apply(image, name, strength)
            changed.append(image)
        return torch.stack(changed)

    def matrices(self, drawn: Tensor, size: int) -> Tensor:
        """Tells where points go."""
        found = torch.eye(3).repeat(len(drawn), 1, 1)
        for place, row in enumerate(drawn.tolist()):
            for name, strength in self._decoded(row):
                step = torch.eye(3)
                step[:2] = self._operations.matrix(name, strength, size)
                found[place] = step @ found[place]
        return found[:, :2]

    def _decoded(self, row: Sequence[float]) -> list[tuple[str, float]]:
        """Returns the operations, each with its strength and sign."""
        pairs = zip(row[::2], row[1::2], strict=True)
        return [(named(which), self._strength * (1 if sign < 0.5 else -1)) for which, sign in pairs]
