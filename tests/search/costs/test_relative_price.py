"""Prices relative to the defaults: from the work of a training, whatever was measured."""

from __future__ import annotations

import pytest

from gsfl_tune.search import TrialCosts
from gsfl_tune.search.costs.relative_price import RelativePrice
from tests.search.experiments import experiment

TRIED = experiment("model.latent_dim={int: [8, 4096], log: true, default: 64}", "model.head=gsfl")


def _costs() -> TrialCosts:
    return TrialCosts(train=6000, validation=1000, classes=90, test=500, joined=700)


def test_the_defaults_cost_one_and_a_large_head_many_times_that() -> None:
    price = RelativePrice(TRIED, _costs())
    defaults = TRIED.default_params()
    assert price(defaults) == 1.0
    large = price({**defaults, "model.latent_dim": 4096})
    costs = _costs()
    expected = costs.seconds(TRIED.configure({**defaults, "model.latent_dim": 4096}))
    assert large == pytest.approx(expected / costs.seconds(TRIED.defaults()))
    assert large > 5


def test_measurements_change_no_price_so_a_resumed_search_decides_as_before() -> None:
    costs = _costs()
    before = RelativePrice(TRIED, costs)({**TRIED.default_params(), "model.latent_dim": 1000})
    costs.observe(TRIED.defaults(), {"measured": '{"head": [2, 1000.0]}'})
    after = RelativePrice(TRIED, costs)({**TRIED.default_params(), "model.latent_dim": 1000})
    assert before == after


def test_values_that_cannot_be_combined_have_the_price_of_the_defaults() -> None:
    tried = experiment("training.head.epochs={choice: [0, 3], default: 3}")
    assert RelativePrice(tried, _costs())({"training.head.epochs": 0}) == 1.0
