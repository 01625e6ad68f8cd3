"""What a user asks to track with is looked at before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.observers.tracking import open_trackers, redacted


def test_those_that_were_asked_for_are_made_and_none_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    place = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert open_trackers() == []
    assert [each.name for each in open_trackers(mlflow=place)] == ["MLflow"]
    both = open_trackers(mlflow=place, wandb="tests")
    assert [each.name for each in both] == ["MLflow", "W&B"]
    # None has connected: a search that is refused later leaves nothing.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000",
        "sqlite:///mlflow.db",
        "postgresql+psycopg2://me:hunter2@host/mlflow",
        "databricks",
        "databricks://profile",
    ],
)
def test_servers_and_databases_are_taken(uri: str) -> None:
    assert len(open_trackers(mlflow=uri)) == 1


@pytest.mark.parametrize("uri", ["mlruns", "/data/mlruns", "file:///data", "ftp://host", "http//x"])
def test_what_mlflow_cannot_log_to_is_bad_input(uri: str) -> None:
    with pytest.raises(UserError, match="not a tracking URI"):
        open_trackers(mlflow=uri)


def test_passwords_are_not_shown() -> None:
    assert redacted("https://me:hunter2@host/x") == "https://me:***@host/x"
    assert redacted("https://me@host:5000") == "https://me@host:5000"
    assert redacted("sqlite:///a.db") == "sqlite:///a.db"
    assert redacted("me:hun:ter2@host") == "me:***@host"
    assert redacted("http://host:5000/a@b") == "http://host:5000/a@b"
    with pytest.raises(UserError) as refused:
        open_trackers(mlflow="ftp://me:hunter2@host")
    assert "hunter2" not in str(refused.value)
