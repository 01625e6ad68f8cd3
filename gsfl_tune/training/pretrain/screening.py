"""Common rationales: a small head learns where Grad-CAM of the self-supervised loss is large.

Source: Shu et al., "Learning Common Rationale to Improve Self-Supervised Representation for
Fine-Grained Visual Recognition Problems", CVPR 2023 (arXiv 2303.01669).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.pretrain_config import LcrConfig
from gsfl_tune.models import map_shape
from gsfl_tune.training.pretrain.gradcam import cam

_TINY = 1e-7


class Screening(nn.Module):
    """Predicts a map of places: 1 x 1 convolution, norm, ReLU, maximum over channels.

    Its capacity is limited, so that it keeps of the Grad-CAM maps what many images share.

    Args:
        channels: Channels C of the backbone's map.
        config: Section ``pretrain.lcr``.
    """

    def __init__(self, channels: int, config: LcrConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Conv2d(channels, config.channels, 1, bias=False),
            nn.BatchNorm2d(config.channels),
            nn.ReLU(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Returns maps of places (B, h, w) of maps (B, C, h, w): not negative."""
        found: Tensor = self.layers(maps).amax(1)
        return found

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Returns weight (K, C) and bias (K,) of the convolution with its norm, as evaluated."""
        convolution: Any
        norm: Any
        convolution, norm, _ = self.layers
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - scale * norm.running_mean
        return scale[:, None] * convolution.weight[:, :, 0, 0], bias

    def divergence(self, maps: Tensor, gradient: Tensor) -> Tensor:
        """Returns KL(Grad-CAM || prediction) of shares of the positions, a mean over images.

        Args:
            maps: (B, C, h, w), in the graph of the loss.
            gradient: Of the loss by `maps`.
        """
        temperature = self.config.temperature
        target = unit_range(cam(maps, gradient, self.config.objective)).flatten(1)
        seen = maps if self.config.backbone_learns else maps.detach()
        given = unit_range(self(seen)).flatten(1)
        wanted = (target / temperature).log_softmax(1)
        found = (given / temperature).log_softmax(1)
        return torch.nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


def screening_problem(backbone: str, image_size: int) -> str | None:
    """Says why a backbone has no places to screen, or None.

    Raises:
        BackboneError: If it cannot take images of that size.
    """
    _, height, width = map_shape(backbone, image_size)
    if height * width > 1:
        return None
    return f"but {backbone} gives a map of one position for images of {image_size} px"


def unit_range(maps: Tensor) -> Tensor:
    """Scales maps (B, h, w) to 0..1, each by its own minimum and maximum; constant ones to 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low + _TINY)
