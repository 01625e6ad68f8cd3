"""What Weights & Biases writes offline, for a search and its resume."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import wandb

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search.observers.tracking import open_trackers, track_run
from gsfl_tune.search.study.journal import read_studies
from tests.search.observers.tracking.conftest import TRIALS, Followed
from tests.search.observers.tracking.wandb_files import folders, history, run_id


def test_every_trial_is_one_run_with_all_its_epochs(followed: Followed) -> None:
    found = folders(followed.wandb)
    ids = [run_id(folder) for folder in found]
    own = json.loads((followed.run.path / "tracking.json").read_text())["id"]
    assert Counter(ids) == Counter(f"{own}-search-{number}" for number in range(TRIALS))
    for folder, name in zip(found, ids, strict=True):
        number = int(name.rsplit("-", 1)[1])
        epochs = EpochLog(followed.run.trial("search", number) / "epochs.jsonl").read()
        rows = history(folder)
        assert [row["_step"] for row in rows] == [epoch["epoch"] for epoch in epochs]
        assert [row["validation/nll"] for row in rows] == pytest.approx(
            [epoch["validation/nll"] for epoch in epochs]
        )


def test_tracking_again_writes_nothing(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folders(followed.wandb)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert track_run(followed.run, open_trackers(wandb="tests")) == TRIALS
    assert folders(followed.wandb) == before
    assert len(read_studies(followed.run.journal)["search"]) == TRIALS


def test_a_key_that_is_not_there_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="wandb login"):
        open_trackers(wandb="tests")
    with pytest.raises(UserError, match="ENTITY/PROJECT"):
        open_trackers(wandb="a/b/c")


def test_epochs_that_arrive_after_the_end_are_written(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a trial that was stopped on another node come through a storage."""
    run = RunDirectory(Path(shutil.copytree(finished.path, tmp_path / "run")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    # It keeps the folder that it was first used with.
    wandb.teardown()
    log = run.trial("search", 1) / "epochs.jsonl"
    late = log.read_text()
    log.unlink()
    track_run(run, open_trackers(wandb="tests"))
    log.write_text(late)
    track_run(run, open_trackers(wandb="tests"))
    found = {run_id(folder).partition("-")[2]: folder for folder in folders(tmp_path / "wandb")}
    assert len(folders(tmp_path / "wandb")) == len(found) == 3
    assert [row["_step"] for row in history(found["search-1"])] == [1, 2]
    wandb.teardown()
