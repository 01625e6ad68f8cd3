"""What happens to an image before the network sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsfl_tune.data.image_file import Fit, Reading


@dataclass(frozen=True)
class Preprocessing:
    """From an image to what the backbone sees.

    Attributes:
        image_size: Side of the centre crop in pixels.
        side: Side of the square that an image is made first.
        fit: How: crop, pad or squash.
        mean: Of each channel, of values in 0..1.
        std: Of each channel.
        value_range: Values of deep grey images that become black and white; None: by their type.
        float_range: The same for those alone whose type does not say it.
    """

    image_size: int
    side: int
    fit: Fit
    mean: list[float]
    std: list[float]
    value_range: tuple[float, float] | None = None
    float_range: tuple[float, float] | None = None

    @property
    def reading(self) -> Reading:
        """How files are read."""
        return Reading(_pair(self.value_range), _pair(self.float_range))


def _pair(limits: Sequence[float] | None) -> tuple[float, float] | None:
    """JSON knows lists alone."""
    return None if limits is None else (limits[0], limits[1])
