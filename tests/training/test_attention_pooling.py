"""Trainings of a pooling that learns: from the mean on, resumed, cached, and refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment, ExperimentError, UserError
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.cost import largest_model

from .checks import check_cached_as_whole, check_resumes
from .conftest import tiny_config

STAGES = {
    "head": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1, "head_learning_rate": 0.05},
}
# Maps of more than one position.
MODEL = {"backbone": "test_vit", "pooling": "attention", "attention_heads": 4}


def config_of(views=0, model=MODEL, **training):
    return tiny_config(data={"views": views}, model=model, training={**STAGES, **training})


def test_before_it_is_trained_it_is_the_mean_from_the_same_cache(workspace, tmp_path):
    config = config_of()
    mean = config_of(model={**MODEL, "pooling": "average"})
    pool = workspace.dataset.pool
    keys = {workspace.extractor(each).key(pool) for each in (config, mean)}
    assert len(keys) == 1
    one, other = (Training(each, workspace, tmp_path / "t") for each in (config, mean))
    assert one.run_epoch()["train/loss"] == other.run_epoch()["train/loss"]
    networks = [each.trained_network() for each in (one, other)]
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(networks[0].infer(images), networks[1].infer(images))


@pytest.mark.parametrize("views", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, views):
    training = check_resumes(config_of(views, ema=0.5), workspace, tmp_path, 2)
    network = training.trained_network()
    assert network.pooling.queries.abs().min() > 0
    found = training.predict("test").logits
    images = workspace.dataset.test
    network.pooling.queries.zero_()
    squares = torch.from_numpy(images.gather(np.arange(4)))[:, 2:34, 2:34]
    mean, std = (torch.tensor(each) for each in network.backbone.preprocessing)
    pixels = ((squares.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    # What it learned is part of what predicts.
    assert np.abs(found[:4] - network.infer(pixels).numpy()).max() > 1e-3


def test_cached_activations_train_what_the_network_does(workspace, tmp_path, monkeypatch):
    config = config_of(views=2, head={"epochs": 0})
    check_cached_as_whole(config, workspace, tmp_path, monkeypatch)


def test_without_a_finetune_stage_it_is_refused(workspace, tmp_path):
    config = config_of(finetune={"epochs": 0})
    with pytest.raises(UserError, match=r"model\.pooling: found attention without a finetune"):
        Training(config, workspace, tmp_path)
    text = "name: t\ndata: {source: typefaces}\nmodel:\n  pooling: {choice: [average, attention]}\n"
    with pytest.raises(
        ExperimentError,
        match=r"t\.yaml:4: model\.pooling: found attention without.*allowed average",
    ):
        Experiment.parse(text, file="t.yaml")
    text += "  backbone: test_vit\ntraining: {finetune: {epochs: 1}}\n"
    one, other = (
        largest_model(Experiment.parse(text).fixed({"model.pooling": name}))
        for name in ("attention", "average")
    )
    assert one.trained - other.trained == 8 * 64
