"""Styles mixed between images: against a loop over images and channels, and where in a network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gsfl_tune.models import BackboneError, create_backbone, mix_style_problem, seed_mix_styles
from gsfl_tune.models.mix_style import MixStyle

SIDE = 64


def images(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIDE, SIDE, generator=generator)


def test_means_and_deviations_are_those_of_two_images():
    maps = 2 + 3 * torch.randn(5, 4, 6, 7, dtype=torch.float64)
    module = MixStyle(1.0).train()
    seed_mix_styles(module, 11)
    found = module(maps)
    # The same numbers, in their documented order.
    random = np.random.default_rng(11)
    random.random()
    order, kept = random.permutation(5), random.beta(0.1, 0.1, 5)
    for i in range(5):
        for channel in range(4):
            own, other = maps[i, channel].numpy(), maps[order[i], channel].numpy()
            mean = kept[i] * own.mean() + (1 - kept[i]) * other.mean()
            spread = kept[i] * own.std() + (1 - kept[i]) * other.std()
            wanted = spread * (own - own.mean()) / own.std() + mean
            np.testing.assert_allclose(found[i, channel].numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.equal(found, maps)


def test_statistics_have_no_gradient():
    maps = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    module = MixStyle(1.0).train()
    seed_mix_styles(module, 1)
    module(maps).sum().backward()
    # The sum over a map would not depend on the image if its mean had a gradient.
    gradient = maps.grad.flatten(2)
    assert torch.allclose(gradient, gradient[:, :, :1].expand_as(gradient))
    assert bool((gradient > 0).all())


def test_a_share_of_batches_is_mixed_and_none_in_eval_mode():
    maps = torch.randn(4, 2, 3, 3)
    module = MixStyle(0.3).train()
    seed_mix_styles(module, 0)
    mixed = sum(not torch.equal(module(maps), maps) for _ in range(400))
    assert 90 < mixed < 150
    assert torch.equal(module.eval()(maps), maps)
    half = MixStyle(1.0).train()(maps.bfloat16())
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("blocks", [1, 2, "all"])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
def test_it_is_the_first_thing_behind_the_frozen_blocks(name, blocks):
    backbone = create_backbone(name, "none")
    digest, names = backbone.digest, list(backbone.state_dict())
    backbone.train_last(blocks)
    plain = copy.deepcopy(backbone)
    backbone.mix_styles(1.0, SIDE)
    assert list(backbone.state_dict()) == names
    assert backbone.digest == digest
    x = images()
    backbone.train()
    seed_mix_styles(backbone, 3)
    one = backbone(x)
    if blocks != "all":
        split = backbone.split(SIDE)
        seed_mix_styles(backbone, 3)
        # What may be cached is not mixed.
        assert torch.equal(split.prefix(x), split.prefix(x))
        assert torch.allclose(split.suffix(split.prefix(x)), one, atol=1e-5)
        # Mixed by hand in front of the blocks of a plain network.
        style = MixStyle(1.0).train()
        seed_mix_styles(style, 3)
        by_hand = plain.train().split(SIDE)
        wanted = by_hand.suffix(style(by_hand.prefix(x)))
        assert torch.allclose(wanted, one, atol=1e-5)
    backbone.eval()
    plain.eval()
    copied = copy.deepcopy(backbone)
    assert not torch.equal(one, backbone(x))
    # A copy that is exported has nothing of it, and the original keeps it.
    copied.merge()
    assert not any(isinstance(module, MixStyle) for module in copied.modules())
    assert not any(module._forward_pre_hooks for module in copied.modules())
    assert any(module._forward_pre_hooks for module in backbone.modules())
    copied.train()
    assert any(isinstance(module, MixStyle) for module in backbone.modules())


def test_what_is_no_map_is_refused():
    assert mix_style_problem("test_efficientnet", 2, SIDE) is None
    assert "not a map" in mix_style_problem("test_vit", 2, 160)
    vit = create_backbone("test_vit", "none")
    vit.train_last(2)
    with pytest.raises(BackboneError, match="not a map of channels"):
        vit.mix_styles(0.5, 160)
    swin = mix_style_problem("swin_tiny_patch4_window7_224", 1, 224)
    assert "not a map" in swin
