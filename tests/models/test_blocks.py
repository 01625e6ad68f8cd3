"""Blocks are counted so that the last one is worth being trained, in families of every make."""

import pytest
import torch
from torch import nn

from gsfl_tune.models import create_backbone, map_shape, probe
from gsfl_tune.models._blocks import parameter_blocks, trained_names

FINAL = ("conv_kxk", "conv_scale", "se")


def tops(names, depth=2):
    return {".".join(name.split(".")[:depth]) for name in names}


@pytest.mark.parametrize(
    ("name", "blocks", "inside"),
    [
        # Without a group matcher, or one that cannot be coarse.
        ("poolformerv2_s12", 4, {"stages.3"}),
        pytest.param("csatv2", 4, {"stages.3"}, marks=pytest.mark.slow),
        ("rdnet_tiny", 7, {"dense_stages.6"}),
        ("mobilenetv5_base", 4, {"blocks.3", "msfa.ffn", "msfa.norm"}),
        pytest.param(
            "mobilenetv5_300m_enc", 4, {"blocks.3", "msfa.ffn", "msfa.norm"}, marks=pytest.mark.slow
        ),
        # What timm puts behind its blocks: shared biases, a neck, a last convolution.
        ("vit_srelpos_small_patch16_224", 12, {"blocks.11", "norm.weight", "norm.bias"}),
        ("samvit_base_patch16", 12, {"blocks.11", "neck.0", "neck.1", "neck.2", "neck.3"}),
        ("fastvit_t8", 4, {"stages.3", *(f"final_conv.{p}" for p in FINAL)}),
        ("rexnet_100", 16, {"features.15", "features.16"}),
        ("mobilenetv3_small_050", 5, {"blocks.4", "blocks.5"}),
        # Blocks that work on the class token, which is no part of the map.
        pytest.param(
            "cait_xxs24_224", 24, {"blocks.23", "norm.weight", "norm.bias"}, marks=pytest.mark.slow
        ),
        ("volo_d1_224", 19, {"network.4", "norm.weight", "norm.bias"}),
        # As timm has them.
        ("resnet50", 4, {"layer4.0", "layer4.1", "layer4.2"}),
        ("tf_efficientnet_lite0", 7, {"blocks.6", "conv_head.weight", "bn2.weight", "bn2.bias"}),
        ("hrnet_w18_small", 5, None),
    ],
)  # fmt: skip
def test_the_last_block_is_one(name, blocks, inside):
    facts = probe(name)
    assert facts.blocks == blocks
    if inside:
        assert tops(facts.block_names[-1]) == inside
    sizes = parameter_sizes(name)
    names = [name for block in facts.block_names for name in block]
    assert len(names) == len(set(names)), "a parameter belongs to one block"
    assert set(names) == set(sizes) - facts.unused
    share = sum(sizes[name] for name in facts.block_names[-1]) / facts.parameters
    assert 0.5 / blocks <= share < 0.9


def parameter_sizes(name):
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    return {key: parameter.numel() for key, parameter in model.named_parameters()}


def test_what_all_blocks_share_belongs_to_the_first():
    facts = probe("vit_srelpos_small_patch16_224")
    assert {n for n in facts.block_names[0] if n.startswith("shared_rel_pos")}


@pytest.mark.parametrize(
    "name", ["xcit_nano_12_p8_224", pytest.param("deit_tiny_patch16_224", marks=pytest.mark.slow)]
)
def test_what_is_said_to_be_unused_has_no_gradient_and_all_else_has(name):
    backbone = create_backbone(name, "none")
    facts = probe(name)
    side = 32
    assert map_shape(name, side)[1] > 1
    backbone.requires_grad_(True)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    maps = backbone(images)
    weights = torch.randn(maps.shape, generator=torch.Generator().manual_seed(1))
    (maps * weights).sum().backward()
    zero = {n for n, p in backbone.model.named_parameters() if p.grad is None or not p.grad.any()}
    assert zero == facts.unused


class Plain(nn.Module):
    """A stem, a list of blocks and a neck, which timm knows nothing about."""

    def __init__(self, neck: int) -> None:
        super().__init__()
        self.neck = nn.Conv2d(8, neck, 1)
        self.stem = nn.Conv2d(3, 8, 1)
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3) for _ in range(3))


ORDER = {"stem": 0, "layers.0": 1, "layers.1": 2, "layers.2": 3, "neck": 4}


def blocks_of(model, order, unused=frozenset()):
    ranks = {name: order[name.rpartition(".")[0]] for name, _ in model.named_parameters()}
    return [tops(block) for block in parameter_blocks(model, ranks, unused)]


def test_a_model_without_a_matcher_has_the_blocks_of_its_largest_list():
    found = blocks_of(Plain(neck=8), ORDER)
    last = {"layers.2", "neck.weight", "neck.bias"}
    assert found == [{"layers.0", "stem.weight", "stem.bias"}, {"layers.1"}, last]


def test_a_projection_is_no_block_however_large():
    found = blocks_of(Plain(neck=100), ORDER)
    assert found[-1] == {"layers.2", "neck.weight", "neck.bias"}


def test_what_is_used_before_the_last_block_is_not_part_of_it():
    found = blocks_of(Plain(neck=8), {**ORDER, "neck": 1})
    assert "neck.weight" in found[0]
    assert found[-1] == {"layers.2"}


def test_a_model_without_a_list_is_one_block():
    model = nn.Module()
    model.first, model.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    found = parameter_blocks(model, {})
    assert len(found) == 1
    assert trained_names(found, 1) == trained_names(found, "all") == list(found[0])


def test_counting_begins_at_the_end():
    blocks = (("a", "b"), ("c",), ("d",))
    assert trained_names(blocks, 0) == []
    assert trained_names(blocks, 1) == ["d"]
    assert trained_names(blocks, 2) == ["c", "d"]
    assert trained_names(blocks, 9) == trained_names(blocks, "all") == ["a", "b", "c", "d"]
