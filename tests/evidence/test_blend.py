"""A map over grey."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

from gsfl_tune.evidence.blend import COLOURS, blend


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB values within 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def test_colour_comes_from_the_map_alone():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    image[:, :10] = (220, 10, 20)  # a red flower does not look hot
    none = blend(image, np.zeros((20, 20)))
    assert (none == none[..., :1]).all()
    heat = np.tile(np.linspace(0, 1, 20), (20, 1))
    red, green, blue = blend(np.full((20, 20, 3), 128, np.uint8), heat)[0].astype(int).T
    assert red[-1] > blue[-1] + 40
    assert green[-1] > blue[-1]


def test_equal_steps_of_a_map_look_equal():
    """The scale rises in lightness all the way, by similar steps, unlike a rainbow."""
    steps = np.diff(lightness(colormaps[COLOURS](np.linspace(0, 1, 11))[:, :3]))
    assert steps.min() > 0
    assert steps.max() / steps.min() < 2
    rainbow = np.diff(lightness(colormaps["turbo"](np.linspace(0, 1, 11))[:, :3]))
    assert rainbow.min() < 0
