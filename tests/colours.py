"""Photographs, so to speak, of four colours: easy to tell apart for whoever was trained to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "amber": (150, 110, 70),
    "brick": (140, 90, 80),
    "moss": (110, 120, 80),
    "slate": (100, 110, 120),
}


def write_colours(root: Path, side: int, **parts: int) -> None:
    """Writes ``ROOT/PART/COLOUR/N.png``.

    Args:
        root: A new folder.
        side: Pixels of an image.
        parts: Images of each colour by part: train, val, test.
    """
    generator = np.random.default_rng(4)
    for part, count in parts.items():
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = generator.normal(0, 45, (side, side, 3)) + generator.normal(0, 8, 3)
                pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
