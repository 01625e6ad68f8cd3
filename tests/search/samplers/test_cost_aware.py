"""Expensive configurations are drawn less often, and none is ruled out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.space import Space
from gsfl_tune.search.samplers.cost_aware import Affordable
from gsfl_tune.search.samplers.factory import whole_space
from gsfl_tune.search.study.proposals import Proposals
from tests.search.experiments import experiment

H = "model.latent_dim"
WIDE = (f"{H}={{int: [8, 4096], log: true, default: 64}}",)
Price = Callable[[Mapping[str, Any]], float]


def _price(params: Mapping[str, Any]) -> float:
    return float(params[H]) / 64


def _experiment(*overrides: str, name: str = "tpe") -> Experiment:
    return experiment(
        f"search.sampler.name={name}", "search.sampler.startup_trials=3", *WIDE, *overrides
    )


def _searched(tried: Experiment, trials: int, price: Price | None = _price) -> list[dict[str, Any]]:
    """Proposals of a search in which the most expensive configurations are the best."""
    search = tried.defaults().search
    proposals = Proposals(search.sampler, tried.space, search.seed, price=price)
    study = optuna.create_study(direction="maximize")
    seen = []
    for number in range(trials):
        found = proposals.new(study, number)
        if found is None:
            break
        seen.append(found.params)
        _end(study, tried.space, found.params)
    return seen


def _end(study: optuna.Study, space: Space, params: dict[str, Any]) -> None:
    whole = whole_space(space)
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            params=params,
            distributions={name: whole[name] for name in params},
            value=float(params[H]),
        )
    )


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_search_that_knows_prices_spends_less_and_still_sees_large_ones(name: str) -> None:
    free = _searched(_experiment("search.sampler.cost_ratio=null", name=name), 40)
    careful = _searched(_experiment("search.sampler.cost_ratio=2", name=name), 40)
    spent = [sum(map(_price, seen)) for seen in (free, careful)]
    assert spent[1] < 0.6 * spent[0]
    # Some trials cost more than the ratio: they are rarer, not forbidden.
    assert any(_price(params) > 2 for params in careful)


def test_proposals_with_prices_depend_on_the_history_alone() -> None:
    tried = _experiment("search.sampler.cost_ratio=1.5")
    assert _searched(tried, 12) == _searched(tried, 12)


@pytest.mark.parametrize("name", [pytest.param("gp", marks=pytest.mark.slow), "sobol"])
def test_samplers_that_cannot_draw_again_are_left_alone(name: str) -> None:
    free = _searched(_experiment("search.sampler.cost_ratio=null", name=name), 6)
    assert _searched(_experiment("search.sampler.cost_ratio=0.1", name=name), 6) == free


def test_without_a_ratio_or_a_price_proposals_stay_as_they_are() -> None:
    free = _searched(_experiment("search.sampler.cost_ratio=null"), 12)
    assert _searched(_experiment("search.sampler.cost_ratio=1"), 12, price=None) == free


def test_a_small_space_is_tried_as_a_whole_the_expensive_ones_too() -> None:
    tried = experiment(
        "model.head=plain", "model.dropout=0", "training.head.learning_rate=0.01",
        f"{H}={{int: [2, 6]}}", "search.sampler.cost_ratio=0.01",
    )  # fmt: skip
    seen = _searched(tried, 9, lambda params: 10.0 * params[H])
    assert sorted(params[H] for params in seen) == [2, 3, 4, 5, 6]


def test_a_value_of_a_choice_that_no_trial_has_had_comes_first_at_any_price() -> None:
    tried = _experiment(
        "model.head=plain",
        "model.pooling={choice: [average, bilinear, gem]}",
        "search.sampler.cost_ratio=1",
    )
    seen = _searched(tried, 3, lambda params: 1000.0 if params["model.pooling"] == "gem" else 1.0)
    assert {params["model.pooling"] for params in seen} == {"average", "bilinear", "gem"}


def test_a_rejected_proposal_keeps_what_does_not_make_it_expensive() -> None:
    space = _experiment().space
    affordable = Affordable(space, _price, 2.0, seed=1)
    proposal = {**space.default_params(), H: 4096, "training.head.learning_rate": 0.0123}
    seen = set()
    for number in range(30):
        params = affordable.cheaper(number, proposal, 0)
        assert _price(params) <= 2
        assert {**params, H: 4096} == proposal
        seen.add(params[H])
    assert len(seen) > 10  # all sizes that can be afforded, not the default alone
    kept = affordable.cheaper(0, proposal, 0, keep=[H])
    assert kept == proposal


def test_what_becomes_active_with_a_cheaper_value_is_drawn_too() -> None:
    tried = experiment(
        "model.head={choice: [gsfl, plain], default: plain}",
        "model.groups.count={int: [2, 4], when: {model.head: gsfl}}",
    )
    affordable = Affordable(
        tried.space, lambda params: 9.0 if params["model.head"] == "gsfl" else 1.0, 1.0, seed=0
    )
    proposal = {**tried.default_params(), "model.head": "gsfl", "model.groups.count": 3}
    params = affordable.cheaper(0, proposal, 0)
    assert params == {key: value for key, value in proposal.items() if "groups" not in key} | {
        "model.head": "plain"
    }


def test_the_share_of_accepted_ones_is_the_ratio_over_the_price() -> None:
    space = _experiment().space
    affordable = Affordable(space, lambda params: 8.0, 2.0, seed=1)
    taken = [affordable.accepts(number, {}, 0) for number in range(2000)]
    assert 0.22 < sum(taken) / len(taken) < 0.28
    cheap = Affordable(space, lambda params: 2.0, 2.0, seed=1)
    assert all(cheap.accepts(number, {}, 0) for number in range(50))


@pytest.mark.parametrize("value", ["0", "-1", "much"])
def test_a_ratio_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="cost_ratio"):
        _experiment(f"search.sampler.cost_ratio={value}")
