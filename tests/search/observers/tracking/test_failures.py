"""Trackers that fail at every call in turn: whatever was lost, the next `track` completes it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import mlflow.tracking
import pytest
import wandb
from mlflow.tracking import MlflowClient

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.observers.tracking import Tracking, open_trackers, track_run
from gsfl_tune.search.observers.tracking.wandb import is_there
from tests.search.experiments import experiment
from tests.search.observers.tracking.lost_calls import Line, Lost
from tests.search.observers.tracking.wandb_files import config, folders, run_id, summary
from tests.search.observers.tracking.wandb_files import history as rows_of

# --- MLflow -------------------------------------------------------------------------------------


@pytest.fixture
def to_mlflow(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line()

    class Client(MlflowClient):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name.startswith("_") or not callable(found):
                return found
            return line.through(name, found)

    monkeypatch.setattr(mlflow.tracking, "MlflowClient", Client)
    return line


def _mlflow_has(uri: str, run: RunDirectory) -> dict[str, Any]:
    """Everything that the server has of a search, but ids and times of its own."""
    own = json.loads((run.path / "tracking.json").read_text())["id"]
    client = MlflowClient(uri)
    identity = client.get_experiment_by_name("tiny").experiment_id
    found = {}
    for each in client.search_runs([identity], filter_string=f"tags.`gsfl_tune.run` = '{own}'"):
        tags = {name: text for name, text in each.data.tags.items() if "gsfl_tune." in name}
        key = tags["gsfl_tune.trial"]
        assert key not in found, f"{key} is there twice"
        del tags["gsfl_tune.run"]
        points = {
            name: [
                (m.step, m.value, m.timestamp)
                for m in client.get_metric_history(each.info.run_id, name)
            ]
            for name in each.data.metrics
        }
        kept = sorted(file.path for file in client.list_artifacts(each.info.run_id))
        found[key] = (each.info.status, each.data.params, tags, points, kept)
    return found


@pytest.mark.parametrize(
    ("too_late", "every"),
    [
        (False, False),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
)
def test_mlflow_is_completed_whatever_call_was_lost(
    finished: RunDirectory,
    to_mlflow: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    too_late: bool,
    every: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def track(run: RunDirectory, at: int | None, *, too_late: bool = False) -> None:
        with to_mlflow.broken(at, too_late=too_late):
            track_run(run, open_trackers(mlflow=uri))

    def copied(name: str) -> RunDirectory:
        shutil.copytree(finished.path, tmp_path / name)
        return RunDirectory(tmp_path / name)

    # The first search of a name makes MLflow's experiment, the others find it.
    track(copied("first"), None)
    whole = copied("whole")
    track(whole, None)
    calls = list(to_mlflow.calls)
    assert {"create_run", "log_batch", "log_artifact", "set_terminated"} <= set(calls)
    wanted = _mlflow_has(uri, whole)
    assert {key: each[0] for key, each in wanted.items()} == {
        "": "FINISHED", "search-0": "FINISHED", "search-1": "FAILED",
    }  # fmt: skip
    assert all(each[1] for key, each in wanted.items() if key)
    for at, name in enumerate(calls):
        if not every and at not in (calls.index(name), len(calls) - 1 - calls[::-1].index(name)):
            continue  # sent as the first and the last call of its kind are
        run = copied(f"{at}")
        with pytest.raises(Lost, match=name):
            track(run, at, too_late=too_late)
        track(run, None)
        assert _mlflow_has(uri, run) == wanted, (at, name)


@pytest.mark.slow
def test_a_search_sends_again_what_was_lost_on_the_way(
    finished: RunDirectory, to_mlflow: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `track` does, but in one process, which remembers what it believes to have sent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gsfl_tune.search.observers.tracking.follow._FIRST_PAUSE", 0.01)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(2):
        with to_mlflow.broken(None, too_late=False):
            track_run(finished, open_trackers(mlflow=uri))
        wanted = {key: each for key, each in _mlflow_has(uri, finished).items() if key}
        calls = list(to_mlflow.calls)
        (finished.path / "tracking.json").unlink()
    for at in [n for n, name in enumerate(calls) if name in ("create_run", "log_batch")][1:4]:
        shutil.copytree(finished.path, tmp_path / f"{at}")
        run = RunDirectory(tmp_path / f"{at}")
        study = open_study(experiment(), run)
        notices: list[str] = []
        with to_mlflow.broken(at, too_late=True):
            tracking = Tracking(open_trackers(mlflow=uri), run, notices.append, patience=60)
            tracking.begin(study, 2, 1)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                tracking.tick()
                found = _mlflow_has(uri, run) if notices else {}
                if {key: each for key, each in found.items() if key} == wanted:
                    break
            tracking.finish(interrupted=True)
            tracking.close()
        study.close()
        assert {key: each for key, each in _mlflow_has(uri, run).items() if key} == wanted
        (notice,) = notices
        assert "MLflow is not up to date (Lost" in notice


# --- Weights & Biases ---------------------------------------------------------------------------


@pytest.fixture
def to_wandb(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line()
    run = wandb.sdk.wandb_run.Run
    begun = wandb.init

    monkeypatch.setattr(wandb, "init", line.through("init", begun))
    summaries = wandb.sdk.wandb_summary.SummaryDict
    for kind, name in ((run, "log"), (run, "finish"), (summaries, "update")):
        line.method(monkeypatch, kind, name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return line


def _wandb_has(folder: Path, own: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in folders(folder):
        search, _, key = run_id(each).partition("-")
        if search != own:
            continue
        assert key not in found, f"{key} is there twice"
        rows = [
            {name: value for name, value in row.items() if name == "_step" or name[0] != "_"}
            for row in rows_of(each)
        ]
        result = {name: value for name, value in summary(each).items() if name[0] != "_"}
        found[key] = (config(each), rows, result)
    return found


SLOW = pytest.mark.slow  # W&B takes a second or two a run


@pytest.mark.parametrize(
    ("name", "too_late"),
    [
        pytest.param("finish", True, marks=SLOW),
        pytest.param("finish", False, marks=SLOW),
        # W&B itself ends a run whose `init` fails at its end.
        pytest.param("init", False, marks=SLOW),
        *(
            pytest.param(name, late, marks=SLOW)
            for name in ("log", "update")
            for late in (False, True)
        ),
    ],
)
def test_wandb_is_completed_whatever_call_was_lost(
    finished: RunDirectory,
    to_wandb: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    too_late: bool,
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))

    def track(run: RunDirectory, at: int | None) -> None:
        with to_wandb.broken(at, too_late=too_late):
            track_run(run, open_trackers(wandb="tests"))

    def has(run: RunDirectory) -> dict[str, Any]:
        own = json.loads((run.path / "tracking.json").read_text())["id"]
        # Its settings are those of the first run of a process.
        return _wandb_has(Path(wandb.setup().settings.wandb_dir), own)

    def copied(to: str) -> RunDirectory:
        shutil.copytree(finished.path, tmp_path / to)
        return RunDirectory(tmp_path / to)

    whole = copied("whole")
    track(whole, None)
    calls = list(to_wandb.calls)
    assert set(calls) == {"init", "log", "update", "finish"}
    wanted = has(whole)
    assert set(wanted) == {"search-0", "search-1", "answer"}
    # Every call of its kind but those for the second trial, which is sent as the first is.
    places = [at for at, each in enumerate(calls) if each == name]
    for at in (places[0], places[-1]):
        run = copied(f"{at}")
        with pytest.raises(Lost, match=name):
            track(run, at)
        track(run, None)
        assert has(run) == wanted, (at, name, too_late)


@pytest.mark.parametrize(
    ("noted", "summary", "there"),
    [
        (["COMPLETE", 4], {"state": "COMPLETE", "_step": 4}, True),
        (["COMPLETE", 4], None, False),
        (["COMPLETE", 4], {"state": "COMPLETE", "_step": 3}, False),
        (["COMPLETE", 4], {"_step": 4}, False),
        (["", 2], {"_step": 3}, True),
        (["", 2], {"_step": 1}, False),
        (["COMPLETE", 4], {"state": "COMPLETE", "epochs": 4}, True),
        (["COMPLETE", 4], {"state": "COMPLETE", "epochs": 3}, False),
        (["COMPLETE", 0], {"winner": 3}, True),
        (["COMPLETE", 0], {}, False),
    ],
)
def test_what_a_server_does_not_have_is_not_there(noted, summary, there) -> None:
    assert is_there(noted, summary) is there
