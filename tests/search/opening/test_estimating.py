"""The estimate before a search: real steps are timed, and the machine is left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.opening.estimating import measured
from tests.search.experiments import experiment

OVERRIDES = ("model.backbone=test_efficientnet", "search.trials=12")


@pytest.fixture(scope="module")
def found(cache_dir: Path):
    threads = torch.get_num_threads()
    estimate = measured(experiment(*OVERRIDES), Slots(cpu=1, gpu=0, count=2), cache_dir)
    assert torch.get_num_threads() == threads
    return estimate


def test_it_is_of_the_slots_that_were_asked_about(found) -> None:
    assert (found.basis, found.slots, found.gpus) == ("measured", 2, 0)
    assert found.slot_hours == pytest.approx(2 * found.hours)
    assert found.gpu_hours == 0


def test_every_part_of_a_run_has_a_time(found) -> None:
    assert set(found.parts) == {"start", "preparation", "search", "finals", "evidence"}
    assert all(seconds > 0 for seconds in found.parts.values())
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    # Typefaces of 32 pixels: seconds to minutes, not hours.
    assert found.hours < 1


def test_an_epoch_of_each_stage_was_timed(found) -> None:
    config = experiment(*OVERRIDES).defaults().training
    stages = {"head": config.head.epochs, "finetune": config.finetune.epochs}
    stages = {name: count for name, count in stages.items() if count}
    assert set(found.epochs) == set(stages)
    epochs = sum(count * found.epochs[name] for name, count in stages.items())
    assert 0 < epochs <= 1.001 * found.training


def test_more_trials_take_a_longer_search_and_the_same_preparation(found, cache_dir: Path) -> None:
    many = experiment(*OVERRIDES[:1], "search.trials=1200")
    longer = measured(many, Slots(cpu=1, gpu=0, count=2), cache_dir)
    # Both were timed on a machine that may be busy: a hundred times as many trials show anyway.
    assert longer.parts["search"] > 5 * found.parts["search"]


def test_images_that_cannot_be_divided_are_refused_before_anything_is_timed(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("file,label\nmissing.png,a\nother.png,b\n")
    wrong = experiment("data.source=csv", f"data.path={file}")
    with pytest.raises(UserError, match="fewer than 2 different training images"):
        measured(wrong, Slots(cpu=1, gpu=0, count=1), tmp_path / "cache")
