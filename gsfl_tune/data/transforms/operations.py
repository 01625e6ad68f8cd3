"""The fourteen operations of policies such as TrivialAugment and RandAugment.

Colours are changed by torchvision; images are moved by bilinear sampling, and what comes into sight
is the mean colour.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Ranges:
    """Holds the largest values of operations, at strength 1.

    Attributes:
        shear: Tangent of the angle.
        shift: Share of the side.
        angle: Degrees.
        factor: Colours are changed by the factor 1 - factor to 1 + factor.
        bits: Bits of a channel that `posterize` takes away.
    """

    shear: float
    shift: float
    angle: float
    factor: float
    bits: int


class Operations:
    """Applies operations to single images.

    Args:
        ranges: How strong they are at strength 1.
        fill: Mean of the three channels, of values in 0..255.
    """

    def __init__(self, ranges: Ranges, fill: Sequence[float]) -> None:
        self._ranges = ranges
        self._fill = torch.tensor(fill)

    def apply(self, image: Tensor, name: str, strength: float) -> Tensor:
        """Changes an image.

        Args:
            image: (h, w, 3) float32 in 0..255, square where it is moved.
            name: One of `NAMES`.
            strength: -1 to 1; of operations without a direction, the sign does not matter.
        """
        colours = _colours()
        if name in colours:
            pixels = image.permute(2, 0, 1).round().clamp(0, 255).to(torch.uint8)
            pixels = colours[name](pixels, strength, self._ranges)
            return pixels.permute(1, 2, 0).to(image.dtype)
        if name in _MOVES:
            return self._moved(image, self.matrix(name, strength, image.shape[0]))
        return image

    def matrix(self, name: str, strength: float, size: int) -> Tensor:
        """Tells where points go: (2, 3) float32, of x and y in pixels.

        Args:
            name: One of `NAMES`.
            strength: As of `apply`.
            size: Side of the image in pixels.
        """
        if name not in _MOVES:
            return torch.eye(2, 3)
        linear, shift = _MOVES[name](strength, self._ranges)
        about = torch.tensor([size / 2, size / 2])
        return torch.cat([linear, (about - linear @ about + shift * size)[:, None]], 1)

    def _moved(self, image: Tensor, matrix: Tensor) -> Tensor:
        """Samples an image (h, w, 3) where its points come from."""
        size = image.shape[0]
        inverse = torch.linalg.inv(matrix[:, :2].double())
        # From -1..1 of the result to pixels, back to where they come from, and to -1..1.
        half = size / 2
        offset = inverse @ (half - matrix[:, 2].double()) / half - 1
        theta = torch.cat([inverse, offset[:, None]], 1).float()[None].to(image.device)
        grid = functional.affine_grid(theta, [1, 3, size, size], align_corners=False)
        fill = self._fill.to(image.device)
        apart = (image - fill).permute(2, 0, 1)[None]
        sampled = functional.grid_sample(apart, grid, align_corners=False)
        return sampled[0].permute(1, 2, 0) + fill


def named(draw: float) -> str:
    """Returns the operation that a number of 0..1 draws, all evenly."""
    return NAMES[min(len(NAMES) - 1, int(draw * len(NAMES)))]


def _turn(strength: float, ranges: Ranges) -> tuple[Tensor, Tensor]:
    angle = math.radians(ranges.angle * strength)
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]]), torch.zeros(2)


_MOVES: dict[str, Callable[[float, Ranges], tuple[Tensor, Tensor]]] = {
    "shear_x": lambda s, r: (torch.tensor([[1.0, r.shear * s], [0.0, 1.0]]), torch.zeros(2)),
    "shear_y": lambda s, r: (torch.tensor([[1.0, 0.0], [r.shear * s, 1.0]]), torch.zeros(2)),
    "translate_x": lambda s, r: (torch.eye(2), torch.tensor([r.shift * s, 0.0])),
    "translate_y": lambda s, r: (torch.eye(2), torch.tensor([0.0, r.shift * s])),
    "rotate": _turn,
}


@functools.cache
def _colours() -> dict[str, Callable[[Tensor, float, Ranges], Tensor]]:
    """Operations on (3, h, w) uint8, of a strength from -1 to 1."""
    from torchvision.transforms.v2 import functional as f

    return {
        "brightness": lambda x, s, r: f.adjust_brightness(x, 1 + r.factor * s),
        "color": lambda x, s, r: f.adjust_saturation(x, 1 + r.factor * s),
        "contrast": lambda x, s, r: f.adjust_contrast(x, 1 + r.factor * s),
        "sharpness": lambda x, s, r: f.adjust_sharpness(x, 1 + r.factor * s),
        "posterize": lambda x, s, r: f.posterize(x, 8 - round(r.bits * abs(s))),
        "solarize": lambda x, s, r: f.solarize(x, 255 * (1 - abs(s))),
        "autocontrast": lambda x, s, r: f.autocontrast(x),
        "equalize": lambda x, s, r: f.equalize(x),
    }


NAMES = (
    *("identity", *_MOVES),
    *("brightness", "color", "contrast", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
"""Names of the operations, in the order of their draws."""
