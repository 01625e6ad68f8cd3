"""Trainings on other features than the mean: resumed, cut, cached, and compared with the mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.training import Training

from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of, without_seconds

SLOW = pytest.mark.slow

STAGES = {
    "head": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1},
}


def config_of(backbone, pooling="native", views=0, **training):
    return tiny_config(
        data={"views": views},
        model={"backbone": backbone, "pooling": pooling, "pooling_channels": 8},
        training={**STAGES, **training},
    )


@pytest.mark.parametrize(
    ("blocks", "views"),
    [(1, 2), pytest.param(1, 0, marks=SLOW), pytest.param("all", 2, marks=SLOW), ("all", 0)],
)
def test_where_nothing_is_behind_the_mean_it_is_average_pooling(workspace, tmp_path, views, blocks):
    finetune = {**STAGES["finetune"], "blocks": blocks}
    trained = [
        run(
            Training(
                config_of("test_efficientnet", pooling, views, finetune=finetune),
                workspace,
                tmp_path / pooling,
            )
        )
        for pooling in ("average", "native")
    ]
    one, other = (without_seconds(each.log.read()) for each in trained)
    assert one == other
    one, other = (each.trained_network().state_dict() for each in trained)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (each.predict("test").logits for each in trained)
    assert np.array_equal(one, other)


# Poolings have no state: one whose backbone has a head of its own, and one with a projection.
@pytest.mark.parametrize("views", [pytest.param(0, marks=SLOW), 2])
@pytest.mark.parametrize(
    ("backbone", "pooling"),
    [
        ("test_convnext", "native"),
        pytest.param("test_vit", "native", marks=SLOW),
        pytest.param("test_vit", "cls_mean", marks=SLOW),
        pytest.param("test_vit", "mean_last_4", marks=SLOW),
        pytest.param("test_vit", "gem", marks=SLOW),
        ("test_vit", "isqrt_cov"),
    ],
)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, backbone, pooling, views):
    config = config_of(backbone, pooling, views=views, ema=0.5)
    whole = run(Training(config, workspace, tmp_path / "whole"))
    first = Training(config, workspace, tmp_path / "parts")
    first.run_epoch()
    first.run_epoch()
    first.save()
    second = Training(config, workspace, tmp_path / "parts")
    assert second.restore()
    run(second)
    assert_equal_states(state_of(whole), state_of(second))
    assert np.array_equal(whole.predict("test").logits, second.predict("test").logits)


def test_the_norm_behind_the_mean_is_trained_with_the_last_block(workspace, tmp_path):
    training = Training(config_of("test_convnext"), workspace, tmp_path)
    pretrained = workspace.backbone(training.config).model.state_dict()
    training.run_epoch()
    frozen = training.trained_network().backbone.model.state_dict()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in pretrained.items())
    run(training)
    tuned = training.trained_network().backbone.model.state_dict()
    changed = {name for name, tensor in pretrained.items() if not torch.equal(tuned[name], tensor)}
    assert "head.norm.weight" in changed
    assert not any(name.startswith(("stem", "stages.0")) for name in changed)


def test_every_power_has_features_of_its_own(workspace):
    features = [
        workspace.features(
            tiny_config(model={"backbone": "test_vit", "pooling": "gem", "gem_power": power})
        )
        for power in (1, 64)
    ]
    assert (features[0] - features[1]).norm(dim=1).min() > 0.1


def test_features_are_those_of_the_head(workspace):
    features = {
        pooling: workspace.features(config_of("test_vit", pooling))
        for pooling in ("average", "native")
    }
    assert not torch.allclose(features["average"], features["native"], atol=1e-2)
    for each in features.values():
        assert torch.allclose(each.norm(dim=1), torch.ones(len(each)), atol=1e-5)
