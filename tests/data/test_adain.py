"""Swapping channel statistics, against a loop over channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.data.adain import StatisticsSwap
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError


def made(count=6, height=12, width=9, channels=3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count)
    size = (count, channels, 1, 1)
    images = torch.randn(count, channels, height, width, generator=generator)
    images = images * torch.rand(size, generator=generator) + torch.randn(size, generator=generator)
    return Batch((images,), Targets(labels), labels)


def test_means_and_deviations_come_from_another_image_and_the_rest_stays():
    batch, streams = made(), Streams(3)
    found = StatisticsSwap(1.0)(batch, Streams(3))
    order = torch.randperm(6, generator=streams("adain")).tolist()
    assert order != sorted(order)
    for place, other in enumerate(order):
        for channel in range(3):
            own, theirs = (batch.inputs[i, channel].double().numpy() for i in (place, other))
            expected = (own - own.mean()) / own.std() * theirs.std() + theirs.mean()
            np.testing.assert_allclose(found.inputs[place, channel].numpy(), expected, atol=1e-5)
    assert found.targets == batch.targets


def test_a_share_of_the_images_is_changed_in_all_views_alike_and_nothing_without():
    one = made(200)
    batch = Batch((one.inputs, one.inputs.flip(3)), one.targets, one.positions)
    swap, streams = StatisticsSwap(0.3), Streams(1)
    found = swap(batch, streams)
    changed = [
        (new != old).flatten(1).any(1) for new, old in zip(found.views, batch.views, strict=True)
    ]
    assert torch.equal(*changed)
    assert float(changed[0].float().mean()) == pytest.approx(0.3, abs=0.08)
    # It goes on with its numbers, and begins again with the epoch.
    assert not torch.equal(swap(batch, streams).views[0], found.views[0])
    assert torch.equal(swap(batch, Streams(1)).views[0], found.views[0])
    assert StatisticsSwap()(batch, Streams(1)) is batch


def test_an_image_of_one_colour_takes_the_other_colour_and_stays_finite():
    images = torch.stack([torch.full((3, 4, 4), 0.7), torch.randn(3, 4, 4)])
    images = images.contiguous(memory_format=torch.channels_last)
    batch = Batch((images,), Targets(torch.arange(2)), torch.arange(2))
    # Of two images, an order that changes them.
    seed = next(
        seed
        for seed in range(20)
        if torch.randperm(2, generator=Streams(seed)("adain")).tolist() == [1, 0]
    )
    found = StatisticsSwap(1.0)(batch, Streams(seed)).inputs
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0], images[1].mean((1, 2), keepdim=True).expand(3, 4, 4))
    torch.testing.assert_close(found[1], images[0])
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_activations_have_no_colours():
    with pytest.raises(UserError, match=r"training\.finetune\.adain: found cached activations"):
        StatisticsSwap(0.5)(made(channels=8), Streams(0))
