"""CMA-ES goes where trials were good, in either direction, and no single trial throws it off."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import create_trial

from gsfl_tune.search.samplers.cma_es import CmaEs, _evolved
from tests.search.experiments import experiment
from tests.search.samplers.under_asha import under_asha

NUMBERS = {
    "model.dropout": FloatDistribution(0.0, 0.8),
    "model.latent_dim": IntDistribution(8, 512, log=True),
}
SPACE = experiment(
    "model.dropout={float: [0, 0.8]}",
    "model.latent_dim={int: [8, 512], log: true}",
    "training.head.learning_rate=0.01",
    "model.head=plain",
).space


def _sampler(seed: int, startup: int = 4) -> CmaEs:
    others = RandomSampler(seed=seed)
    return CmaEs(SPACE, NUMBERS, startup_trials=startup, seed=seed, others=others)


def _proposals(study: optuna.Study, count: int = 40) -> np.ndarray:
    """(count, 2) proposals for one and the same trial; shares of the ranges."""
    study.ask()
    frozen = study.trials[-1]
    drawn = [_sampler(seed).sample_relative(study, frozen, NUMBERS) for seed in range(count)]
    assert all(kind._contains(each[name]) for each in drawn for name, kind in NUMBERS.items())
    return np.array([_shares(each) for each in drawn])


def _shares(params: dict[str, Any]) -> tuple[float, float]:
    return params["model.dropout"] / 0.8, np.log(params["model.latent_dim"] / 8) / np.log(64)


def _add(study: optuna.Study, dropout: float, latent_dim: int, value: float) -> None:
    params = {"model.dropout": dropout, "model.latent_dim": latent_dim}
    study.add_trial(create_trial(value=value, params=params, distributions=NUMBERS))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_proposals_go_where_trials_were_good(direction: str) -> None:
    study = optuna.create_study(direction=direction, sampler=RandomSampler(seed=0))
    for _ in range(60):
        trial = study.ask(dict(NUMBERS))
        away = float(np.square(np.array(_shares(trial.params)) - (0.2, 0.7)).sum())
        study.tell(trial, -away if direction == "maximize" else away)
    found = _proposals(study)
    assert found.mean(axis=0) == pytest.approx((0.2, 0.7), abs=0.12)
    assert len(np.unique(found, axis=0)) > 30


def test_one_trial_far_away_pulls_the_search_no_farther_than_a_step_goes() -> None:
    # A full generation; the defaults, say, are in a corner and best.
    size = 4 + int(3 * np.log(2))
    middle, corner = np.full(2, 0.5), np.ones(2)
    points = [(corner, -1.0), *[(middle, 0.0)] * (size - 1)]
    bounds = np.array([[0.0, 1.0]] * 2)
    found = _evolved(points, 2, bounds)._mean
    assert ((found > 0.5) & (found < 0.75)).all(), found


def test_nothing_is_proposed_before_the_start_up_trials_ended() -> None:
    study = optuna.create_study()
    for number in range(3):
        _add(study, 0.1 * number, 16, 1.0)
    study.ask()
    frozen = study.trials[-1]
    assert _sampler(1, startup=4).sample_relative(study, frozen, NUMBERS) == {}
    assert _sampler(1, startup=3).sample_relative(study, frozen, NUMBERS).keys() == NUMBERS.keys()


def test_choices_are_what_the_other_sampler_draws() -> None:
    study = optuna.create_study()
    study.ask()
    frozen = study.trials[-1]
    kind = CategoricalDistribution(list(range(100)))
    for seed in range(5):
        expected = RandomSampler(seed=seed).sample_independent(study, frozen, "x", kind)
        assert _sampler(seed).sample_independent(study, frozen, "x", kind) == expected


def test_cmaes_takes_a_single_number() -> None:
    one = experiment(
        "model.head=gsfl", "model.latent_dim=16", "model.groups.count=2",
        "training.head.learning_rate=0.01", "model.dropout={float: [0, 0.8]}",
    )  # fmt: skip
    assert len(one.space) == 1
    assert under_asha("cmaes", one, trials=12, startup=4)[2] == 8
