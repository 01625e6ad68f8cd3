"""Swapping low frequencies of amplitudes, against the transform written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.data.fourier import FourierSwap
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError


def made(count=6, height=12, width=9, channels=3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count)
    images = torch.randn(count, channels, height, width, generator=generator)
    return Batch((images,), Targets(labels), labels)


@pytest.mark.parametrize("band", [0.01, 0.25])
def test_low_amplitudes_come_from_another_image_and_phases_stay(band):
    batch = made()
    found = FourierSwap(1.0, band)(batch, Streams(3))
    streams = Streams(3)
    order = torch.randperm(6, generator=streams("fourier")).tolist()
    reach = int(band * 9)
    for place, other in enumerate(order):
        for channel in range(3):
            own, theirs = (
                np.fft.fftshift(np.fft.fft2(batch.inputs[i, channel].double().numpy()))
                for i in (place, other)
            )
            amplitude = np.abs(own)
            for row in range(12):
                for column in range(9):
                    if abs(row - 6) <= reach and abs(column - 4) <= reach:
                        amplitude[row, column] = abs(theirs[row, column])
            spectrum = np.fft.ifftshift(amplitude * np.exp(1j * np.angle(own)))
            expected = np.fft.ifft2(spectrum)
            assert np.abs(expected.imag).max() < 1e-9
            np.testing.assert_allclose(
                found.inputs[place, channel].numpy(), expected.real, atol=1e-5
            )
    assert found.targets == batch.targets


def test_a_share_of_the_images_is_changed_in_all_views_alike_and_nothing_without():
    one = made(200)
    batch = Batch((one.inputs, one.inputs.flip(3)), one.targets, one.positions)
    swap, streams = FourierSwap(0.3, 0.2), Streams(1)
    found = swap(batch, streams)
    changed = [
        (new != old).flatten(1).any(1) for new, old in zip(found.views, batch.views, strict=True)
    ]
    assert torch.equal(*changed)
    assert float(changed[0].float().mean()) == pytest.approx(0.3, abs=0.08)
    # It goes on with its numbers, and begins again with the epoch.
    assert not torch.equal(swap(batch, streams).views[0], found.views[0])
    assert torch.equal(swap(batch, Streams(1)).views[0], found.views[0])
    assert FourierSwap()(batch, Streams(1)) is batch


def test_activations_have_no_colours():
    with pytest.raises(UserError, match=r"training\.finetune\.fourier: found cached activations"):
        FourierSwap(0.5)(made(channels=8), Streams(0))
