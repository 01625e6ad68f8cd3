"""Grouped convolutions stay in full precision while the rest is bf16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gsfl_tune.models import create_backbone
from gsfl_tune.models.grouped_convs import keep_grouped_convs_full, restore_grouped_convs


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Conv2d(16, 8, 1)
    )


def _dtypes(network: nn.Module, images: torch.Tensor) -> list[torch.dtype]:
    seen: list[torch.dtype] = []
    handles = [
        layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(images)
    for handle in handles:
        handle.remove()
    return seen


def test_only_grouped_ones_leave_autocast_and_it_can_be_undone(network):
    images = torch.randn(2, 8, 6, 6)
    half, full = torch.bfloat16, torch.float32
    assert _dtypes(network, images) == [half] * 3
    keep_grouped_convs_full(network)
    keep_grouped_convs_full(network)
    assert _dtypes(network, images) == [half, full, half]
    assert _dtypes(copy.deepcopy(network), images) == [half, full, half]
    restore_grouped_convs(network)
    assert [type(layer) for layer in network] == [nn.Conv2d] * 3
    assert _dtypes(network, images) == [half] * 3


def test_without_autocast_nothing_changes(network):
    images = torch.randn(2, 8, 6, 6)
    before, names = network(images), list(network.state_dict())
    keep_grouped_convs_full(network)
    assert torch.equal(network(images), before)
    assert list(network.state_dict()) == names


def test_a_real_backbone_trains_with_gradients_near_those_of_float32():
    backbone = create_backbone("test_efficientnet", "none")
    backbone.train_last("all")
    backbone.train()
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    other = copy.deepcopy(backbone)
    keep_grouped_convs_full(other)
    assert any(type(m).__name__.startswith("Full") for m in other.modules())
    backbone(images).square().mean().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = other(images)
    output.float().square().mean().backward()
    pairs = zip(backbone.parameters(), other.parameters(), strict=True)
    flat = [torch.cat([p.grad.flatten() for p in side]) for side in zip(*pairs, strict=True)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.97


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_frozen_blocks_of_such_a_network_run_under_autocast_as_those_of_another(
    precision, tolerance
):
    backbone = create_backbone("test_efficientnet", "none")
    backbone.train_last(1)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = backbone.split(64).prefix(images)
    usual = backbone.split(64).frozen_prefix(precision)
    keep_grouped_convs_full(backbone)
    frozen = backbone.split(64).frozen_prefix(precision)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = frozen(images)
    assert frozen.fused == usual.fused > 0
    assert float((found - expected).abs().max()) < tolerance * float(expected.abs().max())
