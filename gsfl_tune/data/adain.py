"""Swaps the channel statistics of images of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gsfl_tune.data.batch import Batch
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError

# Of a deviation: an image of one colour has none of its own.
_LEAST = 1e-3


@dataclass(frozen=True)
class StatisticsSwap:
    """Gives images the mean and the deviation of each channel of another one of the batch.

    With x the image and y the other one, ``sd(y) (x - mean(x)) / sd(x) + mean(y)``, over the
    positions of every channel: adaptive instance normalisation. Source: Huang and Belongie,
    "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", ICCV 2017,
    equation 8, there for maps of a network; of pixels it is the transfer of colours, in RGB.
    Targets stay as they are.

    Attributes:
        share: Of the images that are changed; 0 is off.
    """

    share: float = 0.0

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
        generator = streams("adain")
        count, device = len(batch), batch.labels.device
        order = torch.randperm(count, generator=generator).to(device)
        chosen = (torch.rand(count, generator=generator) < self.share).to(device)
        views = []
        for view in batch.views:
            if view.ndim != 4 or view.shape[1] != 3:
                raise UserError(
                    "training.finetune.adain: found cached activations (data.views with "
                    "training.finetune.blocks: n), allowed: 0, or images (data.views: 0)"
                )
            swapped = _swapped(view, order)
            views.append(torch.where(chosen[:, None, None, None], swapped, view))
        return replace(batch, views=tuple(views))


def _swapped(images: Tensor, order: Tensor) -> Tensor:
    values = images.float()
    mean = values.mean(dim=(2, 3), keepdim=True)
    spread = values.std(dim=(2, 3), correction=0, keepdim=True)
    found = spread[order] * (values - mean) / spread.clamp(min=_LEAST) + mean[order]
    return found.to(images.dtype)
