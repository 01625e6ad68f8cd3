"""A small decoder: images of representations."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

# Side of the first map. From there on every layer doubles it.
_START = 4
_LARGEST = 64
# Most channels of a map, as a multiple of the last one's.
_MOST = 8


class Decoder(nn.Module):
    """Makes an image of a vector: a linear layer, then resizing and 3 x 3 convolutions.

    Nearest resizing with a convolution, not a transposed one, leaves no checkerboard (Odena et al.,
    Distill 2016).

    Args:
        channels: Size C of a vector.
        size: Side of the images in pixels.
        width: Channels in front of the last layer; maps of half the side have twice as many.
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        sides = [size]
        while sides[0] > _START:
            sides.insert(0, -(-sides[0] // 2))
        self.sides = sides
        widths = [width * min(2 ** (len(sides) - 1 - n), _MOST) for n in range(len(sides))]
        self.start = nn.Linear(channels, widths[0] * sides[0] ** 2)
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
            )
            for before, after in itertools.pairwise(widths)
        )
        self.end = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns images (B, 3, size, size), normalised, of vectors (B, C)."""
        maps = self.start(vectors).view(len(vectors), -1, self.sides[0], self.sides[0])
        for side, step in zip(self.sides[1:], self.steps, strict=True):
            maps = step(functional.interpolate(maps, size=(side, side), mode="nearest"))
        images: Tensor = self.end(maps)
        return images


def decoded_size(size: int | None, image_size: int) -> int:
    """Returns the side of decoded images: as given, or half of the image size, at most 64."""
    return size if size is not None else max(8, min(_LARGEST, image_size // 2))


def resized(images: Tensor, size: int) -> Tensor:
    """Returns images (B, 3, s, s) with another side, bilinear and antialiased when they shrink."""
    if images.shape[-1] == size:
        return images
    shrinks = size < images.shape[-1]
    found: Tensor = functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks
    )
    return found.contiguous(memory_format=torch.channels_last)
