"""Trials one after the other in the class that Ray runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search.ray_tune.trainable import GsflTrainable
from gsfl_tune.search.workers.task import Task
from gsfl_tune.training.gpu_memory import GpuMemory, WorkerSpent
from tests.search.experiments import experiment

Config = Callable[[int], dict[str, Any]]


class FullGpu(GpuMemory):
    """The memory of a GPU on which a trial left something."""

    def left_behind(self, shared: Any) -> int:
        return 300 * 2**20


@pytest.fixture
def config(run: RunDirectory, cache_dir: Path) -> Config:
    tried = experiment("model.head=plain", "training.head.epochs=1").defaults()

    def of(number: int) -> dict[str, Any]:
        task = Task(
            number=number,
            config=tried,
            directory=run.trial("search", number),
            interrupt=run.interrupt_file,
            metric="validation/nll",
            rungs=[1],
            cache_dir=cache_dir,
        )
        return {"task": task.model_dump_json(), "number": number, "protected": False}

    return of


@pytest.fixture
def trainable(config: Config) -> GsflTrainable:
    # Ray's own constructor makes directories below the home of the user.
    one = GsflTrainable.__new__(GsflTrainable)
    one.setup(config(0))
    return one


def test_one_process_runs_trials_one_after_the_other(
    ray_of_tests: None, trainable: GsflTrainable, config: Config, run: RunDirectory
) -> None:
    [node] = ray.nodes()
    first = trainable.step()
    assert trainable.reset_config(config(1)) is True
    second = trainable.step()
    trainable.cleanup()
    for number, result in enumerate([first, second]):
        assert result["trial_number"] == number
        assert result["done"] is True
        (record,) = EpochLog(run.trial("search", number) / "epochs.jsonl").read()
        assert result["validation/nll"] == record["validation/nll"]
        assert result["place_worker"] == os.getpid()
        assert result["place_node"] == node["NodeID"]


def test_a_process_whose_gpu_is_full_of_leftovers_refuses_the_next_trial(
    trainable: GsflTrainable, config: Config, run: RunDirectory
) -> None:
    trainable.memory = FullGpu()
    with pytest.raises(WorkerSpent, match="300 MiB"):
        trainable.reset_config(config(1))
    # The trial has not begun: another process has it whole.
    assert not run.trial("search", 1).exists()
    assert trainable.worker.task.number == 0


def test_ray_makes_no_checkpoints_of_its_own(trainable: GsflTrainable, tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="its own directory"):
        trainable.save_checkpoint(str(tmp_path))
    with pytest.raises(NotImplementedError, match="its own directory"):
        trainable.load_checkpoint(str(tmp_path))
