"""What all poolings share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

EPSILON = 1e-8


class Pooling(nn.Module, ABC):
    """Makes one vector of a feature map.

    It is made with the number of channels (and, if it takes one, the wanted D), and has buffers at
    most: features of a frozen backbone are computed once, so that a pooling cannot learn.

    Attributes:
        channels: C of the maps that come in.
        dim: D of the vectors that come out.
        projected_channels: Channels that a PCA projection in front keeps where
            ``model.pooling_channels`` does not say; None: there never is a projection.
        fewest_positions: Positions that a map must have for this to mean anything.
        takes_dim: Whether it is made with ``model.pooling_dim`` as its second argument.
    """

    channels: int
    dim: int
    projected_channels: ClassVar[int | None] = None
    fewest_positions: ClassVar[int] = 1
    takes_dim: ClassVar[bool] = False

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """Pools maps (B, C, h, w) to vectors (B, D), float32 or wider, not normalised."""


def full_precision(maps: Tensor) -> Tensor:
    """Half-precision maps as float32: squares and roots near zero need it."""
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


def _no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switches autocast off where there is any: the meta device, which prices models, has none."""
    # Nor has a program that is being exported: its types are written down.
    if torch.amp.is_autocast_available(device_type) and not torch.compiler.is_exporting():
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def gram(maps: Tensor) -> Tensor:
    """Gram matrix (B, C, C) of maps (B, C, h, w), divided by h * w, in full precision."""
    with _no_autocast(maps.device.type):
        descriptors = full_precision(maps).flatten(2)
        return descriptors @ descriptors.transpose(1, 2) / descriptors.shape[2]


def signed_sqrt(x: Tensor, epsilon: float = EPSILON) -> Tensor:
    """x / (sqrt(|x| + epsilon) + sqrt(epsilon)): keeps the sign, has a bounded slope at 0."""
    return x / ((x.abs() + epsilon).sqrt() + epsilon**0.5)
