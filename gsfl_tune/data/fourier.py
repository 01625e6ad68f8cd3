"""Swaps the low frequencies of the amplitudes of images of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gsfl_tune.data.batch import Batch
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError


@dataclass(frozen=True)
class FourierSwap:
    """Gives images the low frequencies of the amplitude spectrum of another one of the batch.

    Source: Yang and Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020,
    between images of one data set. Phases, which hold shapes, stay; colours and illumination come
    from elsewhere. Targets stay as they are.

    Attributes:
        share: Of the images that are changed; 0 is off.
        band: Half width of the square of frequencies, as a share of the shorter side.
    """

    share: float = 0.0
    band: float = 0.01

    def __call__(self, batch: Batch, streams: Streams) -> Batch:
        """Changes a share of the images of a batch, all their views alike.

        Args:
            batch: Of normalised images (B, 3, h, w).
            streams: Of the epoch; one of them is for this, and every batch goes on with it.

        Raises:
            UserError: If the views are not images.
        """
        if self.share <= 0:
            return batch
        generator = streams("fourier")
        count, device = len(batch), batch.labels.device
        order = torch.randperm(count, generator=generator).to(device)
        chosen = (torch.rand(count, generator=generator) < self.share).to(device)
        views = []
        for view in batch.views:
            if view.ndim != 4 or view.shape[1] != 3:
                raise UserError(
                    "training.finetune.fourier: found cached activations (data.views with "
                    "training.finetune.blocks: n), allowed: 0, or images (data.views: 0)"
                )
            swapped = _swapped(view, view[order], self.band)
            views.append(torch.where(chosen[:, None, None, None], swapped, view))
        return replace(batch, views=tuple(views))


def _swapped(images: Tensor, others: Tensor, band: float) -> Tensor:
    height, width = images.shape[2:]
    reach = int(band * min(height, width))
    own, theirs = (torch.fft.rfft2(each.float()) for each in (images, others))
    rows = torch.fft.fftfreq(height, 1 / height, device=images.device).abs() <= reach
    columns = torch.fft.rfftfreq(width, 1 / width, device=images.device) <= reach
    inside = rows[:, None] & columns[None]
    amplitude = torch.where(inside, theirs.abs(), own.abs())
    mixed = torch.fft.irfft2(torch.polar(amplitude, own.angle()), s=(height, width))
    return mixed.to(images.dtype).contiguous(memory_format=torch.channels_last)
