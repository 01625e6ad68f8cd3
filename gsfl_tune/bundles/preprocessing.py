"""Preprocessing of an image for the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsfl_tune.data.image_file import Fit, Reading


@dataclass(frozen=True)
class Preprocessing:
    """Describes the steps from an image to the input of the backbone.

    Attributes:
        image_size: Side of the centre crop in pixels.
        side: Side of the square that an image is first made into.
        fit: How the square is made: crop, pad or squash.
        mean: Mean of each channel, for values in 0..1.
        std: Standard deviation of each channel.
        value_range: Values of deep grey images that become black and white; None: by their type.
        float_range: The same, only for images whose type does not define it.
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
        """Returns how files are read."""
        return Reading(_pair(self.value_range), _pair(self.float_range))


def _pair(limits: Sequence[float] | None) -> tuple[float, float] | None:
    """Converts a list from JSON, which has no tuples, to a pair."""
    return None if limits is None else (limits[0], limits[1])
