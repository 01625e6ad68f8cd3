"""Swaps the channel statistics of images of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gsfl_tune.data.batch import Batch
from gsfl_tune.data.swaps import swap_images
from gsfl_tune.data.transforms import Streams

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
        """Changes a batch, see `gsfl_tune.data.swaps.swap_images`."""
        return swap_images(batch, streams, name="adain", share=self.share, change=_swapped)


def _swapped(images: Tensor, others: Tensor) -> Tensor:
    own, theirs = images.float(), others.float()
    mean, spread = _statistics(own)
    their_mean, their_spread = _statistics(theirs)
    found = their_spread * (own - mean) / spread.clamp(min=_LEAST) + their_mean
    return found.to(images.dtype)


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    return (
        values.mean(dim=(2, 3), keepdim=True),
        values.std(dim=(2, 3), correction=0, keepdim=True),
    )
