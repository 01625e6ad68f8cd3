"""How fast a machine trains, measured by steps."""

from __future__ import annotations

import torch

from gsfl_tune.training.pricing import calibrate
from gsfl_tune.training.pricing.calibrate import measure_steps
from gsfl_tune.training.stages import FinetuneStage, HeadStage
from tests.training.conftest import tiny_config


def test_each_process_of_a_training_is_timed_with_its_share_of_a_batch(workspace, monkeypatch):
    stepped: list[tuple[str, int]] = []

    def noted(kind):
        real = kind.rehearse

        def rehearse(stage):
            stepped.append((stage.name, stage.config.batch_size))
            real(stage)

        return rehearse

    def timed(act, device, least):
        act()
        return 1.0, 4

    monkeypatch.setattr(calibrate, "_timed", timed)
    for kind in (HeadStage, FinetuneStage):
        monkeypatch.setattr(kind, "rehearse", noted(kind))
    finetune = {"epochs": 1, "batch_size": 24, "blocks": 1}
    config = tiny_config(training={"head": {"epochs": 1, "batch_size": 20}, "finetune": finetune})
    one, two = (measure_steps(config, workspace, workers) for workers in (1, 2))
    # The head is trained by one process, the batches of finetune are divided.
    assert stepped == [("head", 20), ("finetune", 24), ("head", 20), ("finetune", 12)]
    # A step of a process is one of the whole batch: both stand for the same work.
    assert one == two
    assert one[1].work.steps == 1


def test_a_long_first_step_is_the_only_one():
    device, taken = torch.device("cpu"), []
    size = 400

    def act():
        taken.append(torch.ones(size, size) @ torch.ones(size, size))

    # Any step is long where next to nothing is wanted.
    seconds, steps = calibrate._timed(act, device, 1e-9)
    assert (len(taken), steps) == (1, 1)
    assert seconds > 0
    seconds, steps = calibrate._timed(act, device, 0.2)
    assert len(taken) == 1 + 1 + steps
    assert steps >= 2
    assert seconds >= 0.2
