"""Norms, biases and adapters of the trained blocks."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from timm.models.eva import Eva

from gsfl_tune.models import (
    BackboneError,
    adapters_problem,
    create_backbone,
    part_problem,
    part_size,
)
from gsfl_tune.models.adapters import called
from gsfl_tune.models.trained_part import part_names

NETS = ["test_efficientnet", "test_convnext", "test_vit"]
SIDE = {"test_vit": 160}


def adapted(name, part, blocks, rank=4, scale=1.5):
    backbone = create_backbone(name, "none")
    backbone.train_last(blocks)
    side = SIDE.get(name, 64)
    trained = backbone.adapt(part, rank=rank, scale=scale, seed=1, image_size=side)
    return backbone, trained, torch.randn(2, 3, side, side)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("part", ["norms", "biases", "lora", "dora"])
@pytest.mark.parametrize("blocks", [1, "all"])
def test_the_price_counts_what_is_trained(name, part, blocks):
    if part in ("lora", "dora"):
        _, trained, _ = adapted(name, part, blocks, rank=4)
    else:
        trained = create_backbone(name, "none").train_last(blocks, part)
    assert sum(p.numel() for p in trained) == part_size(name, blocks, part, 4) > 0


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("part", ["lora", "dora"])
def test_adapters_start_as_nothing_and_end_as_weights(name, part):
    backbone, trained, images = adapted(name, part, 1)
    plain = create_backbone(name, "none")
    for model in (backbone, plain):  # else branches of an untrained ConvNeXt count for nothing
        for key, parameter in model.named_parameters():
            if key.endswith("gamma"):
                parameter.detach().fill_(1.0)
    torch.testing.assert_close(backbone(images), plain(images), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.1 * torch.randn_like(parameter)
    expected = backbone(images)
    assert not torch.allclose(expected, plain(images), atol=1e-3)
    merged = copy.deepcopy(backbone)
    merged.merge()
    torch.testing.assert_close(merged(images), expected, rtol=1e-3, atol=1e-4)
    plain.load_state_dict(merged.state_dict(), strict=True)
    torch.testing.assert_close(plain(images), merged(images))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("part", ["norms", "biases", "lora"])
def test_the_cut_is_in_front_of_the_whole_blocks(name, part):
    side = SIDE.get(name, 64)
    whole = create_backbone(name, "none")
    whole.train_last(1)
    expected = whole.split(side)
    if part == "lora":
        backbone, trained, _ = adapted(name, part, 1)
    else:
        backbone = create_backbone(name, "none")
        trained = backbone.train_last(1, part)
    split = backbone.split(side)
    assert split.shape == expected.shape
    images = torch.randn(2, 3, side, side)
    activations = split.prefix(images)
    torch.testing.assert_close(activations, expected.prefix(images))
    split.suffix(activations).square().mean().backward()
    assert {id(p) for p in backbone.parameters() if p.requires_grad} == {id(p) for p in trained}
    assert all(p.grad is not None for p in trained)


def test_adapters_are_a_function_of_their_seed():
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        states.append(adapted("test_vit", "lora", 1)[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_layers_whose_weight_is_read_elsewhere_get_no_adapter():
    """EVA and BEiT join biases of their own to qkv: an adapter around it would do nothing."""
    model = Eva(
        img_size=32, patch_size=16, embed_dim=32, depth=1, num_heads=2, qkv_bias=True
    ).eval()
    names = [name for name, _ in model.named_parameters()]
    paths = [each.removesuffix(".weight") for each in part_names(model, names, "lora")]
    found = called(model, paths, torch.zeros(1, 3, 32, 32))
    assert "blocks.0.attn.qkv" in paths
    assert "blocks.0.attn.qkv" not in found
    assert {"blocks.0.attn.proj", "blocks.0.mlp.fc1"} <= set(found)


def test_blocks_without_such_a_part_are_refused():
    assert part_problem("vgg11", 1, "norms") == (
        "vgg11 has no norm with weights in its trained blocks"
    )
    assert part_problem("vgg11", 1, "lora") == (
        "vgg11 has no linear layer or 1 x 1 convolution in its trained blocks"
    )
    assert part_problem("vgg11", 1, "biases") is None
    with pytest.raises(BackboneError, match="no norm"):
        create_backbone("test_nfnet", "none").train_last(1, "norms")


def test_a_missing_package_is_named(monkeypatch):
    assert adapters_problem("lora") is None
    monkeypatch.setitem(sys.modules, "peft", None)
    assert adapters_problem("norms") is None
    assert adapters_problem("dora") == (
        "found dora, which needs peft: run  pip install 'gsfl-tune[adapters]'"
    )
