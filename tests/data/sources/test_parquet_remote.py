"""Parquet files of other file systems are copied once."""

from __future__ import annotations

import fsspec
import pyarrow.parquet as pq
import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import ParquetSource
from gsfl_tune.data.sources._remote import _address, _origin
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure

from .test_parquet import LABELS, NAMES, table, write


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/gsfl-test", recursive=True)


def test_other_file_systems(memory, cache):
    for name, labels, seed in (("train", LABELS, 0), ("test", [0, 1], 100)):
        with memory.open(f"/gsfl-test/data/{name}.parquet", "wb") as file:
            pq.write_table(table(labels, names=NAMES, seed=seed), file)
    for path in (
        "memory://gsfl-test/data",
        "memory://gsfl-test/data/*.parquet",
        ["memory://gsfl-test/data/train.parquet", "memory://gsfl-test/data/test.parquet"],
    ):
        dataset = prepare(configure("parquet", path), cache_dir=cache)
        assert dataset.classes == NAMES
        assert len(dataset.pool) == 10
        assert len(dataset.test) == 2
        assert dataset.test.paths[0].startswith("memory://gsfl-test/data/test.parquet#0")
    # One copy of each file, however often it is asked for.
    assert len(list((cache / "remote").glob("*.parquet"))) == 2
    with memory.open("/gsfl-test/data/test.parquet", "wb") as file:
        pq.write_table(table([0, 1, 1], names=NAMES, seed=500), file)
    assert len(prepare(configure("parquet", path), cache_dir=cache).test) == 3


def test_a_file_url(tmp_path, cache):
    file = write(tmp_path / "a.parquet", LABELS, names=NAMES)
    dataset = prepare(configure("parquet", file.as_uri()), cache_dir=cache)
    assert dataset.classes == NAMES
    with pytest.raises(UserError, match="does not exist"):
        ParquetSource((tmp_path / "b.parquet").as_uri(), cache)


@pytest.mark.parametrize(
    ("url", "path", "address"),
    [
        ("hdfs://name:8020/birds", "/birds/a.parquet", "hdfs://name:8020/birds/a.parquet"),
        ("sftp://ann:secret@nas/birds", "/birds/a.tar", "sftp://ann@nas/birds/a.tar"),
        ("s3://birds/2026?region=eu", "birds/2026/a.tar", "s3://birds/2026/a.tar"),
        ("s3://key:secret@birds/2026", "birds/2026/a.tar", "s3://birds/2026/a.tar"),
        ("file:///birds", "/birds/a.tar", "file:///birds/a.tar"),
    ],
)
def test_the_address_of_a_file_has_the_host_and_no_secret(url, path, address):
    """Two servers with equal paths are not one: copies are cached by address."""
    assert _address(_origin(url), path) == address
