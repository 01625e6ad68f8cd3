"""Sets of identical images, byte for byte or to the eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gsfl_tune.data.splits import Split


@dataclass(frozen=True)
class Duplicates:
    """Lists sets of identical images.

    Attributes:
        groups: One list of paths per set.
        dropped: Paths removed from training (or a given validation part), because a given test or
            validation part has the same image, or one of its set.
        conflicting: Sets of ``groups`` whose members have different labels.
        strayed: Paths removed because a given part has no copy, but others of their group, folder
            or burst.
    """

    groups: list[list[str]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    conflicting: list[list[str]] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)


def find_duplicates(
    paths: Sequence[str], labels: Sequence[int], digests: Sequence[bytes], split: Split
) -> Duplicates:
    """Lists byte-identical images."""
    members: dict[bytes, list[int]] = {}
    for position, digest in enumerate(digests):
        members.setdefault(digest, []).append(position)
    twins = [positions for positions in members.values() if len(positions) > 1]
    return Duplicates(
        groups=[[paths[position] for position in positions] for positions in twins],
        dropped=[paths[position] for position in np.setdiff1d(split.dropped, split.strayed)],
        conflicting=[
            [paths[position] for position in positions]
            for positions in twins
            if len({labels[position] for position in positions}) > 1
        ],
        strayed=[paths[position] for position in split.strayed],
    )


def near_sets(
    paths: Sequence[str], labels: Sequence[int], digests: Sequence[bytes], numbers: np.ndarray
) -> Duplicates:
    """Lists images that look identical but are not byte-identical.

    Args:
        paths: Names of the images for messages.
        labels: Classes of the images.
        digests: Digests of their bytes.
        numbers: (N,) images with equal numbers are identical.
    """
    members: dict[int, list[int]] = {}
    for position, number in enumerate(numbers.tolist()):
        members.setdefault(number, []).append(position)
    sets = [each for each in members.values() if len({digests[p] for p in each}) > 1]
    return Duplicates(
        groups=[[paths[position] for position in each] for each in sets],
        conflicting=[
            [paths[position] for position in each]
            for each in sets
            if len({labels[position] for position in each}) > 1
        ],
    )
