"""From squares of bytes to what a backbone sees, a batch at a time, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.data.single import square_side
from gsfl_tune.experiment.config import AugmentConfig

_GREY = (0.299, 0.587, 0.114)


def center_crop(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resizes squares to 1.15 x ``size`` and cuts out the centre.

    The field of view is the same at every size.

    Args:
        images: (B, S, S, 3) uint8.
        size: Side of the result in pixels.
        mean: Mean of the three channels, of values in 0..1.
        std: Standard deviation of the three channels.

    Returns:
        (B, 3, size, size) float32, normalised.
    """
    values = _resized(_channels_first(images), square_side(size))
    start = (values.shape[-1] - size) // 2
    values = values[:, :, start : start + size, start : start + size]
    return _normalised(values, mean, std)


class Augment:
    """Random resized crop, flip and colour jitter, different for every image of a batch.

    Everything random is drawn from the generator of the call, on its device, so that the
    same generator gives the same images on every device.

    Args:
        config: How strong.
        size: Side of the result in pixels.
        mean: Mean of the three channels, of values in 0..1.
        std: Standard deviation of the three channels.
    """

    def __init__(
        self, config: AugmentConfig, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.config = config
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augments a batch.

        Args:
            images: (B, S, S, 3) uint8.
            generator: Source of everything random.

        Returns:
            (B, 3, size, size) float32, normalised.
        """
        return self.apply(images, self.draw(len(images), generator))

    @staticmethod
    def draw(count: int, generator: torch.Generator) -> Tensor:
        """What decides how `count` images change: (count, 8), uniform in 0..1."""
        # One draw of fixed size, whatever is switched on: settings do not shift each other.
        return torch.rand((count, 8), generator=generator, device=generator.device)

    def apply(self, images: Tensor, random: Tensor) -> Tensor:
        """Changes a batch in a way that was drawn before.

        Args:
            images: (B, S, S, 3) uint8.
            random: (B, 8), of `draw`.

        Returns:
            (B, 3, size, size) float32, normalised.
        """
        random = random.to(images.device)
        # Shrink first where it is by much: sampling a grid alone would alias. A crop is at
        # most 1.15 x size then.
        values = _channels_first(images)
        if values.shape[-1] > square_side(self.size):
            values = _resized(values, square_side(self.size))
        boxes = crop_boxes(random[:, :4], self.config.scale, self.config.ratio)
        values = self._crop(values, boxes, random[:, 4] < 0.5 if self.config.flip else None)
        if self.config.color > 0:
            values = _jitter(values, random[:, 5:8], self.config.color)
        return _normalised(values, self.mean, self.std)

    def _crop(self, values: Tensor, boxes: Tensor, flip: Tensor | None) -> Tensor:
        left, top, width, height = boxes.unbind(1)
        direction = torch.ones_like(width)
        if flip is not None:
            direction = torch.where(flip, -direction, direction)
        # Grid coordinates run from -1 to 1 over the image.
        theta = torch.zeros((len(values), 2, 3), device=values.device)
        theta[:, 0, 0] = width * direction
        theta[:, 1, 1] = height
        theta[:, 0, 2] = 2 * left + width - 1
        theta[:, 1, 2] = 2 * top + height - 1
        grid = functional.affine_grid(
            theta, [len(values), 3, self.size, self.size], align_corners=False
        )
        return functional.grid_sample(
            values, grid, mode="bilinear", padding_mode="border", align_corners=False
        )


def crop_boxes(random: Tensor, scale: float, ratio: float) -> Tensor:
    """Boxes of random area, aspect and place inside the unit square.

    Args:
        random: (B, 4), uniform in 0..1.
        scale: Smallest share of the area; the largest is 1.
        ratio: Largest aspect ratio, width over height; the smallest is its inverse.

    Returns:
        (B, 4): left, top, width, height in 0..1.
    """
    area = scale + (1 - scale) * random[:, 0]
    aspect = torch.exp((2 * random[:, 1] - 1) * math.log(ratio))
    # A box must fit: no side may exceed 1, so large areas have aspects near 1.
    aspect = torch.minimum(torch.maximum(aspect, area), 1 / area)
    width = torch.sqrt(area * aspect)
    height = torch.sqrt(area / aspect)
    left = random[:, 2] * (1 - width)
    top = random[:, 3] * (1 - height)
    return torch.stack([left, top, width, height], dim=1)


def _channels_first(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32 in 0..1."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255


def _resized(values: Tensor, side: int) -> Tensor:
    if values.shape[-1] == side:
        return values
    values = functional.interpolate(
        values, size=(side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return values.clamp(0, 1)


def _normalised(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    center = torch.tensor(mean, device=values.device).view(1, 3, 1, 1)
    spread = torch.tensor(std, device=values.device).view(1, 3, 1, 1)
    return ((values - center) / spread).contiguous()


def _jitter(values: Tensor, random: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation, each by a factor of 1 - strength to 1 + strength."""
    factor = (1 + strength * (2 * random - 1)).view(-1, 3, 1, 1, 1)
    weights = torch.tensor(_GREY, device=values.device).view(1, 3, 1, 1)
    values = (values * factor[:, 0]).clamp(0, 1)
    mean = (values * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    values = (mean + (values - mean) * factor[:, 1]).clamp(0, 1)
    grey = (values * weights).sum(1, keepdim=True)
    return (grey + (values - grey) * factor[:, 2]).clamp(0, 1)
