"""Parts of a real three-node cluster die in the middle of a search."""

from __future__ import annotations

import signal
from collections.abc import Callable
from math import isfinite

import pytest
from optuna.trial import FrozenTrial

from benchmarks.faults.__main__ import FAULTS, STAGES, killers, overrides
from benchmarks.faults.driver import Stage
from benchmarks.faults.nodes import Nodes, kill
from benchmarks.faults.scenario import Search, disagreements, states, strike
from benchmarks.faults.storage import StorageServer
from tests.faults.conftest import ONE_WORKER

# A search, the same one undisturbed, and two clusters, on a machine that has other work too.
pytestmark = pytest.mark.timeout(1800)


@pytest.mark.slow
def test_a_search_outlives_a_node_a_trial_and_its_driver(search: Callable[..., Search]) -> None:
    one = search("head", *ONE_WORKER, "search.trials=3", "training.head.epochs=18")
    one.start()
    first = one.hit(done=0)
    kill(one.nodes.raylets[first["node"]])
    # As on a machine that is gone: a worker may outlive its raylet for a while.
    kill(first["pid"])
    one.wait(lambda: one.trained()[-1]["pid"] != first["pid"])
    # On the other node, from its last rung.
    assert one.trained()[-1]["trial"] == first["trial"]
    assert one.trained()[-1]["node"] != first["node"]
    # A second driver is refused; the first one waits, lest it end before the second has begun.
    one.process.send_signal(signal.SIGSTOP)
    second = Search(one.nodes, one.run, one.cache, one.stage, one.overrides)
    second.output = list(one.output)
    second.start()
    assert second.end() == 2
    assert f"process {one.process.pid}" in second.text()
    one.process.send_signal(signal.SIGCONT)
    kill(one.trained()[-1]["pid"])
    one.hit(done=1)
    finished = one.finished()
    one.stop()
    one.start()
    assert one.end() == 0, one.text()
    assert disagreements(one) == []
    assert {number: one.finished()[number] for number in finished} == finished


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS)
def test_ends_as_if_nothing_had_happened(
    fault: str,
    stage: Stage,
    search: Callable[..., Search],
    fresh: Callable[[], Nodes],
    undisturbed: Callable[[Stage, Nodes], list[FrozenTrial]],
    server: StorageServer,
) -> None:
    cluster = fresh()
    reference = undisturbed(stage, cluster)
    assert {trial.state.name for trial in reference} == {"COMPLETE", "PRUNED"}
    one = search(stage, *overrides(fault, server, f"{stage}-{fault}"), on=cluster)
    result = strike(fault, one, killers(fresh, server)[fault], reference)
    assert result.problems == []
    assert states(one.trials()) == states(reference)
    assert result.before["RUNNING"] == 1
    # A worker outlives a storage that is away, and its raylet or head for a while.
    assert isfinite(result.recovered) or fault in ("raylet", "storage", "gcs")
    assert "repeated" in one.text() or fault != "storage"


@pytest.mark.slow
def test_a_cluster_without_workers_waits_for_one(
    search: Callable[..., Search],
) -> None:
    one = search("head", *ONE_WORKER, "search.trials=3", "training.head.epochs=18")
    one.start()
    one.hit(done=0)
    for raylet in one.nodes.raylets.values():
        kill(raylet)
    # A worker outlives its raylet for a while, and may come to the end of the search.
    kill(one.trained()[-1]["pid"])
    # The driver lives: it goes on to say what it waits for, every few seconds.
    said = len(one.text().splitlines())
    one.wait(lambda: len(one.text().splitlines()) >= said + 3)
    trained = len(one.trained())
    one.nodes.add()
    assert one.end() == 0, one.text()
    assert len(one.trained()) > trained
    assert disagreements(one) == []
