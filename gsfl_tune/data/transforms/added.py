"""Transforms that installed packages add."""

from __future__ import annotations

from collections.abc import Sequence

from gsfl_tune.data.transforms._base import Transform
from gsfl_tune.plugins import PluginError, make, plugins


def added_transform(name: str, strength: float, mean: Sequence[float]) -> Transform:
    """Makes a transform that a package adds.

    Args:
        name: Name of its entry point.
        strength: ``data.augment.transforms.NAME``.
        mean: Mean of the three channels that images are normalised with, of values in 0..1.

    Raises:
        PluginError: If it cannot be made.
    """
    arguments = strength, tuple(mean)
    transform: Transform = make(
        "transform", name, Transform, *arguments, made="of a strength and a mean"
    )
    width = getattr(transform, "width", None)
    if not isinstance(width, int) or width < 0:
        added = plugins("transform")[name]
        raise PluginError(f"{added}: width is {width!r}, allowed is a number of random numbers")
    transform.name = name
    return transform


def transform_problem(name: str) -> str | None:
    """Returns what is wrong with a transform, or None."""
    try:
        _ = added_transform(name, 1.0, (0.5, 0.5, 0.5))
    except PluginError as error:
        return str(error)
    return None
