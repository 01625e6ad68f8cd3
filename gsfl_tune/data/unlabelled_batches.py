"""Weakly and strongly changed views of images without labels."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.data.augment import Augment
from gsfl_tune.data.batch_share import WHOLE_BATCH, BatchShare
from gsfl_tune.data.decoded import DecodedImages
from gsfl_tune.data.loader import Draw, augmented
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.data_config import AugmentConfig

# Its random numbers are of their own, and so no image of the labelled ones changes.
_STREAM = zlib.crc32(b"unlabelled")
# Smallest share of an image in a weak view, as shifts by an eighth of the sides leave it.
_WEAK_SCALE = 0.875**2


def weakened(config: AugmentConfig) -> AugmentConfig:
    """Returns the weak changes: nearly the whole image, and the flip where there is one.

    The published ones are a flip and shifts of up to 12.5 % of the image's sides.
    """
    return AugmentConfig(scale=max(config.scale, _WEAK_SCALE), ratio=1.0, flip=config.flip)


class WeakAndStrong(Augment):
    """Changes images weakly (`weakened`) or as configured, by the last number of their row.

    Args:
        config: Strengths of the strong changes.
        size: Side of the result in pixels.
        mean: Mean of the three channels, of values in 0..1.
        std: Standard deviation of the three channels.
    """

    def __init__(
        self, config: AugmentConfig, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(config, size, mean, std)
        self._weak = Augment(weakened(config), size, mean, std)

    def draw_views(self, count: int, streams: Streams) -> Tensor:
        """Draws the random numbers of both views of images: (2, count, width), weak ones first."""
        generator = streams("unlabelled")
        rows = [self.draw_rows(count, generator, streams) for _ in range(2)]
        marks = torch.arange(2.0).repeat_interleave(count)[:, None]
        return torch.cat([torch.cat(rows), marks], 1).unflatten(0, (2, count))

    def fill(
        self, out: np.ndarray, squares: Sequence[np.ndarray] | np.ndarray, random: Tensor
    ) -> None:
        """Changes images as `Augment.fill` does; rows of weak views come first."""
        weak = int((random[:, -1] == 0).sum())
        if weak:
            self._weak.fill(out[:weak], squares[:weak], random[:weak, :-1])
        if weak < len(out):
            super().fill(out[weak:], squares[weak:], random[weak:, :-1])

    def apply(self, images: Tensor, random: Tensor) -> Tensor:
        """Changes a batch of one strength."""
        if images.device.type == "cpu":
            return super().apply(images, random)  # which fills
        strong = bool(random[0, -1])
        rows = random[:, :-1]
        return super().apply(images, rows) if strong else self._weak.apply(images, rows)


def unlabelled_batches(
    images: DecodedImages,
    *,
    batches: int,
    size: int,
    each: int,
    seed: int,
    epoch: int,
    transform: WeakAndStrong,
    device: torch.device | str,
    share: BatchShare = WHOLE_BATCH,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields both views of images without labels, for the batches of an epoch.

    Every image is shown once before one is shown again.

    Args:
        images: The images.
        batches: Number of batches.
        size: Labelled images of a batch, of all processes.
        each: Images without labels for each of them.
        seed: Seed of the training.
        epoch: Number of the epoch.
        transform: Changes of the images.
        device: Device of the views.
        share: This process' part of the labelled images, and so of the others.

    Yields:
        Weak and strong view, each (B * each, 3, h, w) float32.
    """
    streams = Streams(seed, epoch, _STREAM)
    wanted = batches * size * each
    order = streams("order")
    rounds = -(-wanted // len(images))
    shown = torch.cat([torch.randperm(len(images), generator=order) for _ in range(rounds)])
    own = share.of(size)
    mine = slice(own.start * each, own.stop * each)

    def drawn() -> Iterator[Draw]:
        for positions in shown[:wanted].split(size * each):
            random = transform.draw_views(len(positions), streams)
            yield positions[mine].numpy(), random[:, mine]

    for batch in augmented(images, drawn(), transform, torch.device(device), None, None):
        weak, strong = batch.views
        yield weak, strong
