"""What ``data.split.by: auto`` measures, and says where validation would be too optimistic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data import prepare
from tests.data.conftest import configure

CLASSES = ("cola", "juice", "milk", "water")


def scene(seed: int) -> Image.Image:
    """A picture with large shapes, as photographs have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def shelves(root: Path, *, shelf: float = 0.65, test: bool = False) -> Path:
    """Five shelves a class, eight photographs of each; test photographs are of other shelves.

    Nothing of a class is seen, only its shelves. The more of a shelf a photograph shows (`shelf`),
    the more alike are those of one shelf.
    """
    for label, name in enumerate(CLASSES):
        for place in range(5):
            for number in range(8):
                seed = 10_000 * (label + 1) + 100 * place
                image = Image.blend(scene(seed), scene(seed + 1 + number), 1 - shelf)
                file = root / ("train" if test else "") / name / f"{place}-{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                image.save(file, compress_level=1)
        for number in range(10 if test else 0):
            file = root / "test" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            seed = 90_000 + 1000 * label + 10 * number
            Image.blend(scene(seed), scene(seed + 1), 1 - shelf).save(file, compress_level=1)
    return root


def shelves_of(dataset) -> dict[str, set[str]]:
    """The parts that photographs of every shelf are in."""
    found: dict[str, set[str]] = {}
    for part, rows in (("train", dataset.train_index), ("validation", dataset.validation_index)):
        for row in rows:
            path = Path(dataset.pool.paths[row])
            found.setdefault(f"{path.parent.name}/{path.stem[0]}", set()).add(part)
    return found


def test_without_a_test_part_bursts_are_pointed_out_with_advice(tmp_path, cache):
    root = shelves(tmp_path / "data")
    dataset = prepare(configure("folder", root), cache_dir=cache)
    (told,) = dataset.notices
    measured = dataset.summary()["split_measured"]
    assert set(measured) == {"nearest_right", "nearest_right_clusters", "accuracy_falls"}
    right, clusters = measured["nearest_right"], measured["nearest_right_clusters"]
    # By chance a quarter is right.
    assert right > 0.9
    assert clusters < 0.5
    assert measured["accuracy_falls"] == pytest.approx(right - clusters)
    assert told.startswith(
        f"of validation images {right:.0%} have the class of the training photograph most similar "
        f"in colours and edges, but only {clusters:.0%} if whole clusters are held out"
    )
    assert "data.split.by: near_duplicate holds out clusters" in told
    # It is a word only; who follows it has whole shelves held out.
    image = prepare(configure("folder", root, split={"by": "image"}), cache_dir=cache)
    assert image.digest == dataset.digest
    assert image.summary()["split_measured"] == {}
    held = prepare(configure("folder", root, split={"by": "near_duplicate"}), cache_dir=cache)
    assert not held.notices
    assert all(len(parts) == 1 for parts in shelves_of(held).values())


def test_the_numbers_are_there_where_nothing_is_said(tmp_path, cache):
    """Photographs that have little of a shelf in common."""
    root = shelves(tmp_path / "data", shelf=0.2)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    assert not dataset.notices
    measured = dataset.summary()["split_measured"]
    assert 0 <= measured["nearest_right"] < 0.65
    # A second start reads what was measured.
    again = prepare(configure("folder", root), cache_dir=cache)
    assert again.summary()["split_measured"] == measured


def test_clusters_are_held_out_because_of_the_test_part(tmp_path, cache):
    root = shelves(tmp_path / "data", test=True)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    (told,) = dataset.notices
    measured = dataset.summary()["split_measured"]
    assert measured["validation_nearer"] > 0.9
    assert measured["validation_nearer_p"] < 1e-3
    assert abs(measured["validation_nearer_clusters"] - 0.5) < 0.2
    assert told.startswith(
        "single validation images would be more similar to the training images than test images, "
        f"in {measured['validation_nearer']:.0%} of pairs (50 % would be fair)"
    )
    assert "data.split.by: image draws single images" in told
    parts = shelves_of(dataset)
    assert len(parts) == 20
    assert all(len(found) == 1 for found in parts.values())
    assert dataset.summary()["counts"] == {"train": 128, "validation": 32, "test": 40}
    image = prepare(configure("folder", root, split={"by": "image"}), cache_dir=cache)
    assert any(len(found) == 2 for found in shelves_of(image).values())


def test_single_images_are_drawn_where_they_are_as_far_as_the_test_part(tmp_path, cache):
    root = shelves(tmp_path / "data", shelf=0.1, test=True)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    measured = dataset.summary()["split_measured"]
    assert set(measured) == {"validation_nearer", "validation_nearer_p"}
    assert measured["validation_nearer"] < 0.65
    image = prepare(configure("folder", root, split={"by": "image"}), cache_dir=cache)
    assert image.digest == dataset.digest
