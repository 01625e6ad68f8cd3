"""Exports of the form that FiftyOne documents.

`FiftyOneImageClassificationDataset` in docs/source/user_guide/export_datasets.rst of
github.com/voxel51/fiftyone, commit 014ef38c28b353c27bc88c603108a1b3d550b9f5. The package itself
brings a database along, and is not needed to write a JSON file.
"""

from __future__ import annotations

import json

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.data.sources import count_classes, create_source, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, save

NAMES = ["hat", "shoe"]


def export(root, count, *, target=lambda n: n % 2, classes=NAMES, seed=0, suffix=""):
    """`count` images, of which the labels are what `target` says of their number."""
    labels = {}
    for number in range(seed, seed + count):
        save(root / "data" / f"{number:04d}.jpg", number)
        labels[f"{number:04d}{suffix}"] = target(number)
    content = {"labels": labels} if classes is None else {"classes": classes, "labels": labels}
    (root / "labels.json").write_text(json.dumps(content))
    return root


def check_labels(dataset):
    for images in (dataset.pool, dataset.test):
        for path, label in zip(images.paths, images.labels, strict=True):
            number = int(path.rpartition("/")[2].partition(".")[0])
            assert dataset.classes[label] == NAMES[number % 2]


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (lambda n: n % 2, NAMES),
        (lambda n: n % 2, ["hat", "shoe", "tie"][:2]),
        (lambda n: NAMES[n % 2], NAMES),
        # Without classes, the targets are the names.
        (lambda n: NAMES[n % 2], None),
        # include_confidence, include_attributes
        (lambda n: {"label": n % 2, "confidence": 0.9, "attributes": {"worn": True}}, NAMES),
        # A field of several labels, of which each image has one.
        (lambda n: [n % 2], NAMES),
        (lambda n: [{"label": NAMES[n % 2]}], None),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_every_documented_form(tmp_path, cache, target, classes, suffix):
    root = export(tmp_path / "x", 12, target=target, classes=classes, suffix=suffix)
    dataset = prepare(configure("auto", root), cache_dir=cache)
    assert dataset.notices[0].endswith("is read as fiftyone")
    assert dataset.classes == NAMES
    assert len(dataset.pool) + len(dataset.test) == 12
    check_labels(dataset)


def test_a_folder_for_each_part(tmp_path, cache):
    export(tmp_path / "x" / "train", 12)
    export(tmp_path / "x" / "validation", 4, seed=100)
    export(tmp_path / "x" / "test", 4, seed=200)
    config = configure("auto", tmp_path / "x")
    dataset = prepare(config, cache_dir=cache)
    assert dataset.summary()["counts"] == {"train": 12, "validation": 4, "test": 4}
    check_labels(dataset)
    assert count_classes(config) == 2
    found = open_for_evaluation(tmp_path / "x", 16, "crop", cache)
    assert (found.part, len(found.images)) == ("test", 4)
    with pytest.raises(UserError, match=r"set data\.source: fiftyone"):
        prepare(configure("folder", tmp_path / "x"), cache_dir=cache)
    export(tmp_path / "x" / "test", 4, seed=200, classes=NAMES[::-1])
    with pytest.raises(UserError, match=r"train: its class names differ from those of .*test"):
        prepare(config, cache_dir=cache)


def test_what_is_left_out_is_counted(tmp_path, cache):
    root = export(tmp_path / "x", 14, target=lambda n: None if n > 11 else n % 2)
    save(root / "data" / "unlisted.jpg", 500)
    (root / "data" / "notes.txt").touch()
    dataset = prepare(configure("fiftyone", root), cache_dir=cache)
    assert len(dataset.pool) + len(dataset.test) == 12
    assert dataset.notices == ["left out: 4 files: without a label 2, .txt 1, not in labels.json 1"]


def test_images_in_folders(tmp_path, cache):
    """`rel_dir`: keys are paths."""
    root = export(tmp_path / "x", 12)
    content = json.loads((root / "labels.json").read_text())
    for number in range(12):
        place = root / "data" / "inside" / f"{number:04d}.jpg"
        place.parent.mkdir(exist_ok=True)
        (root / "data" / f"{number:04d}.jpg").rename(place)
    content["labels"] = {f"inside/{key}": label for key, label in content["labels"].items()}
    (root / "labels.json").write_text(json.dumps(content))
    check_labels(prepare(configure("auto", root), cache_dir=cache))


def test_a_missing_image_is_a_broken_one(tmp_path, cache):
    root = export(tmp_path / "x", 12)
    (root / "data" / "0003.jpg").unlink()
    dataset = prepare(configure("fiftyone", root, max_broken=0.1), cache_dir=cache)
    (broken,) = dataset.broken
    assert broken.path == str(root / "data" / "0003")
    assert broken.reason == "No such file or directory"


def test_what_is_wrong_is_said(tmp_path, cache):
    root = export(tmp_path / "x", 12, target=lambda n: [0, 1] if n == 5 else n % 2)
    with pytest.raises(UserError, match=r"1 images without one label: 0005: \[0, 1\]"):
        prepare(configure("fiftyone", root), cache_dir=cache)
    export(root, 12, target=lambda n: 2 if n == 4 else n % 2)
    with pytest.raises(UserError, match=r"labels outside the 2 classes: image 4 \(2\)"):
        prepare(configure("fiftyone", root), cache_dir=cache)
    export(root, 12)
    save(root / "data" / "0002.png", 77)
    with pytest.raises(UserError, match=r"names that are of several files: 0002 \(0002\.jpg, 000"):
        prepare(configure("fiftyone", root), cache_dir=cache)
    (root / "labels.json").write_text("{")
    with pytest.raises(UserError, match=r"labels\.json: cannot be read as JSON"):
        create_source(configure("fiftyone", root), cache)
    (root / "labels.json").unlink()
    with pytest.raises(UserError, match=r"has no labels\.json; it must name a folder with data/"):
        create_source(configure("fiftyone", root), cache)


def test_detections_of_the_same_names_are_not_taken_for_it(tmp_path):
    """FiftyOne exports COCO detections into data/ and labels.json too."""
    root = export(tmp_path / "x", 2)
    content = {"info": {}, "images": [], "annotations": [], "categories": []}
    (root / "labels.json").write_text(json.dumps(content))
    assert detect_source(str(root)) != "fiftyone"
    with pytest.raises(UserError, match=r"expected `labels`, .*found annotations, categories, im"):
        create_source(configure("fiftyone", root), tmp_path)
