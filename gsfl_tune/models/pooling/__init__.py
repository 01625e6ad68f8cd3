"""Poolings: feature maps to vectors."""

from __future__ import annotations

from gsfl_tune.models.pooling._base import Pooling, signed_sqrt
from gsfl_tune.models.pooling.average import AveragePooling
from gsfl_tune.models.pooling.bilinear import BilinearPooling
from gsfl_tune.models.pooling.compact_bilinear import CompactBilinearPooling

__all__ = [
    "POOLINGS",
    "POOLING_CHANNELS",
    "AveragePooling",
    "BilinearPooling",
    "CompactBilinearPooling",
    "Pooling",
    "create_pooling",
    "pooling_dim",
    "projection_channels",
    "signed_sqrt",
]

POOLINGS = ("average", "bilinear", "compact_bilinear")

# Bilinear features explode (2048 channels give 4.2 M dimensions): by default a projection in
# front keeps so many channels.
POOLING_CHANNELS = {"bilinear": 128, "compact_bilinear": 512}


def create_pooling(name: str, channels: int, *, dim: int = 8192, seed: int = 0) -> Pooling:
    """Creates the pooling that ``model.pooling`` names.

    Args:
        name: One of `POOLINGS`.
        channels: C of the maps, after a projection.
        dim: D of compact bilinear pooling; the others have no choice.
        seed: Of the hashes of compact bilinear pooling.

    Raises:
        ValueError: If there is no such pooling.
    """
    if name == "average":
        return AveragePooling(channels)
    if name == "bilinear":
        return BilinearPooling(channels)
    if name == "compact_bilinear":
        return CompactBilinearPooling(channels, dim, seed)
    raise ValueError(f"pooling is {name!r}, allowed are {', '.join(POOLINGS)}")


def pooling_dim(name: str, channels: int, *, dim: int = 8192) -> int:
    """D of a pooling of maps with so many channels, without creating it."""
    return {"average": channels, "bilinear": channels**2, "compact_bilinear": dim}[name]


def projection_channels(pooling: str, requested: int | None, channels: int) -> int | None:
    """Channels that a projection in front of the pooling keeps, or None for no projection.

    Args:
        pooling: One of `POOLINGS`.
        requested: ``model.pooling_channels``; None takes the default of the pooling.
        channels: C of the backbone; a projection never adds channels.
    """
    kept = requested if requested is not None else POOLING_CHANNELS.get(pooling)
    if pooling == "average" or kept is None or kept >= channels:
        return None
    return kept
