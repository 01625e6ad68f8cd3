"""Levels of images whose colours are strong."""

from __future__ import annotations

import numpy as np
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.issues.find import listed_images
from gsfl_tune.issues.pixels import measure, odd_pixels
from tests.data.conftest import configure

SIDE = 48


def test_a_strong_red_is_not_dark(tmp_path):
    """Its level in grey is as low as that of a photograph at night."""
    random = np.random.default_rng(0)
    colours = {f"grey {number:02d}.png": (200, 200, 200) for number in range(40)}
    colours |= {"red.png": (250, 20, 20), "blue.png": (30, 40, 240), "night.png": (60, 60, 60)}
    for number, (name, colour) in enumerate(colours.items()):
        grain = np.array(colour) + random.normal(0, 6, (SIDE, SIDE, 3))
        folder = tmp_path / "photos" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(folder / name)
    data = configure("folder", tmp_path / "photos").model_copy(update={"image_size": SIDE})
    images = listed_images(prepare(data, cache_dir=tmp_path / "cache"))
    found = odd_pixels(images, measure(images, "crop"), SIDE)
    dark = [each for each in found if each.issue == "dark"]
    assert [each.path.rsplit("/", 1)[1] for each in dark] == ["night.png"]
    assert "of 255 in every colour; of most images below" in dark[0].reason
