"""What a bundle's network sees of an image: as its input, and as a picture for people."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.data import square_side
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.image_file import load_square

# Small inputs are enlarged: a picture of 96 pixels shows little.
LEAST_SIDE = 448


def network_input(square: np.ndarray, how: Preprocessing, device: torch.device) -> Tensor:
    """Returns the normalised input (1, 3, size, size) of a square (side, side, 3) uint8."""
    pixels = torch.from_numpy(square)[None].to(device)
    return center_crop(pixels, how.image_size, how.mean, how.std)


def seen_part(
    source: str | os.PathLike[str] | bytes,
    how: Preprocessing,
    *,
    formats: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Reads the part of an image that the network sees, at least `LEAST_SIDE` pixels wide.

    Args:
        source: A path, or the content of a file.
        how: The bundle's preprocessing.
        formats: Names of allowed Pillow formats; default: all.
        max_pixels: Largest width times height; default: that of the preprocessing.

    Returns:
        RGB, square.

    Raises:
        Exception: As `load_square`.
    """
    size = how.image_size * max(1, math.ceil(LEAST_SIDE / how.image_size))
    side = square_side(size)
    reading = how.reading
    if max_pixels is not None:
        reading = replace(reading, max_pixels=max_pixels)
    square = load_square(source, side, how.fit, reading=reading, formats=formats)[0]
    start = (side - size) // 2
    return Image.fromarray(square[start : start + size, start : start + size])
