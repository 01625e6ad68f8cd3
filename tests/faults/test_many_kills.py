from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from benchmarks.faults.nodes import kill
from benchmarks.faults.scenario import Search, alive, disagreements

KILLS = 20


def _strike(victim: str, one: Search, chance: random.Random) -> None:
    if victim == "trial":
        # The newest processes; one of them may be between two trials.
        kill(chance.choice(sorted({line["pid"] for line in one.trained()[-6:]})))
    elif victim == "raylet":
        living = [pid for pid in one.nodes.raylets.values() if alive(pid)]
        kill(chance.choice(living))
        one.nodes.add()
    else:
        one.stop()
        one.start()


def _furthest_back(one: Search) -> list[str]:
    """Where a trial was redone from before its last rung."""
    found = []
    for trial in one.trials():
        epochs = [line["epoch"] for line in one.trained() if line["trial"] == trial.number]
        for before, after in pairwise(epochs):
            # A kill may fall between an epoch and its rung.
            last = max((epoch for epoch in one.rungs if epoch < before), default=0)
            if after <= before and after <= last:
                found.append(f"trial {trial.number}: from {before} to {after}")
    return found


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_no_trial(search: Callable[..., Search]) -> None:
    chance = random.Random(11)
    one = search("head", "search.trials=500", "search.max_failures=20")
    one.start()
    final: dict[int, tuple[str, float | None]] = {}
    for _ in range(KILLS):
        count = len(one.trained())
        one.wait(lambda count=count: len(one.trained()) > count)  # type: ignore[misc]
        # A condition would always strike at the same moment of a trial.
        time.sleep(chance.uniform(0, 3))
        known = one.finished()
        assert {number: known.get(number) for number in final} == final
        final = known
        _strike(chance.choice(["trial", "raylet", "driver"]), one, chance)
    # What was begun comes to its end, and no more is begun.
    one.stop()
    begun = sum(trial.state.name != "WAITING" for trial in one.trials())
    one.overrides = (f"search.trials={begun}", "search.max_failures=20")
    one.start()
    assert one.end() == 0, one.text()
    assert len(final) >= 5
    assert {number: one.finished()[number] for number in final} == final
    assert disagreements(one) == []
    assert _furthest_back(one) == []
