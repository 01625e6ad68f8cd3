"""Swapping low frequencies of amplitudes, against the transform written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.data.fourier import FourierSwap
from gsfl_tune.data.transforms import Streams

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixels(count=6, height=12, width=9):
    """Images in 0..1 of which some are darker than the mean of the norm and some are brighter."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(count, 3, height, width, generator=generator)
    return drawn * torch.linspace(0.3, 1, count)[:, None, None, None]


def of(images):
    """A batch of pixels, normalised as augmentation does."""
    center, spread = (torch.tensor(each)[:, None, None] for each in (MEAN, SPREAD))
    labels = torch.arange(len(images))
    return Batch(((images - center) / spread,), Targets(labels), labels)


def swapped(own, theirs, reach):
    """The paper's equations for one channel of pixels, written out."""
    own, theirs = (np.fft.fftshift(np.fft.fft2(each.double().numpy())) for each in (own, theirs))
    amplitude = np.abs(own)
    middle = [side // 2 for side in own.shape]
    for row in range(own.shape[0]):
        for column in range(own.shape[1]):
            if abs(row - middle[0]) <= reach and abs(column - middle[1]) <= reach:
                amplitude[row, column] = abs(theirs[row, column])
    found = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(own))))
    assert np.abs(found.imag).max() < 1e-9
    return found.real


@pytest.mark.parametrize("band", [0.01, 0.25])
def test_low_amplitudes_of_the_pixels_come_from_another_image_and_phases_stay(band):
    images = pixels()
    batch = of(images)
    found = FourierSwap(1.0, band)(batch, Streams(3))
    order = torch.randperm(6, generator=Streams(3)("fourier")).tolist()
    for place, other in enumerate(order):
        for channel in range(3):
            expected = swapped(images[place, channel], images[other, channel], int(band * 9))
            pixel = found.inputs[place, channel] * SPREAD[channel] + MEAN[channel]
            np.testing.assert_allclose(pixel.numpy(), expected, atol=1e-5)
    assert found.targets == batch.targets


def test_an_image_gets_the_mean_colour_of_the_other_one():
    """The means of some images lie below the norm's, those of others above it."""
    batch = of(pixels())
    means = batch.inputs.mean((2, 3))
    assert (means < 0).any()
    assert (means > 0).any()
    found = FourierSwap(1.0)(batch, Streams(3)).inputs.mean((2, 3))
    order = torch.randperm(6, generator=Streams(3)("fourier"))
    torch.testing.assert_close(found, means[order], atol=1e-5, rtol=1e-5)
