"""The step of the largest model, in the slot of a trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.search.ray_tune.location import machine
from gsfl_tune.search.ray_tune.rehearsal import rehearse_largest
from gsfl_tune.training.pricing import ASSUMED
from gsfl_tune.training.pricing.one_step import of_a_process
from tests.search.experiments import experiment

FINETUNE = ("training.finetune.epochs=1", "training.finetune.batch_size=6")
# More than an address space holds: the allocator refuses it on every machine.
TOO_WIDE = "model.latent_dim=20000000"


def test_small_models_are_not_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    rehearse_largest(
        experiment(TOO_WIDE), resources=Slots(cpu=1, gpu=0, count=1), cache_dir=tmp_path
    )
    assert not list(tmp_path.iterdir())


def test_a_step_that_fits_is_taken(ray_of_tests: None, one_slot: Slots, cache_dir: Path) -> None:
    assert not rehearse_largest(experiment(*FINETUNE), resources=one_slot, cache_dir=cache_dir)


def test_what_steps_take_is_the_first_price_of_trainings(
    ray_of_tests: None, one_slot: Slots, cache_dir: Path
) -> None:
    tried = experiment(*FINETUNE)
    found = rehearse_largest(tried, resources=one_slot, cache_dir=cache_dir, least=0.01)
    assert [each.work.stage for each in found] == ["head", "finetune"]
    assert {each.machine for each in found} == {ASSUMED + machine(False)}
    assert all(each.seconds > 0 and each.work.steps == 1 for each in found)


def test_a_step_that_wants_too_much_memory_is_refused_with_what_can_be_changed(
    ray_of_tests: None, one_slot: Slots, cache_dir: Path
) -> None:
    with pytest.raises(UserError) as refused:
        rehearse_largest(experiment(*FINETUNE, TOO_WIDE), resources=one_slot, cache_dir=cache_dir)
    text = str(refused.value)
    assert "cannot take a step: out of memory" in text
    assert "resnet10t at 32 px" in text
    assert "latent_dim 20000000, batch_size 6" in text


def test_a_machine_that_fails_is_no_fault_of_the_space(
    ray_of_tests: None, one_slot: Slots, tmp_path: Path
) -> None:
    # As a disk that is full: nothing can be written there.
    (tmp_path / "cache").touch()
    with pytest.raises(EnvironmentProblem, match=r"^(?!machine: ).*cache"):
        rehearse_largest(experiment(*FINETUNE), resources=one_slot, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(("workers", "images"), [(1, 6), (2, 3), (4, 2), (99, 2)])
def test_every_process_of_a_trial_takes_its_part_of_a_batch(workers: int, images: int) -> None:
    config = experiment(*FINETUNE).defaults()
    assert of_a_process(config, workers).training.finetune.batch_size == images
