"""The interface of poolings and their common functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gsfl_tune.models._reads import Reads, full_precision, no_autocast

EPSILON = 1e-8


class Pooling(nn.Module, ABC):
    """Maps a feature map to one vector.

    It is made with the number of channels (and, if it has one, the wanted D). It may have buffers.
    Features of a frozen backbone are computed once, so parameters are for poolings alone that
    say what they start as; they are trained in the finetune stage.

    Attributes:
        channels: Number of channels C of the input maps.
        dim: Size D of the output vectors.
        reads: What it is given: ``map``; ``tokens``, class token first, of a transformer with
            such a token; ``last2`` and ``last4``, those of its last blocks side by side, so that C
            is of all together; ``head``, the vectors (B, C) of the model's own head.
        projected_channels: Channels that a PCA projection before it keeps where
            ``model.pooling_channels`` is not set; None: there is never a projection. Only maps
            are projected.
        fewest_positions: Fewest positions of a map for a meaningful result.
        starts_as: Name of the pooling that it equals before it is trained; None: it does not learn.
        takes_heads: Whether it is made with ``model.attention_heads`` as its second argument.
        takes_dim: Whether it is made with ``model.pooling_dim`` as its second argument.
        takes_streams: Whether it may be made with the channels of a second stream, ``second``.
        takes_power: Whether it is made with ``model.gem_power`` as its second argument.
    """

    channels: int
    dim: int
    reads: ClassVar[Reads] = "map"
    projected_channels: ClassVar[int | None] = None
    fewest_positions: ClassVar[int] = 1
    starts_as: ClassVar[str | None] = None
    takes_heads: ClassVar[bool] = False
    takes_dim: ClassVar[bool] = False
    takes_power: ClassVar[bool] = False
    takes_streams: ClassVar[bool] = False

    @classmethod
    def operations(cls, channels: int) -> float:
        """Returns the multiplications and additions of one image, where they count beside the rest.

        Args:
            channels: Number of channels C of the input maps.
        """
        return 0.0

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """Pools what it reads to vectors (B, D), float32 or wider, not normalised.

        Args:
            maps: (B, C, h, w); for other ``reads`` (B, 1 + h w, C) or (B, C).
        """


def products(maps: Tensor, second: int = 0) -> Tensor:
    """Sums products of channels over the positions of maps (B, C, h, w), in full precision.

    Args:
        maps: The maps.
        second: How many of the channels, the last ones, are of a second stream.

    Returns:
        The Gram matrix (B, C, C) divided by h * w; of two streams the products of each channel of
        the one with each of the other, (B, C - second, second).
    """
    with no_autocast(maps.device.type):
        descriptors = full_precision(maps).flatten(2)
        first = descriptors[:, : descriptors.shape[1] - second]
        other = descriptors[:, first.shape[1] :] if second else first
        return first @ other.transpose(1, 2) / descriptors.shape[2]


def signed_sqrt(x: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Returns x / (sqrt(|x| + epsilon) + sqrt(epsilon)): keeps the sign, bounded slope at 0."""
    return x / ((x.abs() + epsilon).sqrt() + epsilon**0.5)
