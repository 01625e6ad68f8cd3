"""The operations of changing images in every step, as a part of the cost of an epoch."""

from __future__ import annotations

import math

from gsfl_tune.data.transforms.restorer import restorer_parameters
from gsfl_tune.experiment.config import Config

# For each pixel of an image, in operations that take as long as those of a matrix product: found
# with one core at 160 and 224 px. Crop and flip are a part of every step.
_COLOUR = 300.0
_OPERATION = 1500.0
_DEGRADE = 3500.0
_FOURIER = 4000.0
_ADAIN = 2500.0


def changes_work(config: Config, size: int) -> float:
    """Returns the operations of changing one image in the finetune stage, where it sees images.

    Transforms of packages are not known, and count nothing.

    Args:
        config: The configuration.
        size: Side of the image in pixels.
    """
    augment, stage = config.data.augment, config.training.finetune
    operations = {"none": 0, "trivial": 1, "rand": augment.rand_operations}[augment.policy]
    each = _COLOUR * (augment.color > 0) + _OPERATION * operations
    each += _DEGRADE * augment.degrade + _FOURIER * stage.fourier + _ADAIN * stage.adain
    return size * size * (each + augment.degrade * restorer_work(config))


def restorer_work(config: Config) -> float:
    """Returns the operations of a restorer for each pixel of an image that it restores."""
    augment = config.data.augment
    if not augment.degrade or augment.restorer is None:
        return 0.0
    # Mean of the squared factor, which is drawn evenly on a logarithmic scale from 1 to 1/4.
    seen = (1 - 1 / 16) / math.log(16)
    return 2 * seen * restorer_parameters(augment.restorer)
