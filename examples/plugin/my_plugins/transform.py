"""A change of training images: fog, denser towards the top."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gsfl_tune.data.transforms import Transform


class Fog(Transform):
    """Blends an image with white, by a share that grows from the lower edge to the upper one.

    Args:
        strength: Largest share at the upper edge.
        mean: Of the channels that images are normalised with; fog has no use for it.
    """

    # Random numbers an image: how dense its fog is.
    width = 1

    def __init__(self, strength: float, mean: Sequence[float]) -> None:
        self.strength = strength

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images (B, h, w, 3) float32 in 0..255."""
        up = torch.linspace(1, 0, images.shape[1], device=images.device)[None, :, None, None]
        share = self.strength * drawn[:, 0].to(images.device)[:, None, None, None] * up
        return images + share * (255 - images)
