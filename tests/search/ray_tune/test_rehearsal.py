"""The step of the largest model, in this process instead of the slot of a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.search import rehearse_largest
from tests.search.experiments import experiment
from tests.search.starvation import starved

FINETUNE = ("training.finetune.epochs=1", "training.finetune.batch_size=6")


class Slot:
    """The slot of a trial, in this process: keeps what was asked for, and does the task."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self._function: Callable[..., Any]

    def take(self, function: Callable[..., Any]) -> Slot:
        self._function = function
        return self

    def options(self, **asked: Any) -> Slot:
        self.asked.append(asked)
        return self

    def remote(self, *arguments: Any) -> Callable[[], Any]:
        return lambda: self._function(*arguments)

    def get(self, task: Callable[[], Any]) -> Any:
        if self.error is not None:
            raise self.error
        return task()


@pytest.fixture
def slot(monkeypatch: pytest.MonkeyPatch) -> Slot:
    one = Slot()
    monkeypatch.setattr(ray, "remote", one.take)
    monkeypatch.setattr(ray, "get", one.get)
    return one


def test_small_models_are_not_rehearsed_on_a_cpu(slot: Slot, one_slot: Slots) -> None:
    rehearse_largest(experiment(), resources=one_slot)
    assert slot.asked == []


def test_a_step_that_fits_is_taken_in_a_slot_as_a_trial_has_it(slot: Slot, cache_dir: Path) -> None:
    resources = Slots(cpu=2, gpu=0.5, count=1)
    rehearse_largest(experiment(*FINETUNE), resources=resources, cache_dir=cache_dir)
    assert slot.asked == [{"num_cpus": 2, "num_gpus": 0.5, "max_retries": 0}]


def test_a_step_that_wants_too_much_memory_is_refused_with_what_can_be_changed(
    slot: Slot, one_slot: Slots, cache_dir: Path
) -> None:
    with starved(0), pytest.raises(UserError) as refused:
        rehearse_largest(experiment(*FINETUNE), resources=one_slot, cache_dir=cache_dir)
    text = str(refused.value)
    assert "cannot take a step: out of memory" in text
    assert "resnet10t at 32 px" in text
    assert "latent_dim 32, batch_size 6" in text


@pytest.mark.parametrize(("workers", "images"), [(1, 6), (2, 3), (4, 2), (99, 2)])
def test_every_process_of_a_trial_takes_its_part_of_a_batch(
    slot: Slot, cache_dir: Path, workers: int, images: int
) -> None:
    resources = Slots(cpu=1, gpu=0, count=1, workers=workers)
    tried = experiment(*FINETUNE, "training.head.batch_size=2")
    with starved(images):
        rehearse_largest(tried, resources=resources, cache_dir=cache_dir)
    if images > 2:
        with starved(images - 1), pytest.raises(UserError, match="out of memory"):
            rehearse_largest(tried, resources=resources, cache_dir=cache_dir)


def test_a_machine_that_fails_is_no_fault_of_the_space(
    slot: Slot, one_slot: Slots, tmp_path: Path
) -> None:
    # Stands for a disk that is full.
    (tmp_path / "cache").touch()
    with pytest.raises(EnvironmentProblem, match=r"^(?!machine: ).*cache"):
        rehearse_largest(experiment(*FINETUNE), resources=one_slot, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("error", [WorkerCrashedError(), OutOfMemoryError("low on memory")])
def test_a_process_that_is_ended_lacked_memory_most_likely(
    slot: Slot, one_slot: Slots, error: Exception
) -> None:
    slot.error = error
    with pytest.raises(UserError, match="ended, most likely for lack of memory"):
        rehearse_largest(experiment(*FINETUNE), resources=one_slot)
