"""Swapping low frequencies of amplitudes, against the transform written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.data.fourier import FourierSwap
from gsfl_tune.data.transforms import Streams


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
