"""Progressive resizing: images of the finetune stage grow from epoch to epoch.

Source: Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", ICML 2021, section 4,
whose sizes grow by equal amounts. (It also makes augmentation stronger as images grow; here that is
as the configuration says.)
"""

from __future__ import annotations

import math
from functools import lru_cache

from gsfl_tune.experiment.config import Config
from gsfl_tune.models import map_shape, probe, stream_names

# The smallest that data.image_size may be.
_LEAST = 16


def training_sizes(config: Config) -> tuple[int, ...]:
    """Returns the side of training images in every epoch of the finetune stage, in pixels.

    Raises:
        BackboneError: If the backbone cannot be built.
    """
    stage = config.training.finetune
    return growing_sizes(
        config.model.extractor, stage.start_size, config.data.image_size, stage.epochs
    )


def growing_sizes(backbone: str, start: float, whole: int, epochs: int) -> tuple[int, ...]:
    """Returns sides of images, in pixels, that grow to a whole one.

    With E epochs, a share s and the whole side S it is ``S (s + (1 - s) e / (E - 1))`` in epoch e,
    counted from 0, rounded to S less a multiple of `size_step`. The last epoch has S.

    Args:
        backbone: Name of a timm model.
        start: s, of the first epoch.
        whole: S.
        epochs: E; a single epoch has S.

    Raises:
        BackboneError: If the backbone cannot be built.
    """
    if start == 1:
        return (whole,) * epochs
    step = size_step(backbone)
    found = []
    for epoch in range(epochs):
        done = epoch / (epochs - 1) if epochs > 1 else 1.0
        less = whole * (1 - start) * (1 - done)
        most = max(0, (whole - _LEAST) // step)
        found.append(whole - step * min(most, round(less / step)))
    return tuple(found)


@lru_cache(maxsize=64)
def size_step(backbone: str) -> int:
    """Returns by how many pixels sizes of a backbone may differ: those of one position of its map.

    A transformer takes images that its patches divide; a convolutional network takes any, but uses
    what lies beyond a multiple for a position of little content.

    Raises:
        BackboneError: If the backbone cannot be built.
    """
    side = probe(backbone).input_size
    steps = (max(1, round(side / map_shape(each, side)[1])) for each in stream_names(backbone))
    return math.lcm(*steps)
