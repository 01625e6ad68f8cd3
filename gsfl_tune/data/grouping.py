"""Groups of images that must not be divided between training and held-out parts.

Photographs come in bursts: the same shelf, animal or minute. If they are divided one by one,
held-out images have near neighbours in training, and every metric is too optimistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gsfl_tune.data.looks import Looks
from gsfl_tune.data.near import components, near_duplicates

# Most images of a class that are clustered; each other image joins its most similar one.
_CLUSTERED = 1500
# Images whose cosines with all others are in memory at once.
_AT_ONCE = 200
# Most images whose distances are measured.
_MEASURED = 2000
# Validation images count as nearer to the training images than test images if a random one is this
# often more similar to its nearest than a test image is, and if this is significant.
_NEARER = 0.65
_SURELY = 1e-3


@dataclass(frozen=True)
class Grouping:
    """Holds which images belong together.

    Attributes:
        copies: (N,) images with equal numbers are copies of each other.
        units: (N,) images with equal numbers are held out together or not at all.
        bound: (N,) images with equal numbers straddle no parts, not even given ones; None for
            copies alone. Its units are parts of `units`.
        notices: Findings, one line each.
        measured: Shares from 0 to 1 that the notices follow from, by name.
    """

    copies: np.ndarray
    units: np.ndarray
    notices: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    bound: np.ndarray | None = None


def alike_clusters(looks: Looks, labels: np.ndarray, share: float) -> np.ndarray:
    """Divides each class into clusters of photographs that look alike.

    There are as many clusters as a class has shares of the given size: five if a fifth is held out.
    Uses complete linkage over cosines of `Looks.descriptors`, so that no cluster is a chain.

    Args:
        looks: Looks of N images.
        labels: (N,) their classes.
        share: Share of the images that will be held out.

    Returns:
        (N,) int64 number of the cluster.
    """
    units = np.zeros(len(labels), np.int64)
    number = 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        wanted = min(max(2, round(1 / share)), max(1, len(rows) // 2))
        found = _clusters(looks, rows, wanted)
        units[rows] = number + found
        number += int(found.max(initial=0)) + 1
    return units


def _clusters(looks: Looks, rows: np.ndarray, wanted: int) -> np.ndarray:
    """Returns the (len(rows),) cluster of each row, from 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if wanted < 2:
        return np.zeros(len(rows), np.int64)
    # Spaced evenly in the list, so that no random numbers are needed.
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _CLUSTERED)).astype(np.int64))
    core = rows[places]
    distances = np.clip(1 - looks.similarity(core, core), 0, None)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "complete")
    found = fcluster(tree, wanted, criterion="maxclust").astype(np.int64) - 1
    if len(core) == len(rows):
        return found
    return found[_nearest(looks, rows, core)[0]]


@dataclass(frozen=True)
class Nearness:
    """Compares the distances of two parts to the training images.

    Attributes:
        nearer: Probability that a random held-out image is more similar to its nearest training
            image than a random test image is; one half if neither part is nearer.
        surely: p-value of this (Mann-Whitney test).
    """

    nearer: float
    surely: float

    @property
    def differ(self) -> bool:
        """Returns whether one of both parts is surely nearer than the other."""
        return self.surely <= _SURELY

    @property
    def too_near(self) -> bool:
        """Returns whether results on the held-out images would be too optimistic."""
        return self.nearer >= _NEARER and self.differ


def nearness(
    looks: Looks, train: np.ndarray, held_out: np.ndarray, test: np.ndarray
) -> Nearness | None:
    """Compares how similar held-out and test images are to the training images.

    Args:
        looks: Looks of all images.
        train: Positions of training images.
        held_out: Positions of held-out images.
        test: Positions of the test part, whose labels are not used.

    Returns:
        None if a part has no image.
    """
    from scipy.stats import mannwhitneyu

    parts = [_some(rows[looks.known[rows]]) for rows in (held_out, test)]
    train = _some(train[looks.known[train]], 10 * _MEASURED)
    if not all(len(rows) for rows in (train, *parts)):
        return None
    held, far = (_nearest(looks, rows, train)[1] for rows in parts)
    found = mannwhitneyu(held, far)
    return Nearness(float(found.statistic) / (len(held) * len(far)), float(found.pvalue))


def nearest_is_right(
    looks: Looks, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> float | None:
    """Returns how often the most similar training image of a held-out one has the same class.

    Args:
        looks: Looks of all images.
        labels: (N,) their classes.
        train: Positions of training images.
        held_out: Positions of held-out images.

    Returns:
        None if a part has no image.
    """
    held = _some(held_out[looks.known[held_out]])
    train = _some(train[looks.known[train]], 10 * _MEASURED)
    if not len(held) or not len(train):
        return None
    nearest = train[_nearest(looks, held, train)[0]]
    return float((labels[nearest] == labels[held]).mean())


def together(*numbers: np.ndarray) -> np.ndarray:
    """Joins groupings: images together in any of them are together in the result.

    Args:
        numbers: (N,) each.

    Returns:
        (N,) int64.
    """
    count = len(numbers[0])
    rows, columns, offset = [], [], count
    for each in numbers:
        _, places = np.unique(each, return_inverse=True)
        rows.append(np.arange(count))
        columns.append(places + offset)
        offset += int(places.max(initial=0)) + 1
    return components(np.concatenate(rows), np.concatenate(columns), offset)[:count]


def copies_of(
    looks: Looks, digests: Sequence[bytes], labels: Sequence[int] | None = None
) -> np.ndarray:
    """Returns (N,) int64: equal numbers for copies, byte for byte or to the eye."""
    places = identical(digests)
    classes = None if labels is None else np.asarray(labels, dtype=np.int64)
    return together(places, near_duplicates(looks, classes))


def identical(digests: Sequence[bytes]) -> np.ndarray:
    """Returns (N,) int64: equal numbers for equal digests."""
    _, places = np.unique(np.array([d.hex() for d in digests]), return_inverse=True)
    return np.asarray(places).astype(np.int64)


def _nearest(looks: Looks, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the place in `others` of the most similar image of each, and the cosine of both."""
    places = np.empty(len(rows), np.int64)
    cosines = np.empty(len(rows))
    for start in range(0, len(rows), _AT_ONCE):
        found = looks.similarity(rows[start : start + _AT_ONCE], others)
        places[start : start + _AT_ONCE] = found.argmax(1)
        cosines[start : start + _AT_ONCE] = found.max(1)
    return places, cosines


def _some(rows: np.ndarray, most: int = _MEASURED) -> np.ndarray:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64))]
