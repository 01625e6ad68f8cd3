"""The latency of a trial: one image at a time through the network that it trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from gsfl_tune.search.workers import latency
from gsfl_tune.search.workers.latency import measure_latency
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training import Training
from tests.search.experiments import experiment


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(latency, "_MOST", 30)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def training(tmp_path: Path, cache_dir: Path) -> Training:
    config = experiment("model.head=gsfl", "training.head.epochs=2").defaults()
    training = Training(config, open_workspace(config.data, None, cache_dir), tmp_path)
    training.run_epoch()
    return training


def test_it_is_a_time_with_what_tells_whether_it_can_be_trusted(training: Training) -> None:
    found = measure_latency(training)
    assert 0 < found["latency_ms"] < math.inf
    assert found["runs"] == 30
    assert (found["threads"], found["device"]) == (1, "cpu")
    assert found["reliable"] in (True, False)
    # It goes into the journal and over the wire.
    assert json.loads(json.dumps(found)) == found


def test_every_run_is_one_image_of_the_trials_size_without_gradients(training: Training) -> None:
    seen: list[tuple[torch.Size, bool]] = []

    def look(module: Any, inputs: Any) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].shape[1:2] == (3,):
            seen.append((inputs[0].shape, torch.is_inference_mode_enabled()))

    with register_module_forward_pre_hook(look):
        found = measure_latency(training)
    assert set(seen) == {(torch.Size((1, 3, 32, 32)), True)}
    # The first ones, which are slower, do not count.
    assert len(seen) > found["runs"]


def test_the_training_does_not_notice(training: Training, tmp_path: Path) -> None:
    config = training.config
    other = Training(config, training.workspace, tmp_path / "other")
    other.run_epoch()
    torch.manual_seed(0)
    drawn = torch.get_rng_state()
    measure_latency(training)
    assert torch.equal(torch.get_rng_state(), drawn)
    # The next epoch is that of a training that nobody measured.
    for each in (training, other):
        each.run_epoch()
    ours, theirs = training.log.read()[-1], other.log.read()[-1]
    assert ours["validation/nll"] == theirs["validation/nll"]
    assert ours["train/loss"] == theirs["train/loss"]
