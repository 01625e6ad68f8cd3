"""Where trials are compared: after epochs, or after seconds."""

from __future__ import annotations

import pytest

from gsfl_tune.search import TrialCosts
from gsfl_tune.search.ray_tune.rung_epochs import rung_epochs
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
