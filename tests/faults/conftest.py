"""Clusters of real nodes, started and ended by their pids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

from benchmarks.faults.driver import Stage
from benchmarks.faults.nodes import Nodes, nodes
from benchmarks.faults.scenario import Search, whole
from benchmarks.faults.storage import StorageServer, storage_server
from gsfl_tune.run import RunDirectory

ONE_WORKER = ("search.max_concurrent=1",)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("storage")) as server:
        yield server


@pytest.fixture
def fresh(server: StorageServer) -> Iterator[Callable[[], Nodes]]:
    """Starts a cluster of three nodes; all of them end with the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(nodes(**server.environment))


@pytest.fixture
def search(
    fresh: Callable[[], Nodes], tmp_path: Path, cache: Path
) -> Iterator[Callable[..., Search]]:
    """Makes a search on a cluster; a driver that is left at the end of a test is killed."""
    made: list[Search] = []

    def make(stage: Stage, *overrides: str, on: Nodes | None = None) -> Search:
        run = RunDirectory(tmp_path / f"run{len(made)}")
        made.append(Search(on or fresh(), run, cache, stage, overrides))
        return made[-1]

    yield make
    for each in made:
        if hasattr(each, "process") and each.process.poll() is None:
            each.stop()


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> Callable[[Stage, Nodes], list[FrozenTrial]]:
    """The trials of a search without a fault, one at a time."""
    known: dict[Stage, list[FrozenTrial]] = {}

    def of(stage: Stage, on: Nodes) -> list[FrozenTrial]:
        if stage not in known:
            run = RunDirectory(tmp_path_factory.mktemp("whole") / "run")
            known[stage] = whole(Search(on, run, cache, stage, ONE_WORKER))
        return known[stage]

    return of
