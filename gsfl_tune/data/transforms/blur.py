"""Views that are out of focus."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.data.transforms._base import Transform

# Deviations as a share of the side: those of MoCo v2 and SimCLR, 0.1 to 2 pixels of 224.
_DEVIATIONS = (0.1 / 224, 2.0 / 224)


class Blur(Transform):
    """Blurs images with a Gaussian whose deviation is drawn evenly, 0.1 to 2 pixels at 224 px.

    Source: Chen et al., "Improved Baselines with Momentum Contrastive Learning", arXiv 2003.04297.

    Args:
        probability: Share of the images that are changed.
    """

    name = "blur"
    width = 2

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images in place."""
        chosen = (drawn[:, 0] < self.probability).nonzero()[:, 0]
        if len(chosen):
            low, high = (share * images.shape[1] for share in _DEVIATIONS)
            deviations = (low + (high - low) * drawn[chosen, 1]).to(images.device)
            places = chosen.to(images.device)
            images[places] = blurred(images[places], deviations, reach=max(1, round(3 * high)))
        return images


def blurred(images: Tensor, deviations: Tensor, reach: int) -> Tensor:
    """Convolves images with Gaussians; their borders are mirrored.

    Args:
        images: (B, h, w, C) float32.
        deviations: (B,), in pixels.
        reach: Pixels to each side that are summed over, the same for all, so that an image does not
            depend on its batch.

    Returns:
        As `images`.
    """
    count, height, width, channels = images.shape
    reach = min(reach, height - 1, width - 1)
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / deviations[:, None]) ** 2)
    kernels = kernels / kernels.sum(1, keepdim=True)
    kernels = kernels.repeat_interleave(channels, 0)[:, None]
    planes = images.permute(0, 3, 1, 2).reshape(1, count * channels, height, width)
    planes = functional.pad(planes, (reach,) * 4, mode="reflect")
    planes = functional.conv2d(planes, kernels[..., None], groups=len(kernels))
    planes = functional.conv2d(planes, kernels[:, :, None], groups=len(kernels))
    return planes.reshape(count, channels, height, width).permute(0, 2, 3, 1)
