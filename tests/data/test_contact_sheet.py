from __future__ import annotations

import numpy as np
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.data.contact_sheet import contact_sheet
from tests.data.conftest import configure


def paint(root, colors, count=6):
    """Classes of one colour each, with one pixel that tells images apart."""
    for name, color in colors.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = Image.new("RGB", (20, 20), color)
            image.putpixel((0, 0), (index, 0, 0))
            image.save(root / name / f"{index}.png")
    return root


def share(sheet, color):
    pixels = np.asarray(sheet).astype(int)
    return (np.abs(pixels - color).max(-1) < 12).mean()


def test_a_few_images_of_each_class(tmp_path, cache):
    colors = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    root = paint(tmp_path / "images", colors)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    sheet, shown = contact_sheet(dataset, images_per_class=2)
    assert shown == 3
    area = sheet.width * sheet.height
    for color in colors.values():
        # Two thumbnails of 96 x 96, but for a corner.
        assert abs(share(sheet, color) * area / (2 * 96 * 96) - 1) < 0.1
    assert share(sheet, (0, 0, 0)) > 0.001, "the names are missing"


def test_many_classes_with_long_names_and_few_images(tmp_path, cache):
    names = [f"{number:03d} {'very ' * 30}long" for number in range(150)]
    root = tmp_path / "images"
    random = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    dataset = prepare(configure("folder", root), cache_dir=cache)
    sheet, shown = contact_sheet(dataset)
    assert shown == 120
    assert sheet.width <= 1700
    assert sheet.height < 8000


def test_chosen_classes_alone(tmp_path, cache):
    colors = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}
    dataset = prepare(configure("folder", paint(tmp_path / "images", colors)), cache_dir=cache)
    sheet, shown = contact_sheet(dataset, images_per_class=2, classes=[2, 0])
    assert shown == 2
    assert share(sheet, colors["a"]) > 0.1
    assert share(sheet, colors["c"]) > 0.1
    assert share(sheet, colors["b"]) == 0
