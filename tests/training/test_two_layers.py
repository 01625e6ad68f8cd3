"""Trainings of two layers of a backbone: their features, resumed, cut, explained and exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from gsfl_tune.evidence.gradcam import activation_maps, class_score
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import create_backbone
from gsfl_tune.training import Training
from gsfl_tune.training.fingerprint import fingerprint

from .checks import bundle_of, check_cached_as_whole, check_resumes
from .conftest import tiny_config
from .test_training import run

STAGES = {
    "head": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1},
}


def config_of(layer=1, pooling="bilinear", views=0, blocks=1, **training):
    stages = {**STAGES, "finetune": {**STAGES["finetune"], "blocks": blocks}}
    return tiny_config(
        # Of 32 pixels the last map has one position.
        data={"views": views, "image_size": 64, "eval_image_size": 64},
        model={"pooling": pooling, "pooling_channels": 6, "layer_b": layer},
        training={**stages, **training},
    )


def shown(workspace, count=4):
    """Images of the pool as the frozen backbone sees them."""
    preprocessing = create_backbone("test_efficientnet", "none").preprocessing
    mean, std = (torch.tensor(each)[:, None, None] for each in preprocessing)
    squares = torch.from_numpy(workspace.dataset.pool.gather(np.arange(count)))
    images = functional.interpolate(
        squares.permute(0, 3, 1, 2).float() / 255,
        size=(74, 74),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    ).clamp(0, 1)[:, :, 5:69, 5:69]
    return (images - mean) / std


def test_features_of_average_pooling_are_both_means(workspace):
    features = workspace.features(config_of(2, "average"))
    backbone = create_backbone("test_efficientnet", "none")
    seen = []
    backbone.model.blocks[2].register_forward_hook(lambda *each: seen.append(each[2]))
    with torch.inference_mode():
        last = backbone(shown(workspace)).mean(dim=(2, 3))
    expected = functional.normalize(torch.cat([last, seen[0].mean(dim=(2, 3))], dim=1), dim=1)
    assert features.shape == (len(workspace.dataset.pool), expected.shape[1])
    torch.testing.assert_close(features[:4], expected, atol=5e-3, rtol=0)


def test_every_layer_has_features_of_its_own(workspace):
    found = [workspace.features(config_of(layer)).clone() for layer in (0, 1, 2)]
    assert all(each.shape == (len(workspace.dataset.pool), 36) for each in found)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (found[one] - found[other]).abs().max() > 0.1
    triangle = workspace.features(config_of(1, "isqrt_cov"))
    assert triangle.shape[1] == 12 * 13 // 2


@pytest.mark.parametrize(
    ("layer", "blocks", "pooling", "views"),
    [
        (1, 1, "compact_bilinear", 2),
        (2, 1, "average", 2),
        pytest.param(1, 2, "bilinear", 2, marks=pytest.mark.slow),
        pytest.param(2, 1, "attention", 0, marks=pytest.mark.slow),
    ],
)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, layer, blocks, pooling, views):
    config = config_of(layer, pooling, views, blocks)
    trained = check_resumes(config, workspace, tmp_path, 2).trained_network()
    pretrained = workspace.backbone(config).model.state_dict()
    changed = {
        name.split(".")[2]
        for name, tensor in trained.backbone.model.state_dict().items()
        if name.startswith("whole.blocks.") and not torch.equal(tensor, pretrained[name])
    }
    assert changed == {str(number) for number in range(5 - blocks, 5)}


@pytest.mark.parametrize(
    ("layer", "blocks"), [(1, 1), (2, 1), pytest.param(1, 2, marks=pytest.mark.slow)]
)
def test_cached_activations_train_what_the_network_does(
    workspace, tmp_path, monkeypatch, layer, blocks
):
    # Roots near 0 make much of rounding, and averages nothing.
    config = config_of(layer, "average", views=2, blocks=blocks, head={"epochs": 0})
    check_cached_as_whole(config, workspace, tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["pmg", "recurrent_attention"])
def test_methods_that_read_maps_read_the_joined_one(workspace, tmp_path, method):
    config = config_of(2, "average", blocks=3, method=method)
    training = run(Training(config, workspace, tmp_path))
    assert all(np.isfinite(record["train/loss"]) for record in training.log.read())


@pytest.mark.parametrize(
    ("pooling", "further"), [("bilinear", {}), ("average", {"snr": True, "mixstyle": 0.5})]
)
def test_the_bundle_and_the_maps_of_the_evidence_are_those_of_the_trained_network(
    workspace, tmp_path, pooling, further
):
    config = config_of(1, pooling)
    stage = config.training.finetune.model_copy(update=further)
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"finetune": stage})}
    )
    training = run(Training(config, workspace, tmp_path / "t"))
    network, test = training.trained_network(), workspace.dataset.test
    bundle = bundle_of(training, tmp_path / "bundle")
    found = bundle.predict(test.squares(np.arange(4)), top=1)
    logits = torch.from_numpy(training.predict("test").logits[:4])
    wanted = logits.softmax(dim=1).amax(dim=1).tolist()
    assert [each.probabilities[0] for each in found] == pytest.approx(wanted, abs=2e-3)
    images = shown(workspace)
    (maps,) = activation_maps(network.eval(), images, [class_score(torch.zeros(4).long())])
    with torch.no_grad():
        assert maps.shape == (4, *network.backbone(images).shape[2:])
    assert maps.max() > 0


def test_a_configuration_of_both_seconds_is_refused(workspace):
    config = tiny_config(
        model={"pooling": "bilinear", "layer_b": 1, "backbone_b": "test_vit"}, training=STAGES
    )
    with pytest.raises(UserError, match="of two backbones the last maps are read"):
        workspace.backbone(config)


def test_without_a_second_layer_earlier_checkpoints_stay_valid():
    content = tiny_config().model_dump()
    assert fingerprint(tiny_config(model={"layer_b": 0})) == fingerprint(tiny_config())
    assert fingerprint(config_of(1)) != fingerprint(config_of(2))
    assert content["model"]["layer_b"] == 0
