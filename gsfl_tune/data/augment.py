"""Makes backbone inputs from decoded squares, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.data.image_file import square_side
from gsfl_tune.data.transforms import Streams, Transform, transforms_of
from gsfl_tune.experiment.data_config import AugmentConfig

# Random numbers of crop, flip and colour.
_BASIC = 8
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
    side = square_side(size)
    start = (side - size) // 2
    if images.shape[1] == side:
        # Nothing to resize: cut while the pixels are bytes.
        images = images[:, start : start + size, start : start + size]
        values = _channels_first(images)
    else:
        values = _resized(_channels_first(images), side)
        values = values[:, :, start : start + size, start : start + size].contiguous()
    # In place, as new memory takes longer than the arithmetic.
    center = torch.tensor(mean, device=values.device).view(1, 3, 1, 1)
    spread = torch.tensor(std, device=values.device).view(1, 3, 1, 1)
    return values.sub_(center).div_(spread)


def center_matrix(size: int, side: int) -> Tensor:
    """Returns the map of points in `center_crop`: (2, 3) float32, for x and y in pixels.

    Args:
        size: Side of the result in pixels.
        side: Side of the squares in pixels.
    """
    whole = square_side(size)
    start = (whole - size) // 2
    return torch.tensor([[whole / side, 0.0, -start], [0.0, whole / side, -start]])


class Augment:
    """Applies random resized crop, flip, colour jitter and further transforms to each image.

    A result depends only on the image's pixels and its own row of random numbers. The crop is
    resized bilinearly with antialiasing, as in torchvision's ``resized_crop``.

    Args:
        config: Strengths of the changes.
        size: Side of the result in pixels.
        mean: Mean of the three channels, of values in 0..1.
        std: Standard deviation of the three channels.

    Attributes:
        largest: Largest area of a crop, as a share of the image.
    """

    largest = 1.0

    def __init__(
        self, config: AugmentConfig, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.config = config
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)
        # Normalising is value * scale + shift, for a whole row of pixels so that the inner loop is
        # long.
        spread = torch.tensor(self.std)
        scale = (1 / (255 * spread)).repeat(size)
        shift = (-torch.tensor(self.mean) / spread).repeat(size)
        self.further = transforms_of(config, self.mean)
        self._normaliser = {torch.device("cpu"): (scale, shift)}

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augments a batch.

        Args:
            images: (B, S, S, 3) uint8.
            generator: Source of everything random.

        Returns:
            As of `apply`.
        """
        return self.apply(images, self.draw(len(images), generator))

    @staticmethod
    def draw(count: int, generator: torch.Generator) -> Tensor:
        """Draws the numbers for crop, flip and colour of `count` images: (count, 8) in 0..1."""
        # One draw of fixed size for all settings, so that settings do not shift each other's
        # numbers.
        return torch.rand((count, _BASIC), generator=generator, device=generator.device)

    def draw_rows(self, count: int, generator: torch.Generator, streams: Streams) -> Tensor:
        """Draws all random numbers for the changes of `count` images.

        Args:
            count: Number of images.
            generator: Generator for crop, flip and colour.
            streams: Generators of the further transforms, one each.

        Returns:
            (count, 8 + widths of the further transforms), uniform in 0..1.
        """
        basic = self.draw(count, generator)
        further = [each.draw(streams(each.name), count) for each in self.further]
        return torch.cat([basic, *further], 1) if further else basic

    def apply(self, images: Tensor, random: Tensor) -> Tensor:
        """Changes a batch by random numbers that were drawn before.

        Args:
            images: (B, S, S, 3) uint8.
            random: (B, 8) from `draw`; with further transforms wider, from `draw_rows`.

        Returns:
            (B, 3, size, size) float32, normalised, in the channels_last memory format.
        """
        if images.device.type == "cpu":
            out = np.empty((len(images), self.size, self.size, 3), dtype=np.float32)
            self.fill(out, images.numpy(), random.cpu())
            values = torch.from_numpy(out)
        else:
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                values = self.resample(images, random)
        return values.permute(0, 3, 1, 2)

    @torch.no_grad()
    def fill(
        self, out: np.ndarray, squares: Sequence[np.ndarray] | np.ndarray, random: Tensor
    ) -> None:
        """Changes images on the CPU, one after the other, and writes them to their places.

        Args:
            out: (B, size, size, 3) float32, contiguous; overwritten.
            squares: B times (S, S, 3) uint8; may be views of a memory map.
            random: As for `apply`.
        """
        boxes = self._pixels(random, len(squares[0])).tolist()
        flips = (random[:, 4] < 0.5).tolist() if self.config.flip else [False] * len(out)
        scale, shift = self._normaliser[torch.device("cpu")]
        rows = torch.from_numpy(out).view(len(out), self.size, self.size * 3)
        for place, (left, top, right, bottom) in enumerate(boxes):
            crop = torch.from_numpy(squares[place][top:bottom, left:right].copy())
            # In this form the crop counts as channels_last, for which torch has a fast path.
            pixels = functional.interpolate(
                crop[None].permute(0, 3, 1, 2),
                size=(self.size, self.size),
                mode="bilinear",
                align_corners=False,
                antialias=True,
            ).permute(0, 2, 3, 1)
            if flips[place]:
                pixels = pixels.flip(2)
            row = rows[place]
            row.copy_(pixels.reshape(row.shape))
            if self.config.color > 0:
                _jitter(row.view(1, -1, 3), random[place : place + 1, 5:8], self.config.color)
            if self.further:
                image = row.view(1, self.size, self.size, 3)
                row.copy_(self._changed(image, random[place : place + 1]).reshape(row.shape))
            torch.addcmul(shift, row, scale, out=row)

    def matrices(self, random: Tensor, side: int) -> Tensor:
        """Returns the maps of points in the squares: (B, 2, 3) float32, for x and y in pixels.

        Args:
            random: As for `apply`.
            side: Side of the squares in pixels.
        """
        boxes = self._pixels(random, side).float()
        scale = self.size / (boxes[:, 2:] - boxes[:, :2])
        found = torch.zeros(len(random), 2, 3)
        found[:, 0, 0], found[:, 1, 1] = scale[:, 0], scale[:, 1]
        found[:, :, 2] = -boxes[:, :2] * scale
        if self.config.flip:
            turned = random[:, 4] < 0.5
            found[turned, 0, 0] *= -1
            found[turned, 0, 2] = self.size - found[turned, 0, 2]
        for each, drawn in self._drawn(random):
            after = each.matrices(drawn, self.size)
            found[:, :, 2] = (after[:, :, :2] @ found[:, :, 2:])[:, :, 0] + after[:, :, 2]
            found[:, :, :2] = after[:, :, :2] @ found[:, :, :2]
        return found

    def _drawn(self, random: Tensor) -> list[tuple[Transform, Tensor]]:
        """Returns the further transforms with their columns of a row."""
        widths = [each.width for each in self.further]
        return list(zip(self.further, random[:, _BASIC:].split(widths, 1), strict=True))

    def _changed(self, images: Tensor, random: Tensor) -> Tensor:
        """Applies the further transforms to (B, size, size, 3) float32 in 0..255."""
        for each, drawn in self._drawn(random):
            images = each.apply(images, drawn)
        return images

    def _pixels(self, random: Tensor, side: int) -> Tensor:
        """Returns (B, 4) int64 boxes in whole pixels: left, top, right, bottom."""
        # In double precision. The rounding of a logarithm may depend on an image's place in the
        # batch, and must not decide between two pixels.
        own = self.config
        boxes = crop_boxes(random[:, :4].double(), own.scale, own.ratio, self.largest)
        start = (boxes[:, :2] * side).round().clamp(max=side - 1)
        stop = ((boxes[:, :2] + boxes[:, 2:]) * side).round().clamp(max=side)
        return torch.cat([start, torch.maximum(stop, start + 1)], dim=1).long()

    def resample(self, images: Tensor, random: Tensor) -> Tensor:
        """Does the same as `fill` for a batch on any device: (B, size, size, 3) float32.

        Args:
            images: (B, S, S, 3) uint8.
            random: As for `apply`.
        """
        pixels = self._pixels(random, images.shape[1])
        # One upload of boxes, flips and colours, which does not wait for the GPU.
        plan = torch.cat([pixels.float(), random[:, 4:_BASIC]], dim=1)
        if images.device.type == "cuda" and plan.device.type == "cpu":
            plan = plan.pin_memory()
        plan = plan.to(images.device, non_blocking=True)
        left, top, right, bottom = plan[:, :4].unbind(1)
        across = _filters(left, right, images.shape[2], self.size)
        down = _filters(top, bottom, images.shape[1], self.size)
        if self.config.flip:
            across = torch.where((plan[:, 4] < 0.5)[:, None, None], across.flip(1), across)
        values = torch.einsum("bijc,bxj->bixc", images.float(), across)
        values = torch.einsum("bixc,byi->byxc", values, down).contiguous()
        if self.config.color > 0:
            _jitter(values.view(len(values), -1, 3), plan[:, 5:], self.config.color)
        if self.further:
            values = self._changed(values, random.cpu()).contiguous()
        rows = values.view(len(values), self.size, -1)
        if rows.device not in self._normaliser:
            scale, shift = self._normaliser[torch.device("cpu")]
            self._normaliser[rows.device] = (scale.to(rows.device), shift.to(rows.device))
        scale, shift = self._normaliser[rows.device]
        return torch.addcmul(shift, rows, scale).view_as(values)


def crop_boxes(random: Tensor, scale: float, ratio: float, largest: float = 1.0) -> Tensor:
    """Returns boxes of random area, aspect and place inside the unit square.

    Args:
        random: (B, 4), uniform in 0..1.
        scale: Smallest share of the area.
        ratio: Largest aspect ratio, width over height; the smallest is its inverse.
        largest: Largest share of the area.

    Returns:
        (B, 4): left, top, width, height in 0..1.
    """
    area = scale + (largest - scale) * random[:, 0]
    aspect = torch.exp((2 * random[:, 1] - 1) * math.log(ratio))
    # A box must fit: no side may exceed 1, so large areas have aspects near 1.
    aspect = torch.minimum(torch.maximum(aspect, area), 1 / area)
    width = torch.sqrt(area * aspect)
    height = torch.sqrt(area / aspect)
    left = random[:, 2] * (1 - width)
    top = random[:, 3] * (1 - height)
    return torch.stack([left, top, width, height], dim=1)


def _channels_first(images: Tensor) -> Tensor:
    """Converts (B, S, S, 3) uint8 to (B, 3, S, S) float32 in 0..1."""
    values = images.permute(0, 3, 1, 2)
    return values.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _resized(values: Tensor, side: int) -> Tensor:
    values = functional.interpolate(
        values, size=(side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return values.clamp_(0, 1)


def _filters(start: Tensor, stop: Tensor, side: int, size: int) -> Tensor:
    """Returns weights (B, size, side) that resize pixels start to stop, (B,) each, to `size`."""
    pixel = torch.arange(side, device=start.device) + 0.5
    scale = ((stop - start) / size)[:, None]
    center = start[:, None] + scale * (torch.arange(size, device=start.device) + 0.5)
    distance = (pixel - center[:, :, None]).abs() / scale.clamp(min=1)[:, :, None]
    weights = (1 - distance).clamp(min=0)
    inside = (pixel > start[:, None]) & (pixel < stop[:, None])
    weights = weights * inside[:, None, :]
    return weights / weights.sum(2, keepdim=True)


def _jitter(values: Tensor, random: Tensor, strength: float) -> None:
    """Changes brightness, contrast and saturation by factors of 1 - strength to 1 + strength.

    Args:
        values: (B, pixels, 3) float32 in 0..255; changed in place.
        random: (B, 3), uniform in 0..1.
        strength: 0..1.
    """
    factor = (1 + strength * (2 * random - 1))[:, :, None, None]
    weights = torch.tensor(_GREY, device=values.device)
    values.mul_(factor[:, 0]).clamp_(0, 255)
    mean = (values.mean(1) @ weights)[:, None, None]
    values.mul_(factor[:, 1]).add_((1 - factor[:, 1]) * mean).clamp_(0, 255)
    # value * factor + grey * (1 - factor) for the three channels of a pixel, as one product.
    keep = factor[:, 2] * torch.eye(3, device=values.device)
    mix = keep + (1 - factor[:, 2]) * weights[:, None]
    values.copy_((values @ mix).clamp_(0, 255))
