"""Names that are not UTF-8, of an archive in Latin-1 for one: left out and counted."""

from __future__ import annotations

import os
import shutil
import tarfile

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import create_source, detect_source
from gsfl_tune.data.unlabelled import NamedFiles
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, save
from tests.data.sources.test_part_names import write

ODD = os.fsdecode(b"\xfcber")


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "data", {"a": 8, "b": 8})
    try:
        shutil.copy(tmp_path / "data" / "a" / "000.png", tmp_path / "data" / "a" / f"{ODD}.png")
    except OSError:
        pytest.skip("this file system has no such names")
    return tmp_path / "data"


def test_class_folders(root, cache):
    """Files, whole folders, and suffixes that are counted."""
    shutil.copytree(root / "b", root / ODD)
    (root / "a" / f"notes.{ODD}").touch()
    dataset = prepare(configure("auto", root), cache_dir=cache)
    assert dataset.classes == ["a", "b"]
    assert sum(dataset.summary()["counts"].values()) == 16
    told = "left out: 10 files: names that are not UTF-8 9, .\ufffdber 1"
    assert told in dataset.notices


def test_shards_and_parquet_files(root, cache, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    (tmp_path / "label.cls").write_text("1")
    with tarfile.open(shards / "all.tar", "w") as shard:
        for name in ("000", "001", ODD):
            shard.add(root / "a" / f"{name}.png", f"{name}.png")
            shard.add(tmp_path / "label.cls", f"{name}.cls")
    shutil.copy(shards / "all.tar", shards / f"{ODD}.tar")
    source = create_source(configure("webdataset", shards), cache)
    assert [each.path[-9:] for each in source.samples] == ["(000.png)", "(001.png)"]
    assert "not read: 1 file: names that are not UTF-8 1" in source.told()
    assert "not used of the shards: 1 file: names that are not UTF-8 1" in source.told()
    write(tmp_path / "tables" / "all.parquet", 0)
    shutil.copy(tmp_path / "tables" / "all.parquet", tmp_path / "tables" / f"{ODD}.parquet")
    source = create_source(configure("parquet", tmp_path / "tables"), cache)
    assert "not read: 1 file: names that are not UTF-8 1" in source.told()


def test_images_without_labels(root, cache):
    found = NamedFiles([str(root / "a"), f"{root}/a/*.png", str(root / "a" / f"{ODD}.png")], "x")
    assert len(found.samples) == 16
    assert found.told() == ["left out: 2 files: names that are not UTF-8 2"]
    [problem] = found.problems
    assert problem.endswith(f"{ODD}.png: the name is not UTF-8; rename it")


def test_a_path_is_refused(root):
    os.rename(root / "a", root / ODD)
    save(root / ODD / "b" / "1.png", 1)
    with pytest.raises(UserError, match=r"udcfcber'.*: found a name that is not UTF-8; rename it"):
        detect_source(str(root / ODD))
