"""Native pooling gives what timm's own head gives to its classifier."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.models import register_model
from torch import nn

from gsfl_tune.models import (
    BackboneError,
    Network,
    PlainHead,
    boundary_shape,
    create_backbone,
    create_pooling,
    map_shape,
    probe,
    reading_problem,
)
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.models.frozen import frozen_forward
from gsfl_tune.models.frozen_forward import TOLERANCE

# What lies behind the map differs: a mean, a norm, a class token, attention, convolutions.
MODELS = [
    ("tf_efficientnet_lite0", 32, 1280, "map"),
    ("resnet18", 32, 512, "map"),
    pytest.param("vgg11_bn", 32, 4096, "pre_logits", marks=pytest.mark.slow),
    ("test_convnext", 32, 64, "head.norm"),
    ("test_mambaout", 64, 256, "head"),
    ("test_vit", 32, 64, "class token"),
    ("test_vit3", 160, 96, "attn_pool"),
    ("deit_tiny_patch16_224", 32, 192, "class token"),
    ("deit_tiny_distilled_patch16_224", 32, 192, "class token"),
    pytest.param("beit_base_patch16_224", 224, 768, "fc_norm", marks=pytest.mark.slow),
    ("eva02_tiny_patch14_224", 224, 192, "fc_norm"),
    ("hiera_tiny_224", 224, 768, "head.norm"),
    ("swin_tiny_patch4_window7_224", 64, 768, "map"),
    ("mobilenetv3_small_050", 32, 1024, "conv_head"),
    ("mobilenetv4_conv_small_035", 32, 1280, "conv_head"),
    ("caformer_s18", 32, 512, "head.norm"),
    ("test_maxvit", 160, 128, "map"),
    ("vit_small_patch14_dinov2", 56, 384, "class token"),
    ("vit_pe_core_tiny_patch16_384", 64, 192, "attn_pool"),
]


def own_head(backbone, images):
    """What timm computes."""
    with torch.no_grad():
        features = backbone.model.forward_features(images)
        return backbone.model.forward_head(features, pre_logits=True)


def batch(count, side, seed=0):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def with_noise(backbone):
    """Norms that do something, and no branch behind a zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return backbone


@pytest.mark.parametrize(("name", "side", "dim", "behind"), MODELS)
def test_equals_the_head_of_timm(name, side, dim, behind):
    backbone = with_noise(create_backbone(name, "none", reads="head"))
    pooling = create_pooling("native", backbone.channels)
    images = batch(2, side)
    with torch.no_grad():
        found = pooling(backbone(images))
    expected = own_head(backbone, images)
    assert found.shape == (2, dim) == (2, pooling.dim)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    facts = probe(name, "head")
    if behind in ("map", "class token"):
        assert not facts.head_names
    else:
        assert any(key.startswith(behind) for key in facts.head_names)
        # Its parameters are pretrained ones, trained with the last block.
        assert set(facts.head_names) <= set(facts.block_names[-1])
    with torch.no_grad():
        maps = backbone.to_map(backbone.features(images), side, side)
    average = create_pooling("average", maps.shape[1])(maps)
    same = average.shape == found.shape and torch.allclose(average, found, atol=1e-5)
    assert same == (behind == "map")


@pytest.mark.parametrize(
    ("name", "dtype", "threads"),
    [
        ("tf_efficientnet_lite0", "fp32", 1),
        ("tf_efficientnet_lite0", "bf16", 1),
        ("resnet10t", "fp32", 1),
        ("test_efficientnet", "fp32", 2),
        ("test_efficientnet", "bf16", 2),
    ],
)
def test_with_nothing_behind_the_mean_it_is_average_pooling_bit_for_bit(name, dtype, threads):
    """So templates for EfficientNet-Lite may say either."""
    native = create_backbone(name, "none", reads="head")
    average = create_backbone(name, "none")
    images = batch(9, 64).to(memory_format=torch.channels_last)
    pool = create_pooling("average", average.channels)
    assert native.block_count == average.block_count
    assert probe(name, "head").block_names == probe(name).block_names
    torch.set_num_threads(threads)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        assert torch.equal(native(images), pool(average(images)))
    frozen = [frozen_forward(each, (3, 64, 64), precision=dtype) for each in (native, average)]
    assert frozen[0].fused == frozen[1].fused > 0
    with torch.inference_mode():
        assert torch.equal(frozen[0](images), pool(frozen[1](images)))
    for each in (native, average):
        each.train_last(1)
    splits = [each.split(64) for each in (native, average)]
    with torch.no_grad():
        one, other = (split.suffix(split.prefix(images)) for split in splits)
    assert torch.equal(one, pool(other))


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("tf_efficientnet_lite0", 32),
        ("test_convnext", 32),
        ("test_vit", 32),
        ("test_vit3", 160),
        ("mobilenetv4_conv_small_035", 32),
        ("vit_pe_core_tiny_patch16_384", 64),
    ],
)
def test_a_frozen_copy_gives_the_same(name, side):
    backbone = create_backbone(name, "none", reads="head")
    frozen = frozen_forward(backbone, (3, side, side))
    images = batch(2, side)
    with torch.no_grad():
        expected, found = backbone(images), frozen(images)
    assert (found - expected).norm(dim=1).max() <= TOLERANCE["fp32"] * expected.norm(dim=1).min()


@pytest.mark.parametrize(
    ("name", "side", "in_head"),
    [
        ("test_convnext", 64, False),
        ("test_vit", 64, False),
        ("mobilenetv3_small_050", 64, False),
        pytest.param("vgg11_bn", 32, True, marks=pytest.mark.slow),
    ],
)
def test_a_cut_backbone_trains_the_head_with_the_last_block(name, side, in_head):
    whole = create_backbone(name, "none", reads="head")
    whole.train_last(1)
    parts = copy.deepcopy(whole)
    split = parts.split(side)
    assert split.shape == boundary_shape(name, 1, side, "head")
    images = batch(4, side)
    weights = torch.randn(whole.channels, generator=torch.Generator().manual_seed(1))
    for backbone, forward in (
        (whole, whole),
        (parts, lambda x: split.suffix(split.prefix(x).detach())),
    ):
        backbone.eval()  # some heads drop features
        (forward(images) * weights).mean().backward()
    names = [key for key, p in whole.named_parameters() if p.requires_grad]
    assert in_head == all(key.startswith("model.pre_logits") for key in names)
    for key, parameter in whole.named_parameters():
        twin = parts.get_parameter(key)
        assert (parameter.grad is None) == (twin.grad is None) == (not parameter.requires_grad), key
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max())
            assert torch.allclose(twin.grad, parameter.grad, rtol=1e-4, atol=1e-5 * scale), key
    trained = set(probe(name, "head").head_names)
    assert trained <= {key.removeprefix("model.") for key in names}


def test_the_digest_says_what_is_read():
    backbones = [create_backbone("test_vit", "none", reads=reads) for reads in ("map", "head")]
    assert backbones[0].digest != backbones[1].digest
    assert backbones[1].digest == create_backbone("test_vit", "none", reads="head").digest
    with torch.no_grad():
        backbones[1].model.norm.weight.add_(1)
    changed = create_backbone("test_convnext", "none", reads="head")
    assert "head.norm.weight" in dict(changed.model.named_parameters())


def test_half_precision_reaches_a_head_with_weights():
    backbone = create_backbone("test_convnext", "none", reads="head")
    head = PlainHead(backbone.channels, 3, latent_dim=8, dropout=0.0, feature_scale=4.0)
    network = Network(backbone, None, create_pooling("native", backbone.channels), head).eval()
    images = batch(2, 32)
    with torch.no_grad():
        expected = network.infer(images)
        found = network.half().infer(images.half()).float()
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


def test_the_head_is_part_of_the_price():
    plain, native = (backbone_work("mobilenetv3_small_050", 0, 64, r) for r in ("map", "head"))
    # A 1 x 1 convolution of one position, 288 to 1024 channels.
    assert native.frozen - plain.frozen == 2 * 288 * 1024
    facts = probe("mobilenetv3_small_050", "head")
    assert facts.parameters - probe("mobilenetv3_small_050").parameters == 288 * 1024 + 1024
    assert map_shape("vgg11_bn", 32, "head")[0] == 512


class Heads(nn.Module):
    """A model whose head gives something else than a vector."""

    num_features = 4

    def __init__(self, outcome):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, stride=8)
        self.outcome = outcome

    def forward_features(self, x):
        return self.stem(x)

    def forward_head(self, x, pre_logits=False):
        return self.outcome(x)


class Headless(Heads):
    forward_head = property()


default_cfgs = {
    name: {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    for name in ("two_outputs_net", "map_head_net", "broken_head_net", "headless_net")
}


@register_model
def two_outputs_net(pretrained=False, **kwargs):
    return Heads(lambda x: (x, x))


@register_model
def map_head_net(pretrained=False, **kwargs):
    return Heads(lambda x: x)


@register_model
def broken_head_net(pretrained=False, **kwargs):
    return Heads(lambda x: x.reshape(1, 5))


@register_model
def headless_net(pretrained=False, **kwargs):
    return Headless(None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two_outputs_net", "the head of 'two_outputs_net' has several outputs"),
        ("map_head_net", "gives no vector but a tensor of shape (1, 4, 4, 4)"),
        ("broken_head_net", "the head of 'broken_head_net' cannot be run alone ("),
        ("headless_net", "'headless_net' has no method forward_head"),
    ],
)
def test_heads_that_give_no_vector_are_refused(name, words):
    assert probe(name).channels == 4
    with pytest.raises(BackboneError) as caught:
        create_backbone(name, "none", reads="head")
    assert words in str(caught.value)
    assert reading_problem(name, "head") == str(caught.value)
    assert reading_problem(name, "map") is None
