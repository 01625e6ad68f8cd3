"""Views without colour."""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.data.transforms._base import Transform

_GREY = (0.299, 0.587, 0.114)


class Grey(Transform):
    """Gives all channels the brightness of ITU-R BT.601.

    Args:
        probability: Share of the images that are changed.
    """

    name = "grey"
    width = 1

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Changes images in place."""
        chosen = (drawn[:, 0] < self.probability).nonzero()[:, 0].to(images.device)
        if len(chosen):
            weights = torch.tensor(_GREY, device=images.device)
            images[chosen] = (images[chosen] @ weights)[..., None].expand(-1, -1, -1, 3)
        return images
