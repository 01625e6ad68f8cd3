"""What TPE reads of a study: every trial once, as it ended, and of too many the telling ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.search.samplers.history import OUTSIDE, SeenTrial, SeenTrials, thinned

KINDS: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "kind": CategoricalDistribution(["a", "b", "c"]),
}


def _study(*values: float, direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for value in values:
        study.tell(study.ask(KINDS), value)
    return study


def _stopped(study: optuna.Study, step: int, value: float) -> None:
    trial = study.ask(KINDS)
    trial.report(value, step)
    study.tell(trial, state=TrialState.PRUNED)


def _numbers(trials: Sequence[SeenTrial]) -> list[int]:
    return [trial.number for trial in trials]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("maximize", [1, 0, 4, 3, 2, 5]), ("minimize", [0, 1, 3, 4, 2, 5])],
)
def test_complete_trials_are_best_then_the_stopped_ones_by_how_far_they_came(
    direction: str, expected: list[int]
) -> None:
    study = _study(0.1, 0.2, direction=direction)
    _stopped(study, 0, 0.9)
    _stopped(study, 3, 0.4)
    _stopped(study, 3, 0.5)
    _stopped(study, 0, float("nan"))
    # One that failed is no trial for TPE; one that runs has no rank.
    study.tell(study.ask(KINDS), state=TrialState.FAIL)
    study.ask(KINDS)
    seen = SeenTrials()
    assert _numbers(seen.look(study, -1)) == [7]
    assert _numbers(seen.best(10)) == expected
    assert _numbers(seen.history(10)) == [0, 1, 2, 3, 4, 5]


def test_trials_that_end_between_two_looks_are_seen_as_at_once() -> None:
    study, seen = _study(0.5), SeenTrials()
    running = [study.ask(KINDS) for _ in range(3)]
    assert _numbers(seen.look(study, 3)) == [1, 2]
    study.tell(running[2], 0.9)
    study.tell(running[0], 0.1)
    assert _numbers(seen.look(study, -1)) == [2]
    study.tell(running[1], 0.7)
    assert seen.look(study, -1) == []
    at_once = SeenTrials()
    at_once.look(study, -1)
    for found in (seen, at_once):
        assert _numbers(found.history(10)) == [0, 1, 2, 3]
        assert _numbers(found.best(2)) == [3, 2]
    expected = at_once.internal(at_once.history(10), ["x", "kind"])
    assert (seen.internal(seen.history(10), ["x", "kind"]) == expected).all()


def test_parameters_are_numbers_of_the_trials_that_have_them() -> None:
    study, seen = optuna.create_study(), SeenTrials()
    for number in range(300):
        kinds = KINDS if number % 3 else {"x": KINDS["x"]}
        study.tell(study.ask(kinds), float(number))
    seen.look(study, -1)
    history = seen.history(1000)
    both = [trial for trial in study.trials if "kind" in trial.params]
    expected = [[trial.params["x"], "abc".index(trial.params["kind"])] for trial in both]
    assert seen.internal(history, ["x", "kind"]).tolist() == expected
    numbers = np.arange(300)
    assert seen.column(numbers, "kind").tolist() == [row[1] for row in expected]
    assert seen.internal(history, ["x", "never"]).shape == (0, 2)
    assert seen.column(numbers, "never").shape == (0,)
    assert {frozenset(names): first.number for names, first in seen.shapes.items()} == {
        frozenset({"x"}): 0,
        frozenset({"x", "kind"}): 1,
    }


def test_the_rest_of_a_trial_that_was_written_in_part_comes_later() -> None:
    study, seen = optuna.create_study(), SeenTrials()
    trial = study.ask({"x": KINDS["x"]})
    [running] = seen.look(study, -1)
    assert running.names == {"x"}
    trial.suggest_categorical("kind", ["a", "b", "c"])
    [running] = seen.look(study, -1)
    assert running.names == {"x", "kind"}
    assert seen.internal([running], ["x", "kind"]).shape == (1, 2)


def test_a_trial_that_left_the_space_teaches_what_it_was() -> None:
    study = _study(0.5)
    kept: dict[str, Any] = {
        "history": {
            "params": {"x": 0.25},
            "distributions": {"x": distribution_to_json(KINDS["x"])},
        },
        "state": "COMPLETE",
        "values": [0.8],
        "rungs": {"0": 0.6},
    }
    for content in (kept, {**kept, "history": None}):
        trial = study.ask()
        trial.set_user_attr(OUTSIDE, content)
        study.tell(trial, state=TrialState.FAIL)
    seen = SeenTrials()
    seen.look(study, -1)
    assert _numbers(seen.best(10)) == [1, 0]
    best = seen.best(1)[0]
    assert (best.params, best.value, best.intermediate_values) == ({"x": 0.25}, 0.8, {0: 0.6})
    # The space as it is now has the parameters of trials within it.
    assert set(seen.shapes) == {frozenset(KINDS)}


def test_of_too_many_trials_the_best_the_newest_and_a_sample_of_all_times_are_kept() -> None:
    values = [float(number % 50) for number in range(200)]
    values[3] = 1000.0
    study, seen = _study(*values), SeenTrials()
    seen.look(study, -1)
    kept = _numbers(seen.history(30))
    assert len(kept) == 30
    assert kept == sorted(kept)
    # A third for the best, half of the others for the newest.
    assert set(_numbers(seen.best(10))) | set(range(195, 200)) <= set(kept)
    # Bad trials of every quarter too, so that bad is known.
    bad = [number for number in kept if values[number] < 40]
    assert {number // 50 for number in bad} == {0, 1, 2, 3}
    assert _numbers(seen.history(200)) == list(range(200))


def test_a_sample_has_the_size_that_was_asked_for() -> None:
    numbers = list(range(0, 400, 2))
    for most, newest in ((10, 3), (50, 20), (199, 90)):
        kept = thinned(numbers, most, best={0, 38, 398}, newest=newest)
        assert len(kept) == most
        assert kept <= set(numbers)
        assert {0, 38, 398, *numbers[-1 - newest : -1]} <= kept


def test_a_finished_trial_is_read_once() -> None:
    class Trials:
        """A study that counts how often a trial is asked for."""

        direction = optuna.study.StudyDirection.MAXIMIZE

        def __init__(self, trials: list[FrozenTrial]) -> None:
            self._trials, self.read = trials, [0] * len(trials)

        def get_trials(self, deepcopy: bool) -> Trials:
            return self

        def __len__(self) -> int:
            return len(self._trials)

        def __getitem__(self, number: int) -> FrozenTrial:
            self.read[number] += 1
            return self._trials[number]

    study = _study(0.1, 0.2)
    study.ask(KINDS)
    counting, seen = Trials(study.trials), SeenTrials()
    for _ in range(4):
        seen.look(counting, -1)
    assert counting.read == [1, 1, 4]
