"""Machines that share nothing but a storage: each thing is computed by one of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune.cache.shared import SHARED_KINDS
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import Storage, open_storage
from gsfl_tune.run.workers import WorkerLog
from tests.cli.local import EXPERIMENT
from tests.cluster.nodes import Nodes, can_unshare, mounted
from tests.s3 import BUCKET, S3Server, s3_server

MACHINES = ("driver", "node0", "node1")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def nodes(server: S3Server) -> Iterator[Nodes]:
    started = Nodes()
    yield started
    started.close()


def _entries(cache: Path) -> dict[str, str]:
    """Digest of everything in a cache that machines share."""
    return {
        f"{kind}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in SHARED_KINDS
        for path in (cache / kind).glob("*")
        if path.suffix in (".npy", ".arrow")
    }


def _published(storage: Storage) -> dict[str, str]:
    """Digest of everything that machines share, as its builder wrote it down."""
    names = [name.removesuffix(".json") for name in storage.list() if name.endswith(".json")]
    found = {name: json.loads(storage.get(f"{name}.json") or b"") for name in names}
    return {name: content["sha256"] for name, content in found.items()}


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="needs the right to mount")
def test_machines_with_disks_of_their_own_build_everything_once(
    server: S3Server, nodes: Nodes, tmp_path: Path
) -> None:
    # The same paths on every machine, and another disk below each.
    caches = {name: tmp_path / f"cache-{name}" for name in MACHINES}
    caches["driver"] = nodes.directory / "cache"
    runs = tmp_path / "runs"
    for folder in (*caches.values(), runs):
        folder.mkdir()
    for name in MACHINES[1:]:
        own = f"mount --bind {caches[name]} {caches['driver']} && mount -t tmpfs none {runs}"
        # The server takes any key, and writes down whose request it was.
        nodes.start(before=["env", f"AWS_ACCESS_KEY_ID={name}", *mounted(own)])
    nodes.wait(2)
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    nodes.environment["AWS_ACCESS_KEY_ID"] = "driver"
    done = nodes.gsfl_tune(
        *("search", tmp_path / "tiny.yaml", "--run-dir", runs / "tiny"),
        *("--address", nodes.address, "--storage", f"s3://{BUCKET}/kept"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = WorkerLog(RunDirectory(runs / "tiny")).read()
    assert len({record["node"] for record in records if "trial" in record}) == 2, records

    shared = open_storage(f"s3://{BUCKET}/kept/.cache")
    requests = server.requests()
    stored = _published(shared)
    held = {name: _entries(folder) for name, folder in caches.items()}
    for name in MACHINES[1:]:
        # Trained on a node: whole images, features and groups are on its disk.
        assert {entry.partition("/")[0] for entry in held[name]} >= {"decoded", "features"}
    for entry, digest in stored.items():
        asked = [each for each in requests if each.path.endswith(f"/kept/.cache/{entry}")]
        published = [each.key for each in asked if each.method == "PUT"]
        assert len(published) == 1, (entry, published)
        taken = {each.key for each in asked if each.method == "GET"}
        holders = {name for name in MACHINES if entry in held[name]}
        # Whoever has it has built it or taken it: nobody has computed it a second time.
        assert holders == {*published, *taken}, entry
        assert {held[name][entry] for name in holders} == {digest}
    assert all(entry in stored for entries in held.values() for entry in entries)
    # One of the nodes has built features that the other one has taken.
    assert any(
        entry.startswith("features/") and all(entry in held[name] for name in MACHINES[1:])
        for entry in stored
    )
