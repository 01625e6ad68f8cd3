"""Findings about the trials: they hold where they should, and nowhere else."""

from __future__ import annotations

from typing import Any

from gsfl_tune.evidence import Searched, Work
from gsfl_tune.evidence.findings_of_search import of_search

from .test_findings import codes, world


def searched(early: list[float], late: list[float], **changes: Any) -> Searched:
    rungs = [{0: a, 3: b} for a, b in zip(early, late, strict=True)]
    return Searched(**{"rungs": rungs, "states": {"COMPLETE": len(late)}, **changes})


def test_rungs_that_decide_by_chance():
    rising, falling = [0.1 * n for n in range(8)], [0.9 - 0.1 * n for n in range(8)]
    assert codes(world(), searched=searched(rising, falling)) == ["rungs_do_not_agree"]
    assert codes(world(), searched=searched(rising, rising)) == []
    assert codes(world(), searched=searched(rising[:7], falling[:7])) == []
    stopped = Searched(rungs=[{0: 0.1 * n} for n in range(20)])
    assert codes(world(), searched=stopped) == []


def test_a_search_whose_best_value_still_rose():
    values = [0.5] * 9 + [0.6]
    assert codes(world(), searched=Searched(values=values)) == ["still_improving"]
    assert codes(world(), searched=Searched(values=values[::-1])) == []
    assert codes(world(), searched=Searched(values=values, sign=-1)) == []  # a loss
    assert codes(world(), searched=Searched(values=values[1:])) == []


def test_trials_that_failed():
    def states(failed: int, complete: int) -> Searched:
        return Searched(states={"FAIL": failed, "COMPLETE": complete})

    assert codes(world(), searched=states(3, 20)) == ["many_failed"]
    assert codes(world(), searched=states(2, 3)) == []
    assert codes(world(), searched=states(3, 40)) == []


def test_a_search_that_found_nothing_better_than_its_first_trials():
    values = [0.5, 0.6] + [0.4] * 18
    assert codes(world(), searched=Searched(values=values)) == ["best_from_the_start"]
    # A place in the order of ends, not the number of a trial.
    (found,) = of_search(Searched(values=values))
    assert "the 20 trials that came to their end was number 2 to do so" in found.sentence
    assert codes(world(), searched=Searched(values=values[:19])) == []
    third = [0.5, 0.5, 0.6] + [0.4] * 17
    assert codes(world(), searched=Searched(values=third)) == []
    # A loss that was never lower again.
    losses = [0.1] + [0.4] * 19
    assert codes(world(), searched=Searched(values=losses, sign=-1)) == ["best_from_the_start"]


def test_a_front_of_a_point_or_two():
    values = [0.1, 0.2, 0.9, *([0.5] * 9)]
    assert codes(world(), searched=Searched(values=values, front=2)) == ["small_front"]
    assert codes(world(), searched=Searched(values=values, front=3)) == []
    assert codes(world(), searched=Searched(values=values, front=0)) == []  # one objective
    assert codes(world(), searched=Searched(values=values[:9], front=1)) == []


def test_slots_that_wait():
    def worked(slots: int, seconds: float, busy: float) -> Searched:
        return Searched(work=Work(slots, seconds, busy))

    assert codes(world(), searched=worked(4, 3600, 0.3)) == ["slots_idle"]
    assert codes(world(), searched=worked(4, 3600, 0.7)) == []
    assert codes(world(), searched=worked(4, 120, 0.3)) == []  # mostly the start of the workers
    assert codes(world(), searched=worked(1, 3600, 0.3)) == []
