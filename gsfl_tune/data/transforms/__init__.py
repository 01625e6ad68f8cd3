"""Further changes of training images, one file each."""

from __future__ import annotations

from collections.abc import Sequence

from gsfl_tune.data.transforms._base import Streams, Transform
from gsfl_tune.data.transforms.added import added_transform, transform_problem
from gsfl_tune.data.transforms.degrade import Degrade
from gsfl_tune.data.transforms.erasing import RandomErasing
from gsfl_tune.data.transforms.rand import RandAugment
from gsfl_tune.data.transforms.trivial import TrivialAugment
from gsfl_tune.experiment.data_config import AugmentConfig

__all__ = [
    "Degrade",
    "RandAugment",
    "RandomErasing",
    "Streams",
    "Transform",
    "TrivialAugment",
    "added_transform",
    "transform_problem",
    "transforms_of",
]

# In the order in which they are applied; those of packages come last.
_BUILT_IN = (TrivialAugment.of, RandAugment.of, Degrade.of, RandomErasing.of)


def transforms_of(config: AugmentConfig, mean: Sequence[float]) -> list[Transform]:
    """Makes the transforms that are switched on.

    Args:
        config: The section ``data.augment``.
        mean: Mean of the three channels that images are normalised with, of values in 0..1.

    Raises:
        PluginError: If one of a package cannot be had.
    """
    made = [create(config, mean) for create in _BUILT_IN]
    added = config.transforms.model_dump().items()
    return [
        *(each for each in made if each is not None),
        *(added_transform(name, strength, mean) for name, strength in added if strength),
    ]
