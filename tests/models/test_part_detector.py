"""Parts that a network finds on its map, against loops in float64 and torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import roi_align

from gsfl_tune.models import (
    Network,
    PartDetector,
    PartSettings,
    part_detector_size,
    part_work,
)
from gsfl_tune.models.part_detector import aligned

from .map_features import CHANNELS, DIM, WIDTH, as_if_trained, maps_of, parts_of_network, units

PARTS = 3


def made():
    return as_if_trained(PartDetector(CHANNELS, PartSettings(PARTS, DIM, WIDTH)))


def logistic(value):
    return 1 / (1 + math.exp(-value))


def plain(detector, image):
    """Boxes and presence of the parts of one map (C, h, w), position by position."""
    scaled = image / (image.square().mean().sqrt() + 1e-6)
    _, height, width = scaled.shape
    numbers = {}
    for row in range(height):
        for column in range(width):
            hidden = detector.reduce.weight[:, :, 0, 0] @ scaled[:, row, column]
            hidden = (hidden + detector.reduce.bias).clamp(min=0)
            given = detector.find.weight[:, :, 0, 0] @ hidden + detector.find.bias
            numbers[row, column] = given.reshape(PARTS, 6).tolist()
    found = []
    for part in range(PARTS):
        total = sum(math.exp(each[part][0]) for each in numbers.values())
        x = y = across = down = presence = 0.0
        for (row, column), each in numbers.items():
            score, right, below, wide, high, there = each[part]
            share = math.exp(score) / total
            x += share * (column + 0.5 + math.tanh(right)) / width
            y += share * (row + 0.5 + math.tanh(below)) / height
            across += share * wide
            down += share * high
            presence += share * there
        first = math.log(0.25 / 0.75)
        half = logistic(across + first) / 2, logistic(down + first) / 2
        box = [x - half[0], y - half[1], x + half[0], y + half[1]]
        found.append((box, presence + math.log(0.1 / 0.9)))
    return found


def test_boxes_are_means_over_the_positions_of_a_part():
    detector, maps = made(), maps_of()
    with torch.no_grad():
        found = detector.detect(maps)
        for image in range(2):
            for part, (box, presence) in enumerate(plain(detector, maps[image])):
                assert found.boxes[image, part].tolist() == pytest.approx(box, abs=1e-9)
                assert float(found.presence[image, part]) == pytest.approx(presence, abs=1e-9)
    assert float(found.boxes.std()) > 0.05


def test_aligned_features_are_those_of_torchvision():
    maps = maps_of(2, 6, 9)
    boxes = torch.tensor(
        [
            [[0.1, 0.2, 0.4, 0.9], [0.0, 0.0, 1.0, 1.0], [0.91, 0.4, 0.99, 0.55]],
            [[0.5, 0.5, 0.52, 0.51], [-0.2, 0.3, 0.3, 1.4], [0.0, 0.95, 0.05, 1.0]],
        ],
        dtype=torch.float64,
    )
    sides = torch.tensor([9.0, 6.0, 9.0, 6.0])
    rows = [
        torch.cat([torch.full((3, 1), float(image)), boxes[image].clamp(0, 1) * sides], 1)
        for image in range(2)
    ]
    wanted = roi_align(maps, torch.cat(rows), 1, 1.0, 8, aligned=True)
    torch.testing.assert_close(aligned(maps, boxes).flatten(0, 1), wanted[:, :, 0, 0])


def test_the_joint_feature_is_the_whole_and_its_parts_by_their_confidence():
    detector, maps, unit = made(), maps_of(), units()
    with torch.no_grad():
        joint, found = detector(unit, maps)
        for image in range(2):
            scaled = maps[image] / (maps[image].square().mean().sqrt() + 1e-6)
            described = detector.describe(scaled[None]).relu()
            wanted = unit[image].clone()
            for part in range(PARTS):
                u = aligned(described, found.boxes[image : image + 1, part : part + 1])[0, 0]
                own = detector.join.unflatten(0, (PARTS, WIDTH))[part]
                confidence = logistic(float(found.presence[image, part]))
                wanted += confidence * (u / u.norm()) @ own / math.sqrt(DIM * PARTS)
            torch.testing.assert_close(joint[image], wanted)


def test_classes_teach_the_features_of_parts_and_annotations_alone_the_boxes():
    detector, maps = made(), maps_of().requires_grad_()
    joint, found = detector(units(), maps)
    (joint * torch.randn_like(joint)).sum().backward(retain_graph=True)
    assert detector.join.grad.any()
    assert detector.describe.weight.grad.any()
    assert detector.find.weight.grad is None
    assert maps.grad.any()
    (found.boxes.sum() + found.presence.sum()).backward()
    assert detector.find.weight.grad.any()
    assert detector.reduce.weight.grad.any()


def network_of(pooling="average", backbone="test_efficientnet"):
    body, pool, head, channels = parts_of_network(pooling, backbone)
    detector = PartDetector(channels, PartSettings(PARTS, pool.dim, WIDTH))
    return Network(body, None, pool, head, None, detector).eval()


@pytest.mark.parametrize("pooling", ["average", "native"])
def test_an_untrained_detector_leaves_features_as_they_are(pooling):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = network_of(pooling, backbone="test_convnext" if pooling == "native" else "test_vit")
    assert network.reads_maps == (pooling == "native")
    with torch.no_grad():
        found = network.features(images)
        torch.testing.assert_close(network.pool_parts(network.maps(images))[0], found)
        torch.nn.init.normal_(network.parts.join)
        other = network.features(images)
        assert (other - found).abs().max() > 1e-2
        torch.testing.assert_close(other.norm(dim=1), torch.ones(2))
        network.parts = None
        torch.testing.assert_close(network.features(images), found)


def test_heads_share_the_detector_and_inference_has_it():
    network = network_of()
    assert network.having(network.head).parts is network.parts
    assert "parts.join" in network.inference_state()


def test_sizes_and_prices():
    detector = made()
    counted = sum(parameter.numel() for parameter in detector.parameters())
    assert part_detector_size(CHANNELS, detector.settings) == counted
    positions = 20
    layers = 2 * positions * (2 * CHANNELS * WIDTH + WIDTH * 6 * PARTS)
    joined = 2 * PARTS * WIDTH * (positions + DIM)
    assert part_work(CHANNELS, positions, detector.settings) == layers + joined


def test_half_precision_gives_full_precision_features():
    detector, maps = made().to(torch.bfloat16), maps_of().to(torch.bfloat16)
    joint, found = detector(units().float(), maps)
    assert joint.dtype == found.boxes.dtype == torch.float32
    assert torch.isfinite(joint).all()
