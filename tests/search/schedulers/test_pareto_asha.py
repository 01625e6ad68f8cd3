"""Halving by several objectives, against loops that know nothing of how it is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from gsfl_tune.search.schedulers.asha import Asha
from gsfl_tune.search.schedulers.pareto_asha import ParetoAsha, net_order, place_among


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    no_worse = all(a <= b for a, b in zip(one, other, strict=True))
    return no_worse and any(a < b for a, b in zip(one, other, strict=True))


def fronts(points: list[tuple[float, ...]]) -> list[list[int]]:
    """Rows by front, the first front first."""
    left, found = list(range(len(points))), []
    while left:
        front = [i for i in left if not any(beats(points[j], points[i]) for j in left)]
        found.append(front)
        left = [i for i in left if i not in front]
    return found


def net(points: list[tuple[float, ...]], rows: list[int]) -> list[int]:
    """Rows of a front: the best in the first objective, then always the farthest from all taken."""
    ends = [
        (min(points[i][m] for i in rows), max(points[i][m] for i in rows))
        for m in range(len(points[0]))
    ]
    scaled = {
        i: [
            (v - low) / (high - low) if high > low else 0.0
            for v, (low, high) in zip(points[i], ends, strict=True)
        ]
        for i in rows
    }
    taken = [min(rows, key=lambda i: (scaled[i][0], i))]
    while len(taken) < len(rows):
        rest = [i for i in rows if i not in taken]
        gaps = {i: min(math.dist(scaled[i], scaled[j]) for j in taken) for i in rest}
        farthest = max(gaps.values())
        taken.append(min(i for i in rest if gaps[i] >= farthest - 1e-12))
    return taken


def reference_order(points: list[tuple[float, ...]]) -> list[int]:
    return [row for front in fronts(points) for row in net(points, front)]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("coarse", [True, False])
def test_the_place_of_a_trial_is_that_of_the_reference(objectives: int, coarse: bool) -> None:
    rng = np.random.default_rng(objectives)
    for count in range(1, 30):
        drawn = rng.normal(size=(count, objectives)) * 10.0 ** np.arange(objectives)
        points = [tuple(row) for row in (drawn.round() if coarse else drawn).tolist()]
        ahead = place_among(np.array(points[-1]), np.array(points[:-1]).reshape(-1, objectives))
        assert ahead == reference_order(points).index(count - 1)


def test_the_net_takes_the_ends_of_a_front_before_its_middle() -> None:
    line = np.array([[0.5, 0.5], [0.55, 0.45], [0.0, 1.0], [1.0, 0.0], [0.25, 0.75]])
    assert net_order(line)[:3] == [2, 3, 0]
    # Units do not matter.
    assert net_order(line * [1.0, 1e9]) == net_order(line)


@pytest.mark.parametrize(("reduction", "brackets"), [(2, 1), (3, 2)])
def test_it_stops_what_the_reference_stops(reduction: int, brackets: int) -> None:
    rng = np.random.default_rng(reduction)
    rungs, stopped, kept = 4, 0, 0
    asha = ParetoAsha(rungs, reduction=reduction, brackets=brackets, seed=3)
    bracket_of = Asha(rungs, reduction=reduction, brackets=brackets, seed=3).bracket
    seen: dict[tuple[int, int], dict[int, tuple[float, ...]]] = {}
    for number in range(80):
        for k in range(rungs):
            costs = tuple(rng.normal(size=3).round(1).tolist())
            bracket = bracket_of(number)
            stop = asha.record(number, k, costs)
            if k < bracket:
                assert not stop
                continue
            others = seen.setdefault((bracket, k), {})
            before = [others[each] for each in sorted(others)]
            others[number] = costs
            place = reference_order([*before, costs]).index(len(before))
            assert stop == (k < rungs - 1 and len(before) > 0 and place > len(before) / reduction)
            stopped, kept = stopped + stop, kept + (not stop)
            if stop:
                break
    assert stopped > 20
    assert kept > 20


def test_the_best_of_every_objective_goes_on() -> None:
    """The first objective alone would stop the small and the fast ones."""
    asha = ParetoAsha(2, reduction=3)
    for number in range(9):
        asha.record(number, 0, [0.1 * number, 5.0 + number, 9.0 + number])
    assert not asha.record(9, 0, [0.9, 1.0, 50.0])
    assert not asha.record(10, 0, [0.95, 60.0, 1.0])
    assert asha.record(11, 0, [0.5, 20.0, 60.0])


def test_what_was_recorded_before_or_is_no_number_stops_nothing() -> None:
    asha = ParetoAsha(3)
    for number in range(3):
        assert not asha.record(number, 0, [0.1 * number, 0.0], protected=True)
    assert asha.record(3, 0, [0.5, 0.5])
    assert not asha.record(3, 0, [0.5, 0.5])
    assert not asha.record(4, 0, None)
    assert not asha.record(5, 2, [9.0, 9.0])
    with pytest.raises(ValueError, match="rungs 0"):
        ParetoAsha(0)


def test_a_rebuilt_one_decides_as_one_that_lived_through_it() -> None:
    rng = np.random.default_rng(0)
    lived = ParetoAsha(4, brackets=2, seed=5)
    journal: dict[int, dict[int, list[float] | None]] = {}
    for number in range(40):
        for k in range(4):
            costs = rng.random(2).tolist()
            journal.setdefault(number, {})[k] = costs
            if lived.record(number, k, costs):
                break
    rebuilt = ParetoAsha(4, brackets=2, seed=5)
    rebuilt.rebuild(reversed(journal.items()))
    for number in range(40, 80):
        for k in range(4):
            costs = rng.random(2).tolist()
            assert lived.record(number, k, costs) == rebuilt.record(number, k, costs)


def test_a_paused_trial_continues_when_few_enough_are_ahead_of_it() -> None:
    rng = np.random.default_rng(5)
    promoted = 0
    for _ in range(30):
        scheduler = ParetoAsha(3, reduction=2)
        points = [(float(a), float(b)) for a, b in rng.integers(0, 6, (8, 2))]
        paused = {
            number: 0 for number, each in enumerate(points) if scheduler.record(number, 0, each)
        }
        ahead = {}
        for number in paused:
            others = [each for other, each in enumerate(points) if other != number]
            ahead[number] = place_among(np.array(points[number]), np.array(others))
        good = [number for number in paused if ahead[number] <= len(points[1:]) / 2]
        found = scheduler.promotable(paused)
        assert found == min(good, key=lambda number: (ahead[number], number), default=None)
        promoted += found is not None
    assert promoted > 3
    assert ParetoAsha(3).promotable({}) is None


def test_rungs_in_front_of_the_first_one_compare_a_single_number() -> None:
    asha = ParetoAsha(2, reduction=2, before=1)
    assert not asha.record(0, -1, [-0.5])
    assert not asha.record(0, 0, [-0.9, 3.0])
    assert asha.record(1, -1, [-0.4])
    assert not asha.record(2, -1, [-0.6])
    assert asha.promotable({1: -1}) is None
    again = ParetoAsha(2, reduction=2, before=1)
    again.rebuild([(0, {-1: [-0.5], 0: [-0.9, 3.0]})])
    assert again.record(1, -1, [-0.4])
