"""Drawing of a map over its image: a perceptually even colour map over grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# matplotlib's inferno is even in lightness: equal steps of a map look like equal steps. A rainbow
# (jet, turbo) has bright bands where nothing happens.
COLOURS = "inferno"
_OPACITY = 0.75
# Luma of ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


def blend(image: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draws a map over the grey copy of an image: colour comes from the map alone.

    Args:
        image: (H, W, 3) RGB.
        heat: (H, W) in 0..1; other values are cut off. Pixels at 0 stay grey.

    Returns:
        (H, W, 3) RGB.
    """
    from matplotlib import colormaps

    strength = np.clip(np.asarray(heat, dtype=np.float64), 0, 1)
    colour = 255 * colormaps[COLOURS](strength)[..., :3]
    grey = image.astype(np.float64) @ _LUMA
    # The root lets small values show; a map without values leaves the grey image.
    weight = _OPACITY * np.sqrt(strength)[..., None]
    mixed = (1 - weight) * grey[..., None] + weight * colour
    return np.asarray(mixed.round().astype(np.uint8))
