"""Where trials are compared: after epochs, or after seconds."""

from __future__ import annotations

import copy

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import TrialCosts, open_study
from gsfl_tune.search.opening.renumber_rungs import renumber
from gsfl_tune.search.ray_tune.rung_epochs import kept_rungs, rung_epochs, rungs_begun_with
from gsfl_tune.search.samplers.history import RUNG_EPOCHS
from tests.search.experiments import experiment

OPTIONS = ("model.head=gsfl", "training.head.epochs=27", "search.scheduler.reduction=3")


def _costs() -> TrialCosts:
    return TrialCosts(train=6000, validation=100, classes=21)


def test_by_epochs_all_trials_have_the_same() -> None:
    tried = experiment(*OPTIONS)
    rungs = rung_epochs(tried, _costs())
    dear = tried.fixed({"model.latent_dim": 2048}).defaults()
    assert rungs(tried.defaults()) == rungs(dear) == [1, 3, 9, 27]


def test_by_time_a_dear_trial_shows_fewer_epochs_where_it_is_compared() -> None:
    tried = experiment(*OPTIONS, "search.scheduler.by=time")
    costs = _costs()
    rungs = rung_epochs(tried, costs)
    assert rungs(tried.defaults()) == [1, 3, 9, 27]
    dear = tried.fixed({"model.latent_dim": 1024}).defaults()
    factor = costs.costs.epoch(costs.work(dear)[0]) / costs.costs.epoch(
        costs.work(tried.defaults())[0]
    )
    assert factor > 3
    found = rungs(dear)
    assert found[-1] == 27
    assert found[:-1] == sorted(found[:-1])
    assert all(1 <= a <= b for a, b in zip(found[:-1], [1, 3, 9], strict=True))
    assert found[2] == pytest.approx(9 / factor, abs=1.01)


def test_by_time_without_prices_is_by_epochs() -> None:
    tried = experiment(*OPTIONS, "search.scheduler.by=time")
    assert rung_epochs(tried, None)(tried.defaults()) == [1, 3, 9, 27]


def test_the_rungs_of_a_trial_stay_when_prices_change(run: RunDirectory) -> None:
    tried = experiment(*OPTIONS, "search.scheduler.by=time")
    study = open_study(tried, run)
    trial = study.trial(study.ask().number)
    assert kept_rungs(study, trial, [1, 2, 5, 27]) == [1, 2, 5, 27]
    study.close()
    # A resume: what has been reported at a rung is not reported of another epoch.
    study = open_study(tried, run)
    trial = study.trial(trial.number)
    assert kept_rungs(study, trial, [1, 3, 9, 27]) == [1, 2, 5, 27]
    assert rungs_begun_with(trial, [1, 3, 9, 27]) == [1, 2, 5, 27]
    # After a change of the space they are those of its own stages.
    assert kept_rungs(study, trial, [1, 3, 9, 30]) == [1, 3, 9, 30]
    assert kept_rungs(study, study.trial(trial.number), [1, 4, 9, 30]) == [1, 3, 9, 30]
    study.close()


def test_a_change_of_the_space_gives_new_rungs(run: RunDirectory) -> None:
    study = open_study(experiment(*OPTIONS, "search.scheduler.by=time"), run)
    kept_rungs(study, study.trial(study.ask().number), [1, 2, 5, 27])
    trial = copy.deepcopy(study.trial(0))
    study.close()
    renumber(trial, [1, 3, 9, 0], [1, 3, 9, 27, 0])
    assert rungs_begun_with(trial, [1, 3, 8, 20, 60]) == [1, 3, 8, 20, 60]
    assert RUNG_EPOCHS not in trial.user_attrs
