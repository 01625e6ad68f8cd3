"""Random numbers of single images, which do not depend on the batch that they are in."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor


def image_draws(seed: int, name: str, positions: Tensor, width: int) -> Tensor:
    """Draws random numbers for images.

    Those of an image are a function of seed, name and its position alone. So a batch may be trained
    in pieces or by several processes. They are of a counter-based generator: Philox of Salmon et
    al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.

    Args:
        seed: Of the epoch.
        name: Of what draws them; others have other numbers.
        positions: (B,) positions of the images in their part.
        width: Numbers of each image.

    Returns:
        (B, width) float32 on the CPU, uniform in 0..1 without 1.
    """
    (key,) = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)
    rows = np.empty((len(positions), width), dtype=np.float32)
    for row, position in zip(rows, positions.tolist(), strict=True):
        generator = np.random.Generator(np.random.Philox(key=[int(key), position]))
        row[:] = generator.random(width, dtype=np.float32)
    return torch.from_numpy(rows)
