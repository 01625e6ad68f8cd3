from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from gsfl_tune.experiment import Experiment
from gsfl_tune.search.samplers.history import SeenTrials
from gsfl_tune.search.samplers.tpe import Tpe
from tests.search.experiments import experiment

SPACE = experiment(
    "model.feature_scale={float: [1, 64], log: true}",
    "model.dropout={float: [0, 0.7]}",
    "model.latent_dim={int: [8, 512], log: true}",
)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _value(params: dict[str, Any]) -> float:
    return float(np.log(params["model.feature_scale"]) - (params["model.dropout"] - 0.3) ** 2)


def _study(trials: int, tried: Experiment = SPACE, direction: str = "maximize") -> optuna.Study:
    """Complete, pruned, failed and running trials, drawn at random."""
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(direction=direction, sampler=sampler)
    for number in range(trials):
        trial = study.ask()
        value = _value(tried.space.suggest(trial))
        if number % 7 == 5:
            continue
        if number % 7 == 6:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 7 > 2:
            trial.report(value, number % 3)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
    return study


def _asked(study: optuna.Study, sampler: optuna.samplers.BaseSampler) -> dict[str, Any]:
    study.sampler = sampler
    trial = study.ask()
    params = SPACE.space.suggest(trial)
    study.tell(trial, state=TrialState.FAIL)
    return params


@pytest.mark.parametrize("multivariate", [False, True])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_proposes_what_optuna_does(direction: str, multivariate: bool) -> None:
    theirs, ours = _study(90, direction=direction), _study(90, direction=direction)
    memory = SeenTrials()
    for seed in range(10):
        expected = _asked(
            theirs,
            optuna.samplers.TPESampler(
                multivariate=multivariate, group=multivariate, constant_liar=True, seed=seed
            ),
        )
        found = _asked(ours, Tpe(seed=seed, multivariate=multivariate, memory=memory))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, float):
                assert found[name] == pytest.approx(value, rel=1e-9)
            else:
                assert found[name] == value


@pytest.mark.parametrize("trials", [12, pytest.param(400, marks=pytest.mark.slow)])
def test_proposes_what_optuna_does_for_every_kind_of_parameter(trials: int) -> None:
    kinds = {
        "float": FloatDistribution(-2.0, 3.0),
        "log": FloatDistribution(1e-6, 1e2, log=True),
        "step": FloatDistribution(0.0, 1.0, step=0.05),
        "int": IntDistribution(1, 4),
        "wide": IntDistribution(0, 10**9),
        "log int": IntDistribution(8, 4096, log=True),
        "int step": IntDistribution(0, 96, step=16),
        "choice": CategoricalDistribution(["a", "b", None, 4]),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
    for number in range(trials):
        # One in three has no "log": the mixtures have different numbers of kernels.
        asked = {k: v for k, v in kinds.items() if k != "log" or number % 3}
        params = study.ask(asked).params
        value = abs(params["float"] - 1) + params["int"] * (params["choice"] == "b")
        study.tell(number, value + 1e-9 * params["wide"])
    memory = SeenTrials()
    for seed in range(20):
        proposed = []
        for sampler in (
            optuna.samplers.TPESampler(multivariate=False, constant_liar=True, seed=seed),
            Tpe(seed=seed, memory=memory, history=trials),
        ):
            study.sampler = sampler
            trial = study.ask(kinds)
            proposed.append(trial.params)
            study.tell(trial, state=TrialState.FAIL)
        expected, found = proposed
        for name, kind in kinds.items():
            assert kind._contains(kind.to_internal_repr(found[name])), name
            value = expected[name]
            same = pytest.approx(value, rel=1e-7) if isinstance(value, float) else value
            assert found[name] == same, name


def test_of_a_long_history_the_best_the_newest_and_the_running_count() -> None:
    study = _study(140)
    ours = Tpe(seed=0, history=60)
    frozen = study.trials[0]
    view = ours._see(study, optuna.trial.FrozenTrial(**{**_fields(frozen), "number": 140}))
    numbers = {trial.number for trial in view.trials}
    finished = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")]
    running = {t.number for t in study.trials if t.state == TrialState.RUNNING}
    assert len(numbers) == 60 + len(running)
    assert running <= numbers
    assert {t.number for t in finished[-8:]} <= numbers
    complete = [t for t in finished if t.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: -trial.value)[:25]  # type: ignore[operator]
    assert {trial.number for trial in best} <= numbers


@pytest.mark.parametrize("multivariate", [False, True])
def test_learns_from_a_bounded_history(multivariate: bool) -> None:
    study = _study(30)
    for seed in range(60):
        study.sampler = Tpe(seed=seed, multivariate=multivariate, history=30)
        trial = study.ask()
        study.tell(trial, _value(SPACE.space.suggest(trial)))
    values = [trial.value for trial in study.trials if trial.value is not None]
    # Uniform draws have a mean of 2 with this objective, and a best of about 4.
    assert np.mean(values[-30:]) > 2.5


def _fields(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state,
        "value": trial.value,
        "datetime_start": trial.datetime_start,
        "datetime_complete": trial.datetime_complete,
        "params": trial.params,
        "distributions": trial.distributions,
        "user_attrs": {},
        "system_attrs": {},
        "intermediate_values": {},
        "trial_id": trial._trial_id,
    }
