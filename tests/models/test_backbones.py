import copy

import pytest
import torch

from gsfl_tune.models import (
    BackboneError,
    backbone_problem,
    create_backbone,
    map_shape,
    probe,
)


@pytest.mark.parametrize(
    ("name", "side", "shape", "blocks"),
    [
        ("tf_efficientnet_lite0", 96, (1280, 3, 3), 7),
        ("resnet18", 64, (512, 2, 2), 4),
        ("convnext_atto", 64, (320, 2, 2), 4),
        ("vit_tiny_patch16_224", 96, (192, 6, 6), 12),
        pytest.param(
            "deit_tiny_distilled_patch16_224", 64, (192, 4, 4), 12, marks=pytest.mark.slow
        ),
        pytest.param("swin_tiny_patch4_window7_224", 96, (768, 3, 3), 4, marks=pytest.mark.slow),
        ("vgg11", 64, (512, 4, 4), 5),
        ("mobilenetv3_small_050", 64, (288, 2, 2), 5),
    ],
)
def test_every_kind_of_model_gives_a_channels_first_map(name, side, shape, blocks):
    backbone = create_backbone(name, "none")
    maps = backbone(torch.rand(2, 3, side, side))
    assert maps.shape == (2, *shape)
    assert backbone.channels == shape[0]
    assert backbone.block_count == blocks
    assert map_shape(name, side) == shape
    # All of what is trainable is used: an optimiser gets no parameter without a gradient.
    trainable = backbone.train_last("all")
    backbone(torch.rand(1, 3, side, side)).sum().backward()
    assert all(p.grad is not None for p in trainable)
    assert sum(p.numel() for p in trainable) == probe(name).parameters


def test_vit_map_keeps_positions_and_drops_prefix_tokens():
    backbone = create_backbone("vit_tiny_patch16_224", "none")
    images = torch.rand(1, 3, 64, 96)
    tokens = backbone.model.forward_features(images)
    maps = backbone(images)
    assert maps.shape == (1, 192, 4, 6)
    assert torch.equal(maps[0, :, 1, 2], tokens[0, 1 + 1 * 6 + 2])


def test_swin_map_keeps_positions():
    backbone = create_backbone("swin_tiny_patch4_window7_224", "none")
    images = torch.rand(1, 3, 96, 96)
    assert torch.equal(
        backbone(images)[0, :, 0, 2], backbone.model.forward_features(images)[0, 0, 2]
    )


def test_random_weights_are_deterministic_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = create_backbone("resnet18", "none")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert create_backbone("resnet18", "none").digest == first.digest
    assert create_backbone("resnet18", "none", seed=1).digest != first.digest


def test_digest_depends_on_the_model_too_and_not_on_later_training():
    backbone = create_backbone("resnet18", "none")
    digest = backbone.digest
    assert create_backbone("resnet34", "none").digest != digest
    with torch.no_grad():
        next(backbone.parameters()).zero_()
    assert backbone.digest == digest
    assert copy.deepcopy(backbone).digest == digest


def test_a_new_backbone_is_frozen():
    backbone = create_backbone("resnet18", "none").train()
    assert not any(p.requires_grad for p in backbone.parameters())
    before = copy.deepcopy(backbone.state_dict())
    backbone(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_train_last_trains_the_last_blocks_and_keeps_norms_of_the_others():
    backbone = create_backbone("resnet18", "none")
    trainable = backbone.train_last(1)
    backbone.train()
    names = {n for n, p in backbone.model.named_parameters() if p.requires_grad}
    assert names == {n for n, _ in backbone.model.named_parameters() if n.startswith("layer4.")}
    assert len(trainable) == len(names)

    before = copy.deepcopy(backbone.state_dict())
    backbone(torch.rand(4, 3, 64, 64)).sum().backward()
    changed = {k for k, v in backbone.state_dict().items() if not torch.equal(before[k], v)}
    assert changed
    assert all((k.startswith("model.layer4.") and "bn" in k) or "downsample" in k for k in changed)

    backbone.eval().train()
    assert not backbone.model.bn1.training
    assert backbone.model.layer4[0].bn1.training
    assert not backbone.eval().model.layer4[0].bn1.training


def test_efficientnet_head_belongs_to_the_last_block():
    backbone = create_backbone("tf_efficientnet_lite0", "none")
    backbone.train_last(1)
    names = {n.split(".")[0] for n, p in backbone.model.named_parameters() if p.requires_grad}
    assert names == {"blocks", "conv_head", "bn2"}
    frozen = [n for n, p in backbone.model.named_parameters() if not p.requires_grad]
    assert any(n.startswith("blocks.5.") for n in frozen)


def test_vgg_blocks_end_at_its_pools():
    backbone = create_backbone("vgg11_bn", "none")
    assert backbone.block_count == 5
    backbone.train_last(1)
    last = {n.split(".")[1] for n, p in backbone.model.named_parameters() if p.requires_grad}
    assert last == {"22", "23", "25", "26"}


def test_train_last_counts_from_none_to_all():
    backbone = create_backbone("resnet18", "none")
    total = sum(1 for _ in backbone.parameters())
    assert len(backbone.train_last("all")) == total
    assert len(backbone.train_last(4)) == total
    assert len(backbone.train_last(99)) == total  # a space may hold backbones of several depths
    assert backbone.train_last(0) == []
    with pytest.raises(ValueError, match="-1"):
        backbone.train_last(-1)


def test_a_copy_freezes_its_own_modules():
    backbone = create_backbone("resnet18", "none")
    backbone.train_last(1)
    twin = copy.deepcopy(backbone)
    twin.train()
    assert not twin.model.layer1.training
    assert twin.model.layer4.training


def test_a_wrong_name_gets_the_nearest():
    assert backbone_problem("resnet18") is None
    assert backbone_problem("resnet18.a1_in1k") is None
    assert "resnet50" in backbone_problem("resnet5O")
    assert "tv_in1k" in backbone_problem("resnet18.nonsense")
    assert "18" in backbone_problem(18)
    with pytest.raises(BackboneError, match="not a timm model"):
        create_backbone("no_such_net", "none")


def test_models_without_a_map_and_wrong_sizes_are_refused():
    with pytest.raises(BackboneError, match="no feature map"):
        create_backbone("crossvit_9_240", "none")
    for name in ("pit_ti_224", "pit_ti_distilled_224"):
        with pytest.raises(BackboneError, match="class tokens alone"):
            create_backbone(name, "none")
    with pytest.raises(BackboneError, match="256 px"):
        map_shape("maxvit_pico_rw_256", 100)
