"""What MLflow's own client finds after a search and its resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import EpochLog, RunDirectory, write_json, write_text
from gsfl_tune.search import clear, open_study
from gsfl_tune.search.observers.tracking import open_trackers, track_run
from gsfl_tune.search.study.journal import read_studies
from tests.search.experiments import experiment
from tests.search.observers.tracking.conftest import TRIALS, Followed

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def _runs(client: MlflowClient) -> Sequence[Any]:
    experiment = client.get_experiment_by_name("tiny")
    return client.search_runs([experiment.experiment_id], max_results=1000)


def test_every_trial_is_one_run_under_that_of_the_search(followed: Followed) -> None:
    assert followed.notices == []
    client = MlflowClient(followed.mlflow)
    runs = _runs(client)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["gsfl_tune.trial"]: run for run in runs if run is not parent}
    assert len(runs) == TRIALS + 1
    for trial in read_studies(followed.run.journal)["search"]:
        run = children[f"search-{trial.number}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == STATUS[trial.state.name]
        assert run.data.tags["gsfl_tune.state"] == trial.state.name
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        if trial.state.name == "COMPLETE":
            assert run.data.metrics["final/validation/nll"] == pytest.approx(trial.value)


def test_every_epoch_is_logged_once_in_its_order(followed: Followed) -> None:
    client = MlflowClient(followed.mlflow)
    for run in _runs(client):
        study, _, number = run.data.tags["gsfl_tune.trial"].partition("-")
        if not study:
            continue
        epochs = EpochLog(followed.run.trial("search", int(number)) / "epochs.jsonl").read()
        history = client.get_metric_history(run.info.run_id, "validation/accuracy")
        assert [point.step for point in history] == [epoch["epoch"] for epoch in epochs]
        assert [point.value for point in history] == pytest.approx(
            [epoch["validation/accuracy"] for epoch in epochs]
        )


def test_tracking_again_adds_nothing(followed: Followed) -> None:
    client = MlflowClient(followed.mlflow)
    before = {run.info.run_id: run.data.metrics for run in _runs(client)}
    assert track_run(followed.run, open_trackers(mlflow=followed.mlflow)) == TRIALS
    assert {run.info.run_id: run.data.metrics for run in _runs(client)} == before


def _begin(run: RunDirectory, tried: Experiment) -> dict[str, Any]:
    """Begins a search and hands out one trial; returns its parameters."""
    write_text(run.experiment_file, tried.to_yaml())
    write_json(run.manifest_file, {"format": 1, "seconds": {}})
    study = open_study(tried, run)
    params = dict(study.trial(study.ask().number).params)
    study.close()
    return params


def test_a_run_that_is_begun_anew_has_parameters_of_its_own(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = _begin(run, experiment())
    track_run(run, open_trackers(mlflow=uri))
    clear(run, [].append)
    second = _begin(run, experiment("search.seed=8", "model.latent_dim={int: [40, 64], step: 8}"))
    assert first["model.latent_dim"] != second["model.latent_dim"]
    track_run(run, open_trackers(mlflow=uri))
    own = json.loads(run.tracking_file.read_text())["id"]
    (trial,) = [
        each
        for each in _runs(MlflowClient(uri))
        if each.data.tags["gsfl_tune.run"] == own and each.data.tags["gsfl_tune.trial"]
    ]
    assert trial.data.params == {name: str(value) for name, value in second.items()}


def test_the_experiment_is_the_present_one(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    _begin(run, experiment())
    track_run(run, open_trackers(mlflow=uri))
    # A resume may have more trials, or another space.
    write_text(run.experiment_file, experiment("search.trials=90").to_yaml())
    track_run(run, open_trackers(mlflow=uri))
    client = MlflowClient(uri)
    (parent,) = [each for each in _runs(client) if not each.data.tags["gsfl_tune.trial"]]
    kept = Path(client.download_artifacts(parent.info.run_id, "experiment.yaml"))
    assert kept.read_text() == run.experiment_file.read_text()
