"""Which images belong together and must not be divided between training and what is held out.

Photographs come in bursts: the same shelf, animal, minute. Divided one by one, what is held out has
its neighbours in training, and every number about it is too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gsfl_tune.data.looks import Looks
from gsfl_tune.data.near import near_duplicates

# So many images of a class are clustered; each of the others joins the most alike of them.
_CLUSTERED = 1500
# Of so many images the distances are measured.
_MEASURED = 2000
# Validation images are nearer to the training images than test images are when this often one of
# them, drawn at random, is more alike to its nearest than a test image is; and surely so.
_NEARER = 0.65
_SURELY = 1e-3


@dataclass(frozen=True)
class Grouping:
    """Which images belong together.

    Attributes:
        copies: (N,) images of one number are copies of each other.
        units: (N,) images of one number are held out together or not at all.
        notices: What was found, a line each.
    """

    copies: np.ndarray
    units: np.ndarray
    notices: list[str] = field(default_factory=list)


def alike_clusters(looks: Looks, labels: np.ndarray, share: float) -> np.ndarray:
    """Divides each class into clusters of photographs that look alike.

    There are as many as a class can give away of the size of a share: five where a fifth is held
    out (complete linkage over cosines of `Looks.descriptors`, so that no cluster is a chain).

    Args:
        looks: Of N images.
        labels: (N,) their classes.
        share: Of the images, that will be held out.

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
    """(len(rows),) cluster of each row, from 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if wanted < 2:
        return np.zeros(len(rows), np.int64)
    # Evenly from the list: what is clustered does not depend on a generator.
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _CLUSTERED)).astype(np.int64))
    core = rows[places]
    distances = np.clip(1 - looks.similarity(core, core), 0, None)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "complete")
    found = fcluster(tree, wanted, criterion="maxclust").astype(np.int64) - 1
    if len(core) == len(rows):
        return found
    nearest = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _CLUSTERED):
        part = rows[start : start + _CLUSTERED]
        nearest[start : start + len(part)] = looks.similarity(part, core).argmax(1)
    return found[nearest]


@dataclass(frozen=True)
class Nearness:
    """How near two parts are to the training images.

    Attributes:
        nearer: How often a held-out image, drawn at random, is more alike to its nearest training
            image than a test image is; one half where neither is nearer.
        surely: p-value of this (Mann and Whitney's test).
    """

    nearer: float
    surely: float

    @property
    def too_near(self) -> bool:
        """Whether the held-out images say too much good of a model."""
        return self.nearer >= _NEARER and self.surely <= _SURELY


def nearness(
    looks: Looks, train: np.ndarray, held_out: np.ndarray, test: np.ndarray
) -> Nearness | None:
    """Compares how alike held-out and test images are to the training images.

    Args:
        looks: Of all images.
        train: Positions of training images.
        held_out: Positions of what is held out of them.
        test: Positions of the test part. Its labels are not asked for.

    Returns:
        None where a part has no image.
    """
    from scipy.stats import mannwhitneyu

    parts = [_some(rows[looks.known[rows]]) for rows in (held_out, test)]
    train = _some(train[looks.known[train]], 10 * _MEASURED)
    if not all(len(rows) for rows in (train, *parts)):
        return None
    held, far = (looks.similarity(rows, train).max(1) for rows in parts)
    found = mannwhitneyu(held, far)
    return Nearness(float(found.statistic) / (len(held) * len(far)), float(found.pvalue))


def nearest_is_right(
    looks: Looks, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> float | None:
    """How often the training image that is most alike to a held-out one has its class.

    Args:
        looks: Of all images.
        labels: (N,) their classes.
        train: Positions of training images.
        held_out: Positions of what is held out of them.

    Returns:
        None where a part has no image.
    """
    held = _some(held_out[looks.known[held_out]])
    train = _some(train[looks.known[train]], 10 * _MEASURED)
    if not len(held) or not len(train):
        return None
    nearest = train[looks.similarity(held, train).argmax(1)]
    return float((labels[nearest] == labels[held]).mean())


def together(*numbers: np.ndarray) -> np.ndarray:
    """Joins groupings: what is together in any of them is together.

    Args:
        numbers: (N,) each.

    Returns:
        (N,) int64.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(numbers[0])
    rows, columns, offset = [], [], count
    for each in numbers:
        _, places = np.unique(each, return_inverse=True)
        rows.append(np.arange(count))
        columns.append(places + offset)
        offset += int(places.max(initial=0)) + 1
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(edges[0]), bool), edges), shape=(offset, offset))
    return np.asarray(connected_components(graph, directed=False)[1][:count]).astype(np.int64)


def copies_of(looks: Looks, digests: Sequence[bytes]) -> np.ndarray:
    """(N,) int64: images of one number are copies, byte for byte or to the eye."""
    _, places = np.unique(np.array([d.hex() for d in digests]), return_inverse=True)
    return together(places, near_duplicates(looks))


def _some(rows: np.ndarray, most: int = _MEASURED) -> np.ndarray:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64))]
