"""Trainings of two backbones side by side: their features, resumed, and cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.models import stream_names
from gsfl_tune.training import Training

from .checks import check_cached_as_whole, check_resumes
from .conftest import tiny_config

STAGES = {
    "head": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1},
}


def config_of(second="test_vit", pooling="bilinear", views=0, **training):
    return tiny_config(
        data={"views": views},
        model={
            "backbone": "test_efficientnet",
            "backbone_b": second,
            "pooling": pooling,
            "pooling_channels": 6,
        },
        training={**STAGES, **training},
    )


def test_features_are_of_both_and_named_by_both(workspace):
    config = config_of()
    features = workspace.features(config)
    assert features.shape == (len(workspace.dataset.pool), 36)
    network = Training(config, workspace, workspace.cache_dir / "t").network(
        workspace.new_backbone(config)
    )
    mean, std = (torch.tensor(each)[:, None, None] for each in network.backbone.preprocessing)
    squares = torch.from_numpy(workspace.dataset.pool.gather(np.arange(4)))
    images = squares.permute(0, 3, 1, 2)[:, :, 2:34, 2:34].float() / 255
    with torch.inference_mode():
        found = network.features((images - mean) / std)
    torch.testing.assert_close(features[:4], found, atol=2e-3, rtol=0)
    other = workspace.features(config_of("test_resnet"))
    assert (features - other).abs().max() > 0.1
    alone = workspace.features(config_of("none"))
    assert alone.shape == features.shape
    assert (features - alone).abs().max() > 0.1


@pytest.mark.parametrize("views", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, views):
    config = config_of(pooling="compact_bilinear", views=views)
    trained = check_resumes(config, workspace, tmp_path, 2).trained_network()
    pretrained = workspace.backbone(config).model.state_dict()
    changed = {
        name.split(".")[0]
        for name, tensor in trained.backbone.model.state_dict().items()
        if not torch.equal(tensor, pretrained[name])
    }
    assert changed == {"first", "second"}
    assert len(stream_names(trained.backbone.name)) == 2


def test_cached_activations_of_both_train_what_the_networks_do(workspace, tmp_path, monkeypatch):
    config = config_of(views=2, head={"epochs": 0})
    check_cached_as_whole(config, workspace, tmp_path, monkeypatch)
