"""The contract holds for every pooling that is built in, and finds what breaks it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gsfl_tune.models import POOLINGS, Pooling, create_pooling
from gsfl_tune.testing import check_pooling


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_poolings_that_are_built_in_keep_the_contract(name):
    check_pooling(lambda channels: create_pooling(name, channels, dim=64))


class Mean(Pooling):
    """A sound pooling to break."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.dim = channels

    def forward(self, maps):
        return maps.float().mean(dim=(2, 3))


def test_a_sound_pooling_passes():
    check_pooling(Mean)


class Learns(Mean):
    def __init__(self, channels):
        super().__init__(channels)
        self.power = nn.Parameter(torch.ones(()))


class Jumps(Learns):
    starts_as = "average"

    def forward(self, maps):
        return (1 + self.power) * super().forward(maps)


class Wider(Mean):
    def __init__(self, channels):
        super().__init__(channels)
        self.dim = 2 * channels


class Rooted(Mean):
    def forward(self, maps):
        return super().forward(maps).abs().sqrt()


class OverTheBatch(Mean):
    def forward(self, maps):
        vectors = super().forward(maps)
        return vectors - vectors.mean(dim=0)


class Random(Mean):
    def __init__(self, channels):
        super().__init__(channels)
        self.weight = torch.rand(channels)  # no buffer: a bundle does not have it

    def forward(self, maps):
        return super().forward(maps) * self.weight


@pytest.mark.parametrize(
    ("pooling", "complaint"),
    [
        (Learns, "has parameters"),
        (Jumps, "does not start as average"),
        (Wider, r"gives \(5, 8\), it says \(5, 16\)"),
        (Rooted, "has a gradient that is not finite for a map of zeros"),
        (OverTheBatch, "is another one for an image alone"),
        (Random, "is another one after it was restored"),
    ],
)
def test_what_breaks_it_is_found(pooling, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_pooling(pooling)


class Unrolled(Mean):
    def forward(self, maps):
        vectors = [super(Unrolled, self).forward(one[None]) for one in maps.unbind(0)]
        return torch.cat(vectors)


def test_a_pooling_that_fixes_the_batch_is_found():
    with pytest.raises(AssertionError, match="cannot be exported for batches of any size"):
        check_pooling(Unrolled)
