"""NABirds: lists of the official form, small."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import NABirdsSource, count_classes, create_source, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, save

# As in the official files: inner nodes first, and two that are called the same.
NODES = {
    "0": ("Birds", None),
    "1": ("Falcons", "0"),
    "2": ("Jays and Crows", "0"),
    "40": ("American Kestrel", "1"),
    "295": ("American Kestrel (Adult male)", "40"),
    "296": ("American Kestrel (Female, immature)", "40"),
    "41": ("Blue Jay", "2"),
    "817": ("Blue Jay", "41"),
    "818": ("Common Raven", "2"),
}
LEAVES = ("295", "296", "41", "817", "818")


def make_nabirds(folder):
    """Five classes, eight images each, every fourth for the test."""
    root = folder / "nabirds"
    images, labels, training = [], [], []
    for leaf in LEAVES:
        for index in range(8):
            number = f"{len(images):08d}-21dc-4d0c-bfe1-4cae3c85c829"
            save(root / "images" / f"{int(leaf):04d}" / f"{index}.jpg", len(images))
            images.append(f"{number} {int(leaf):04d}/{index}.jpg")
            labels.append(f"{number} {leaf}")
            training.append(f"{number} {int(index % 4 != 0)}")
    lists = {
        "images": images,
        "image_class_labels": labels,
        "train_test_split": training,
        "classes": [f"{number} {name}" for number, (name, _) in NODES.items()],
        "hierarchy": [f"{number} {above}" for number, (_, above) in NODES.items() if above],
        "sizes": [f"{line.split()[0]} 20 16" for line in images],
        "photographers": [f"{line.split()[0]} Some One" for line in images],
        "bounding_boxes": [f"{line.split()[0]} 1 1 10 10" for line in images],
    }
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def root(tmp_path):
    return make_nabirds(tmp_path)


@pytest.mark.parametrize("inside", [True, False])
def test_the_official_layout(root, cache, inside):
    dataset = prepare(configure("nabirds", root if inside else root.parent), cache_dir=cache)
    # In the order of classes.txt; the two that are called the same are told apart.
    assert dataset.classes == [
        "American Kestrel (Adult male)",
        "American Kestrel (Female, immature)",
        "Blue Jay [41]",
        "Blue Jay [817]",
        "Common Raven",
    ]
    assert dataset.known_groups == [
        "American Kestrel",
        "American Kestrel",
        "Jays and Crows",
        "Blue Jay",
        "Jays and Crows",
    ]
    assert "4 of 9 nodes of the hierarchy have no images and are not classes" in dataset.notices
    assert dataset.summary()["counts"]["test"] == 10
    assert len(dataset.pool) == 30
    leaf_of = dict(zip(dataset.classes, LEAVES, strict=True))
    for images in (dataset.pool, dataset.test):
        for path, label in zip(images.paths, images.labels, strict=True):
            assert f"/{int(leaf_of[dataset.classes[label]]):04d}/" in path
    assert all(path.endswith(("/0.jpg", "/4.jpg")) for path in dataset.test.paths)


def test_boxes_and_points_come_along(root, cache):
    (root / "parts").mkdir()
    (root / "parts" / "parts.txt").write_text("0 bill\n1 tail\n")
    number = (root / "images.txt").read_text().split()[0]
    (root / "parts" / "part_locs.txt").write_text(f"{number} 0 4 5 1\n{number} 1 0 0 0\n")
    dataset = prepare(configure("nabirds", root, crop="box", crop_margin=0.0), cache_dir=cache)
    assert set(map(tuple, dataset.pool.sizes.tolist())) == {(10, 10)}
    found = NABirdsSource(str(root)).annotations()
    assert found.part_names == ["bill", "tail"]
    assert found.boxes[0] == pytest.approx([1, 1, 11, 11])
    assert found.points[0].ravel() == pytest.approx([4, 5, np.nan, np.nan], nan_ok=True)


def test_it_is_told_from_cub(root, cache):
    for path in (root, root.parent):
        assert detect_source(str(path)) == "nabirds"
    with pytest.raises(UserError, match=r"the layout of NABirds; set data\.source: nabirds"):
        prepare(configure("folder", root), cache_dir=cache)
    assert count_classes(configure("auto", root)) == 555
    (root / "hierarchy.txt").unlink()
    assert detect_source(str(root)) == "cub"
    with pytest.raises(UserError, match=r"has no hierarchy\.txt"):
        NABirdsSource(str(root))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("hierarchy.txt", "295 40\n", "", r"1 classes have no parent that classes\.txt has: 295"),
        ("hierarchy.txt", "295 40\n", "295 77\n", "1 classes have no parent"),
        ("image_class_labels.txt", " 295\n", " 999\n", r"label outside classes\.txt: id 0000"),
        ("train_test_split.txt", " 1\n", " 7\n", r"neither 0 nor 1 in train_test_split\.txt"),
    ],
)
def test_lists_that_do_not_fit(root, cache, file, old, new, message):
    text = (root / file).read_text()
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        prepare(configure("nabirds", root), cache_dir=cache)


def test_a_line_that_cannot_be_read(root, cache):
    (root / "classes.txt").write_text("0 Birds\n0 Falcons\n")
    with pytest.raises(UserError, match=r"classes\.txt:2: '0 Falcons': appears twice"):
        create_source(configure("nabirds", root), cache)
