from __future__ import annotations

import pytest

from gsfl_tune.data.detect import detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import fill


def test_folders(tmp_path):
    assert detect_source(str(fill(tmp_path / "plain", {"a": 1, "b": 1}))) == "folder"
    bird = fill(tmp_path / "CUB_200_2011", {"images/a": 1})
    (bird / "images.txt").touch()
    assert detect_source(str(bird)) == "cub"
    assert detect_source(str(tmp_path)) == "cub"


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


def test_other_things(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        detect_source(str(tmp_path / "nothing"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="neither an experiment"):
        detect_source(str(tmp_path / "notes.txt"))
