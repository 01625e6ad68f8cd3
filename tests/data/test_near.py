"""Copies of photographs are found whatever their brightness, and other photographs are not."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gsfl_tune.activity import current
from gsfl_tune.data import near, prepare
from tests.data.conftest import configure

REAL = os.environ.get("GSFL_TUNE_REAL_DATA")
real_data = pytest.mark.skipif(not REAL, reason="GSFL_TUNE_REAL_DATA is not set")


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with large shapes before a bright background."""
    noise = np.random.default_rng(seed).integers(30, 200, (6, 8, 3), dtype=np.uint8)
    noise[0] = noise[-1] = 225
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def shirt(print_seed: int, colour: tuple[int, int, int]) -> Image.Image:
    """A garment on a red cloth: all have one shape, and each its own print."""
    image = Image.new("RGB", (160, 160), (120, 20, 40))
    draw = ImageDraw.Draw(image)
    draw.polygon([(30, 30), (130, 30), (150, 70), (115, 75), (115, 140), (45, 140), (45, 75),
                  (10, 70)], fill=colour)  # fmt: skip
    noise = np.random.default_rng(print_seed).integers(60, 256, (4, 4), dtype=np.uint8)
    image.paste(Image.fromarray(noise).resize((40, 40), Image.Resampling.NEAREST), (60, 60))
    return image


def toned(tone: Callable[[float], float]) -> Callable[[Image.Image], Image.Image]:
    levels = [min(255, max(0, round(255 * tone(value / 255)))) for value in range(256)]
    return lambda image: image.point(levels * 3)


CHANGES = {
    "brighter by a quarter": toned(lambda v: 1.25 * v),
    "darker by half": toned(lambda v: 0.5 * v),
    "lifted": toned(lambda v: v + 0.15),
    "gamma below one": toned(lambda v: v**0.6),
    "gamma above one": toned(lambda v: v**1.4),
    "more contrast": toned(lambda v: 0.5 + 1.4 * (v - 0.5)),
    "less contrast": toned(lambda v: 0.5 + 0.6 * (v - 0.5)),
    "smaller and brighter": lambda image: toned(lambda v: 1.25 * v)(image.resize((90, 70))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_copies_of_another_tone_are_found_and_stay_in_one_part(tmp_path, cache, change):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            image = scene(100 * label + number)
            image.save(root / name / f"{number:02d}.jpg", quality=95)
            change(image).save(root / name / f"{number:02d}-copy.jpg", quality=80)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    copies = [
        [str(root / name / f"{number:02d}{end}.jpg") for end in ("-copy", "")]
        for name in "ab"
        for number in range(10)
    ]
    assert sorted(dataset.near_duplicates().groups) == sorted(copies)
    train = {dataset.pool.paths[i] for i in dataset.train_index}
    validation = {dataset.pool.paths[i] for i in dataset.validation_index}
    for part in (train, validation, set(dataset.test.paths)):
        assert all(len(part & set(pair)) in (0, 2) for pair in copies)


def test_objects_of_one_shape_before_one_background_are_no_copies(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(15):
            colour = (235 - 4 * number, 230, 225 - 3 * number)
            shirt(100 * label + number, colour).save(
                root / name / f"{number:02d}.png", compress_level=1
            )
    assert not prepare(configure("folder", root), cache_dir=cache).near_duplicates().groups


def test_things_of_one_shape_in_other_colours_are_no_copies(tmp_path, cache):
    root = tmp_path / "data"
    for name in "ab":
        (root / name).mkdir(parents=True)
    for number in range(6):
        colour = tuple(round(255 * v) for v in colorsys.hsv_to_rgb(number / 6, 0.8, 0.9))
        shirt(1, colour).save(root / "a" / f"{number}.png", compress_level=1)
        scene(number).save(root / "b" / f"{number}.png", compress_level=1)
    assert not prepare(configure("folder", root), cache_dir=cache).near_duplicates().groups


@real_data
def test_garments_on_one_cloth_are_no_copies(photographs):
    """Clothing has many shirts photographed on one cloth, and one photograph twice."""
    config = configure("parquet", Path(REAL or "") / "clothing")
    found = prepare(config, cache_dir=photographs).near_duplicates().groups
    assert [len(group) for group in found] == [2]


@pytest.fixture
def pasted(tmp_path):
    """Photographs with a box: pairs a, b show one object before different backgrounds."""
    root = tmp_path / "table"
    root.mkdir()
    lines = ["file_name,label,xmin,ymin,xmax,ymax"]
    for label in range(2):
        for number in range(12):
            thing = scene(1000 + 100 * label + number, (60, 60))
            for place, end in enumerate("ab"):
                photograph = scene(2 * (100 * label + number) + place, (200, 150))
                corner = (20 + 90 * place, 30 + 20 * place)
                seen = toned(lambda v: 1.25 * v)(thing) if place else thing
                photograph.paste(seen, corner)
                name = f"{'xy'[label]}{number:02d}{end}.png"
                photograph.save(root / name, compress_level=1)
                x, y = corner
                lines.append(f"{name},{'xy'[label]},{x},{y},{x + 60},{y + 60}")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


def _names(paths) -> set[str]:
    return {Path(path.split("#")[0]).stem for path in paths}


def test_with_boxes_what_is_cut_out_is_compared(pasted, cache):
    whole = prepare(configure("csv", pasted), cache_dir=cache)
    assert not whole.near_duplicates().groups
    dataset = prepare(configure("csv", pasted, crop="box", crop_margin=0.0), cache_dir=cache)
    found = dataset.near_duplicates().groups
    expected = [{f"{c}{number:02d}{end}" for end in "ab"} for c in "xy" for number in range(12)]
    assert sorted(map(sorted, map(_names, found))) == sorted(map(sorted, expected))
    parts = [
        _names(dataset.pool.paths[i] for i in dataset.train_index),
        _names(dataset.pool.paths[i] for i in dataset.validation_index),
        _names(dataset.test.paths),
    ]
    assert all(parts)
    for part in parts:
        assert all(len(part & pair) in (0, 2) for pair in expected)


def test_other_boxes_or_margins_are_compared_anew(pasted, cache):
    config = configure("csv", pasted, crop="box", crop_margin=0.0)
    assert len(prepare(config, cache_dir=cache).near_duplicates().groups) == 24
    # With a wide margin the backgrounds are in sight.
    wide = config.model_copy(update={"crop_margin": 0.9})
    assert not prepare(wide, cache_dir=cache).near_duplicates().groups
    table = pasted / "boxes.csv"
    table.write_text(table.read_text().replace("20,30,80,90", "0,90,60,150"))
    assert not prepare(config, cache_dir=cache).near_duplicates().groups


def test_two_boxes_of_a_photograph_that_show_the_same_are_named(tmp_path, cache):
    root = tmp_path / "table"
    root.mkdir()
    lines = ["file_name,label,xmin,ymin,xmax,ymax"]
    for number in range(20):
        scene(number, (200, 150)).save(root / f"{number:02d}.png", compress_level=1)
        lines.append(f"{number:02d}.png,{'xy'[number % 2]},10,10,90,130")
    lines.append("04.png,y,11,10,91,131")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    dataset = prepare(configure("csv", root, crop="box", crop_margin=0.0), cache_dir=cache)
    [pair] = dataset.near_duplicates().conflicting
    assert _names(pair) == {"04"}


def test_while_photographs_are_compared_it_is_said(tmp_path, cache, monkeypatch):
    """Of thousands this takes long enough to be taken for a stop."""
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/b").mkdir()
    for seed in range(8):
        scene(seed).save(tmp_path / "data" / "ab"[seed % 2] / f"{seed}.png", compress_level=1)
    said = []
    compare = near.cut_copies

    def noted(*arguments):
        said.append(current().what)
        return compare(*arguments)

    monkeypatch.setattr(near, "cut_copies", noted)
    prepare(configure("folder", tmp_path / "data"), cache_dir=cache)
    assert set(said) == {"comparing photographs"}
    assert current() is None
