from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search.worker import Task, TrialWorker
from gsfl_tune.training.timeline import Timeline
from tests.search.experiments import experiment


@pytest.fixture
def task(run: RunDirectory, cache_dir: Path) -> Task:
    config = experiment("model.head=plain", "training.head.epochs=5").defaults()
    timeline = Timeline.of(config)
    return Task(
        number=7,
        config=config,
        directory=run.trial("search", 7),
        interrupt=run.interrupt_file,
        metric="validation/nll",
        # In a space where others train 9 epochs: 1, 3 and the end, which comes sooner here.
        rungs=[rung.epoch for rung in timeline.rungs(Timeline(12, 0))],
        cache_dir=cache_dir,
        save_seconds=0,
        params={"model.latent_dim": 16},
    )


def _steps(worker: TrialWorker) -> list[dict[str, Any]]:
    results = [worker.step()]
    while not results[-1]["done"]:
        results.append(worker.step())
    return results


def test_goes_from_rung_to_rung_and_writes_its_files(task: Task) -> None:
    results = _steps(TrialWorker(task))
    assert [result["rung"] for result in results] == [0, 1, 2, 3]
    assert [result["epoch"] for result in results] == [1, 3, 5, 5]
    assert [result["rung_time"] for result in results] == [1, 3, 9, 27]
    assert {result["trial_number"] for result in results} == {7}
    records = EpochLog(task.directory / "epochs.jsonl").read()
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert results[1]["validation/nll"] == records[2]["validation/nll"]
    assert results[2]["validation/nll"] == results[3]["validation/nll"]
    assert (task.directory / "checkpoint.pt").exists()
    (events,) = task.directory.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"validation/nll" in content
    assert b"model.latent_dim" in content
    assert b"_hparams_/session_start_info" in content


def test_an_interrupt_saves_and_the_trial_ends_as_if_it_had_not_been(task: Task) -> None:
    whole = _steps(TrialWorker(task))
    other = task.model_copy(update={"directory": task.directory.with_name("8"), "save_seconds": 99})
    worker = TrialWorker(other)
    first = worker.step()
    task.interrupt.touch()
    stopped = worker.step()
    assert stopped == {"trial_number": 7, "interrupted": True, "done": True}
    assert (other.directory / "checkpoint.pt").exists()
    task.interrupt.unlink()
    rest = _steps(TrialWorker(other.model_copy(update={"reported": 1})))
    assert [first, *rest] == whole


def test_a_worker_that_starts_again_answers_old_rungs_from_the_log(task: Task) -> None:
    worker = TrialWorker(task)
    before = [worker.step(), worker.step()]
    seconds = [record["seconds"] for record in EpochLog(task.directory / "epochs.jsonl").read()]
    # Killed here; the same task again, as Ray has it.
    after = _steps(TrialWorker(task))
    assert after[:2] == before
    again = [record["seconds"] for record in EpochLog(task.directory / "epochs.jsonl").read()]
    assert again[:3] == seconds


def test_a_broken_checkpoint_costs_time_and_nothing_else(task: Task) -> None:
    worker = TrialWorker(task)
    before = [worker.step(), worker.step()]
    (task.directory / "checkpoint.pt").write_bytes(b"half a checkpoint")
    assert _steps(TrialWorker(task))[:2] == before


def test_does_not_even_begin_while_the_run_is_interrupted(task: Task) -> None:
    task.interrupt.parent.mkdir(parents=True, exist_ok=True)
    task.interrupt.touch()
    assert TrialWorker(task).step()["interrupted"]
    assert not task.directory.exists()


def test_a_loss_that_explodes_ends_the_trial_with_a_reason(task: Task) -> None:
    wild = experiment(
        "model.head=gsfl", "training.head.learning_rate=1e30", "training.head.optimizer=sgd"
    ).defaults()
    results = _steps(TrialWorker(task.model_copy(update={"config": wild})))
    assert "non-finite" in results[-1]["failed"]


def test_weights_that_are_not_there_end_the_trial_with_a_reason(task: Task) -> None:
    missing = task.config.model_copy(
        update={"model": task.config.model.model_copy(update={"weights": "/nowhere.safetensors"})}
    )
    result = TrialWorker(task.model_copy(update={"config": missing})).step()
    assert result["done"]
    assert "nowhere.safetensors" in result["failed"]


def test_a_task_travels_as_json(task: Task) -> None:
    assert Task.model_validate_json(task.model_dump_json()) == task
    assert json.loads(task.model_dump_json())["number"] == 7
