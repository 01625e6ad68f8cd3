"""A few training images of each class: ``data.shots``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from gsfl_tune.data.sources import Sample
from gsfl_tune.data.splits import Split, rank_of
from gsfl_tune.experiment.data_config import DataConfig


def with_shots(
    split: Split,
    samples: Sequence[Sample],
    identities: Sequence[bytes],
    copies: tuple[Sequence[int], np.ndarray] | None,
    config: DataConfig,
) -> Split:
    """Makes a split with ``data.shots`` training images per class; the others become spare.

    Args:
        split: The split of all images.
        samples: All images.
        identities: A unique digest of each of them.
        copies: Positions of some of them, with (N,) numbers that are equal for copies of each
            other; None if byte-identical images alone are copies.
        config: The section ``data``.
    """
    numbers: list[Hashable] = list(identities)
    if copies is not None:
        for position, number in zip(copies[0], copies[1].tolist(), strict=True):
            numbers[position] = number
    train = few_shots(
        split.train,
        [sample.label for sample in samples],
        identities,
        numbers,
        shots=config.shots or 0,
        seed=config.split.seed,
    )
    return replace(split, train=train, spare=np.setdiff1d(split.train, train))


def few_shots(
    positions: np.ndarray,
    labels: Sequence[int],
    digests: Sequence[bytes],
    copies: Sequence[Hashable],
    *,
    shots: int,
    seed: int,
) -> np.ndarray:
    """Chooses the same number of training images per class, by a hash of seed and image.

    The choice for fewer images is a part of the choice for more. A copy of a chosen image is used
    only if its class has no other images.

    Args:
        positions: Positions of the training images.
        labels: Classes of all images, indexed by ``positions``.
        digests: A unique digest of each image.
        copies: Equal numbers for copies of each other.
        shots: Images per class; a class with fewer gives all.
        seed: Seed of the choice.

    Returns:
        Ascending positions.
    """
    members: dict[int, list[int]] = {}
    for position in positions.tolist():
        members.setdefault(labels[position], []).append(position)
    chosen: list[int] = []
    for own in members.values():
        own.sort(key=lambda position: rank_of(seed, "shots", digests[position]))
        seen: Counter[Hashable] = Counter()
        turns = []
        for position in own:
            turns.append(seen[copies[position]])
            seen[copies[position]] += 1
        # Stable: first new images, then second copies, then third ones.
        chosen += [own[place] for place in np.argsort(turns, kind="stable")[:shots].tolist()]
    return np.sort(np.asarray(chosen, dtype=np.int64))
