"""What a search asks of resources, and the slots of a cluster that answer it."""

from __future__ import annotations

import inspect

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.cluster.session.slots import fit
from gsfl_tune.experiment.search_config import ResourcesConfig
from gsfl_tune.search.ray_tune.resources import Resources

ASKED = [name for name in vars(Resources) if not name.startswith("_")]


def _of_a_cluster() -> Slots:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]
    return fit(ResourcesConfig(cpu=1, gpu=0.25), nodes)


@pytest.mark.parametrize("name", ASKED)
def test_slots_have_what_a_search_asks_for(name: str) -> None:
    slots: Resources = _of_a_cluster()
    expected = vars(Resources)[name]
    if isinstance(expected, property):
        assert isinstance(getattr(slots, name), int | float)
        return
    wanted = inspect.signature(expected)
    assert list(inspect.signature(getattr(Slots, name)).parameters) == list(wanted.parameters)


def test_a_search_asks_for_all_that_a_trial_is_started_with() -> None:
    assert set(ASKED) == {
        "cpu",
        "gpu",
        "count",
        "threads",
        "workers",
        "of",
        "at_most",
        "shard",
        "per_node",
    }


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), (3, 3), (8, 8), (99, 8)])
def test_no_more_than_were_wanted_and_no_more_than_fit(wanted: int, count: int) -> None:
    slots: Resources = _of_a_cluster()
    fewer = slots.at_most(wanted)
    assert fewer.count == count
    assert (fewer.cpu, fewer.threads, fewer.workers) == (slots.cpu, slots.threads, slots.workers)
    assert slots.count == 8


def test_fewer_trials_get_larger_shares_of_the_gpus() -> None:
    slots: Resources = _of_a_cluster()
    assert slots.gpu == 0.25
    assert slots.at_most(2).gpu == 1.0
    assert slots.at_most(1).at_most(1).gpu == 1.0


def test_the_processes_of_a_trial_share_its_cores() -> None:
    slots: Resources = Slots(cpu=6, gpu=2, count=1, workers=2)
    assert slots.threads == 3
    scarce: Resources = Slots(cpu=1, gpu=2, count=1, workers=2)
    assert scarce.threads == 1
