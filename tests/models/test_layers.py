"""The maps behind the trained blocks, and passes that end there."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from gsfl_tune.models import create_backbone, layers_of

SIDE = 64


@pytest.mark.parametrize(
    ("name", "side", "reads", "blocks", "channels"),
    [
        ("test_efficientnet", 64, "map", "all", (256, 48, 32, 24, 16)),
        ("test_efficientnet", 64, "head", 2, (256, 48)),
        ("resnet18", 64, "map", 3, (512, 256, 128)),
        ("swin_tiny_patch4_window7_224", 64, "head", 3, (768, 384, 192)),
        ("test_vit", 64, "map", 3, (64, 64, 64)),
        # Its last block is behind the map, in the head.
        ("vgg11_bn", 64, "head", 2, (512,)),
        # Tokens of larger grids are in another order, and two tensors lead from block to block.
        ("hiera_tiny_224", 224, "map", 3, (768, 768)),
        ("eva02_tiny_patch14_224", 224, "map", 2, (192,)),
    ],
)
def test_channels_behind_the_trained_blocks(name, side, reads, blocks, channels):
    found = layers_of(name, blocks, side, reads)
    assert tuple(layer.channels for layer in found) == channels


@pytest.mark.parametrize(
    ("name", "children"),
    [
        ("resnet18", ["layer2", "layer3"]),
        ("test_vit", ["blocks.3", "blocks.4"]),
        ("swin_tiny_patch4_window7_224", ["layers.1", "layers.2"]),
    ],
)
def test_a_pass_ends_behind_its_block_with_the_output_of_it(name, children):
    backbone = create_backbone(name, "none")
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    layers = layers_of(name, 3, SIDE)
    outputs, calls = {}, []
    for child in children:
        backbone.model.get_submodule(child).register_forward_hook(
            lambda module, args, output, child=child: outputs.__setitem__(child, output)
        )
    last = backbone.model.get_submodule(layers[1].stop)
    last.register_forward_hook(lambda *_: calls.append(1))
    backbone(images)
    expected = [outputs[child] for child in reversed(children)]
    calls.clear()
    for layer, output in zip(layers[1:], expected, strict=True):
        found = backbone.layer(layer.stop, partial(backbone.maps, images))
        assert found.shape[:2] == (2, layer.channels)
        assert found.shape[2] == found.shape[3]
        if output.ndim == 3:
            grid = output[:, 1:].unflatten(1, found.shape[2:]).permute(0, 3, 1, 2)
        else:
            grid = output if name == "resnet18" else output.permute(0, 3, 1, 2)
        assert torch.equal(found, grid)
    # Nothing ran after it, and no hook is left.
    assert not calls
    assert not last._forward_pre_hooks
    assert backbone.maps(images).shape[1] == layers[0].channels


def test_a_cut_backbone_gives_the_same_layers():
    backbone = create_backbone("test_efficientnet", "none")
    backbone.train_last(2)
    split = backbone.split(SIDE)
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    layer = layers_of("test_efficientnet", 2, SIDE)[1]
    with torch.no_grad():
        activations = split.prefix(images)
    found = backbone.layer(layer.stop, partial(split.maps, activations))
    expected = backbone.layer(layer.stop, partial(backbone.maps, images))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.requires_grad
