from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import DriverCopy, DriverLease


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def ray_of_tests() -> Iterator[None]:
    with ray_session(cpus=2):
        yield


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def storage(run: RunDirectory, tmp_path: Path) -> Iterator[DriverCopy]:
    """A place that this process leads, as a driver does, with a beat that tests can wait for."""

    def lease(storage: Any, **options: Any) -> DriverLease:
        return DriverLease(storage, beat_seconds=0.1, **options)

    run.path.mkdir()
    kept = DriverCopy(str(tmp_path / "kept"), run, "tiny", lease=lease)
    yield kept
    kept.close()


@pytest.fixture
def one_slot() -> Slots:
    return Slots(cpu=1, gpu=0, count=1)


@pytest.fixture
def two_slots() -> Slots:
    return Slots(cpu=1, gpu=0, count=2)
