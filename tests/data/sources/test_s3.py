"""Parquet files and tar shards of an object store, by pyarrow's own file system."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import count_classes, detect_source
from gsfl_tune.experiment.errors import UserError
from tests import warm
from tests.data.conftest import configure
from tests.s3 import BUCKET, S3Server, s3_server

from .test_parquet import LABELS, NAMES, content, table


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def put(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Writes an object to a place of its own in the bucket, and the same file to a folder."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    system = server.file_system()

    def write(name: str, value: bytes) -> str:
        local = tmp_path / "local" / name
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(value)
        with system.open_output_stream(f"{BUCKET}/{tmp_path.name}/{name}") as stream:
            stream.write(value)
        return f"s3://{BUCKET}/{tmp_path.name}"

    return write


def check_same(found, expected) -> None:
    """Remote images are those of the same files on this disk."""
    assert found.summary()["counts"] == expected.summary()["counts"]
    for ours, theirs in ((found.pool, expected.pool), (found.test, expected.test)):
        assert ours.labels.tolist() == theirs.labels.tolist()
        every = np.arange(len(ours))
        np.testing.assert_array_equal(ours.gather(every), theirs.gather(every))


def test_parquet_files_of_a_bucket(server, put, tmp_path, cache):
    for name, labels, seed in (("train", LABELS, 0), ("test", [0, 1], 100)):
        stream = io.BytesIO()
        pq.write_table(table(labels, names=NAMES, seed=seed), stream)
        url = put(f"{name}.parquet", stream.getvalue())
    local = prepare(configure("parquet", tmp_path / "local"), cache_dir=tmp_path / "other")
    for path in (url, f"{url}/*.parquet", [f"{url}/train.parquet", f"{url}/test.parquet"]):
        dataset = prepare(configure("parquet", path), cache_dir=cache)
        assert dataset.classes == NAMES
        assert dataset.test.paths[0].startswith(f"{url}/test.parquet#0")
        check_same(dataset, local)
    # One copy of each file, however often it is asked for.
    assert len(list((cache / "remote").glob("*.parquet"))) == 2
    with pytest.raises(UserError, match=r"nothing\.parquet does not exist on s3"):
        prepare(configure("parquet", f"{url}/nothing.parquet"), cache_dir=cache)
    environment = {**os.environ, "GSFL_TUNE_CACHE": str(cache)}
    done = warm.run(["data", url, "--json"], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == local.summary()["counts"]


def test_check_reads_the_class_names_of_a_bucket_and_copies_nothing(server, put, tmp_path, cache):
    names = [f"class {number}" for number in range(81)]
    for name in ("test", "train"):
        stream = io.BytesIO()
        pq.write_table(table([0, 80], names=names), stream)
        url = put(f"birds/{name}.parquet", stream.getvalue())
    (tmp_path / "remote.yaml").write_text(
        f"name: remote\ndata: {{path: '{url}/birds', image_size: 32}}\n"
        "model: {backbone: resnet18, weights: none}\n"
    )
    environment = {**os.environ, "GSFL_TUNE_CACHE": str(cache)}
    done = warm.run(["check", "remote.yaml"], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "81 classes" in " ".join(done.stdout.split()).partition("largest model")[2]
    assert count_classes(configure("parquet", f"{url}/birds/t*.parquet")) == 81
    assert count_classes(configure("parquet", f"{url}/nothing.parquet")) is None
    assert not (cache / "remote").exists()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_not_waited_for(server, put):
    """For its class names alone; pyarrow would wait for minutes."""
    stream = io.BytesIO()
    pq.write_table(table([0, 1], names=NAMES), stream)
    url = put("train.parquet", stream.getvalue())
    with server.frozen():
        begun = time.monotonic()
        assert count_classes(configure("parquet", url)) is None
        assert 10 <= time.monotonic() - begun < 90


def test_shards_of_a_bucket(put, tmp_path, cache):
    for number in range(2):
        stream = io.BytesIO()
        with webdataset.TarWriter(stream) as writer:
            for n in range(10 * number, 10 * number + 10):
                writer.write({"__key__": f"{n}", "png": content(n), "cls": n % 2})
        put(f"train-{number}.tar", stream.getvalue())
    url = put("classes.json", json.dumps(NAMES).encode())
    local = prepare(configure("webdataset", tmp_path / "local"), cache_dir=tmp_path / "other")
    for path in (f"{url}/train-{{0..1}}.tar", f"{url}/*.tar"):
        assert detect_source(path) == "webdataset"
        dataset = prepare(configure("auto", path), cache_dir=cache)
        assert dataset.classes == NAMES
        assert all(name.startswith(f"{url}/train-") for name in dataset.pool.paths)
        check_same(dataset, local)
    dataset = prepare(configure("webdataset", url), cache_dir=cache)
    check_same(dataset, local)
    # One copy of each, the class names too.
    for suffix, count in ((".tar", 2), (".text", 1)):
        assert len(list((cache / "remote").glob(f"*{suffix}"))) == count


def test_options_of_a_url_name_server_and_region(server, put, tmp_path, cache, monkeypatch):
    """As for a storage: a data set may be at another server than the environment names."""
    for name, labels, seed in (("train", LABELS, 0), ("test", [0, 1], 100)):
        stream = io.BytesIO()
        pq.write_table(table(labels, names=NAMES, seed=seed), stream)
        url = put(f"{name}.parquet", stream.getvalue())
    local = prepare(configure("parquet", tmp_path / "local"), cache_dir=tmp_path / "other")
    monkeypatch.delenv("AWS_REGION")
    dataset = prepare(configure("auto", f"{url}?region=us-east-1"), cache_dir=cache)
    check_same(dataset, local)
    assert dataset.name == tmp_path.name
    assert dataset.test.paths[0].startswith(f"{url}/test.parquet#0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    host = server.endpoint.removeprefix("http://")
    there = f"?scheme=http&endpoint_override={host}&region=us-east-1"
    for path in (
        f"{url}{there}",
        f"{url}/*.parquet{there}",
        f"{url}/{{train,test}}.parquet{there}",
    ):
        dataset = prepare(configure("parquet", path), cache_dir=cache)
        check_same(dataset, local)
    # Equal paths of two servers are not one file.
    named = f"{url}/test.parquet?endpoint_override={host}#0"
    assert dataset.test.paths[0].startswith(named)
    assert len(list((cache / "remote").glob("*.parquet"))) == 4


@pytest.mark.parametrize("scheme", ["", "http%3A%2F%2F"])
def test_class_names_beside_shards_are_read_from_the_same_server(
    server, put, tmp_path, cache, monkeypatch, scheme
):
    stream = io.BytesIO()
    with webdataset.TarWriter(stream) as writer:
        for n in range(20):
            writer.write({"__key__": f"{n}", "png": content(n), "cls": n % 2})
    put("train/0.tar", stream.getvalue())
    url = put("classes.json", json.dumps(NAMES).encode())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    host = server.endpoint.removeprefix("http://")
    path = f"{url}/train/0.tar?scheme=http&endpoint_override={scheme}{host}&region=us-east-1"
    assert detect_source(path) == "webdataset"
    dataset = prepare(configure("auto", path), cache_dir=cache)
    assert dataset.classes == NAMES
    assert dataset.pool.paths[0].startswith(f"{url}/train/0.tar?endpoint_override={host}#")


@pytest.mark.parametrize("before", ["?", "?region=us-east-1&"])
def test_an_endpoint_with_its_scheme_is_refused_with_what_is_allowed(cache, before):
    path = f"s3://bucket/birds/*.parquet{before}endpoint_override=http://127.0.0.1:9"
    for kind in ("auto", "parquet"):
        with pytest.raises(UserError) as caught:
            prepare(configure(kind, path), cache_dir=cache)
        assert str(caught.value) == (
            f"data.path: {path}: found an endpoint with its scheme, allowed "
            "endpoint_override=HOST:PORT&scheme=http"
        )


def test_an_option_that_pyarrow_does_not_know_is_refused_with_its_reason(put, cache):
    url = put("train.parquet", b"")
    with pytest.raises(UserError, match=r"data\.path: .* cannot be opened: .*reigon"):
        prepare(configure("parquet", f"{url}/train.parquet?reigon=us-east-1"), cache_dir=cache)
