"""Degrading and restoring: images of lower resolution, compressed."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsfl_tune.data.transforms._base import Transform
from gsfl_tune.data.transforms.restorer import Restorer
from gsfl_tune.experiment.data_config import AugmentConfig

# Of the shorter side, and of JPEG.
_LEAST_SIDE = 0.25
_QUALITY = (30, 95)


class Degrade(Transform):
    """Makes an image smaller, compresses it as JPEG, and makes it as large as it was.

    It is made small by Lanczos, and large again by Lanczos or by a super-resolution network, whose
    result Lanczos brings to the size of the image. The factor is drawn evenly on a logarithmic
    scale from 1 to 1/4, the quality evenly from 30 to 95. The order, and the ranges for
    photographs, are those of the first stage of the degradation of Wang et al., "Real-ESRGAN", ICCV
    Workshops 2021, without its blur and noise.

    Args:
        probability: Share of the images that are changed.
        restorer: Network that makes them large again; None for Lanczos alone.
    """

    name = "degrade"
    width = 3

    def __init__(self, probability: float, restorer: Restorer | None = None) -> None:
        self.probability = probability
        self.restorer = restorer

    @classmethod
    def of(cls, config: AugmentConfig, mean: Sequence[float]) -> Degrade | None:
        """Makes it of ``data.augment.degrade`` and ``restorer``.

        Raises:
            UserError: If the restorer cannot be had.
        """
        if config.degrade == 0:
            return None
        return cls(config.degrade, None if config.restorer is None else Restorer(config.restorer))

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images in place: on the CPU wherever they are, a network where they are."""
        for image, (chance, scale, quality) in zip(images, drawn.tolist(), strict=True):
            if chance < self.probability:
                low, high = _QUALITY
                compressed = round(low + (high - low) * quality)
                image.copy_(_degraded(image, _LEAST_SIDE**scale, compressed, self.restorer))
        return images


def _degraded(image: Tensor, scale: float, quality: int, restorer: Restorer | None) -> Tensor:
    """Degrades an image (h, w, 3) of values in 0..255; gives whole values."""
    pixels = image.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    whole = Image.fromarray(pixels)
    width, height = whole.size
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = whole.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    file.seek(0)
    with Image.open(file) as compressed:
        large: Image.Image = compressed
        if restorer is not None:
            large = Image.fromarray(restorer(np.asarray(compressed), image.device))
        restored = large.resize(whole.size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(restored))
