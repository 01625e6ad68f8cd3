from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.run import RunDirectory


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
def one_slot() -> Slots:
    return Slots(cpu=1, gpu=0, count=1)


@pytest.fixture
def two_slots() -> Slots:
    return Slots(cpu=1, gpu=0, count=2)
