"""The map in front of the pooling: what is pooled of it is the feature."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gsfl_tune.models import Network, PlainHead, create_backbone, create_pooling, gives_map

SIDE = 64


def network_of(name, pooling, side=SIDE):
    reads = {"native": "head", "cls": "tokens"}.get(pooling, "map")
    backbone = create_backbone(name, "none", reads=reads)
    made = create_pooling(pooling, backbone.channels)
    head = PlainHead(made.dim, 3, latent_dim=4, dropout=0.0, feature_scale=1.0)
    return Network(backbone, None, made, head).eval()


def images_of(side=SIDE):
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "side", "grid", "pooling"),
    [
        ("test_efficientnet", 64, 2, "average"),
        ("test_efficientnet", 64, 2, "gem"),
        ("test_efficientnet", 64, 2, "native"),
        ("test_convnext", 64, 2, "native"),
        ("mobilenetv3_small_050", 64, 2, "native"),
        # Channels come last; tokens without a class token.
        ("swin_tiny_patch4_window7_224", 64, 2, "native"),
        ("hiera_tiny_224", 224, 7, "native"),
        ("test_vit", 64, 4, "average"),
    ],
)
def test_features_are_pooled_maps(name, side, grid, pooling):
    network = network_of(name, pooling)
    assert network.backbone.gives_map
    images = images_of(side)
    with torch.no_grad():
        maps = network.maps(images)
        assert maps.shape[0] == 3
        assert maps.shape[2:] == (grid, grid)
        assert torch.equal(network.pool_maps(maps), network.features(images))


@pytest.mark.parametrize(
    ("name", "blocks", "reads", "expected"),
    [
        ("test_vit", 1, "map", True),
        ("test_vit", 1, "tokens", False),
        ("test_vit", "all", "head", False),
        ("resnet18", 1, "head", True),
        # Its last block is the convolution behind the pooling, or begins before it.
        ("vgg11_bn", 1, "head", False),
        ("vgg11_bn", 2, "head", True),
        ("vgg11_bn", 1, "map", True),
    ],
)
def test_where_a_feature_follows_from_a_map(name, blocks, reads, expected):
    assert gives_map(name, blocks, reads) == expected


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("test_efficientnet", "average"),
        ("test_convnext", "native"),
        pytest.param("swin_tiny_patch4_window7_224", "native", marks=pytest.mark.slow),
    ],
)
def test_a_cut_backbone_gives_the_same_map(name, pooling):
    network = network_of(name, pooling)
    network.backbone.train_last(1)
    split = network.backbone.split(SIDE)
    assert split.gives_map
    images = images_of()
    with torch.no_grad():
        found = split.maps(split.prefix(images))
        expected = network.maps(images)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        features = network.pool(split.suffix(split.prefix(images)))
        assert torch.equal(network.pool_maps(found), features)


@pytest.mark.slow
def test_a_cut_behind_the_map_gives_none():
    backbone = create_backbone("vgg11_bn", "none", reads="head")
    for blocks, expected in ((1, False), (2, True)):
        backbone.train_last(blocks)
        assert backbone.split(SIDE).gives_map == expected


def test_with_a_fixed_length_gradient_times_map_is_the_class_activation_map():
    """Of a linear classifier on the mean: the score is the sum of the map."""
    network = network_of("test_efficientnet", "average")
    weight = torch.randn(network.backbone.channels)
    maps = network.maps(images_of()).detach().requires_grad_()
    score = (network.pool_maps(maps, fixed_length=True) @ weight).sum()
    (gradient,) = torch.autograd.grad(score, maps)
    length = maps.detach().mean((2, 3)).norm(dim=1)
    positions = maps.shape[2] * maps.shape[3]
    for image in range(3):
        for row in range(maps.shape[2]):
            for column in range(maps.shape[3]):
                own = float(maps[image, :, row, column].detach() @ weight)
                expected = own / positions / float(length[image])
                found = (gradient * maps)[image, :, row, column].sum()
                assert float(found.detach()) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    values = network.pool_maps(maps, fixed_length=True)
    assert torch.allclose(values, functional.normalize(maps.mean((2, 3)), dim=1), atol=1e-6)
    # The gradient of the feature itself has no part along the feature.
    (whole,) = torch.autograd.grad((network.pool_maps(maps) @ weight).sum(), maps)
    assert float((whole * maps).sum().detach()) == pytest.approx(0, abs=1e-4)
