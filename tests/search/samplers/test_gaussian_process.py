"""The Gaussian process is Optuna's; it learns from stopped trials, and avoids what was rejected."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import GPSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.search.samplers import gaussian_process
from gsfl_tune.search.samplers.gaussian_process import Gp
from tests.search.experiments import experiment

KINDS: dict[str, BaseDistribution] = {
    "model.dropout": FloatDistribution(0.0, 0.8),
    "model.head": CategoricalDistribution(["linear", "plain"]),
}
SPACE = experiment(
    "model.dropout={float: [0, 0.8]}",
    "model.head={choice: [linear, plain]}",
    "model.latent_dim=16",
    "model.groups.count=2",
    "training.head.learning_rate=0.01",
).space


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _study(trials: int, *, stopped: bool = False) -> tuple[optuna.Study, FrozenTrial]:
    """A study whose best is a plain head without dropout, and its next trial."""
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    for _ in range(trials):
        trial = study.ask(KINDS)
        value = (trial.params["model.head"] == "plain") - float(trial.params["model.dropout"])
        trial.report(value, 0)
        if stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
    study.ask()
    return study, study.trials[-1]


def _gp(startup: int = 3, **options: Any) -> Gp:
    return Gp(SPACE, KINDS, startup_trials=startup, seed=5, **options)


def test_of_complete_trials_it_proposes_what_optuna_does() -> None:
    study, frozen = _study(8)
    theirs = GPSampler(seed=5, n_startup_trials=1)
    expected = theirs.sample_relative(study, frozen, KINDS)
    assert _gp().sample_relative(study, frozen, KINDS) == expected


def test_stopped_trials_end_the_start_up_and_teach() -> None:
    study, frozen = _study(8, stopped=True)
    assert _gp(startup=9).sample_relative(study, frozen, KINDS) == {}
    found = _gp(startup=8).sample_relative(study, frozen, KINDS)
    assert found["model.head"] == "plain"
    assert found["model.dropout"] < 0.2


def test_a_rejected_proposal_is_not_made_again() -> None:
    study, frozen = _study(8)
    first = _gp().sample_relative(study, frozen, KINDS)
    # The same draws: only the rejected one makes the difference.
    assert _gp().sample_relative(study, frozen, KINDS) == first
    assert _gp(avoid=[first]).sample_relative(study, frozen, KINDS) != first


def test_of_many_trials_it_takes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Gp):
        def _sample_relative_impl(self, study: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            taken.append(len(study._get_trials(states=(TrialState.COMPLETE,))))
            return super()._sample_relative_impl(study, *args, **kwargs)

    taken: list[int] = []
    monkeypatch.setattr(gaussian_process, "MOST", 12)
    for trials in (10, 30):
        study, frozen = _study(trials)
        Counting(SPACE, KINDS, startup_trials=3, seed=5).sample_relative(study, frozen, KINDS)
    assert taken == [10, 12]
