"""The running counts are those that a recount of the study gives."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.search.study.tally import Tally


def _key(trial: FrozenTrial) -> tuple[float, int]:
    assert trial.value is not None
    return trial.value, trial.number


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def _agree(tally: Tally, study: optuna.Study) -> None:
    trials = study.get_trials(deepcopy=False)
    numbers = {
        state: [trial.number for trial in trials if trial.state == state] for state in TrialState
    }
    assert len(tally) == len(trials)
    assert {state: tally.count(state) for state in TrialState} == {
        state: len(found) for state, found in numbers.items()
    }
    assert tally.running() == numbers[TrialState.RUNNING]
    assert tally.waiting == numbers[TrialState.WAITING]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = min(complete, key=_key, default=None)
    assert (tally.best and tally.best.number) == (best and best.number)


def test_counts_follow_a_study_through_all_of_its_events(study: optuna.Study) -> None:
    tally = Tally(_key)
    _agree(tally, study)

    def note(number: int) -> None:
        tally.note(study.trials[number])
        _agree(tally, study)

    for number in range(3):
        study.enqueue_trial({"x": number})
        note(number)
    for number in range(5):  # three that wait, then two new ones
        assert study.ask().number == number
        note(number)
    for number, value in ((1, 0.5), (3, 0.2), (0, 0.9)):
        study.tell(number, value)
        note(number)
    study.tell(2, state=TrialState.FAIL)
    note(2)
    study.ask().report(0.1, 0)
    note(5)
    study.tell(5, state=TrialState.PRUNED)
    note(5)
    assert tally.best is not None
    assert tally.best.value == 0.2
    assert tally.running() == [4]


def test_a_trial_may_be_noted_again_in_its_state(study: optuna.Study) -> None:
    tally = Tally(_key)
    study.enqueue_trial({"x": 1})
    study.enqueue_trial({"x": 2})
    for number in (0, 1, 0, 0):
        tally.note(study.trials[number])
    assert sorted(tally.waiting) == [0, 1]
    assert tally.count(TrialState.WAITING) == 2


def test_of_two_equals_the_first_stays_the_best(study: optuna.Study) -> None:
    tally = Tally(lambda trial: trial.value)
    for number in range(2):
        study.tell(study.ask(), 0.5)
        tally.note(study.trials[number])
    assert tally.best is not None
    assert tally.best.number == 0
