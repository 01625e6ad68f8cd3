"""Attention maps and what is joined through them, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from gsfl_tune.models import (
    AttentionSettings,
    BilinearAttention,
    Network,
    attention_size,
    attention_work,
)

from .map_features import CHANNELS, DIM, WIDTH, as_if_trained, maps_of, parts_of_network, units

MAPS = 3


def made():
    return as_if_trained(BilinearAttention(CHANNELS, AttentionSettings(MAPS, DIM, WIDTH)))


def positions(image):
    _, height, width = image.shape
    return [(row, column) for row in range(height) for column in range(width)]


def plain_attention(module, image):
    """Attention to a map (C, h, w), position by position, with a norm over all of them."""
    scaled = image / (image.square().mean().sqrt() + 1e-6)
    scores = {
        (number, place): float(module.attend.weight[number, :, 0, 0] @ scaled[:, *place])
        for number in range(MAPS)
        for place in positions(image)
    }
    mean = sum(scores.values()) / len(scores)
    spread = math.sqrt(sum((each - mean) ** 2 for each in scores.values()) / len(scores) + 1e-5)
    found = torch.zeros(MAPS, *image.shape[1:], dtype=torch.float64)
    for (number, place), score in scores.items():
        gain, bias = float(module.norm.weight[number]), float(module.norm.bias[number])
        found[number, *place] = max(0.0, gain * (score - mean) / spread + bias)
    return found


def plain_joint(module, unit, image, attention):
    """The joint feature of an image, of any length."""
    scaled = image / (image.square().mean().sqrt() + 1e-6)
    places = positions(image)
    vector = []
    for number in range(MAPS):
        seen = torch.zeros(WIDTH, dtype=torch.float64)
        for place in places:
            described = module.describe.weight[:, :, 0, 0] @ scaled[:, *place]
            seen += attention[number, *place] * described / len(places)
        # The root's slope is bounded at 0.
        vector += [
            math.copysign(math.sqrt(abs(each) + 1e-8) - 1e-4, each) for each in seen.tolist()
        ]
    length = math.sqrt(sum(each**2 for each in vector))
    added = torch.zeros(DIM, dtype=torch.float64)
    for number, each in enumerate(vector):
        added += each / length * module.join[number]
    return unit + added / math.sqrt(DIM)


def test_maps_weigh_positions_and_their_means_are_joined():
    module, maps, unit = made(), maps_of(), units()
    with torch.no_grad():
        joint, attention = module(unit, maps)
        for image in range(2):
            wanted = plain_attention(module, maps[image])
            torch.testing.assert_close(attention[image], wanted)
            expected = plain_joint(module, unit[image], maps[image], wanted)
            torch.testing.assert_close(joint[image], expected)
    assert 0.1 < float((attention > 0).double().mean()) < 0.9


def test_other_attention_takes_the_place_of_its_own():
    module, maps, unit = made(), maps_of(), units()
    random = 2 * torch.rand(2, MAPS, 4, 5, generator=torch.Generator().manual_seed(5)).double()
    with torch.no_grad():
        joint, used = module(unit, maps, random)
        assert torch.equal(used, random)
        for image in range(2):
            expected = plain_joint(module, unit[image], maps[image], random[image])
            torch.testing.assert_close(joint[image], expected)


def test_classes_teach_the_attention_the_features_and_the_map():
    module, maps = made(), maps_of().requires_grad_()
    joint, _ = module(units(), maps)
    (joint * torch.randn_like(joint)).sum().backward()
    assert all(bool(each.grad.any()) for each in module.parameters())
    assert maps.grad.any()


def test_a_map_without_any_attention_joins_nothing_and_has_finite_gradients():
    module, maps, unit = made(), maps_of(), units()
    torch.nn.init.constant_(module.norm.bias, -100.0)
    joint, attention = module(unit, maps)
    assert not attention.any()
    torch.testing.assert_close(joint, unit)
    joint.sum().backward()
    assert all(bool(each.grad.isfinite().all()) for each in module.parameters())


def network_of(pooling="average", backbone="test_efficientnet"):
    body, pool, head, channels = parts_of_network(pooling, backbone)
    module = BilinearAttention(channels, AttentionSettings(MAPS, pool.dim, WIDTH))
    return Network(body, None, pool, head, attention=module).eval()


@pytest.mark.parametrize("pooling", ["average", "native"])
def test_an_untrained_module_leaves_features_as_they_are(pooling):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = network_of(pooling, backbone="test_convnext" if pooling == "native" else "test_vit")
    assert network.reads_maps == (pooling == "native")
    with torch.no_grad():
        found = network.features(images)
        torch.testing.assert_close(network.pool_attended(network.maps(images))[0], found)
        torch.nn.init.normal_(network.attention.join)
        other = network.features(images)
        assert (other - found).abs().max() > 1e-2
        torch.testing.assert_close(other.norm(dim=1), torch.ones(2))
        network.attention = None
        torch.testing.assert_close(network.features(images), found)


def test_heads_share_the_attention_and_inference_has_it():
    network = network_of()
    assert network.having(network.head).attention is network.attention
    assert "attention.join" in network.inference_state()


def test_it_draws_nothing_from_the_seed_of_a_training():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    made_one = BilinearAttention(CHANNELS, AttentionSettings(MAPS, DIM, WIDTH))
    assert torch.equal(torch.rand(2), wanted)
    other = BilinearAttention(CHANNELS, AttentionSettings(MAPS, DIM, WIDTH))
    assert torch.equal(made_one.attend.weight, other.attend.weight)


def test_sizes_and_prices():
    module = made()
    counted = sum(parameter.numel() for parameter in module.parameters())
    assert attention_size(CHANNELS, module.settings) == counted
    places = 20
    layers = 2 * places * CHANNELS * (MAPS + WIDTH)
    joined = 2 * MAPS * WIDTH * (places + DIM)
    assert attention_work(CHANNELS, places, module.settings) == layers + joined


def test_half_precision_gives_full_precision_features():
    module, maps = made().to(torch.bfloat16), maps_of().to(torch.bfloat16)
    joint, attention = module(units().float(), maps)
    assert joint.dtype == attention.dtype == torch.float32
    assert torch.isfinite(joint).all()
