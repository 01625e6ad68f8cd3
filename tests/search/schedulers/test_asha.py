from __future__ import annotations

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from gsfl_tune.search.schedulers.asha import Asha


class _RayTrial:
    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


@pytest.mark.parametrize("reduction", [2, 3, 4])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("brackets", [1, 3])
def test_decides_as_rays_scheduler_does(reduction: int, direction: str, brackets: int) -> None:
    rungs = 5
    rng = np.random.default_rng(reduction * 10 + brackets)
    ours = Asha(rungs, reduction=reduction, brackets=brackets, direction=direction, seed=1)  # type: ignore[arg-type]
    theirs = AsyncHyperBandScheduler(
        time_attr="t",
        metric="m",
        mode="max" if direction == "maximize" else "min",
        # A little more than the last rung: Ray's own count of rungs is a truncated logarithm.
        max_t=reduction ** (rungs - 1) + 1,
        reduction_factor=reduction,
        brackets=brackets,
    )
    position = dict.fromkeys(range(60), 0)
    stops = 0
    while position:
        number = int(rng.choice(list(position)[:8]))
        k = position[number]
        trial = _RayTrial(number)
        theirs._trial_info[trial.trial_id] = theirs._brackets[ours.bracket(number)]
        # Coarse values, so that there are ties.
        value = round(float(rng.normal(k)), 1)
        wanted = theirs.on_trial_result(None, trial, {"t": reduction**k, "m": value})
        stop = ours.record(number, k, value)
        if k < rungs - 1:
            assert stop == (wanted == TrialScheduler.STOP), (number, k, value)
        stops += stop
        position[number] += 1
        if stop or position[number] == rungs:
            del position[number]
    assert stops > 10


def test_protected_trials_are_compared_with_but_never_stopped() -> None:
    asha = Asha(3, reduction=3)
    for number in range(5):
        asha.record(number, 0, 0.9)
    assert not asha.record(5, 0, 0.1, protected=True)
    assert asha.record(6, 0, 0.05)
    # Three bad protected ones bring the cutoff down to where 0.2 passes.
    alone = Asha(3, reduction=3)
    for number in range(3):
        alone.record(number, 0, 0.1, protected=True)
    assert not alone.record(3, 0, 0.2)


def test_a_rung_reported_again_changes_nothing() -> None:
    asha = Asha(3, reduction=2)
    asha.record(0, 0, 0.9)
    assert asha.record(1, 0, 0.1)
    cutoff = asha.cutoff(0, 0)
    assert not asha.record(1, 0, 0.1)
    assert not asha.record(0, 0, 0.0)
    assert asha.cutoff(0, 0) == cutoff


def test_rebuilt_rungs_decide_as_those_that_lived_through_it() -> None:
    rng = np.random.default_rng(0)
    lived = Asha(4, reduction=2, brackets=2, seed=5)
    journal: dict[int, dict[int, float]] = {}
    for number in range(40):
        for k in range(4):
            value = float(rng.random())
            journal.setdefault(number, {})[k] = value
            if lived.record(number, k, value):
                break
    rebuilt = Asha(4, reduction=2, brackets=2, seed=5)
    rebuilt.rebuild(reversed(journal.items()))
    for number in range(40, 80):
        for k in range(4):
            value = float(rng.random())
            assert lived.record(number, k, value) == rebuilt.record(number, k, value)


def test_a_journal_may_hold_rungs_that_are_gone_and_values_that_are_none() -> None:
    """A changed space has fewer rungs; a trial that gave no number may give one when it resumes."""
    asha = Asha(2, reduction=2)
    asha.rebuild([(0, {0: 0.9, 1: 0.8, 2: 0.7, 5: 0.1}), (1, {0: float("nan")})])
    assert asha.cutoff(0, 0) == 0.9
    assert asha.cutoff(0, 1) == 0.8
    assert asha.record(1, 0, 0.5)
    assert asha.cutoff(0, 0) == pytest.approx(0.7)


def test_brackets_follow_seed_and_number_and_skip_their_first_rungs() -> None:
    asha = Asha(4, reduction=2, brackets=3, seed=7)
    drawn = [asha.bracket(number) for number in range(500)]
    assert drawn == [
        Asha(4, reduction=2, brackets=3, seed=7).bracket(number) for number in range(500)
    ]
    assert drawn != [
        Asha(4, reduction=2, brackets=3, seed=8).bracket(number) for number in range(500)
    ]
    counts = np.bincount(drawn)
    # Shares of a softmax over 4, 3 and 2 rungs.
    assert counts[0] > counts[1] > counts[2] > 20
    late = [number for number in range(500) if drawn[number] == 2]
    assert not any(asha.record(number, 0, -float(number)) for number in late)
    assert asha.cutoff(2, 0) is None


def test_more_brackets_than_rungs_are_cut_down() -> None:
    asha = Asha(1, reduction=2, brackets=5)
    assert {asha.bracket(number) for number in range(50)} == {0}
    # With one rung there is nothing to stop before.
    assert not asha.record(0, 0, 1.0)
    assert not asha.record(1, 0, 0.0)


@pytest.mark.parametrize("arguments", [{"rungs": 0}, {"reduction": 1}, {"brackets": 0}])
def test_refuses_numbers_that_make_no_sense(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Asha(**{"rungs": 3, "reduction": 2, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", [2, 2.5, 3, 4])
def test_the_cutoff_is_the_percentile_of_all_numbers_that_were_recorded(reduction: float) -> None:
    asha = Asha(2, reduction=reduction)
    rng = np.random.default_rng(0)
    values = [round(float(value), 2) for value in rng.normal(size=200)]
    values[3] = values[50] = float("nan")
    for number, value in enumerate(values):
        asha.record(number, 0, value)
        seen = values[: number + 1]
        assert asha.cutoff(0, 0) == np.nanpercentile(seen, (1 - 1 / reduction) * 100)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("reduction", [2, 3])
def test_the_paused_trial_that_continues_is_the_best_of_those_above_the_cutoff(
    direction: str, reduction: int
) -> None:
    rng = np.random.default_rng(reduction)
    sign = 1 if direction == "maximize" else -1
    promoted = 0
    for _ in range(80):
        asha = Asha(4, reduction=reduction, direction=direction)  # type: ignore[arg-type]
        values: list[dict[int, float]] = [{}, {}]
        paused = {}
        for number in range(int(rng.integers(1, 14))):
            k = int(rng.integers(2))
            # Coarse values, so that there are ties.
            values[k][number] = round(float(rng.normal()), 1)
            if asha.record(number, k, values[k][number]):
                paused[number] = k
        good = {
            number: k
            for number, k in paused.items()
            if sign * values[k][number]
            >= np.percentile(
                [sign * value for other, value in values[k].items() if other != number],
                100 * (1 - 1 / reduction),
            )
        }
        found = asha.promotable(paused)
        if not good:
            assert found is None
            continue
        promoted += 1
        assert found is not None
        assert good[found] == max(good.values())
        rivals = [number for number, k in good.items() if k == good[found]]
        best = max(sign * values[good[found]][number] for number in rivals)
        assert sign * values[good[found]][found] == best
        # It has been there before: its own rung does not stop it again.
        assert not asha.record(found, good[found], values[good[found]][found])
    assert promoted > 5


def test_nothing_is_promoted_without_another_value() -> None:
    asha = Asha(3, reduction=2)
    assert asha.promotable({}) is None
    asha.record(0, 0, float("nan"))
    assert asha.promotable({0: 0}) is None
    asha.record(1, 0, 0.5)
    assert asha.promotable({0: 0}) is None


@pytest.mark.parametrize("brackets", [1, 2])
def test_rungs_in_front_of_the_first_one_are_compared_among_themselves(brackets: int) -> None:
    asha = Asha(3, reduction=2, before=2, brackets=brackets, seed=4)
    numbers = [number for number in range(30) if asha.bracket(number) == 0][:4]
    one, two, three, four = numbers
    assert not asha.record(one, -2, 0.5)
    assert not asha.record(one, 0, 0.9)
    # Worse than 0.9, but that is a value of another rung.
    assert not asha.record(two, -2, 0.6)
    assert asha.record(three, -2, 0.4)
    # A trial without the second of them.
    assert asha.record(two, 0, 0.8)
    assert not asha.record(four, -1, 0.1)
    assert asha.promotable({three: -2}) is None
    assert asha.promotable({three: -3}) is None
    assert asha.promotable({two: 0, three: -2}) is None
    again = Asha(3, reduction=2, before=2, brackets=brackets, seed=4)
    again.rebuild([(one, {-2: 0.5, 0: 0.9, -7: 0.1}), (two, {-2: 0.6, 0: 0.8})])
    assert again.record(three, -2, 0.4)
    if brackets == 2:
        late = next(number for number in range(30) if asha.bracket(number) == 1)
        # It skips the first rung, whichever that is.
        assert not asha.record(late, -2, 0.0)
        assert asha.cutoff(1, -2) is None
