from __future__ import annotations

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import CubSource, create_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, save


def make_cub(folder):
    """Two birds, eight images each, every fourth for the test."""
    root = folder / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    images, labels, training = [], [], []
    for label, name in enumerate(names, start=1):
        for index in range(8):
            number = len(images) + 1
            save(root / "images" / name / f"{index}.jpg", number)
            images.append(f"{number} {name}/{index}.jpg")
            labels.append(f"{number} {label}")
            training.append(f"{number} {int(index % 4 != 0)}")
    (root / "images.txt").write_text("\n".join(images) + "\n")
    (root / "image_class_labels.txt").write_text("\n".join(labels) + "\n")
    (root / "train_test_split.txt").write_text("\n".join(training) + "\n")
    (root / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    return root


@pytest.fixture
def root(tmp_path):
    return make_cub(tmp_path)


@pytest.mark.parametrize("inside", [True, False])
def test_the_official_layout(root, cache, inside):
    path = root if inside else root.parent
    dataset = prepare(configure("cub", path), cache_dir=cache)
    assert dataset.classes == ["Black footed Albatross", "Laysan Albatross"]
    assert len(dataset.test) == 4
    assert len(dataset.pool) == 12
    for images in (dataset.pool, dataset.test):
        for path, label in zip(images.paths, images.labels, strict=True):
            assert dataset.classes[label].replace(" ", "_") in path
    assert all(path.endswith(("/0.jpg", "/4.jpg")) for path in dataset.test.paths)
    assert dataset.given_test
    assert not dataset.given_validation


def test_a_subset_with_the_list_of_all_classes_leaves_the_others_out(root, cache):
    with (root / "classes.txt").open("a") as file:
        file.write("3 003.Sooty_Albatross\n")
    dataset = prepare(configure("cub", root), cache_dir=cache)
    assert dataset.classes == ["Black footed Albatross", "Laysan Albatross"]
    assert any("1 of 3 classes have no images" in notice for notice in dataset.notices)
    assert any("Sooty Albatross" in notice for notice in dataset.notices)


def test_boxes_come_along(root, cache):
    assert all(sample.box is None for sample in CubSource(str(root)).samples)
    lines = [f"{number} {number}.0 2.0 3.0 4.0\n" for number in range(1, 17)]
    (root / "bounding_boxes.txt").write_text("".join(lines))
    source = CubSource(str(root))
    assert [sample.box for sample in source.samples[:2]] == [(1, 2, 4, 6), (2, 2, 5, 6)]
    config = configure("cub", root, crop="box", crop_margin=0.0)
    dataset = prepare(config, cache_dir=cache)
    assert set(map(tuple, dataset.pool.sizes.tolist())) == {(3, 4)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"1 image\(s\): each has no line in bounding_boxes\.txt: id 16"),
        ("16 1.0 2.0\n", r"bounding_boxes\.txt: image 16: found '1\.0 2\.0', allowed x, y, width"),
    ],
)
def test_wrong_boxes(root, cache, line, message):
    lines = [f"{number} 1.0 2.0 3.0 4.0\n" for number in range(1, 16)]
    (root / "bounding_boxes.txt").write_text("".join(lines) + line)
    with pytest.raises(UserError, match=message):
        prepare(configure("cub", root), cache_dir=cache)


def test_missing_files_are_named(root):
    (root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"has no classes\.txt"):
        CubSource(str(root))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("image_class_labels.txt", "3 1\n", "3 9\n", "label outside classes.txt: id 3"),
        ("image_class_labels.txt", "3 1\n", "", "no line in image_class_labels.txt: id 3"),
        ("train_test_split.txt", "3 1\n", "", "no line in train_test_split.txt: id 3"),
        ("train_test_split.txt", "3 1\n", "3 x\n", "neither 0 nor 1 in train_test_split.txt: id 3"),
    ],
)
def test_wrong_lists(root, cache, file, old, new, message):
    path = root / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        prepare(configure("cub", root), cache_dir=cache)


@pytest.mark.parametrize("line", ["17\n", "1 a.jpg\n"])
def test_lines_that_cannot_be_read(root, line):
    with (root / "images.txt").open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match=r"images\.txt:17: "):
        CubSource(str(root))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("classes.txt", 2),
        ("bounding_boxes.txt", 2),
        ("parts/parts.txt", 2),
        ("parts/part_locs.txt", 2),
        ("attributes/image_attribute_labels.txt", 2),
    ],
)
def test_a_list_in_latin_1_is_named_with_its_line(root, cache, file, line):
    for folder in ("parts", "attributes"):
        (root / folder).mkdir()
    (root / "parts" / "parts.txt").write_text("1 beak\n")
    (root / "parts" / "part_locs.txt").write_text("1 1 2.0 3.0 1\n")
    (root / "attributes.txt").write_text("1 has_bill_shape::curved\n")
    (root / "attributes" / "image_attribute_labels.txt").write_text("1 1 1 3\n")
    CubSource(str(root)).annotations()
    (root / file).write_bytes("1 colibri thalassin\n2 mésange bleue 1 1\n".encode("latin-1"))
    said = rf"{file}:{line}: found bytes that are not UTF-8, allowed text in UTF-8"
    with pytest.raises(UserError, match=said):
        create_source(configure("cub", root), cache).annotations()


def test_a_missing_image_is_broken(root, cache):
    (root / "images" / "001.Black_footed_Albatross" / "1.jpg").unlink()
    dataset = prepare(configure("cub", root, max_broken=0.2), cache_dir=cache)
    assert [image.reason for image in dataset.broken] == ["No such file or directory"]
