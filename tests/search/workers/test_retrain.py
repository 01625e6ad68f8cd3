"""A retrain is one job: done once, by its numbers the same wherever it runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run import EpochLog, RunDirectory, read_json, write_json
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search import Job, load_result
from gsfl_tune.search.workers.retrain import forget_without_model, is_finished, run_job
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.training import load_predictions
from tests.search.experiments import experiment
from tests.search.starvation import starved


def _job(run: RunDirectory, name: str, *overrides: str, **options: Any) -> Job:
    plain = ("model.head=plain", "training.head.epochs=3")
    config = experiment(*plain, *overrides).defaults()
    known = {"name": name, "config": config, "directory": run.finals / name, "seed": 1}
    return Job(**{**known, **options})


def test_a_job_alone_is_the_same_job(run: RunDirectory, cache_dir: Path) -> None:
    setting = WorkerSettings(interrupt=run.interrupt_file, cache_dir=cache_dir)
    one, two = (_job(run, name) for name in ("one", "two"))
    first = run_job(one, setting)
    assert first is not None
    second = run_job(two, setting)
    assert second is not None
    assert first["validation"] == second["validation"]
    assert read_json(one.directory / "result.json") == first
    run.interrupt_file.touch()
    assert run_job(_job(run, "three"), setting) is None
    assert run_job(one, setting) == first


def test_a_tested_job_whose_model_was_removed_is_trained_again_to_the_same(
    run: RunDirectory, cache_dir: Path
) -> None:
    setting = WorkerSettings(interrupt=run.interrupt_file, cache_dir=cache_dir)
    tested = _job(run, "tested", fit="train+validation", test=True)
    compared = _job(run, "compared")
    first = run_job(tested, setting)
    run_job(compared, setting)
    for job in (tested, compared):
        forget_without_model(job)
        assert load_result(job) is not None  # the model is there, or was never kept
    model = tested.directory / "checkpoint.pt"
    model.unlink()
    assert [is_finished(job) for job in (tested, compared)] == [False, True]
    assert is_finished(tested, stored=True)
    forget_without_model(tested)
    assert load_result(tested) is None
    again = run_job(tested, setting)
    assert first is not None
    assert again is not None
    assert again["test"] == first["test"]
    assert model.is_file()


def test_a_model_that_is_in_the_storage_alone_is_not_trained_again(
    run: RunDirectory, storage: DriverCopy
) -> None:
    job = _job(run, "tested", fit="train+validation", test=True)
    write_json(job.directory / "result.json", {"epochs": 1})
    storage.storage.put(storage.address.name(job.directory / "checkpoint.pt"), b"model")
    forget_without_model(job, storage)
    assert load_result(job) is not None
    storage.storage.delete(storage.address.name(job.directory / "checkpoint.pt"))
    forget_without_model(job, storage)
    assert load_result(job) is None


def test_a_job_out_of_memory_goes_on_with_half_the_batch(
    run: RunDirectory, cache_dir: Path
) -> None:
    setting = WorkerSettings(interrupt=run.interrupt_file, cache_dir=cache_dir)
    with starved(40):
        result = run_job(_job(run, "halved"), setting)
    assert result is not None
    assert result["epochs"] == 3
    # It is compared by its numbers alone; the models of the end are kept.
    assert not (run.finals / "halved" / "checkpoint.pt").exists()
    last = _job(run, "last", fit="train+validation", test=True)
    run_job(last, setting)
    assert (last.directory / "checkpoint.pt").exists()
    with starved(0):
        result = run_job(_job(run, "starved"), setting)
    assert result is not None
    assert "out of memory, at half the batch too" in result["failed"]
    # Another machine may have more.
    assert load_result(_job(run, "starved")) is None


def test_a_retrain_elsewhere_comes_to_the_driver(
    run: RunDirectory,
    storage: DriverCopy,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As a node is told that does not see the run directory.
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    away = storage.address.model_copy(update={"token": "of another machine", "patience": 0.5})
    directory = run.finals / "search-1" / "retrain" / "seed-1"
    job = _job(run, "seed 1", directory=directory, fit="train+validation", test=True)
    setting = WorkerSettings(interrupt=run.interrupt_file, cache_dir=cache_dir, storage=away)
    result = run_job(job, setting)
    assert result is not None
    assert load_result(job) is None
    storage.bring(*(directory / name for name in ("result.json", "test.npz", "checkpoint.pt")))
    assert load_result(job) == result
    assert load_predictions(directory / "test.npz").metrics() == pytest.approx(result["test"])
    assert (directory / "checkpoint.pt").exists()


def test_a_loss_that_explodes_is_the_result_and_a_machine_that_fails_is_none(
    run: RunDirectory, cache_dir: Path, tmp_path: Path
) -> None:
    setting = WorkerSettings(interrupt=run.interrupt_file, cache_dir=cache_dir)
    wild = ("training.head.learning_rate=1e30", "training.head.optimizer=sgd", "model.head=gsfl")
    exploded = _job(run, "wild", *wild)
    result = run_job(exploded, setting)
    assert result is not None
    assert "non-finite" in result["failed"]
    assert load_result(exploded) == result
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EnvironmentProblem, match="file"):
        run_job(_job(run, "unwritable", directory=file / "job"), setting)


def test_what_a_result_says_of_its_time_is_what_the_epochs_say(
    run: RunDirectory, cache_dir: Path
) -> None:
    setting = WorkerSettings(interrupt=run.interrupt_file, cache_dir=cache_dir)
    job = _job(run, "timed")
    result = run_job(job, setting)
    assert result is not None
    records = EpochLog(job.directory / "epochs.jsonl").read()
    assert result["seconds"] == pytest.approx(sum(each["seconds"] for each in records), abs=1e-3)
    own = sum(each["seconds"] - each.get("cache_seconds", 0.0) for each in records)
    assert result["measured"] == {"head": [3, pytest.approx(own, abs=1e-3)]}
