from __future__ import annotations

import pytest

from gsfl_tune.data.sources import detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import fill, save


def test_folders(tmp_path):
    assert detect_source(str(fill(tmp_path / "plain", {"a": 1, "b": 1}))) == "folder"
    bird = fill(tmp_path / "CUB_200_2011", {"images/a": 1})
    (bird / "images.txt").touch()
    assert detect_source(str(bird)) == "cub"
    assert detect_source(str(tmp_path)) == "cub"
    # What exists is a path and no pattern.
    assert detect_source(str(fill(tmp_path / "birds [2024]", {"a": 1}))) == "folder"


def test_parquet(tmp_path):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "README.md").touch()
    (tmp_path / "hub" / "data" / "train-0.parquet").touch()
    for path in (
        str(tmp_path / "hub"),
        str(tmp_path / "hub" / "data"),
        str(tmp_path / "hub" / "data" / "train-0.parquet"),
        str(tmp_path / "hub" / "**" / "*.parquet"),
        "s3://bucket/data",
    ):
        assert detect_source(path) == "parquet"


def test_a_picture_beside_parquet_files_is_of_their_description(tmp_path):
    (tmp_path / "train.parquet").touch()
    save(tmp_path / "logo.png", 1)
    assert detect_source(str(tmp_path)) == "parquet"


def test_what_may_be_two_things(tmp_path):
    fill(tmp_path, {"a": 1})
    (tmp_path / "train.parquet").touch()
    with pytest.raises(UserError, match=r"train\.parquet.*a/000\.png.*set data\.source to"):
        detect_source(str(tmp_path))


def test_other_things(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        detect_source(str(tmp_path / "nothing"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="neither an experiment"):
        detect_source(str(tmp_path / "notes.txt"))
