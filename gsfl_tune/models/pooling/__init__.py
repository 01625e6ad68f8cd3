"""Poolings, which map feature maps to vectors."""

from __future__ import annotations

import torch

from gsfl_tune.models.pooling._base import Pooling, signed_sqrt
from gsfl_tune.models.pooling.attention import AttentionPooling
from gsfl_tune.models.pooling.average import AveragePooling
from gsfl_tune.models.pooling.bilinear import BilinearPooling
from gsfl_tune.models.pooling.cls import (
    ClassToken,
    ClassTokenAndMean,
    LastFourBlocksAndMean,
    LastTwoBlocksAndMean,
)
from gsfl_tune.models.pooling.compact_bilinear import CompactBilinearPooling
from gsfl_tune.models.pooling.gem import GeneralisedMeanPooling
from gsfl_tune.models.pooling.isqrt_cov import IsqrtCovPooling
from gsfl_tune.models.pooling.native import NativePooling
from gsfl_tune.models.pooling.screened import ScreenedPooling
from gsfl_tune.plugins import BUILT_IN, PluginError, names, plugins

__all__ = [
    "POOLINGS",
    "AttentionPooling",
    "AveragePooling",
    "BilinearPooling",
    "ClassToken",
    "ClassTokenAndMean",
    "CompactBilinearPooling",
    "GeneralisedMeanPooling",
    "IsqrtCovPooling",
    "LastFourBlocksAndMean",
    "LastTwoBlocksAndMean",
    "NativePooling",
    "Pooling",
    "ScreenedPooling",
    "create_pooling",
    "pooled_channels",
    "pooling_class",
    "pooling_dim",
    "pooling_package",
    "pooling_problem",
    "projection_channels",
    "signed_sqrt",
]

POOLINGS = BUILT_IN["pooling"]

_CLASSES: dict[str, type[Pooling]] = {
    "attention": AttentionPooling,
    "average": AveragePooling,
    "bilinear": BilinearPooling,
    "compact_bilinear": CompactBilinearPooling,
    "native": NativePooling,
    "cls": ClassToken,
    "cls_mean": ClassTokenAndMean,
    "gem": GeneralisedMeanPooling,
    "isqrt_cov": IsqrtCovPooling,
    "mean_last_2": LastTwoBlocksAndMean,
    "mean_last_4": LastFourBlocksAndMean,
    "screened": ScreenedPooling,
}


def pooling_class(name: str) -> type[Pooling]:
    """Returns the class of a pooling, built in or from an installed package.

    Raises:
        ValueError: If there is no such pooling.
        PluginError: If the pooling of a package cannot be loaded.
    """
    if name in _CLASSES:
        return _CLASSES[name]
    added = plugins("pooling").get(name)
    if added is None:
        raise ValueError(
            f"pooling is {name!r}, allowed are {', '.join(names('pooling'))} "
            "(a pooling of another package needs that package installed)"
        )
    found: type[Pooling] = added.load_class(Pooling)
    return found


def pooling_problem(name: str) -> str | None:
    """Returns what is wrong with a value of ``model.pooling``, or None."""
    try:
        _ = pooling_class(name)
    except ValueError as error:
        return str(error)
    return None


def pooling_package(name: str) -> tuple[str, ...]:
    """Returns the package of a pooling with its version; empty for a built-in pooling."""
    added = plugins("pooling").get(name)
    return () if added is None else (added.package,)


def create_pooling(
    name: str,
    channels: int,
    *,
    dim: int = 8192,
    power: float = 3.0,
    heads: int = 8,
    seed: int = 0,
    second: int = 0,
) -> Pooling:
    """Creates the pooling that ``model.pooling`` names.

    Args:
        name: One of `POOLINGS`, or of an installed package.
        channels: Number of channels C of the maps, after a projection.
        dim: Size D of compact bilinear pooling, and of others with such a parameter.
        power: Power p of generalised mean pooling, and of others with such a parameter.
        heads: Heads of attention pooling, and of others with such a parameter.
        seed: Seed of the hashes of compact bilinear pooling.
        second: How many of the channels, the last ones, are of a second stream.

    Raises:
        ValueError: If there is no such pooling, or it takes one stream alone.
        PluginError: If the pooling of a package cannot be used.
    """
    kind = pooling_class(name)
    if second and not kind.takes_streams:
        raise ValueError(f"pooling {name} takes one backbone")
    if kind is CompactBilinearPooling:
        return CompactBilinearPooling(channels, dim, seed, second)
    if kind is BilinearPooling:
        return BilinearPooling(channels, second)
    settings = [dim] * kind.takes_dim + [power] * kind.takes_power + [heads] * kind.takes_heads
    pooling = kind(channels, *settings)
    added = plugins("pooling").get(name)
    if added is not None:
        _check(pooling, str(added))
    return pooling


def pooling_dim(name: str, channels: int, *, dim: int = 8192, second: int = 0) -> int:
    """Returns size D of a pooling of maps with so many channels, without using memory for it.

    Args:
        name: One of `POOLINGS`, or of an installed package.
        channels: Number of channels C of the maps, after a projection.
        dim: Size of compact bilinear pooling, and of others with such a parameter.
        second: How many of the channels are of a second stream.
    """
    if name in _CLASSES:
        own = {
            "bilinear": (channels - second) * (second or channels),
            "compact_bilinear": dim,
            "cls_mean": 2 * channels,
            "isqrt_cov": channels * (channels + 1) // 2,
            "mean_last_2": LastTwoBlocksAndMean.size(channels),
            "mean_last_4": LastFourBlocksAndMean.size(channels),
        }
        return own.get(name, channels)
    with torch.device("meta"):
        return create_pooling(name, channels, dim=dim).dim


def pooled_channels(
    pooling: str, requested: int | None, channels: int, second: int = 0
) -> tuple[int, int]:
    """Returns the channels that a pooling sees, and how many of them are of a second stream.

    Args:
        pooling: One of `POOLINGS`, or of an installed package.
        requested: ``model.pooling_channels``, of each stream.
        channels: Number of channels C of the backbone.
        second: How many of these are of a second stream.
    """
    sizes = (channels - second, second) if second else (channels,)
    kept = [projection_channels(pooling, requested, size) or size for size in sizes]
    return sum(kept), kept[1] if second else 0


def projection_channels(pooling: str, requested: int | None, channels: int) -> int | None:
    """Returns the channels that a projection before the pooling keeps, or None for no projection.

    Args:
        pooling: One of `POOLINGS`, or of an installed package.
        requested: ``model.pooling_channels``; None takes the default of the pooling.
        channels: Number of channels C of the backbone; a projection never adds channels.
    """
    default = pooling_class(pooling).projected_channels
    if default is None:
        return None
    kept = requested if requested is not None else default
    return None if kept >= channels else kept


def _check(pooling: Pooling, what: str) -> None:
    """Refuses a pooling that would fail later, or silently have no effect."""
    for key in ("channels", "dim"):
        if not isinstance(getattr(pooling, key, None), int):
            raise PluginError(f"{what} has no attribute {key!r} (an integer)")
    if pooling.projected_channels is not None and pooling.reads != "map":
        raise PluginError(
            f"{what} reads {pooling.reads} and has projected_channels, but only maps are projected"
        )
    learned = [name for name, _ in pooling.named_parameters()]
    if learned and pooling.starts_as not in _CLASSES:
        raise PluginError(
            f"{what} has parameters ({', '.join(learned[:3])}), allowed are buffers: features of "
            "a frozen backbone are computed once, so a pooling cannot learn; or starts_as, the "
            "name of a pooling that is built in, which it equals before it is trained"
        )
