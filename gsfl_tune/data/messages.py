"""Messages about broken images, parts that were divided, and few-shot parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsfl_tune.data.decoded import BrokenImage

# Most broken images that are named.
MOST_REASONS = 10


def broken_message(broken: Sequence[BrokenImage], count: int, limit: float) -> str:
    """Lists broken images, of which there are more than allowed."""
    lines = [
        f"{len(broken)} of {count} images are broken, more than data.max_broken "
        f"({limit:.2%}) allows:"
    ]
    lines += [f"  {image.path}: {image.reason}" for image in broken[:MOST_REASONS]]
    if len(broken) > MOST_REASONS:
        lines.append(f"  and {len(broken) - MOST_REASONS} more")
    return "\n".join(lines)


def reasons_told(broken: Sequence[BrokenImage]) -> list[str]:
    """Lists broken images with their reasons, and counts those that are not named."""
    lines = [f"{image.path}: {image.reason}" for image in broken[:MOST_REASONS]]
    if len(broken) > MOST_REASONS:
        lines.append(f"and {len(broken) - MOST_REASONS:,} more broken images")
    return lines


def unreadable_message(broken: Sequence[BrokenImage], notices: Sequence[str] = ()) -> str:
    """Says that no image can be read, after the reasons and what was left out."""
    last = f"none of {len(broken):,} images can be read" if broken else "found no image"
    return "\n".join([*reasons_told(broken), *notices, last])


def split_message(
    problems: Sequence[str], broken: Sequence[BrokenImage], notices: Sequence[str]
) -> str:
    """Lists problems of a split, after the broken images, which may explain what is missing."""
    skipped = f"after {len(broken)} broken image(s) were skipped: " if broken else ""
    told = [skipped + problem for problem in problems]
    return "\n".join([*reasons_told(broken), *notices, *told])


def shots_told(shots: int | None, spare: int, counts: np.ndarray) -> str | None:
    """Describes the effect of ``data.shots``; None without it.

    Args:
        shots: Training images per class.
        spare: Number of images in no part.
        counts: (C,) training images of each class.
    """
    if shots is None:
        return None
    fewer = int((counts < shots).sum())
    whole = f"; {fewer} of {len(counts)} classes have no more" if fewer else ""
    return (
        f"data.shots: {shots} training image{'s' if shots > 1 else ''} of each class, "
        f"{spare:,} others take no part{whole}; a final retrain leaves the validation images "
        "out too"
    )
