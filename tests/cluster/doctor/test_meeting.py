"""What the driver finds itself, where nodes are to meet it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune.cluster import Question, inspect_here
from tests.s3 import BUCKET, S3Server, s3_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(tmp_path, monkeypatch) as server:
        yield server


def _of_driver(question: Question) -> list[str]:
    found = inspect_here(question).findings
    return [str(finding) for finding in found if finding.node == "driver"]


def test_a_storage_that_refuses_is_a_finding_at_once(server: S3Server) -> None:
    question = Question(storage=f"s3://{BUCKET}/runs/tiny")
    assert _of_driver(question) == []
    with server.feeling("refuse"):
        (line,) = _of_driver(question)
    assert "the storage cannot be used" in line
    assert "do the credentials allow" in line
    (line,) = _of_driver(Question(storage="s3://no-such-bucket/runs/tiny"))
    assert "the bucket does not exist" in line


def test_a_storage_that_is_away_is_a_finding_within_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (line,) = _of_driver(Question(storage=f"s3://{BUCKET}/runs/tiny", seconds=0.5))
    assert "the storage cannot be used" in line


def test_a_file_system_without_locks_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    # As Lustre does that is mounted without `flock`.
    monkeypatch.setattr(fcntl, "flock", refuse)
    (line,) = _of_driver(Question(run=tmp_path / "run", quick=True))
    assert line.startswith(f"driver: the file system of {tmp_path / 'run'} has no locks")
