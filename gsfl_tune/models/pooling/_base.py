"""The interface of poolings and their common functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

EPSILON = 1e-8


class Pooling(nn.Module, ABC):
    """Maps a feature map to one vector.

    It is made with the number of channels (and, if it has one, the wanted D). It may have buffers
    but no parameters: features of a frozen backbone are computed once, so a pooling cannot learn.

    Attributes:
        channels: Number of channels C of the input maps.
        dim: Size D of the output vectors.
        projected_channels: Channels that a PCA projection before it keeps where
            ``model.pooling_channels`` is not set; None: there is never a projection.
        fewest_positions: Fewest positions of a map for a meaningful result.
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
    """Converts half-precision maps to float32: squares and roots near zero need it."""
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


def _no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switches autocast off where it exists: the meta device, which prices models, lacks it."""
    # A program that is being exported lacks it too: its types are fixed.
    if torch.amp.is_autocast_available(device_type) and not torch.compiler.is_exporting():
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def gram(maps: Tensor) -> Tensor:
    """Returns the Gram matrix (B, C, C) of maps (B, C, h, w), divided by h * w, full precision."""
    with _no_autocast(maps.device.type):
        descriptors = full_precision(maps).flatten(2)
        return descriptors @ descriptors.transpose(1, 2) / descriptors.shape[2]


def signed_sqrt(x: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Returns x / (sqrt(|x| + epsilon) + sqrt(epsilon)): keeps the sign, bounded slope at 0."""
    return x / ((x.abs() + epsilon).sqrt() + epsilon**0.5)
