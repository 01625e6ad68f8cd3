"""Two layers of one backbone: their joined map, its blocks, its cut, and its copies."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from torch.nn import functional

from gsfl_tune.experiment.model_config import ONE_LAYER, ModelConfig, layer_poolings
from gsfl_tune.models import (
    BackboneError,
    LinearHead,
    Network,
    boundary_shape,
    create_backbone,
    create_pooling,
    fit_projection,
    layers_of,
    map_shape,
    mix_style_problem,
    pooled_channels,
    pooling_class,
    probe,
    restitution_channels,
    second_layer_problem,
    stream_names,
)
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.models.frozen import frozen_forward

from .test_streams import area_means

SIDE = 64
NAME = "test_efficientnet@2"
# Its block in front of the two last ones.
BLOCK = "blocks.2"


def made(count=2, side=SIDE):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def as_map(features, layout):
    """Maps (B, C, h, w) of what a timm model or its block gives."""
    if layout == "tokens":  # class token first
        side = int((features.shape[1] - 1) ** 0.5)
        return features[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    return features.permute(0, 3, 1, 2) if layout == "NHWC" else features


def plain(model, child, images, layout="NCHW"):
    """The last map of a timm model and the one behind a child, seen by a forward hook."""
    seen = []
    handle = model.get_submodule(child).register_forward_hook(lambda *each: seen.append(each[2]))
    try:
        last = model.forward_features(images)
    finally:
        handle.remove()
    return as_map(last, layout), as_map(seen[0], layout)


@pytest.mark.parametrize(
    ("name", "following", "child", "layout", "side"),
    [
        ("test_efficientnet", 2, BLOCK, "NCHW", 64),
        # Grids of 3 x 3 and 10 x 10: areas that do not divide.
        ("resnet18", 2, "layer2", "NCHW", 80),
        ("test_mambaout", 1, "stages.2", "NHWC", 64),
        pytest.param(
            "swin_tiny_patch4_window7_224", 1, "layers.2", "NHWC", 64, marks=pytest.mark.slow
        ),
        ("test_vit", 1, "blocks.4", "tokens", 64),
        pytest.param("vgg11_bn", 1, "features.21", "NCHW", 64, marks=pytest.mark.slow),
    ],
)
def test_the_map_is_the_last_one_and_the_means_of_areas_behind_a_block(
    name, following, child, layout, side
):
    backbone = create_backbone(f"{name}@{following}", "none", seed=1)
    alone = create_backbone(name, "none", seed=1)
    images = made(side=side)
    with torch.no_grad():
        last, second = plain(alone.model, child, images, layout)
        found = backbone(images)
    averaged = torch.from_numpy(area_means(second.numpy(), last.shape[2])).float()
    torch.testing.assert_close(found, torch.cat([last, averaged], dim=1), rtol=1e-5, atol=1e-5)
    facts, own = probe(backbone.name), probe(name)
    assert backbone.second_channels == facts.second_channels == second.shape[1]
    assert map_shape(backbone.name, side) == (facts.channels, *last.shape[2:])
    assert facts.channels == own.channels + second.shape[1]
    assert (facts.parameters, facts.blocks) == (own.parameters, own.blocks)
    assert stream_names(backbone.name) == [name]
    for blocks in (0, 1, "all"):
        assert backbone_work(backbone.name, blocks, side) == backbone_work(name, blocks, side)


def test_average_pooling_gives_both_means_side_by_side():
    backbone = create_backbone(NAME, "none")
    images = made()
    with torch.no_grad():
        last, second = plain(create_backbone("test_efficientnet", "none").model, BLOCK, images)
        found = create_pooling("average", backbone.channels)(backbone(images))
    expected = torch.cat([last.mean(dim=(2, 3)), second.mean(dim=(2, 3))], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_bilinear_pooling_multiplies_the_channels_of_both_each_projected_by_itself():
    backbone = create_backbone(NAME, "none")
    images = made(4)
    with torch.no_grad():
        last, second = plain(create_backbone("test_efficientnet", "none").model, BLOCK, images)
        joint = backbone(images)
    sizes = pooled_channels("bilinear", 6, backbone.channels, backbone.second_channels)
    assert sizes == (12, 6)
    projection = fit_projection([joint], (6, 6), second=backbone.second_channels)
    pooling = create_pooling("bilinear", 12, second=6)
    network = Network(backbone, projection, pooling, LinearHead(pooling.dim, 2))
    second = functional.adaptive_avg_pool2d(second, last.shape[2])
    a, b = (fit_projection([each], 6)(each) for each in (last, second))
    products = torch.einsum("bihw,bjhw->bij", a, b).flatten(1) / a[0, 0].numel()
    expected = functional.normalize(products.sign() * products.abs().sqrt(), dim=1)
    with torch.no_grad():
        found = network.features(images)
    assert found.shape == (4, 36)
    # Their slope at 0 is bounded in ours.
    torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [*((NAME, n) for n in (1, 2, 3)), ("test_vit@2", 1), ("test_vit@2", 2), ("test_vit@1", 3)],
)
def test_it_is_cut_in_front_of_its_trained_blocks_wherever_the_second_layer_is(name, blocks):
    whole, following = name.split("@")
    backbone = create_backbone(name, "none")
    trained = {id(each) for each in backbone.train_last(blocks)}
    parameters = dict(backbone.model.whole.named_parameters())
    names = [each for block in probe(whole).block_names[-blocks:] for each in block]
    assert trained == {id(parameters[each]) for each in names}
    split, images = backbone.split(SIDE), made()
    alone = create_backbone(whole, "none")
    alone.train_last(blocks)
    with torch.no_grad():
        activations = split.prefix(images)
        assert tuple(activations.shape[1:]) == boundary_shape(name, blocks, SIDE)
        torch.testing.assert_close(split.suffix(activations), backbone(images))
        torch.testing.assert_close(split.maps(activations), backbone(images))
        own = alone.split(SIDE).prefix(images)
        if blocks >= int(following):
            # They are what is cached without the second layer; at the same place that layer itself.
            assert torch.equal(activations, own)
        else:
            second = backbone(images)[:, -backbone.second_channels :]
            expected = torch.cat([own.flatten(1), second.flatten(1)], dim=1)
            torch.testing.assert_close(activations, expected)
        fast = split.frozen_prefix()(images)
        torch.testing.assert_close(fast, activations, rtol=1e-4, atol=1e-4)
    split.suffix(activations).square().sum().backward()
    gradients = {id(each) for each in backbone.parameters() if each.grad is not None}
    assert gradients == trained
    assert backbone.model.seen.take() is None


@pytest.mark.parametrize("name", [NAME, pytest.param("vgg11_bn@1", marks=pytest.mark.slow)])
def test_parts_of_a_batch_in_several_threads_keep_their_own_second_layer(name):
    backbone = create_backbone(name, "none")
    images = made(33)
    with torch.no_grad():
        expected = backbone(images)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        fast = frozen_forward(backbone, (3, SIDE, SIDE))
        assert fast.fused
        for _ in range(5):
            found = fast(images)
            scale = float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale)
    finally:
        torch.set_num_threads(threads)


def test_copies_see_their_own_maps():
    backbone = create_backbone(NAME, "none")
    images = made()
    with torch.no_grad():
        expected = backbone(images)
    first = copy.deepcopy(backbone)
    second = pickle.loads(pickle.dumps(backbone))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
        for each in (first, second):
            assert torch.equal(each(images), expected)
        assert not torch.equal(backbone(images), expected)


def test_a_pass_that_is_left_early_leaves_nothing_behind():
    backbone = create_backbone(NAME, "none")
    images = made()
    layers = layers_of(NAME, 3, SIDE)
    own = layers_of("test_efficientnet", 3, SIDE)
    assert layers[0].channels == backbone.channels
    assert layers[0].places == own[0].places
    assert [each.channels for each in layers[1:]] == [each.channels for each in own[1:]]
    alone = create_backbone("test_efficientnet", "none")
    for ours, theirs in zip(layers[1:], own[1:], strict=True):
        found = backbone.layer(ours.stop, partial(backbone.maps, images))
        assert torch.equal(found, alone.layer(theirs.stop, partial(alone.maps, images)))
        assert backbone.model.seen.take() is None
    swin = "swin_tiny_patch4_window7_224"
    layer = layers_of(f"{swin}@1", 3, SIDE)[2]
    other = create_backbone(f"{swin}@1", "none")
    found = other.layer(layer.stop, partial(other.maps, images))
    assert found.shape[:2] == (2, layer.channels)
    assert found.shape[2] == found.shape[3]


def test_the_digest_says_which_layers_are_read():
    names = ("test_efficientnet", "test_efficientnet@1", "test_efficientnet@2")
    assert len({create_backbone(name, "none").digest for name in names}) == 3
    assert create_backbone(NAME, "none").digest != create_backbone(NAME, "none", seed=1).digest


def test_what_has_no_such_layer_is_named():
    assert second_layer_problem("test_efficientnet@4") is None
    assert second_layer_problem("test_efficientnet") is None
    assert second_layer_problem("no_such_network@2") is None  # said of the backbone
    count = probe("test_efficientnet").blocks
    found = second_layer_problem(f"test_efficientnet@{count}")
    assert found == f"'test_efficientnet' has no block that {count} others follow: it has {count}"
    for name, words in (
        # Tokens of larger grids are in another order, and two tensors lead from block to block.
        ("hiera_tiny_224@2", "2 others follow"),
        ("eva02_tiny_patch14_224@1", "1 other follows"),
    ):
        found = second_layer_problem(name)
        assert found == f"{name.split('@')[0]!r} has no single map behind the block that {words}"
        with pytest.raises(BackboneError, match="no single map"):
            create_backbone(name, "none")
    with pytest.raises(BackboneError, match="their maps alone"):
        probe("test_vit@1", "tokens")
    with pytest.raises(BackboneError, match="of two backbones the last maps are read"):
        create_backbone("test_efficientnet+test_vit@1", "none")


def test_poolings_that_take_two_layers_are_those_that_read_the_map():
    taken = {name for name in layer_poolings() if pooling_class(name).reads == "map"}
    assert taken == set(layer_poolings())
    read = {name for name in ONE_LAYER if pooling_class(name).reads == "map"}
    assert read == {"screened"}  # its head has weights for the last map
    model = ModelConfig(backbone="test_vit", layer_b=2, pooling="gem")
    assert model.extractor == "test_vit@2"
    assert model.extractor_weights == model.weights
    assert ModelConfig(backbone="test_vit", layer_b=2, pooling="cls").extractor == "test_vit"


def test_what_changes_the_map_that_enters_the_trained_blocks_changes_the_second_layer_there():
    backbone = create_backbone("test_efficientnet@1", "none")
    images = made()
    with torch.no_grad():
        before = backbone(images)[:, -backbone.second_channels :]
        _, raw = plain(backbone.model.whole, "blocks.3", images)
        backbone.restitute(1, SIDE)
        for parameter in backbone.restitution.parameters():  # as if it had been trained
            torch.nn.init.normal_(parameter, 0.5)
        after = backbone(images)[:, -backbone.second_channels :]
        changed = functional.adaptive_avg_pool2d(backbone.restitution(raw), after.shape[2:])
        torch.testing.assert_close(after, changed, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(after, before, atol=1e-2)
        backbone.train_last(1)
        split = backbone.split(SIDE)
        torch.testing.assert_close(split.suffix(split.prefix(images)), backbone(images))
    for blocks in (1, 2, "all"):
        arguments = (blocks, SIDE)
        assert restitution_channels(NAME, *arguments) == restitution_channels(
            "test_efficientnet", *arguments
        )
    assert mix_style_problem(NAME, 1, SIDE) is None
    assert mix_style_problem("test_vit@2", 1, SIDE) == mix_style_problem("test_vit", 1, SIDE)


def test_what_the_model_trains_without_weight_decay_is_named():
    backbone = create_backbone("test_vit@1", "none")
    whole = backbone.model.whole
    assert {id(each) for each in backbone.undecayed()} == {id(whole.pos_embed), id(whole.cls_token)}


@pytest.mark.slow
def test_a_compiled_pass_gives_both_layers():
    backbone = create_backbone(NAME, "none")
    images = made()
    with torch.no_grad():
        expected = backbone(images)
        torch.testing.assert_close(torch.compile(backbone)(images), expected, rtol=1e-4, atol=1e-4)
