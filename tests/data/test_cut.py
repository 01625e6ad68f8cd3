"""Copies that were mirrored or cut are found, and stay in one part; others are no copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gsfl_tune.data import prepare
from tests.data.conftest import configure
from tests.data.test_near import real_data, scene, shirt, toned

REAL = os.environ.get("GSFL_TUNE_REAL_DATA")


def mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cut(left: float, upper: float, right: float, lower: float) -> Callable:
    """Leaves out these shares at the edges."""

    def change(image: Image.Image) -> Image.Image:
        w, h = image.size
        return image.crop(
            (round(w * left), round(h * upper), round(w * (1 - right)), round(h * (1 - lower)))
        )

    return change


def crowded(seed: int) -> Image.Image:
    """A picture with many small shapes, as of a shelf."""
    noise = np.random.default_rng(seed).integers(30, 226, (10, 13, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((260, 200), Image.Resampling.BICUBIC)


CHANGES = {
    "mirrored": mirror,
    "mirrored and smaller": lambda image: mirror(image).resize((120, 90)),
    "cut by 3 %": cut(0.03, 0.03, 0.03, 0.03),
    "cut by 8 %": cut(0.08, 0.08, 0.08, 0.08),
    "cut at one side": cut(0.1, 0, 0, 0),
    "cut unevenly": cut(0.06, 0.01, 0.02, 0.08),
    "mirrored and cut": lambda image: cut(0.02, 0.05, 0.04, 0)(mirror(image)),
    "cut and a little brighter": lambda image: toned(lambda v: 1.05 * v)(
        cut(0.03, 0.02, 0.01, 0.04)(image)
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_mirrored_and_cut_copies_are_found_and_stay_in_one_part(tmp_path, cache, change):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(15):
            image = crowded(100 * label + number)
            image.save(root / name / f"{number:02d}.jpg", quality=95)
            change(image).save(root / name / f"{number:02d}-copy.jpg", quality=85)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    copies = [
        [str(root / name / f"{number:02d}{end}.jpg") for end in ("-copy", "")]
        for name in "ab"
        for number in range(15)
    ]
    assert sorted(dataset.near_duplicates().groups) == sorted(copies)
    train = {dataset.pool.paths[i] for i in dataset.train_index}
    validation = {dataset.pool.paths[i] for i in dataset.validation_index}
    for part in (train, validation, set(dataset.test.paths)):
        assert part
        assert all(len(part & set(pair)) in (0, 2) for pair in copies)


def test_a_cut_copy_under_another_label_is_found(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            crowded(100 * label + number).save(root / name / f"{number}.png", compress_level=1)
    cut(0.05, 0.02, 0, 0.03)(crowded(3)).save(root / "b" / "wrong.jpg", quality=80)
    near = prepare(configure("folder", root), cache_dir=cache).near_duplicates()
    assert near.conflicting == [[str(root / "a" / "3.png"), str(root / "b" / "wrong.jpg")]]


LIMITS = {
    # Images, classes a and b have 16 and 9: all, only within classes, only within b.
    "below": (30, {"a", "b", "a and b", "brighter"}),
    "at": (25, {"a", "b", "a and b", "brighter"}),
    "all are too many": (24, {"a", "b", "brighter"}),
    "a class at": (16, {"a", "b", "brighter"}),
    "a class is too large": (15, {"b", "brighter"}),
    "both classes are": (8, {"brighter"}),
}


@pytest.mark.parametrize(("limit", "found"), LIMITS.values(), ids=list(LIMITS))
def test_many_images_are_compared_within_their_classes(tmp_path, cache, monkeypatch, limit, found):
    """The limit is of cut and mirrored copies; others are found among any number of images."""
    monkeypatch.setattr("gsfl_tune.data.cut._LARGEST", limit)
    root = tmp_path / "data"
    for label, (name, count) in enumerate((("a", 15), ("b", 6))):
        (root / name).mkdir(parents=True)
        for number in range(count):
            crowded(100 * label + number).save(root / name / f"{number}.png", compress_level=1)
    cut_by = cut(0.05, 0.02, 0, 0.03)
    brighter = toned(lambda v: 1.05 * v)
    copies = {
        "a": ("a/3.png", "a/copy.png", cut_by(crowded(3))),
        "b": ("b/2.png", "b/copy.png", mirror(crowded(102))),
        "a and b": ("a/5.png", "b/wrong.png", cut_by(crowded(5))),
        "brighter": ("a/7.png", "b/brighter.png", brighter(crowded(7))),
    }
    for _, file, image in copies.values():
        image.save(root / file, compress_level=1)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    assert sum(dataset.summary()["counts"].values()) == 25
    expected = [sorted(str(root / file) for file in copies[name][:2]) for name in found]
    assert sorted(map(sorted, dataset.near_duplicates().groups)) == sorted(expected)
    # What is found stays in one part.
    train = {dataset.pool.paths[i] for i in dataset.train_index}
    validation = {dataset.pool.paths[i] for i in dataset.validation_index}
    for part in (train, validation, set(dataset.test.paths)):
        assert all(len(part & set(pair)) in (0, 2) for pair in expected)


def arrow(seed: int) -> Image.Image:
    """A sign whose direction is what it is about, before a background of its own."""
    image = crowded(seed)
    ImageDraw.Draw(image).polygon(
        [(60, 100), (130, 40), (130, 80), (200, 80), (200, 120), (130, 120), (130, 160)], fill="red"
    )
    return image


def test_what_points_to_the_other_side_is_another_class_and_no_copy(tmp_path, cache):
    root = tmp_path / "data"
    for name in ("left", "right"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            image = arrow(number) if name == "left" else mirror(arrow(number))
            image.save(root / name / f"{number}.png", compress_level=1)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    assert not dataset.near_duplicates().groups
    assert sum(dataset.summary()["counts"].values()) == 20


def stroke(seed: int) -> Image.Image:
    """A drawing of one straight line."""
    image = Image.new("RGB", (105, 105), "white")
    x, upper = 25 + 14 * (seed % 5), 12 + 12 * (seed // 5 % 5)
    ImageDraw.Draw(image).line(
        [(x, upper), (x, upper + 24 + 12 * (seed // 100))], fill="black", width=3
    )
    return image


@pytest.mark.parametrize("make", [stroke, lambda seed: shirt(seed, (235, 230, 225))])
def test_things_of_one_shape_are_no_parts_of_each_other(tmp_path, cache, make):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(25):
            make(100 * label + number).save(root / name / f"{number:02d}.png", compress_level=1)
    assert not prepare(configure("folder", root), cache_dir=cache).near_duplicates().groups


def test_other_pictures_of_one_colour_scheme_are_no_copies(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(25):
            scene(100 * label + number).save(root / name / f"{number:02d}.png", compress_level=1)
    assert not prepare(configure("folder", root), cache_dir=cache).near_duplicates().groups


def test_a_mirrored_copy_of_a_test_image_is_left_out_of_training(tmp_path, cache):
    for part, first in (("train", 0), ("test", 50)):
        for label, name in enumerate("ab"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(10):
                image = crowded(100 * label + first + number)
                image.save(tmp_path / "data" / part / name / f"{number}.png", compress_level=1)
    copy = tmp_path / "data" / "train" / "a" / "copy.jpg"
    mirror(crowded(55)).save(copy)
    dataset = prepare(configure("folder", tmp_path / "data"), cache_dir=cache)
    assert dataset.duplicates.dropped == [str(copy)]


@pytest.mark.parametrize(("limit", "left_out"), [(32, 2), (31, 0)])
def test_copies_are_left_out_of_images_without_labels(
    tmp_path, cache, monkeypatch, limit, left_out
):
    """Held-out images and those without labels are compared if together they are not too many."""
    monkeypatch.setattr("gsfl_tune.data.cut._LARGEST", limit)
    for part, first in (("train", 0), ("test", 50)):
        for label, name in enumerate("ab"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(10):
                image = crowded(100 * label + first + number)
                image.save(tmp_path / "data" / part / name / f"{number}.png", compress_level=1)
    (tmp_path / "more").mkdir()
    for number in range(6):
        crowded(500 + number).save(tmp_path / "more" / f"{number}.png", compress_level=1)
    mirror(crowded(52)).save(tmp_path / "more" / "mirrored.png", compress_level=1)
    cut(0.05, 0.03, 0.01, 0.02)(crowded(153)).save(tmp_path / "more" / "cut.png", compress_level=1)
    config = configure("folder", tmp_path / "data", unlabelled=str(tmp_path / "more"))
    dataset = prepare(config, cache_dir=cache)
    assert len(dataset.unlabelled) == 8 - left_out
    told = "2 of 8 images are left out, as they are copies"
    assert any(told in line for line in dataset.notices) == bool(left_out)


@pytest.mark.slow
@real_data
@pytest.mark.parametrize(("name", "count"), [("clothing", 0), ("grocery", 2)])
def test_photographs_are_no_copies_but_for_those_of_one_moment(tmp_path, name, count):
    """Two pairs of grocery's training images were taken within a second of each other."""
    file = Path(REAL or "") / name / "train.parquet"
    config = configure("parquet", file, label_column="label")
    found = prepare(config, cache_dir=tmp_path, parts=()).near_duplicates().groups
    several = [group for group in found if len(group) > 1]
    # One photograph of clothing is there twice.
    assert len(several) == count + (name == "clothing")
    assert all(len(group) == 2 for group in several)
