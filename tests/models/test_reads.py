"""What a pooling reads, and how its gradient comes back."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.models import create_backbone
from gsfl_tune.models._reads import with_gradient_in_layout

LAST = torch.channels_last


@pytest.mark.parametrize("reads", ["map", "head"])
def test_the_gradient_of_a_map_comes_back_in_its_layout(reads):
    backbone = create_backbone("test_resnet", "none", reads=reads)
    backbone.train_last("all")
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    norm = [each for each in backbone.modules() if isinstance(each, torch.nn.BatchNorm2d)][-1]
    norm.register_forward_hook(lambda module, given, made: made.register_hook(seen.append) and None)
    backbone.to(memory_format=LAST).train()
    vectors = backbone(images.contiguous(memory_format=LAST))
    (vectors.mean(dim=(2, 3)) if reads == "map" else vectors).square().sum().backward()
    assert [each.is_contiguous(memory_format=LAST) for each in seen] == [True]


def test_values_are_those_without_it_and_other_layouts_stay():
    values = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    for layout in (LAST, torch.contiguous_format):
        given = values.clone(memory_format=layout).requires_grad_()
        maps = given * 2
        assert with_gradient_in_layout(maps) is maps
        maps.mean(dim=(2, 3)).sum().backward()
        assert torch.equal(given.grad, torch.full_like(values, 2 / 9))
    # Nothing to train, nothing to do.
    assert with_gradient_in_layout(values) is values
