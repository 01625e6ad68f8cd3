"""The contract holds for every transform that is built in, and finds what breaks it."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.data.transforms import (
    Degrade,
    RandAugment,
    RandomErasing,
    Transform,
    TrivialAugment,
)
from gsfl_tune.data.transforms.blur import Blur
from gsfl_tune.data.transforms.grey import Grey
from gsfl_tune.testing import check_transform

FILL = (120.0, 110.0, 100.0)


@pytest.mark.parametrize(
    "create",
    [
        lambda: RandomErasing(0.6, FILL),
        lambda: TrivialAugment(FILL),
        lambda: RandAugment(2, 15, FILL),
        lambda: Degrade(0.6),
        lambda: Blur(0.6),
        lambda: Grey(0.6),
    ],
    ids=["erasing", "trivial", "rand", "degrade", "blur", "grey"],
)
def test_transforms_that_are_built_in_keep_the_contract(create):
    check_transform(create)


class Darker(Transform):
    """A sound transform to break."""

    name = "darker"
    width = 2

    def apply(self, images, drawn):
        return images * (1 - 0.5 * drawn[:, 0])[:, None, None, None]


def test_a_sound_transform_passes():
    check_transform(Darker)


class Narrow(Darker):
    def draw(self, generator, count):
        return torch.rand((count, 1), generator=generator)


class Restless(Darker):
    def draw(self, generator, count):
        return torch.rand((count, 2))


class Wandering(Darker):
    """Draws other numbers every time."""

    def __init__(self):
        self.calls = 0

    def draw(self, generator, count):
        self.calls += 1
        return (super().draw(generator, count) + self.calls / 7) % 1


class Brighter(Darker):
    def apply(self, images, drawn):
        return images * 3


class Halves(Darker):
    def apply(self, images, drawn):
        return super().apply(images, drawn).half()


class Whole(Darker):
    """Looks at the batch."""

    def apply(self, images, drawn):
        return images.mean(0, keepdim=True) * 0.5 + images * 0.5


class Counting(Darker):
    """Looks at the place in the batch."""

    def apply(self, images, drawn):
        return images * (torch.arange(len(images)) / len(images))[:, None, None, None]


class Random(Darker):
    def apply(self, images, drawn):
        return images * torch.rand(())


class Nowhere(Darker):
    def matrices(self, drawn, size):
        return torch.eye(2, 3)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Narrow, r"draws \(12, 1\), allowed is \(12, 2\)"),
        (Restless, "other numbers from the same generator"),
        (Wandering, "other numbers beside another transform"),
        (Brighter, "values from"),
        (Halves, "float16, allowed is torch.float32"),
        (Random, "other images for the same numbers"),
        (Whole, "otherwise when it is alone"),
        (Counting, "otherwise when it is alone"),
        (Nowhere, "matrices of the shape"),
    ],
)
def test_what_breaks_the_contract_is_said(kind, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_transform(kind)
