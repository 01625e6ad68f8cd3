"""TrivialAugment."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.data.transforms._base import Transform
from gsfl_tune.experiment.data_config import AugmentConfig

_BINS = 31
# Their largest values, of the "wide" space. Translations are shares of 224 pixels, as published
# numbers are pixels of ImageNet's crops.
_SHEAR, _SHIFT, _ANGLE, _FACTOR = 0.99, 32 / 224, 135.0, 0.99
_Colour = Callable[[Tensor, float], Tensor]


class TrivialAugment(Transform):
    """Applies one operation, drawn evenly of 14, at a strength that is drawn evenly of 31.

    Source: Mueller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
    Augmentation", ICCV 2021, wide space. Colours are changed by torchvision; images are moved by
    bilinear sampling, and what comes into sight is the mean colour.

    Args:
        fill: Mean of the three channels, of values in 0..255.
    """

    name = "trivial"
    width = 3

    def __init__(self, fill: Sequence[float]) -> None:
        self._fill = torch.tensor(fill)

    @classmethod
    def of(cls, config: AugmentConfig, mean: Sequence[float]) -> TrivialAugment | None:
        """Makes it of ``data.augment.policy``."""
        return cls([255 * value for value in mean]) if config.policy == "trivial" else None

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images one by one."""
        colours = _colours()
        matrices = self.matrices(drawn, images.shape[1])
        rows = [_decoded(row) for row in drawn.tolist()]
        changed = []
        for image, matrix, (name, strength, sign) in zip(images, matrices, rows, strict=True):
            if name in colours:
                pixels = image.permute(2, 0, 1).round().clamp(0, 255).to(torch.uint8)
                pixels = colours[name](pixels, sign * strength)
                changed.append(pixels.permute(1, 2, 0).to(image.dtype))
            elif name in _MOVES:
                changed.append(self._moved(image, matrix))
            else:
                changed.append(image)
        return torch.stack(changed)

    def matrices(self, drawn: Tensor, size: int) -> Tensor:
        """Tells where points go."""
        found = torch.eye(2, 3).repeat(len(drawn), 1, 1)
        middle = size / 2
        for place, row in enumerate(drawn.tolist()):
            name, strength, sign = _decoded(row)
            if name not in _MOVES:
                continue
            linear, shift = _MOVES[name](sign * strength)
            about = torch.tensor([middle, middle])
            found[place, :, :2] = linear
            found[place, :, 2] = about - linear @ about + shift * size
        return found

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


def _decoded(row: Sequence[float]) -> tuple[str, float, float]:
    """The operation, its strength 0..1, and its sign."""
    which, how, sign = row
    name = _NAMES[min(len(_NAMES) - 1, int(which * len(_NAMES)))]
    return name, min(_BINS - 1, int(how * _BINS)) / (_BINS - 1), 1.0 if sign < 0.5 else -1.0


def _turn(strength: float) -> tuple[Tensor, Tensor]:
    angle = math.radians(_ANGLE * strength)
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]]), torch.zeros(2)


_MOVES: dict[str, Callable[[float], tuple[Tensor, Tensor]]] = {
    "shear_x": lambda s: (torch.tensor([[1.0, _SHEAR * s], [0.0, 1.0]]), torch.zeros(2)),
    "shear_y": lambda s: (torch.tensor([[1.0, 0.0], [_SHEAR * s, 1.0]]), torch.zeros(2)),
    "translate_x": lambda s: (torch.eye(2), torch.tensor([_SHIFT * s, 0.0])),
    "translate_y": lambda s: (torch.eye(2), torch.tensor([0.0, _SHIFT * s])),
    "rotate": _turn,
}


@functools.cache
def _colours() -> dict[str, _Colour]:
    """Operations on (3, h, w) uint8, of a strength from -1 to 1."""
    from torchvision.transforms.v2 import functional as f

    return {
        "brightness": lambda x, s: f.adjust_brightness(x, 1 + _FACTOR * s),
        "color": lambda x, s: f.adjust_saturation(x, 1 + _FACTOR * s),
        "contrast": lambda x, s: f.adjust_contrast(x, 1 + _FACTOR * s),
        "sharpness": lambda x, s: f.adjust_sharpness(x, 1 + _FACTOR * s),
        "posterize": lambda x, s: f.posterize(x, 8 - round(6 * abs(s))),
        "solarize": lambda x, s: f.solarize(x, 255 * (1 - abs(s))),
        "autocontrast": lambda x, s: f.autocontrast(x),
        "equalize": lambda x, s: f.equalize(x),
    }


_NAMES = (
    *("identity", *_MOVES),
    *("brightness", "color", "contrast", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
