"""Grad-CAM of a network that joins features of its map: by the whole, and by what is joined."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.evidence import activation_maps
from gsfl_tune.evidence.gradcam import class_score
from gsfl_tune.models import (
    AttentionSettings,
    BilinearAttention,
    Network,
    PartDetector,
    PartSettings,
    PlainHead,
    create_backbone,
    create_pooling,
)


@pytest.mark.parametrize("kind", ["parts", "attention"])
@pytest.mark.parametrize("pooling", ["average", "native"])
def test_maps_are_gradient_times_map_of_what_predicts(pooling, kind):
    torch.manual_seed(0)
    reads = "head" if pooling == "native" else "map"
    backbone = create_backbone("test_convnext", "none", reads=reads)
    pool = create_pooling(pooling, backbone.channels)
    head = PlainHead(pool.dim, 4, latent_dim=8, dropout=0.0, feature_scale=4.0)
    images = torch.randn(2, 3, 96, 96)
    channels = backbone.maps(images).shape[1]
    made = {
        "parts": PartDetector(channels, PartSettings(2, pool.dim, 6)),
        "attention": BilinearAttention(channels, AttentionSettings(3, pool.dim, 6)),
    }[kind]
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    network = Network(backbone, None, pool, head, **{kind: made}).eval().requires_grad_(False)
    classes = torch.tensor([1, 3])
    (found,) = activation_maps(network, images, [class_score(classes)])
    maps = network.maps(images).requires_grad_()
    scores = network.classify(network.pool_maps(maps))
    torch.testing.assert_close(scores, network.infer(images))
    (gradient,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), maps)
    torch.testing.assert_close(found, (gradient * maps).sum(1).relu().detach())
    setattr(network, kind, None)
    (plain,) = activation_maps(network, images, [class_score(classes)])
    assert not torch.allclose(found, plain)
