"""Preprocessing of an image for the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gsfl_tune.data.image_file import MAX_PIXELS, Fit, Reading


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
        max_pixels: Width times height above which a file is refused.
        truncated: Whether a file with a missing end is read as far as possible.
    """

    image_size: int
    side: int
    fit: Fit
    mean: list[float]
    std: list[float]
    value_range: tuple[float, float] | None = None
    float_range: tuple[float, float] | None = None
    max_pixels: int = MAX_PIXELS
    truncated: bool = False

    @property
    def reading(self) -> Reading:
        """Returns how files are read."""
        ranges = _pair(self.value_range), _pair(self.float_range)
        return Reading(*ranges, self.max_pixels, self.truncated)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; without defaults of keys that earlier versions refuse."""
        content = asdict(self)
        for name, usual in (("max_pixels", MAX_PIXELS), ("truncated", False)):
            if content[name] == usual:
                del content[name]
        return content


def _pair(limits: Sequence[float] | None) -> tuple[float, float] | None:
    """Converts a list from JSON, which has no tuples, to a pair."""
    return None if limits is None else (limits[0], limits[1])
