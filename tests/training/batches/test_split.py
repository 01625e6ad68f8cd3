"""Who runs frozen blocks in front of trained ones when images change in every epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.models.frozen import FusedForward
from gsfl_tune.models.openvino_forward import OpenvinoForward
from gsfl_tune.training import Training
from gsfl_tune.training.batches import SplitBatches
from gsfl_tune.training.caches import engines
from gsfl_tune.training.caches.engines import Rehearsal

from ..conftest import tiny_config

pytestmark = pytest.mark.usefixtures("every_engine")

LAST = {
    "head": {"epochs": 0},
    "finetune": {"epochs": 2, "blocks": 2, "batch_size": 24, "head_learning_rate": 0.01},
}


@pytest.fixture
def told(monkeypatch):
    """Makes every rehearsal say the same: a network this small is not worth one."""

    def set_to(own: float, other: float) -> list[str]:
        asked: list[str] = []

        def rehearsed(file, module, shape, precision, copy, name):
            asked.append(name)
            return Rehearsal(own, other)

        monkeypatch.setattr(engines, "_rehearsed", rehearsed)
        monkeypatch.setattr(engines, "_rate", lambda *_: 1e-3)
        return asked

    return set_to


def trained(config, workspace, folder):
    training = Training(config, workspace, folder)
    while not training.finished:
        training.run_epoch()
    batches = training._current()._batches
    assert isinstance(batches, SplitBatches)
    return training, batches


def test_the_faster_engine_runs_training_and_evaluation(workspace, tmp_path, told):
    pytest.importorskip("openvino")
    config = tiny_config(training=LAST)
    asked = told(1.0, 0.0)
    own, batches = trained(config, workspace, tmp_path / "own")
    assert all(isinstance(each, FusedForward) for each in batches._prefixes.values())
    assert "test_efficientnet before its last 2 blocks" in asked
    told(1.0, 100.0)
    other, batches = trained(config, workspace, tmp_path / "other")
    assert [type(each) for each in batches._prefixes.values()] == [OpenvinoForward]
    for one, two in zip(own.log.read(), other.log.read(), strict=True):
        assert two["train/loss"] == pytest.approx(one["train/loss"], rel=1e-3)
    expected, found = own.predict("test").logits, other.predict("test").logits
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_small_stage_and_a_node_without_the_engine_take_our_copy(
    workspace, tmp_path, monkeypatch
):
    config = tiny_config(training=LAST)
    small, batches = trained(config, workspace, tmp_path / "small")
    assert [type(each) for each in batches._prefixes.values()] == [FusedForward]
    monkeypatch.setenv(engines.SWITCH_VARIABLE, "0")
    none, _ = trained(config, workspace, tmp_path / "none")
    for name, weight in small.trained_network().state_dict().items():
        assert torch.equal(weight, none.trained_network().state_dict()[name]), name


def test_how_many_images_pass_does_not_depend_on_the_epoch(workspace, tmp_path):
    config = tiny_config(training=LAST)
    training, batches = trained(config, workspace, tmp_path)
    dataset = workspace.dataset
    whole = 2 * (len(dataset.train_index) + len(dataset.validation_index))
    assert batches._seen(32) == whole
    fresh = Training(config, workspace, tmp_path / "fresh")
    assert fresh._current()._batches._seen(32) == whole
    with training._current().made_exact():
        held = len(dataset.validation_index) + len(dataset.test)
        assert training._current()._batches._seen(32) == held
