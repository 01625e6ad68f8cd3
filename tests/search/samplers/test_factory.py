from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, open_study
from tests.search.experiments import experiment

SAMPLERS = ["tpe", "random", "gp", "cmaes", "sobol", "grid"]
DISCRETE = "training.head.learning_rate={choice: [0.01, 0.001]}"


def _sampled(name: str, *overrides: str) -> Any:
    return experiment(
        f"search.sampler.name={name}", "search.sampler.startup_trials=3", DISCRETE, *overrides
    )


def _objective(params: dict[str, Any]) -> float:
    return float(params["model.latent_dim"]) / 32 + float(params["model.dropout"])


def _search(study: Study, trials: int) -> list[dict[str, Any]]:
    seen = []
    for _ in range(trials):
        asked = study.ask()
        if asked is None:
            break
        seen.append(asked.params)
        if asked.number % 4 == 3:
            study.prune(asked.number, _objective(asked.params), 0)
        else:
            study.complete(asked.number, _objective(asked.params), 0)
    return seen


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_a_conditional_space(run: RunDirectory, name: str) -> None:
    tried = _sampled(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = _search(open_study(tried, run), 10)
    assert len(seen) == 10
    for params in seen:
        # Everything that is proposed is a configuration, whatever is inactive in it.
        config = tried.configure(params)
        if params["model.head"] == "gsfl":
            assert config.model.groups.count == params["model.groups.count"]
    assert len({tuple(sorted(params.items())) for params in seen}) > 5


@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_histories_give_equal_proposals(tmp_path: Any, name: str) -> None:
    whole = _search(open_study(_sampled(name), RunDirectory(tmp_path / "whole")), 9)
    parts = []
    for trials in (2, 3, 4):
        # A new process each time, as after an interruption.
        parts += _search(open_study(_sampled(name), RunDirectory(tmp_path / "parts")), trials)
    assert parts == whole
    other = open_study(_sampled(name, "search.seed=4"), RunDirectory(tmp_path / "other"))
    assert _search(other, 9) != whole


@pytest.mark.parametrize("name", ["gp", "cmaes", "sobol"])
def test_samplers_of_a_fixed_space_leave_inactive_parameters_out(
    run: RunDirectory, name: str
) -> None:
    study = open_study(_sampled(name), run)
    _search(study, 8)
    trials = study.trials()
    assert all(set(trial.params) == study.space.active(trial.params) for trial in trials)
    assert len({frozenset(trial.params) for trial in trials}) > 1


def test_sobol_covers_better_than_chance(run: RunDirectory) -> None:
    text = "model.dropout={float: [0.0, 0.8]}"
    study = open_study(_sampled("sobol", text), run)
    values = [params["model.dropout"] for params in _search(study, 8)]
    # A sequence with the (t, m, s) property: one point in each eighth.
    assert sorted(int(value * 10) for value in values) == list(range(8))


def test_sobol_leaves_no_point_out(tmp_path: Any) -> None:
    # No two points are the same configuration, which would be turned down.
    tried = _sampled("sobol", "training.head.learning_rate={float: [1e-4, 1e-1], log: true}")
    whole = _search(open_study(tried, RunDirectory(tmp_path / "whole")), 6)
    run = RunDirectory(tmp_path / "parts")
    study = open_study(tried, run)
    params = tried.default_params() | {"model.head": "plain"}
    del params["model.groups.count"]
    study.enqueue(params, "enqueue[0]")
    asked = [study.ask() for _ in range(3)]
    # The driver was killed; its trials are handed out again, and some are told by number only.
    study = open_study(tried, run)
    assert [study.again(number) for number in range(3)] == asked
    study = open_study(tried, run)
    study.fail(0, "broken")
    study.enqueue({**params, "model.latent_dim": 8}, "enqueue[1]")
    parts = _search(study, 5)
    found = [one.params for one in asked[1:] if one] + parts[1:]
    # Which values of the head were tried depends on what was enqueued, and the groups on the head.
    assert [_numbers(params) for params in found] == [_numbers(params) for params in whole]
    assert len({tuple(_numbers(params).items()) for params in found}) == len(found)


def _numbers(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in params.items()
        if name not in ("model.head", "model.groups.count")
    }


def test_a_study_that_cannot_be_sampled_leaves_no_journal(run: RunDirectory) -> None:
    with pytest.raises(UserError, match="grid"):
        # Past the checks of a file, which refuse it sooner.
        open_study(experiment().fixed({"search.sampler.name": "grid"}), run)
    assert not run.journal.exists() or run.journal.stat().st_size == 0
