from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.distributions import Float
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.reconcile import study_signature
from tests.search.experiments import experiment

KINDS = (
    "model.feature_scale={float: [1, 64], log: true, default: 2}",
    "model.dropout={float: [0, 0.7], step: 0.1, default: 0.6}",
    "model.latent_dim={int: [8, 512], log: true, default: 400}",
    "loss.label_smoothing={float: [0, 0.2], default: 0}",
    "training.head.batch_size={int: [32, 256], step: 32, default: 64}",
    "training.head.optimizer={choice: [sgd, adamw], default: adamw}",
    "search.enqueue=[]",
)


def _kinds(share: float) -> Experiment:
    return experiment(*KINDS, f"search.sampler.near_defaults={share}")


def _start(tried: Experiment, run: RunDirectory, trials: int = 60) -> list[dict[str, Any]]:
    """What a search proposes before any trial has ended."""
    study = open_study(tried, run)
    found = []
    for _ in range(trials):
        asked = study.ask()
        assert asked is not None
        found.append(asked.params)
    return found


def _away(params: dict[str, Any]) -> float:
    """Mean distance from the defaults, in ranges; 0.35 or so for what is drawn anywhere."""
    scale = np.log(params["model.feature_scale"] / 2) / np.log(64)
    latent = np.log(params["model.latent_dim"] / 400) / np.log(64)
    smoothing = params["loss.label_smoothing"] / 0.2
    dropout = (params["model.dropout"] - 0.6) / 0.7
    batch = (params["training.head.batch_size"] - 64) / 224
    return float(np.mean(np.abs([scale, latent, smoothing, dropout, batch])))


def test_half_of_the_start_is_near_the_defaults(tmp_path: Any) -> None:
    tried = experiment(*KINDS)
    away = [_away(params) for params in _start(tried, RunDirectory(tmp_path / "half"))]
    anywhere = [_away(params) for params in _start(_kinds(0), RunDirectory(tmp_path / "none"))]
    near = [_away(params) for params in _start(_kinds(1), RunDirectory(tmp_path / "all"))]
    assert np.mean(near) < 0.6 * np.mean(anywhere)
    assert np.mean(near) < np.mean(away) < np.mean(anywhere)
    # Some are as far away as any.
    assert max(away) > np.mean(anywhere)


def test_what_is_near_is_allowed_and_varies(tmp_path: Any) -> None:
    tried = _kinds(1)
    found = _start(tried, RunDirectory(tmp_path))
    for params in found:
        assert tried.configure(params).model.latent_dim == params["model.latent_dim"]
        assert type(params["model.latent_dim"]) is int
        assert params["model.dropout"] == pytest.approx(round(params["model.dropout"], 1))
        assert params["training.head.batch_size"] % 32 == 0
    for name in found[0].keys() & found[-1].keys():
        assert len({params.get(name) for params in found}) > 1
    optimizers = [params["training.head.optimizer"] for params in found]
    assert len(found) / 2 < optimizers.count("adamw") < len(found)


def test_parameters_without_a_default_are_drawn_anywhere(tmp_path: Any) -> None:
    """The middle of a range, or the first of some choices, is nobody's advice."""
    given = [one for one in KINDS if one.startswith(("loss", "model.feature_scale"))]
    bare = (
        "model.latent_dim={int: [8, 512], log: true}",
        "training.head.optimizer={choice: [sgd, adamw]}",
        "search.enqueue=[]",
    )
    found = {}
    for share in (0, 1):
        tried = experiment(*given, *bare, f"search.sampler.near_defaults={share}")
        found[share] = _start(tried, RunDirectory(tmp_path / str(share)))
    # Half a range away from the middle at most: 0.16 of it on average near it, 0.25 anywhere.
    latent = np.log([params["model.latent_dim"] / 64 for params in found[1]]) / np.log(64)
    assert np.mean(np.abs(latent)) > 0.21
    # The first choice would be kept in four of five trials.
    optimizers = [params["training.head.optimizer"] for params in found[1]]
    assert 0.3 < optimizers.count("sgd") / len(optimizers) < 0.67
    # 0 is the end of the range: a fifth of it away is 0.03 on average, anywhere 0.1.
    near, anywhere = (
        np.mean([params["loss.label_smoothing"] for params in found[share]]) for share in (1, 0)
    )
    assert near < 0.6 * anywhere


def test_whether_a_default_was_chosen_makes_no_other_space() -> None:
    bare, told = Float(0, 1), Float(0, 1, default=0.5)
    assert bare == told
    assert hash(bare) == hash(told)
    assert repr(bare) == repr(told)
    assert (bare.chosen, told.chosen) == (False, True)
    assert replace(bare, default=0.25).chosen
    signatures = [
        study_signature(experiment(f"model.dropout={{float: [0, 0.5]{given}}}"))
        for given in ("", ", default: 0.25")
    ]
    assert signatures[0] == signatures[1]


@pytest.mark.parametrize("multivariate", ["false", "true"])
def test_the_model_takes_over(tmp_path: Any, multivariate: str) -> None:
    """After the start, proposals are what they are without trials near the defaults."""
    proposed = []
    for share in (0, 1):
        tried = experiment(
            *KINDS,
            f"search.sampler.near_defaults={share}",
            f"search.sampler.multivariate={multivariate}",
        )
        study = open_study(tried, RunDirectory(tmp_path / str(share)))
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
        for number in range(12):
            study.enqueue(tried.space.suggest(drawn.ask()), f"given {number}")
        for _ in range(12):
            asked = study.ask()
            assert asked is not None
            study.complete(asked.number, asked.params["model.dropout"], 0)
        assert all(trial.state == TrialState.COMPLETE for trial in study.trials())
        asked = study.ask()
        assert asked is not None
        proposed.append(asked.params)
    assert proposed[0] == proposed[1]
