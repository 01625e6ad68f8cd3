from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.cache.building import acquire
from gsfl_tune.cache.shared import use_shared_cache
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import Storage, open_shared_cache, open_storage
from gsfl_tune.run.storage.address import RunAddress
from gsfl_tune.run.storage.shared_cache import StoredCache
from tests.s3 import S3Server
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _alone_afterwards() -> Iterator[None]:
    yield
    use_shared_cache(None)


class Asked:
    """A storage that counts what it is asked."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.count = 0

    def attempt(self, call: Any) -> Any:
        self.count += 1
        return self._storage.attempt(call)


class Node:
    """A node with a cache of its own; counts what it builds."""

    def __init__(self, folder: Path, storage: Storage) -> None:
        self.cache = folder
        self.built = 0
        self.asked = Asked(storage)
        self.shared = StoredCache(self.asked, beat_seconds=0.2, dead_seconds=1.5)  # type: ignore[arg-type]
        self.go = threading.Event()
        self.go.set()
        self.data = b"features" * 200_000

    def build(self, target: Path) -> None:
        self.built += 1
        assert self.go.wait(60)
        target.write_bytes(self.data)

    def get(self, kind: str = "features") -> bytes:
        use_shared_cache(self.shared)
        with acquire(self.cache / kind / "0123.npy", self.build, what="x") as path:
            return path.read_bytes()

    def take(self) -> bytes:
        """As `get` in a process of its own."""
        target = self.cache / "target"
        target.parent.mkdir(parents=True, exist_ok=True)
        self.shared.through(self.cache / "features" / "0123.npy", self.build)(target)
        return target.read_bytes()


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = str(tmp_path / "kept") if request.param == "folder" else request.getfixturevalue("s3")
    return open_storage(f"{url}/.cache", create=True)


def test_one_node_builds_and_the_others_take(storage: Storage, tmp_path: Path) -> None:
    one, two = Node(tmp_path / "1", storage), Node(tmp_path / "2", storage)
    assert one.get() == one.data
    one.shared.settle()
    assert two.get() == one.data
    assert (one.built, two.built) == (1, 0)
    assert sorted(storage.list()) == ["features/0123.npy", "features/0123.npy.json"]
    # In the node's own cache now: nobody asks again.
    two.shared = None  # type: ignore[assignment]
    assert two.get() == one.data
    # Each node's own.
    two.get("digests")
    assert two.built == 1


def test_who_comes_while_another_node_builds_waits_for_it(storage: Storage, tmp_path: Path) -> None:
    nodes = [Node(tmp_path / str(number), storage) for number in range(3)]
    found: list[bytes] = []
    nodes[0].go.clear()
    threads = [threading.Thread(target=lambda n=node: found.append(n.take())) for node in nodes]  # type: ignore[misc]
    threads[0].start()
    wait_until(lambda: nodes[0].built, "the first node builds")
    for thread in threads[1:]:
        thread.start()
    # Twice for each look, every half second: longer than a builder without a beat is believed in.
    wait_until(lambda: found or all(n.asked.count >= 12 for n in nodes[1:]), "the others wait")
    nodes[0].go.set()
    for thread in threads:
        thread.join()
    assert [node.built for node in nodes] == [1, 0, 0]
    assert found == [nodes[0].data] * 3


def test_a_builder_that_died_is_not_waited_for(storage: Storage, tmp_path: Path) -> None:
    storage.put("features/0123.npy.builder", b"somebody 7")
    node = Node(tmp_path / "1", storage)
    assert node.take() == node.data
    assert node.built == 1


def test_what_is_not_what_its_digest_says_is_not_used(storage: Storage, tmp_path: Path) -> None:
    one, two = Node(tmp_path / "1", storage), Node(tmp_path / "2", storage)
    one.get()
    one.shared.settle()
    storage.put("features/0123.npy", os.urandom(len(one.data)))
    assert two.get() == one.data
    assert two.built == 1
    two.shared.settle()
    three = Node(tmp_path / "3", storage)
    assert three.get() == one.data
    assert three.built == 0


def test_a_storage_that_does_not_answer_costs_a_build(
    server: S3Server, s3: str, tmp_path: Path
) -> None:
    node = Node(tmp_path / "1", open_storage(f"{s3}/.cache"))
    with server.feeling("500"):
        assert node.get() == node.data
        node.shared.settle()
    assert node.built == 1


def test_a_node_that_cannot_open_the_cache_builds_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / ".cache"
    address = RunAddress.mark(str(tmp_path / "kept"), run, 1.0, str(cache))
    assert open_shared_cache(address) is None
    assert f"this node builds for itself: storage {cache}" in caplog.text
    address = address.model_copy(update={"cache": str(tmp_path / "kept" / ".cache")})
    assert open_shared_cache(address) is open_shared_cache(address) is not None
