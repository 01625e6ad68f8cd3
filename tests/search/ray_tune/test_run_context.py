"""What the driver of a run hands to its workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search.workers.settings import WorkerSettings
from tests.search.experiments import context, experiment

TEAM = Slots(cpu=6, gpu=0, count=4, workers=2)
CONFIG = experiment().defaults()


def test_a_worker_reads_from_json_all_that_its_driver_was_given(
    run: RunDirectory, storage: DriverCopy, tmp_path: Path
) -> None:
    given = context(
        run,
        resources=TEAM,
        side=48,
        cache_dir=tmp_path / "cache",
        save_seconds=7.5,
        storage=storage,
    )
    sent = given.worker_settings("a channel", CONFIG).model_dump_json()
    read = WorkerSettings.model_validate_json(sent)
    assert dict(read) == {
        "interrupt": run.interrupt_file,
        "storage": storage.address,
        "side": 48,
        "cache_dir": tmp_path / "cache",
        "threads": 3,
        "workers": 2,
        "shard": False,
        "save_seconds": 7.5,
        "channel": "a channel",
    }


@pytest.mark.parametrize("channel", [None, "a channel"])
def test_a_run_without_a_storage_tells_its_workers_of_none(
    run: RunDirectory, one_slot: Slots, channel: str | None
) -> None:
    settings = context(run, resources=one_slot).worker_settings(channel, CONFIG)
    read = WorkerSettings.model_validate_json(settings.model_dump_json())
    assert read.storage is None
    assert read.side is None
    assert read.cache_dir is None
    assert read.channel == channel


def test_fewer_trainings_at_once_change_nothing_else(
    run: RunDirectory, storage: DriverCopy
) -> None:
    whole = context(run, resources=TEAM, storage=storage, side=48)
    fewer = whole.at_most(1)
    assert fewer.resources.count == 1
    assert whole.resources.count == 4
    assert whole.at_most(99).resources.count == 4
    assert fewer.interrupt is whole.interrupt
    assert fewer.worker_settings("same", CONFIG) == whole.worker_settings("same", CONFIG)
