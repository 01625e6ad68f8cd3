"""Evaluation against metrics computed apart, on folders whose classes are in another order."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from gsfl_tune.data import load_square
from gsfl_tune.data.labelled_images import detect_source, open_for_evaluation
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import load_bundle
from gsfl_tune.export.match_classes import match_classes
from gsfl_tune.training.metrics import classification_metrics
from tests.export.conftest import CLASSES, SIDE


@pytest.fixture
def folder(tmp_path, images) -> Path:
    """Four of the six classes, in an alphabetical order that is not the bundle's numbering."""
    for number, path in enumerate(images):
        place = tmp_path / "data" / ["fox", "bee", "eel", "cat"][number % 4]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / path.name)
    return tmp_path / "data"


def test_classes_are_matched_by_name_and_missing_ones_are_fine(bundle_path, folder, tmp_path):
    bundle = load_bundle(bundle_path)
    data = open_for_evaluation(folder, SIDE, "crop", tmp_path / "cache")
    assert (data.part, data.classes) == ("all", ["bee", "cat", "eel", "fox"])
    files = sorted(folder.rglob("*.*"))
    labels = [CLASSES.index(path.parent.name) for path in files]
    with torch.inference_mode():
        logits = bundle.runtime.logits(np.stack([load_square(path, SIDE)[0] for path in files]))
    found = bundle.evaluate(data.images, data.classes, batch_size=3)
    for name, value in classification_metrics(logits, labels).items():
        assert found[name] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_matched_composed_or_decomposed(form):
    """A bundle of an earlier version has the names as a disk of macOS had them."""
    known = ["pie", unicodedata.normalize(form, "\u00c9pervier"), "ant"]
    for spelling in ("NFC", "NFD"):
        names = ["ant", unicodedata.normalize(spelling, "\u00c9pervier")]
        assert match_classes(known, names).tolist() == [2, 1]
    # Names that the bundle itself tells apart stay apart.
    both = ["\u00c9pervier", "E\u0301pervier"]
    assert match_classes(both, both).tolist() == [0, 1]


def test_evaluation_and_prediction_agree(bundle_path, folder, tmp_path):
    bundle = load_bundle(bundle_path)
    data = open_for_evaluation(folder, SIDE, "crop", tmp_path / "cache")
    predictions = bundle.predict(data.images.paths, top=1)
    right = [each.classes[0] == Path(each.path).parent.name for each in predictions]
    assert bundle.evaluate(data.images, data.classes)["accuracy"] == pytest.approx(np.mean(right))


def test_the_given_test_part_is_used(folder, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(folder, tmp_path / "split" / part)
    next((tmp_path / "split" / "test" / "eel").iterdir()).unlink()
    data = open_for_evaluation(tmp_path / "split", SIDE, "crop", tmp_path / "cache")
    assert (data.part, len(data.images)) == ("test", 7)
    assert all("/test/" in path for path in data.images.paths)


def test_broken_images_are_left_out_and_listed(folder, tmp_path):
    (folder / "eel" / "broken.png").write_bytes(b"\x89PNG but no more")
    data = open_for_evaluation(folder, SIDE, "crop", tmp_path / "cache")
    assert len(data.images) == 8
    assert [Path(image.path).name for image in data.broken] == ["broken.png"]


def test_what_cannot_be_evaluated_is_told(bundle_path, folder, tmp_path):
    bundle = load_bundle(bundle_path)
    (folder / "eel").rename(folder / "emu")
    data = open_for_evaluation(folder, SIDE, "crop", tmp_path / "cache")
    with pytest.raises(UserError, match="1 of 4 classes are unknown to the bundle: emu"):
        bundle.evaluate(data.images, data.classes)
    (folder / "emu").rename(folder / "eel")
    other = open_for_evaluation(folder, 40, "crop", tmp_path / "cache")
    with pytest.raises(UserError, match="40 px squares, the bundle expects 37"):
        bundle.evaluate(other.images, other.classes)
    with pytest.raises(UserError, match="does not exist"):
        open_for_evaluation(tmp_path / "nothing", SIDE, "crop", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        open_for_evaluation(tmp_path / "empty", SIDE, "crop", tmp_path / "cache")


def test_the_source_is_recognised(tmp_path, folder):
    assert detect_source(str(folder)) == "folder"
    assert detect_source("https://example.org/test.parquet") == "parquet"
    assert detect_source("data/test*.parquet") == "parquet"
    for name in ("images.txt", "image_class_labels.txt"):
        (folder / name).touch()
    assert detect_source(str(folder)) == "cub"
    (tmp_path / "p" / "data").mkdir(parents=True)
    (tmp_path / "p" / "data" / "test-0.parquet").touch()
    assert detect_source(str(tmp_path / "p")) == "parquet"
