"""The operations of changing images in every step, as a part of the cost of an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gsfl_tune.data.transforms.restorer import restorer_parameters
from gsfl_tune.experiment.config import Config
from gsfl_tune.methods import Method

# For each pixel of an image, in operations that take as long as those of a matrix product: found
# with one core at 160 and 224 px. `benchmarks/changes.py` measures them; on a machine with much
# other work it found three to six times as much. Crop and flip are a part of every step.
COLOUR = 300.0
OPERATION = 1500.0
DEGRADE = 3500.0
FOURIER = 4000.0
ADAIN = 2500.0


def changes_work(config: Config, method: Method, sizes: Sequence[int]) -> float:
    """Returns the operations of changing the images of a step, divided by its labelled ones.

    Images without labels count too. Transforms of packages are not known, and count nothing.

    Args:
        config: The configuration, of a finetune stage that sees images.
        method: Its method.
        sizes: Side of labelled images in each epoch, in pixels.
    """
    augment, stage = config.data.augment, config.training.finetune
    operations = {"none": 0, "trivial": 1, "rand": augment.rand_operations}[augment.policy]
    changed = COLOUR * (augment.color > 0) + OPERATION * operations
    changed += DEGRADE * augment.degrade + augment.degrade * restorer_work(config)
    # Between labelled images alone.
    swapped = FOURIER * stage.fourier + ADAIN * stage.adain
    labelled = swapped + (0.0 if method.weak_labelled else changed)
    pixels = math.fsum(side * side for side in sizes) / len(sizes)
    # Images without labels: one of their two views is changed, and they are always full size.
    strong = method.unlabelled * config.data.image_size**2
    return method.views * labelled * pixels + strong * changed


def restorer_work(config: Config) -> float:
    """Returns the operations of a restorer for each pixel of an image that it restores."""
    augment = config.data.augment
    if not augment.degrade or augment.restorer is None:
        return 0.0
    # Mean of the squared factor, which is drawn evenly on a logarithmic scale from 1 to 1/4.
    seen = (1 - 1 / 16) / math.log(16)
    return 2 * seen * restorer_parameters(augment.restorer)
