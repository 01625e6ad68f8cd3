"""A validation part that the source gives: kept, joined, split anew or demanded."""

from __future__ import annotations

import shutil

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill


def test_a_given_validation_part_joins_the_pool(tmp_path, cache):
    root = fill(
        tmp_path / "images", {f"{p}/{c}": 4 for p in ("train", "val", "test") for c in "ab"}
    )
    dataset = prepare(configure("folder", root), cache_dir=cache)
    assert dataset.given_validation
    assert dataset.given_test
    assert len(dataset.pool) == 16
    assert all("/val/" in dataset.pool.paths[i] for i in dataset.validation_index)
    assert all("/train/" in dataset.pool.paths[i] for i in dataset.train_index)


def test_a_given_validation_part_may_lack_classes_and_says_so(tmp_path, cache):
    counts = {f"{p}/{c}": 4 for p in ("train", "test") for c in "abc"} | {"val/b": 3}
    root = fill(tmp_path / "images", counts)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    assert dataset.pool.labels[dataset.validation_index].tolist() == [1, 1, 1]
    [notice] = dataset.notices
    assert "validation part has no image of 2 of 3 classes" in notice
    assert notice.endswith("a, c")
    assert dataset.summary()["notices"] == [notice]


def test_a_given_validation_part_must_hold_an_image(tmp_path, cache):
    counts = {f"{p}/{c}": 4 for p in ("train", "test") for c in "ab"} | {"val/a": 1}
    root = fill(tmp_path / "images", counts)
    [only] = (root / "val" / "a").iterdir()
    shutil.copy(next((root / "test" / "a").iterdir()), only)
    with pytest.raises(UserError, match="no image that is not in the test part"):
        prepare(configure("folder", root), cache_dir=cache)


def test_a_given_validation_part_may_be_split_anew_or_demanded(tmp_path, cache):
    root = fill(tmp_path / "data", {"train/a": 8, "train/b": 8, "val/a": 2, "test/a": 1})
    dataset = prepare(configure("folder", root, split={"validation": "resplit"}), cache_dir=cache)
    assert not dataset.given_validation
    assert dataset.summary()["counts"] == {"train": 14, "validation": 4, "test": 1}
    assert "(2 images) joins the training images" in dataset.notices[0]
    given = prepare(configure("folder", root, split={"validation": "given"}), cache_dir=cache)
    assert given.summary()["counts"] == {"train": 16, "validation": 2, "test": 1}
    bare = fill(tmp_path / "bare", {"a": 8, "b": 8})
    with pytest.raises(UserError, match="the source has no validation part"):
        prepare(configure("folder", bare, split={"validation": "given"}), cache_dir=cache)
