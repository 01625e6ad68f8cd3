"""Grad-CAM on images of which one small patch decides the class, and against the textbook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gsfl_tune.evidence import NoMaps, activation_maps
from gsfl_tune.evidence.gradcam import (
    class_score,
    enlarged,
    group_directions,
    overlap,
    shared_score,
)
from gsfl_tune.models import (
    Network,
    PlainHead,
    create_backbone,
    create_pooling,
    fit_projection,
)

SIDE, PATCH = 96, 24


class LocalBackbone(nn.Module):
    """Filters of 8 x 8 pixels, side by side: a position of the map knows its own pixels alone."""

    channels = 24
    name = "local"

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, self.channels, 8, stride=8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.filters(images).relu()


def patched_images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Noise with a patch somewhere: stripes across, stripes along, or a chequerboard."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:PATCH, :PATCH]
    patches = 2 * np.stack([(y // 4) % 2, (x // 4) % 2, (x // 6 + y // 6) % 2]) - 1
    labels = np.arange(count) % 3
    corners = generator.integers(0, SIDE - PATCH + 1, size=(count, 2))
    pixels = generator.normal(0, 0.1, (count, SIDE, SIDE))
    for image, label, (top, left) in zip(pixels, labels, corners, strict=True):
        image[top : top + PATCH, left : left + PATCH] = patches[label]
    grey = torch.from_numpy(pixels.astype(np.float32))[:, None]
    return grey.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels), corners


def trained(pooling: str, kept: int | None) -> Network:
    """A network whose head was trained to tell the patches apart."""
    images, labels, _ = patched_images(240, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = LocalBackbone().requires_grad_(False)
        projection = fit_projection([backbone(images)], kept) if kept else None
        pool = create_pooling(pooling, kept or LocalBackbone.channels, dim=256)
        head = PlainHead(pool.dim, 3, latent_dim=16, dropout=0.0, feature_scale=8.0)
        network = Network(backbone, projection, pool, head)
        features = network.features(images).detach()
        optimizer = torch.optim.Adam(head.parameters(), 0.01)
        for _ in range(100):
            optimizer.zero_grad()
            functional.cross_entropy(head.infer(features), labels).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("pooling", "kept"),
    [
        ("average", None),
        ("bilinear", None),
        ("bilinear", 12),
        ("compact_bilinear", None),
        ("compact_bilinear", 12),
    ],
)
def test_highlights_the_patch_that_alone_decides_the_class(pooling, kept):
    network = trained(pooling, kept)
    images, labels, corners = patched_images(60, seed=1)
    assert (network.infer(images).argmax(dim=1) == labels).float().mean() > 0.95
    (maps,) = activation_maps(network, images, [class_score(labels)])
    hits, inside = [], []
    for heat, (top, left) in zip(enlarged(maps, SIDE), corners, strict=True):
        peak = np.unravel_index(heat.argmax(), heat.shape)
        distance = np.abs(np.array(peak) - (top + PATCH / 2, left + PATCH / 2)).max()
        hits.append(distance <= PATCH / 2 + 4)  # half a position of the map
        inside.append(heat[top : top + PATCH, left : left + PATCH].sum() / heat.sum())
    assert np.mean(hits) > 0.85
    # The patch is a sixteenth of the image.
    assert np.mean(inside) > 0.4


def test_with_average_pooling_it_is_grad_cam_by_the_book(workspace, retrained):
    (model, *_) = retrained().models(workspace, 1)
    network = model.network
    (images,) = model.images("test", np.arange(6))
    classes = torch.tensor([0, 5, 3, 2, 20, 7])
    (found,) = activation_maps(network, images, [class_score(classes)])
    with torch.enable_grad():
        maps = network.backbone(images).detach().requires_grad_()
        logits = network.head.infer(network.pool(maps))
        (gradient,) = torch.autograd.grad(logits[torch.arange(6), classes].sum(), maps)
    weights = gradient.mean(dim=(2, 3))
    for row in range(6):
        expected = torch.einsum("c,chw->hw", weights[row], maps[row].detach()).relu()
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


def test_the_shared_part_has_a_map_of_its_own(workspace, retrained):
    (model, *_) = retrained().models(workspace, 1)
    (images,) = model.images("test", np.arange(4))
    directions = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    scores = [class_score(torch.arange(4)), shared_score(directions)]
    discriminative, shared = activation_maps(model.network, images, scores)
    assert discriminative.shape == shared.shape == (4, 2, 2)
    assert (shared >= 0).all()
    assert not torch.allclose(discriminative, shared)
    assert np.abs(overlap(discriminative, shared)).max() < 1.0
    np.testing.assert_allclose(overlap(shared, shared), 1.0)


def test_one_position_is_no_map(workspace, retrained):
    (model, *_) = retrained().models(workspace, 1)
    with pytest.raises(NoMaps, match="one position"):
        activation_maps(model.network, torch.zeros(1, 3, 32, 32), [class_score(torch.zeros(1))])


def test_directions_lead_from_the_mean_to_each_group():
    generator = np.random.default_rng(0)
    shared, groups = generator.normal(size=(50, 6)), np.arange(50) % 3
    found = group_directions(shared, groups, 4)
    for group in range(3):
        direction = shared[groups == group].mean(axis=0) - shared.mean(axis=0)
        np.testing.assert_allclose(
            found[group], direction / np.linalg.norm(direction), rtol=1e-5, atol=1e-6
        )
    assert not found[3].any(), "a group without images has no direction"
    single = group_directions(shared, np.zeros(50, np.int64), 1)
    mean = shared.mean(axis=0)
    np.testing.assert_allclose(single[0], mean / np.linalg.norm(mean), rtol=1e-5)


def test_enlarged_maps_reach_one_unless_nothing_speaks():
    maps = torch.zeros(2, 3, 3)
    maps[0, 1, 2] = 5.0
    large = enlarged(maps, 30)
    assert large.max() == pytest.approx(1.0)
    assert large[0, 15, 25] == pytest.approx(1.0)
    assert not large[1].any()


def native(name: str) -> Network:
    """A random network on what the model's own head gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = create_backbone(name, "none", reads="head")
        pool = create_pooling("native", backbone.channels)
        head = PlainHead(pool.dim, 3, latent_dim=16, dropout=0.0, feature_scale=8.0)
    return Network(backbone, None, pool, head).eval().requires_grad_(False)


def test_behind_a_mean_alone_the_map_is_that_of_average_pooling():
    network = native("test_efficientnet")
    backbone = create_backbone("test_efficientnet", "none")
    average = Network(
        backbone, None, create_pooling("average", backbone.channels), network.head
    ).eval()
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    scores = [class_score(torch.tensor([0, 2]))]
    (found,), (expected,) = (activation_maps(each, images, scores) for each in (network, average))
    assert expected.any()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit3"])
def test_maps_of_a_head_of_its_own_are_gradient_times_activation(name):
    side = 160 if name == "test_vit3" else SIDE
    network = native(name)
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    (found,) = activation_maps(network, images, [class_score(torch.tensor([1]))])
    features = network.backbone.model.forward_features(images).requires_grad_()
    pooled = network.backbone.model.forward_head(features, pre_logits=True)
    logits = network.head.infer(functional.normalize(pooled, dim=1))
    (gradient,) = torch.autograd.grad(logits[0, 1], features)
    products = gradient * features
    if name == "test_vit3":  # one register in front of ten rows of ten
        expected = products[0, 1:].sum(dim=1).reshape(10, 10)
    else:
        expected = products[0].sum(dim=0)
    torch.testing.assert_close(found[0], expected.relu().detach())
    assert found.any()


def test_a_class_token_alone_has_no_map():
    images = torch.zeros(1, 3, SIDE, SIDE)
    with pytest.raises(NoMaps, match="its class token alone"):
        activation_maps(native("test_vit"), images, [class_score(torch.zeros(1).long())])
