"""What images get of others of their batch: whom it changes, and what is refused."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.data.adain import StatisticsSwap
from gsfl_tune.data.fourier import FourierSwap
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError

SWAPS = {"adain": StatisticsSwap, "fourier": lambda share=0.0: FourierSwap(share, 0.2)}


def made(count, channels=3):
    images = torch.randn(count, channels, 12, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count)
    return Batch((images, images.flip(3)), Targets(labels), labels)


@pytest.mark.parametrize("make", SWAPS.values(), ids=SWAPS)
def test_a_share_of_the_images_is_changed_in_all_views_alike_and_nothing_without(make):
    batch, streams, swap = made(200), Streams(1), make(0.3)
    found = swap(batch, streams)
    changed = [
        (new != old).flatten(1).any(1) for new, old in zip(found.views, batch.views, strict=True)
    ]
    assert torch.equal(*changed)
    assert float(changed[0].float().mean()) == pytest.approx(0.3, abs=0.08)
    # It goes on with its numbers, and begins again with the epoch.
    assert not torch.equal(swap(batch, streams).views[0], found.views[0])
    assert torch.equal(swap(batch, Streams(1)).views[0], found.views[0])
    assert make()(batch, Streams(1)) is batch


@pytest.mark.parametrize(("name", "make"), SWAPS.items(), ids=SWAPS)
def test_activations_are_refused(name, make):
    message = rf"training\.finetune\.{name}: found cached activations"
    with pytest.raises(UserError, match=message):
        make(0.5)(made(6, channels=8), Streams(0))
