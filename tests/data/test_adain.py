"""Swapping channel statistics, against a loop over channels."""

from __future__ import annotations

import numpy as np
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.data.adain import StatisticsSwap
from gsfl_tune.data.transforms import Streams


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
