"""Trackers that do not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.run.results import Results
from gsfl_tune.search import Study, open_study
from gsfl_tune.search.observers.tracking import (
    RunInfo,
    Tracker,
    Tracking,
    TrialRecord,
    open_trackers,
    track_run,
)
from tests.search.experiments import experiment
from tests.waiting import wait_until


@pytest.fixture
def study(run: RunDirectory) -> Study:
    """Three trials: complete, failed, running."""
    tried = experiment()
    write_text(run.experiment_file, tried.to_yaml())
    write_json(run.manifest_file, {"format": 1, "seconds": {}})
    study = open_study(tried, run)
    for _ in range(3):
        study.ask()
    for number in range(3):
        log = run.trial("search", number) / "epochs.jsonl"
        log.parent.mkdir(parents=True)
        log.write_text('{"epoch": 1, "validation/nll": 2.5, "seconds": 0.5}\n')
    study.complete(0, 2.5)
    study.fail(1, "non-finite train/loss in epoch 2")
    return study


class Unreliable(Tracker):
    """Fails as often as it is told to; remembers what it was told."""

    name = "Unreliable"
    secrets = ("hunter2",)

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.told: dict[str, tuple[str, int]] = {}
        self.closed = False

    def open(self, info: RunInfo) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("no route to http://me:hunter2@host\nsecond line")

    def trial(self, record: TrialRecord, epochs: Sequence[Mapping[str, Any]]) -> None:
        self.told[record.key] = (record.state, len(epochs))

    def conclude(self, results: Results) -> None:
        raise AssertionError("there are no results")

    def close(self) -> None:
        self.closed = True


def test_a_tracker_that_fails_is_told_again_and_the_user_once(
    study: Study, run: RunDirectory
) -> None:
    notices: list[str] = []
    tracker = Unreliable(failures=1)
    tracking = Tracking([tracker], run, notices.append, patience=30)
    tracking.begin(study, 3, 1)
    wait_until(lambda: len(tracker.told) == 3, "the tracker is told of three trials")
    study.complete(2, 1.5)
    tracking.ended(2)
    tracking.finish(interrupted=False)
    tracking.close()
    assert tracker.told == {
        "search-0": ("COMPLETE", 1),
        "search-1": ("FAIL", 1),
        "search-2": ("COMPLETE", 1),
    }
    assert tracker.closed
    (notice,) = notices
    assert "Unreliable is not up to date (ConnectionError: no route to" in notice
    assert "hunter2" not in notice


def test_a_server_that_is_away_is_one_notice_and_can_be_told_later(
    study: Study, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notices: list[str] = []
    # Nobody listens on port 9 of this machine.
    trackers = open_trackers(mlflow="http://me:hunter2@127.0.0.1:9")
    tracking = Tracking(trackers, run, notices.append, patience=60)
    tracking.begin(study, 3, 1)
    tracking.started(2, {}, again=False)
    tracking.finish(interrupted=True)
    tracking.close()
    (notice,) = notices
    assert "MLflow is not up to date" in notice
    assert "gsfl-tune track" in notice
    assert "hunter2" not in notice
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert track_run(run, open_trackers(mlflow=uri)) == 3
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    states = {each.data.tags["gsfl_tune.trial"]: each.info.status for each in found}
    assert states == {
        "": "RUNNING",
        "search-0": "FINISHED",
        "search-1": "FAILED",
        "search-2": "RUNNING",
    }


def test_a_run_whose_images_are_elsewhere_can_be_told(study: Study, run: RunDirectory) -> None:
    text = run.experiment_file.read_text()
    moved = text.replace("source: typefaces", "source: folder\n  path: /nowhere/photos")
    assert moved != text
    write_text(run.experiment_file, moved)
    tracker = Unreliable(failures=0)
    assert track_run(run, [tracker]) == 3
    assert tracker.told["search-0"] == ("COMPLETE", 1)


def test_a_trial_that_was_stopped_elsewhere_waits_for_its_epochs(
    study: Study, run: RunDirectory
) -> None:
    class Listening(Unreliable):
        def __init__(self) -> None:
            super().__init__(failures=0)
            self.heard: list[tuple[str, str, int]] = []

        def trial(self, record: TrialRecord, epochs: Sequence[Mapping[str, Any]]) -> None:
            super().trial(record, epochs)
            self.heard.append((record.key, record.state, len(epochs)))

    study.report(2, 0, 2.5)
    study.prune(2, 2.5, 0)
    study.ask()
    log = run.trial("search", 2) / "epochs.jsonl"
    late = log.read_text()
    log.unlink()
    tracker = Listening()
    tracking = Tracking([tracker], run, [].append, patience=30)
    tracking.begin(study, 4, 1)
    # The last one that it is told of.
    wait_until(lambda: "search-3" in tracker.told, "the tracker is told of the trials")
    log.write_text(late)
    tracking.finish(interrupted=False)
    tracking.close()
    assert [each for each in tracker.heard if each[0] == "search-2"] == [("search-2", "PRUNED", 1)]
