"""TensorBoard shows trials of other nodes as those that ran beside the run directory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.cli import main
from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search import open_study, write_trials
from gsfl_tune.search.observers.tracking.stored_pictures import picture_events
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.tensorboard_events import hparams
from gsfl_tune.search.workers.trial_worker import TrialWorker
from tests.search.experiments import experiment
from tests.search.workers.test_trial_worker import _steps


@pytest.fixture
def elsewhere(
    run: RunDirectory,
    storage: DriverCopy,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A run of one trial, which another node trained; beside it the same trial, trained here."""
    tried = experiment(f"storage={tmp_path / 'kept'}", "training.head.epochs=2")
    write_text(run.experiment_file, tried.to_yaml())
    write_json(run.manifest_file, {"format": 1, "seconds": {}})
    study = open_study(tried, run)
    asked = study.ask()
    assert asked is not None
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    task = Task(
        number=asked.number,
        config=tried.configure(asked.params),
        directory=run.trial("search", asked.number),
        interrupt=run.interrupt_file,
        metric=study.metric,
        rungs=[1, 2],
        params=asked.params,
        shown=hparams(study.space, asked.params),
        cache_dir=cache_dir,
        storage=storage.address.model_copy(update={"token": "of another machine"}),
    )
    first = TrialWorker(task)
    first.step()
    first.close(ended=False)
    results = _steps(TrialWorker(task))
    study.complete(asked.number, results[-1][study.metric], 1)
    study.close()
    storage.bring(run.trial("search", 0) / "epochs.jsonl")
    write_trials(run)
    alone = tmp_path / "alone" / "trials" / "0"
    _steps(TrialWorker(task.model_copy(update={"storage": None, "directory": alone})))
    return alone


def _shown(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_confusion_matrices_come_from_the_storage(run: RunDirectory, elsewhere: Path) -> None:
    assert not list(run.path.rglob("trials/0/events.out.tfevents.*"))
    assert main(["track", str(run.path), "--tensorboard"]) == 0
    found, here = _shown(run.path / "tensorboard" / "trials" / "0"), _shown(elsewhere)
    assert found.Tags()["images"] == here.Tags()["images"] == ["validation/confusion"]
    (picture,), (wanted,) = (each.Images("validation/confusion") for each in (found, here))
    assert (picture.step, picture.width) == (wanted.step, wanted.width)
    assert picture.encoded_image_string == wanted.encoded_image_string
    # Numbers are whole although the process that left the picture trained the last epoch only.
    for tag in ("train/loss", "final/validation/nll"):
        steps = [[point.step for point in each.Scalars(tag)] for each in (found, here)]
        assert steps[0] == steps[1]
    # A second time is the same.
    assert main(["track", str(run.path), "--tensorboard"]) == 0
    again = _shown(run.path / "tensorboard" / "trials" / "0")
    assert len(again.Images("validation/confusion")) == 1


def test_a_storage_that_is_gone_costs_the_pictures_only(
    run: RunDirectory, elsewhere: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr("gsfl_tune.search.observers.tracking.stored_pictures._PATIENCE", 0.1)
    (tmp_path / "kept").rename(tmp_path / "away")
    try:
        assert main(["track", str(run.path), "--tensorboard"]) == 0
    finally:
        (tmp_path / "away").rename(tmp_path / "kept")
    told = capsys.readouterr().err.strip()
    assert "storage" in told
    assert "have no confusion matrices" in told
    assert len(told.splitlines()) == 1
    found = _shown(run.path / "tensorboard" / "trials" / "0")
    assert found.Tags()["images"] == []
    assert [point.step for point in found.Scalars("validation/nll")] == [1, 2]


def test_events_that_were_cut_off_end_where_they_are_whole(elsewhere: Path) -> None:
    (file,) = elsewhere.glob("events.out.tfevents.*")
    data = file.read_bytes()
    assert [event.step for event in picture_events(data)] == [2]
    assert list(picture_events(data[: len(data) // 4])) == []
    assert list(picture_events(b"no events at all, but long enough")) == []
