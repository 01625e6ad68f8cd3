from __future__ import annotations

import errno
import io
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError, UserError
from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run.storage import Storage, open_storage, storage_problem
from gsfl_tune.run.storage.backends.base import PIECE_BYTES
from gsfl_tune.run.storage.backends.remote import open_backend
from tests.s3 import S3Server
from tests.search.experiments import YAML, experiment


class StorageContract:
    """What every storage must do."""

    def test_objects_are_written_read_listed_and_removed(self, storage: Storage) -> None:
        assert storage.get("a/b.json") is None
        assert storage.list() == {}
        assert storage.list("nothing/here") == {}
        storage.put("a/b.json", b"one")
        storage.put("a/c/d", b"")
        storage.put("top", b"x" * 100)
        storage.put("a/b.json", b"three")
        assert storage.get("a/b.json") == b"three"
        assert storage.get("a/c/d") == b""
        assert storage.list() == {"a/b.json": 5, "a/c/d": 0, "top": 100}
        assert storage.list("a") == {"a/b.json": 5, "a/c/d": 0}
        storage.delete("a/b.json")
        storage.delete("a/b.json")
        assert storage.get("a/b.json") is None
        assert storage.list("a") == {"a/c/d": 0}

    def test_large_objects_come_back_whole(self, storage: Storage) -> None:
        data = os.urandom(12_000_000)
        storage.put("checkpoint.pt", data)
        assert storage.get("checkpoint.pt") == data

    def test_what_is_larger_than_the_memory_goes_in_pieces(self, storage: Storage) -> None:
        data = os.urandom(2 * PIECE_BYTES + 5)

        class Large(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                assert size is not None
                assert 0 < size <= PIECE_BYTES, "read as a whole"
                return super().read(size)

        pieces: list[bytes] = []
        assert not storage.attempt(lambda backend: backend.read_into("decoded/a", pieces.append))
        storage.attempt(lambda backend: backend.write_from("decoded/a", Large(data)))
        assert storage.list() == {"decoded/a": len(data)}
        assert storage.attempt(lambda backend: backend.read_into("decoded/a", pieces.append))
        assert max(map(len, pieces)) <= PIECE_BYTES
        assert b"".join(pieces) == data

    def test_a_probe_leaves_nothing(self, storage: Storage) -> None:
        assert storage.probe() == {}
        assert storage.list() == {}

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "a/../../b", "", "a\\b", "a\nb"])
    def test_names_that_lead_elsewhere_are_refused(self, storage: Storage, name: str) -> None:
        with pytest.raises(ValueError, match="not the name"):
            storage.put(name, b"x")


class TestFolder(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(str(tmp_path / "kept"), create=True)


class TestS3(StorageContract):
    @pytest.fixture
    def storage(self, s3: str) -> Storage:
        return open_storage(s3)


class TestFsspec(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(f"memory://{tmp_path.name}/run", create=True)


class TestFsspecFiles(StorageContract):
    """A file system of fsspec's that is no object store: files are moved into place."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(f"local://{tmp_path}/run", create=True)


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "kept"), create=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kept" / "run.json").symlink_to(tmp_path / "secret")
    (tmp_path / "kept" / "trials").symlink_to(tmp_path / "elsewhere")
    assert storage.list() == {}
    for name in ("run.json", "trials/x"):
        with pytest.raises(UserError, match="link"):
            storage.get(name)
    with pytest.raises(UserError, match="link"):
        storage.put("trials/x", b"x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_cannot_be_read_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(str(tmp_path / "kept"), create=True, patience=0)
    storage.put("run.json", b"{}")
    storage.put("journal/00001/a.jsonl", b"1")
    scandir = os.scandir

    def failing(path: str) -> object:
        if str(path).endswith("journal"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    # Permissions do not keep the superuser out.
    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(EnvironmentProblem, match="Permission denied"):
        storage.list()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "mount"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def test_a_full_disk_keeps_what_was_there(mount: Path) -> None:
    storage = open_storage(str(mount / "run"), create=True, patience=0)
    storage.put("run.json", b"before")
    with pytest.raises(EnvironmentProblem, match=r"run\.json.*No space left"):
        storage.put("run.json", b"x" * 3_000_000)
    assert storage.get("run.json") == b"before"
    assert storage.list() == {"run.json": 6}


def test_a_mount_that_vanished_is_not_written_below(mount: Path) -> None:
    storage = open_storage(str(mount / "run"), create=True, patience=0)
    storage.put("run.json", b"before")
    subprocess.run(["umount", "-l", str(mount)], check=True)
    with pytest.raises(EnvironmentProblem, match="No such file"):
        storage.put("run.json", b"after")
    (mount / "run").mkdir()
    with pytest.raises(EnvironmentProblem, match="unmounted"):
        storage.put("run.json", b"after")
    assert list((mount / "run").iterdir()) == []


@pytest.mark.parametrize("mood", ["500", pytest.param("refuse", marks=pytest.mark.slow)])
def test_writes_are_repeated_until_they_are_taken(server: S3Server, s3: str, mood: str) -> None:
    storage = open_storage(s3)
    storage.put("before", b"x")
    assert storage.away_seconds == 0
    with server.feeling(mood):
        threads = [
            threading.Thread(target=storage.put, args=(f"during-{number}", b"x"))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        threads[0].join(timeout=2.5)
        assert all(thread.is_alive() for thread in threads)
        assert "does not answer" in (storage.news() or "")
        assert storage.away_seconds >= 2
    for thread in threads:
        thread.join(timeout=60)
    assert storage.list() == dict.fromkeys(["before", "during-0", "during-1", "during-2"], 1)
    assert "3 writes were repeated" in (storage.news() or "")
    assert storage.news() is None


def test_a_share_that_is_mounted_late_is_waited_for(tmp_path: Path) -> None:
    late = tmp_path / "kept"
    timer = threading.Timer(0.2, late.mkdir)
    timer.start()
    assert open_storage(str(late)).list() == {}
    timer.join()


@pytest.mark.parametrize("text", ["-1", "soon", "inf", "nan"])
def test_a_patience_that_is_no_number_of_seconds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("GSFL_TUNE_STORAGE_PATIENCE", text)
    with pytest.raises(UserError, match=f"STORAGE_PATIENCE: found '{text}', allowed a number"):
        open_storage(str(tmp_path))
    monkeypatch.setenv("GSFL_TUNE_STORAGE_PATIENCE", "0")
    assert open_storage(str(tmp_path)).patience == 0


def test_patience_ends(server: S3Server, s3: str) -> None:
    storage = open_storage(s3, patience=0.5)
    failed = pytest.raises(EnvironmentProblem, match=r"writing run\.json failed")
    with server.feeling("500"), failed:
        storage.put("run.json", b"x")


def test_a_frozen_server_is_waited_for(server: S3Server, s3: str) -> None:
    storage = open_storage(s3)
    storage.put("before", b"x")
    with server.frozen():
        thread = threading.Thread(target=storage.put, args=("during", b"x"))
        thread.start()
        thread.join(timeout=5)
        assert thread.is_alive()
    thread.join(timeout=60)
    assert storage.get("during") == b"x"


def test_what_waiting_does_not_mend_is_said_at_once(
    server: S3Server, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="bucket does not exist"):
        open_storage("s3://no-such-bucket/runs").probe()
    with server.feeling("refuse"), pytest.raises(UserError, match="denied"):
        open_storage(s3).probe()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentProblem):
        open_storage(s3, patience=0.5).probe()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("s4://bucket/x", "unknown scheme s4"),
        ("s3://key:secret@bucket/x", "environment"),
        ("s3:///x", "s3://BUCKET"),
        ("s3://bucket/exp#1", "without #"),
        ("", "found no storage name"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_its_line(value: str, complaint: str) -> None:
    with pytest.raises(ExperimentError, match=f"storage: .*{complaint}"):
        Experiment.parse(f"storage: '{value}'\n{YAML}", checks={"storage": storage_problem})
    assert "secret" not in (storage_problem(value) or "")


def test_a_package_that_a_url_needs_is_named() -> None:
    with pytest.raises(UserError, match="oci://bucket/runs needs another package: Install ocifs"):
        open_storage("oci://bucket/runs")


def test_storage_is_no_parameter() -> None:
    with pytest.raises(ExperimentError, match="kept in one place"):
        experiment("storage={choice: [s3://a/b, s3://c/d]}")
    assert experiment("storage=s3://bucket/runs").defaults().storage == "s3://bucket/runs"


@pytest.mark.slow
def test_a_bucket_of_google_that_does_not_answer_is_given_up() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free_port = probe.getsockname()[1]
    query = f"scheme=http&endpoint_override=127.0.0.1:{free_port}"
    backend = open_backend(f"gs://anonymous@bucket/runs/birds?{query}", create=True)
    with pytest.raises(OSError, match="not connect"):
        backend.get("run.json")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("abfss://container@account.dfs.core.windows.net/runs", True),
        ("abfss://container:key@account.dfs.core.windows.net/runs", False),
        ("s3://key:secret@bucket/runs", False),
        ("s3://key@bucket/runs", False),
        ("gs://anonymous@bucket/runs", True),
    ],
)
def test_urls_hold_no_credentials(url: str, *, allowed: bool) -> None:
    assert (storage_problem(url) is None) == allowed
