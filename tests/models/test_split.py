"""A cut backbone gives the loss and the gradients of the whole one."""

from __future__ import annotations

import copy

import pytest
import torch

from gsfl_tune.models import CannotCut, boundary_shape, create_backbone
from gsfl_tune.models.frozen import frozen_forward

FAMILIES = [
    ("tf_efficientnet_lite0", 96, 2, (112, 6, 6)),
    ("mobilenetv3_small_050", 64, 1, (24, 4, 4)),
    ("resnet18", 64, 1, (256, 4, 4)),
    ("vgg11_bn", 64, 1, (512, 4, 4)),
    pytest.param("swin_tiny_patch4_window7_224", 64, 1, (4, 4, 384), marks=pytest.mark.slow),
    pytest.param("deit_tiny_distilled_patch16_224", 64, 1, (18, 192), marks=pytest.mark.slow),
    ("test_vit", 64, 2, (17, 64)),
    ("test_convnext", 64, 1, (48, 4, 4)),
    ("test_byobnet", 64, 2, (64, 8, 8)),
    pytest.param("poolformerv2_s12", 64, 1, (320, 4, 4), marks=pytest.mark.slow),
]


def losses_and_gradients(backbone, forward, images):
    """Of two steps, so that norms and weights change in between."""
    backbone.train()
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    weights = torch.randn(backbone.channels, generator=torch.Generator().manual_seed(1))
    losses, gradients = [], []
    torch.manual_seed(2)  # some families drop paths
    for _ in range(2):
        maps = forward(images)
        loss = ((maps * weights[:, None, None]).mean((1, 2, 3)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in parameters])
        optimizer.step()
    return losses, gradients


@pytest.mark.parametrize(("name", "side", "blocks", "shape"), FAMILIES)
def test_suffix_trains_as_the_whole_backbone_does(name, side, blocks, shape):
    images = torch.randn(6, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    whole = create_backbone(name, "none").to(memory_format=torch.channels_last)
    whole.train_last(blocks)
    parts = copy.deepcopy(whole)
    split = parts.split(side)
    assert split.shape == shape == boundary_shape(name, blocks, side)

    with torch.inference_mode():
        activations = split.prefix(images)
    assert activations.shape == (6, *shape)
    stored = activations.clone()

    expected = losses_and_gradients(whole, whole, images)
    found = losses_and_gradients(parts, lambda _: split.suffix(stored.clone()), images)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    assert found[0][0] != found[0][1]
    # What is exported is the whole backbone, with what the suffix learned.
    whole.eval(), parts.eval()
    assert torch.allclose(parts(images), whole(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet18", 2), ("test_vit", 2), ("test_resnet+test_efficientnet", 1)]
)
def test_a_fast_copy_of_the_frozen_part_holds_no_trained_weight(name, blocks):
    backbone = create_backbone(name, "none")
    backbone.train_last(blocks)
    trained = {id(p) for p in backbone.parameters() if p.requires_grad}
    kept = []

    def make(module, input_shape, *, precision):
        kept.extend(module.parameters())
        return frozen_forward(module, input_shape, precision=precision)

    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone.eval()
    split = backbone.split(64)
    found = split.frozen_prefix(make=make)(images)
    assert kept
    assert not any(id(each) in trained for each in kept)
    assert torch.allclose(found, split.prefix(images), rtol=1e-4, atol=1e-4)
    assert torch.allclose(split.suffix(found), backbone(images), rtol=1e-3, atol=1e-3)


def test_a_split_leaves_the_backbone_as_it_was():
    backbone = create_backbone("resnet18", "none")
    backbone.train_last(1)
    backbone.train()
    before = copy.deepcopy(backbone.state_dict())
    backbone.split(64)
    assert list(backbone.state_dict()) == list(before)
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())
    assert backbone.model.layer4.training
    assert not backbone.model.layer3.training
    assert not any(module._forward_hooks for module in backbone.modules())


@pytest.mark.parametrize(
    ("name", "side", "blocks", "reason"),
    [
        ("eva02_tiny_patch14_224", 224, 1, "more than one tensor"),
        ("levit_128s", 224, 1, "follow each other"),
        ("resnet18", 64, 99, "nothing is frozen"),
    ],
)
def test_what_cannot_be_cut_says_why(name, side, blocks, reason):
    with pytest.raises(CannotCut, match=reason):
        boundary_shape(name, blocks, side)
    backbone = create_backbone(name, "none")
    backbone.train_last(blocks)
    with pytest.raises(CannotCut, match=reason):
        backbone.split(side)


def test_weights_that_are_used_on_both_sides_cannot_be_cut():
    class Embedded(torch.nn.Module):
        """Adds the embedding of its first block to the input of its second one."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 4, 3)
            self.embedding = torch.nn.Parameter(torch.ones(4, 1, 1))
            self.last = torch.nn.Conv2d(4, 4, 1)

        def forward_features(self, x):
            return self.last(self.stem(x) + self.embedding)

    from gsfl_tune.models._boundary import cut_in_front, require_clean_cut

    model = Embedded().requires_grad_(False)
    model.last.requires_grad_(True)
    halves = cut_in_front(model, torch.rand(1, 3, 8, 8))
    with pytest.raises(CannotCut, match="embedding is used behind"):
        require_clean_cut(model, halves)
    assert not model.embedding.requires_grad
