"""What a worker process is told of its run arrives there as it was said."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search.workers.settings import SECONDS_BETWEEN_SAVES, WorkerSettings


def test_settings_travel_as_json(storage: DriverCopy, tmp_path: Path) -> None:
    told = WorkerSettings(
        interrupt=tmp_path / "interrupt",
        storage=storage.address,
        side=40,
        cache_dir=tmp_path / "cache",
        threads=3,
        workers=2,
        save_seconds=1.5,
        channel="heartbeat",
    )
    arrived = WorkerSettings.model_validate_json(told.model_dump_json())
    assert arrived == told
    assert arrived.storage == storage.address
    assert arrived.cache_dir == tmp_path / "cache"


def test_a_run_without_wishes_trains_in_one_process_of_one_thread(tmp_path: Path) -> None:
    found = WorkerSettings(interrupt=tmp_path / "interrupt")
    assert (found.threads, found.workers) == (1, 1)
    assert found.storage is None
    assert found.save_seconds == SECONDS_BETWEEN_SAVES


def test_a_setting_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="thread\n"):
        WorkerSettings(interrupt=tmp_path / "interrupt", thread=2)  # type: ignore[call-arg]


def test_trials_that_share_settings_cannot_change_them_for_each_other(tmp_path: Path) -> None:
    shared = WorkerSettings(interrupt=tmp_path / "interrupt")
    with pytest.raises(ValidationError, match="frozen"):
        shared.threads = 8  # type: ignore[misc]
    own = shared.model_copy(update={"threads": 8})
    assert (shared.threads, own.threads) == (1, 8)
