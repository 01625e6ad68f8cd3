"""Samplers go by the constraints of trials."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.search.samplers.factory import create_sampler
from gsfl_tune.search.samplers.history import SeenTrials
from gsfl_tune.search.samplers.tpe import Tpe
from tests.search.experiments import experiment

SPACE = experiment(
    "model.head=gsfl",
    "model.groups.count=2",
    "model.latent_dim=16",
    "training.head.learning_rate=0.01",
    "model.feature_scale={float: [1, 64]}",
    "model.dropout={float: [0, 0.7]}",
)


def study_of(trials: int, *, several: bool = False) -> optuna.Study:
    """Trials drawn at random; the larger the scale the better, but above 20 it is too much."""
    directions = ["maximize", "minimize"] if several else ["maximize"]
    study = optuna.create_study(
        directions=directions, sampler=optuna.samplers.RandomSampler(seed=1)
    )
    for number in range(trials):
        trial = study.ask()
        params = SPACE.space.suggest(trial)
        scale = params["model.feature_scale"]
        trial.set_constraint("too much", (scale - 20) / 20)
        if number % 5 == 4 and not several:
            trial.report(scale, number % 3)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [scale, params["model.dropout"]][: len(directions)])
    return study


def asked(study: optuna.Study, sampler: Any) -> dict[str, Any]:
    study.sampler = sampler
    trial = study.ask()
    params = SPACE.space.suggest(trial)
    study.tell(trial, state=TrialState.FAIL)
    return params


@pytest.mark.parametrize("multivariate", [False, True])
def test_tpe_proposes_what_optunas_proposes(multivariate: bool) -> None:
    theirs, ours = study_of(60), study_of(60)
    memory = SeenTrials()
    options = {"multivariate": multivariate, "group": multivariate, "constant_liar": True}
    for seed in range(8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            plain = optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, **options)
            fast = Tpe(seed=seed, multivariate=multivariate, memory=memory)
        expected, found = asked(theirs, plain), asked(ours, fast)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "several"),
    [("tpe", False), ("tpe", True), ("gp", False), ("gp", True), ("cmaes", False)],
)
def test_proposals_stay_where_the_constraint_holds(name: str, several: bool) -> None:
    """The objective alone would lead to the other end of the range."""
    study = study_of(40, several=several)
    config = SamplerConfig.model_validate({"name": name})
    further = ["size_mb"] if several else []
    found = []
    for number in range(40, 43 if name == "gp" else 46):
        sampler = create_sampler(config, SPACE.space, 0, number, further=further)
        found.append(asked(study, sampler)["model.feature_scale"])
    assert np.median(found) < 25, found
    assert max(found) < 45
