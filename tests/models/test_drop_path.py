"""Stochastic depth of trained blocks."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import DropPath as TimmDropPath

from gsfl_tune.models import BackboneError, create_backbone, drop_path_problem, seed_drop_paths
from gsfl_tune.models.drop_path import DropPath

SIDE = 64


def branches(model):
    return {
        name: module.drop_prob
        for name, module in model.named_modules()
        if isinstance(module, TimmDropPath) and module.drop_prob
    }


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "resnet10t"])
def test_all_blocks_have_the_rates_that_timm_gives_them(name):
    backbone = create_backbone(name, "none")
    before, digest = list(backbone.state_dict()), backbone.digest
    backbone.train_last("all")
    backbone.drop_paths(0.3)
    expected = branches(timm.create_model(name, num_classes=0, drop_path_rate=0.3))
    assert branches(backbone.model) == expected
    assert 0.2 < max(expected.values()) <= 0.3 + 1e-6
    assert list(backbone.state_dict()) == before
    assert backbone.digest == digest


def test_frozen_blocks_never_drop():
    backbone = create_backbone("test_convnext", "none")
    backbone.train_last(1)
    backbone.drop_paths(0.9)
    last = set(branches(backbone.model))
    assert last
    assert all(name.startswith("stages.3.") for name in last)
    backbone.train()
    images = torch.randn(4, 3, SIDE, SIDE)
    split = backbone.split(SIDE)
    assert torch.equal(split.prefix(images), split.prefix(images))
    assert not torch.equal(backbone(images), backbone(images))
    backbone.eval()
    plain = create_backbone("test_convnext", "none")
    assert torch.equal(backbone(images), plain(images))


def test_an_image_loses_a_branch_or_has_it_scaled_up():
    module = DropPath(0.25).train()
    seed_drop_paths(module, torch.Generator().manual_seed(3))
    x = torch.rand(4000, 2, 3) + 1
    y = module(x)
    kept = (y != 0).all(dim=(1, 2))
    assert ((y == 0).all(dim=(1, 2)) | kept).all()
    torch.testing.assert_close(y[kept], x[kept] / 0.75)
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)


def test_what_is_dropped_depends_on_the_seed_alone():
    backbone = create_backbone("test_convnext", "none")
    backbone.train_last("all")
    backbone.drop_paths(0.5)
    images = torch.randn(8, 3, SIDE, SIDE)
    found = []
    for seed, noise in ((1, 0), (1, 5), (2, 0)):
        model = copy.deepcopy(backbone).train()
        seed_drop_paths(model, torch.Generator().manual_seed(seed))
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        found.append(model(images))
        # Dropout elsewhere draws what it draws without.
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_model_without_it_is_refused():
    assert drop_path_problem("test_efficientnet") is None
    assert drop_path_problem("densenet121") == "densenet121 takes no drop_path_rate"
    backbone = create_backbone("densenet121", "none")
    backbone.train_last("all")
    with pytest.raises(BackboneError, match="densenet121 takes no drop_path_rate"):
        backbone.drop_paths(0.1)
