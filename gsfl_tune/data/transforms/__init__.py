"""Further changes of training images, one file each."""

from __future__ import annotations

from collections.abc import Sequence

from gsfl_tune.data.transforms._base import Streams, Transform
from gsfl_tune.data.transforms.erasing import RandomErasing
from gsfl_tune.data.transforms.trivial import TrivialAugment
from gsfl_tune.experiment.config import AugmentConfig

__all__ = ["TRANSFORMS", "RandomErasing", "Streams", "Transform", "TrivialAugment", "transforms_of"]

# In the order in which they are applied.
TRANSFORMS: tuple[type[Transform], ...] = (TrivialAugment, RandomErasing)


def transforms_of(config: AugmentConfig, mean: Sequence[float]) -> list[Transform]:
    """Makes the transforms that are switched on.

    Args:
        config: The section ``data.augment``.
        mean: Mean of the three channels that images are normalised with, of values in 0..1.
    """
    made = (kind.of(config, mean) for kind in TRANSFORMS)
    return [each for each in made if each is not None]
