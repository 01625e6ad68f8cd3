"""Which classes get generated features in an epoch, and from which images."""

from __future__ import annotations

import numpy as np
import torch


def made_count(images: int, share: float) -> int:
    """Returns the number of generated features in an epoch of some images."""
    return round(images * share)


def filled(sizes: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    """Divides features over classes so that the smallest classes become equally large.

    Features go to the smallest class until it is as large as the next one, then to both, and so on.
    What is left of an equal division goes to classes at random.

    Args:
        sizes: (C,) images of each class; a class without any gets nothing.
        count: Number of features.
        generator: Random generator.

    Returns:
        (C,) int64 features of each class; their sum is ``count``.
    """
    filled = np.zeros(len(sizes), dtype=np.int64)
    classes = np.flatnonzero(sizes)
    own = classes[np.argsort(sizes[classes], kind="stable")]
    ordered = sizes[own].astype(np.int64)
    # The water level: what the first k classes need to become as large as the k-th.
    needed = ordered * np.arange(1, len(own) + 1) - np.cumsum(ordered)
    below = int(np.flatnonzero(needed <= count)[-1]) + 1
    level, rest = divmod(int(count + ordered[:below].sum()), below)
    filled[own[:below]] = level - ordered[:below]
    lucky = torch.randperm(below, generator=generator).numpy()[:rest]
    filled[own[:below][lucky]] += 1
    return filled


def supports(
    drawn: np.ndarray,
    positions: np.ndarray,
    labels: np.ndarray,
    count: int,
    generator: torch.Generator,
) -> np.ndarray:
    """Draws the images that features of an epoch are generated from.

    Args:
        drawn: (N,) positions of the images that the epoch shows, of which classes are filled up.
        positions: Positions of all training images.
        labels: Labels of all images, indexed by ``positions``.
        count: M, number of features.
        generator: Random generator.

    Returns:
        (M,) int64 positions, class by class. Counts of the images of a class differ by at most one.
    """
    sizes = np.bincount(labels[drawn], minlength=int(labels.max()) + 1)
    own = labels[positions]
    found = [np.zeros(0, dtype=np.int64)]
    wanted = filled(sizes, count, generator)
    for label in np.flatnonzero(wanted).tolist():
        members = positions[own == label]
        rounds, rest = divmod(int(wanted[label]), len(members))
        some = torch.randperm(len(members), generator=generator).numpy()[:rest]
        found += [np.tile(members, rounds), members[some]]
    return np.concatenate(found)
