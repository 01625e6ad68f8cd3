"""How long a search waits for its storage, on a real one that refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search import Interrupt, StorageWatcher
from tests.s3 import BUCKET, S3Server, s3_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(tmp_path, monkeypatch) as server:
        yield server


def test_who_ends_trials_waits_for_the_storage_and_who_ends_the_run_does_not(
    server: S3Server, run: RunDirectory
) -> None:
    run.path.mkdir()
    stored = DriverCopy(f"s3://{BUCKET}/runs", run, "tiny")
    interrupt = Interrupt(run, grace=0.0)
    StorageWatcher(stored, interrupt, print)
    try:
        # A time budget is used up, and the trials have had their time to save.
        interrupt.end_trials()
        assert interrupt.overdue
        server.mood.write_text("refuse")
        threading.Timer(2.0, server.mood.write_text, [""]).start()
        stored.storage.put("kept", b"content")
        assert stored.storage.get("kept") == b"content"
        assert "repeated" in (stored.news() or "")
        # The driver is to end: the run directory has what the storage does not take.
        interrupt.reopen()
        interrupt.request()
        with server.feeling("refuse"), pytest.raises(EnvironmentProblem, match="writing late"):
            stored.storage.put("late", b"content")
    finally:
        stored.close(hurry=True)
