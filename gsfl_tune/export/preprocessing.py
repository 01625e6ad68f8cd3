"""What happens to an image before the network sees it."""

from __future__ import annotations

from dataclasses import dataclass

from gsfl_tune.data.single import Fit


@dataclass(frozen=True)
class Preprocessing:
    """From an image to what the backbone sees.

    Attributes:
        image_size: Side of the centre crop in pixels.
        side: Side of the square that an image is made first.
        fit: How: crop, pad or squash.
        mean: Of each channel, of values in 0..1.
        std: Of each channel.
    """

    image_size: int
    side: int
    fit: Fit
    mean: list[float]
    std: list[float]
