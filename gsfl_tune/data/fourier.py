"""Swaps the low frequencies of the amplitudes of images of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gsfl_tune.data.batch import Batch
from gsfl_tune.data.swaps import swap_images
from gsfl_tune.data.transforms import Streams


@dataclass(frozen=True)
class FourierSwap:
    """Gives images the low frequencies of the amplitude spectrum of another one of the batch.

    Source: Yang and Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020,
    between images of one data set. Phases, which hold shapes, stay; colours and illumination come
    from elsewhere. Targets stay as they are. The paper swaps amplitudes of pixels before they are
    normalised, where means are positive; of normalised images the result is the same.

    Attributes:
        share: Of the images that are changed; 0 is off.
        band: Half width of the square of frequencies, as a share of the shorter side.
    """

    share: float = 0.0
    band: float = 0.01

    def __call__(self, batch: Batch, streams: Streams) -> Batch:
        """Changes a batch, see `gsfl_tune.data.swaps.swap_images`."""
        return swap_images(
            batch,
            streams,
            name="fourier",
            share=self.share,
            change=partial(_swapped, band=self.band),
        )


def _swapped(images: Tensor, others: Tensor, band: float) -> Tensor:
    height, width = images.shape[2:]
    reach = int(band * min(height, width))
    own, theirs = (torch.fft.rfft2(each.float()) for each in (images, others))
    rows = torch.fft.fftfreq(height, 1 / height, device=images.device).abs() <= reach
    columns = torch.fft.rfftfreq(width, 1 / width, device=images.device) <= reach
    inside = rows[:, None] & columns[None]
    amplitude = torch.where(inside, theirs.abs(), own.abs())
    spectrum = torch.polar(amplitude, own.angle())
    # The mean of a channel. Of pixels it is positive, so that its amplitude is the mean itself; a
    # normalised channel may be darker than the norm, and would keep that sign. Normalising changes
    # this mean, and scales everything else.
    spectrum[..., 0, 0] = theirs[..., 0, 0]
    mixed = torch.fft.irfft2(spectrum, s=(height, width))
    return mixed.to(images.dtype).contiguous(memory_format=torch.channels_last)
