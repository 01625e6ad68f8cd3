"""Finds copies of photographs that differ in size, compression, brightness or contrast.

Two images are compared by the second differences (Laplacians) of their 16 x 16 grey thumbnails. An
offset of brightness cancels, and a cosine ignores contrast. Tone curves change it little. Different
objects of one kind before the same background agree in their large shapes, but not in these. Things
of one shape in different colours are told apart by mean colours of 4 x 4 cells. Copies that were
mirrored or cut at their edges are found by `gsfl_tune.data.cut`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from gsfl_tune.activity import activity
from gsfl_tune.data.cut import cut_copies
from gsfl_tune.data.looks import Looks

# Smallest cosine of two copies. Measured: copies 0.97 and more (brighter by half: 19 of 20 have
# 0.95), photographs of one moment up to 0.99, other pairs of four data sets up to 0.93.
_COSINE = 0.95
# Largest difference of the chroma of two copies, relative to the larger chroma of both or to this
# many levels of 255, whichever is more. Measured: of copies brighter by a quarter, 99 of 100 are
# below. Cells brighter than the limit may be clipped, which changes their colour.
_CHROMA = 0.4
_LEVELS = 20.0
_CLIPPED = 240
# Candidates agree in the signs of 16 to 24 random projections, more for more images. With 24 tries
# a pair at the smallest cosine is found with a probability of 99 % (16 signs) to 86 % (24 signs).
_TABLES = 24
_SIGNS = (16, 24)
# More images with the same signs are of a kind (drawings on white), not copies of each other.
_CROWD = 500
_ROWS = 10_000


@activity("comparing photographs")
def near_duplicates(looks: Looks, labels: np.ndarray | None = None) -> np.ndarray:
    """Groups copies of an image that differ in size, compression, brightness or contrast.

    And mirrored ones, and ones that were cut at their edges (`cut_copies`).

    Args:
        looks: Looks of N images.
        labels: (N,) their classes, if known.

    Returns:
        (N,) int64: images with equal numbers are copies of each other.
    """
    cut = cut_copies(looks, labels)
    firsts, seconds = [cut[0]], [cut[1]]
    for first, second in _candidates(looks):
        same = _same(looks, first, second)
        firsts.append(first[same])
        seconds.append(second[same])
    return components(np.concatenate(firsts), np.concatenate(seconds), len(looks.thumbs))


def components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Returns the connected component of every node of a graph, by number.

    Args:
        first: One end of each edge.
        second: The other end.
        count: Number of nodes.

    Returns:
        (count,) int64: nodes with equal numbers are connected.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.ones(len(first), bool), (first, second)
    graph = coo_matrix(edges, shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1]).astype(np.int64)


def _candidates(looks: Looks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of images that may be copies, some thousands at a time, with repetitions.

    Source: Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002. Two
    vectors at an angle t have the same sign of a random projection with probability 1 - t / pi.
    """
    telling = np.flatnonzero(looks.telling())
    if len(telling) < 2:
        return
    for keys in _keys(looks.thumbs, telling):
        order = np.argsort(keys, kind="stable")
        _, bucket, size = np.unique(keys[order], return_inverse=True, return_counts=True)
        left = np.flatnonzero(size[bucket] <= _CROWD)
        shift = 0
        while len(left):
            shift += 1
            left = left[left + shift < len(order)]
            left = left[bucket[left] == bucket[left + shift]]
            for start in range(0, len(left), _ROWS):
                some = left[start : start + _ROWS]
                yield telling[order[some]], telling[order[some + shift]]


def _keys(thumbs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns (tables, len(rows)) int64: signs of random projections, as numbers."""
    signs = int(np.clip(len(rows).bit_length() + 3, *_SIGNS))
    size = _details(thumbs[:1]).shape[1]
    stream = hashlib.shake_128(b"projections").digest(_TABLES * _SIGNS[1] * size // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(size, _TABLES, _SIGNS[1])
    projections = 2 * bits[:, :, :signs].astype(np.float32) - 1
    keys = np.empty((_TABLES, len(rows)), np.int64)
    for start in range(0, len(rows), _ROWS):
        details = _details(thumbs[rows[start : start + _ROWS]]).astype(np.float32)
        # Sums of such small integers are exact in float32.
        positive = (details @ projections.reshape(size, -1)).reshape(-1, _TABLES, signs) > 0
        keys[:, start : start + len(details)] = (positive @ (1 << np.arange(signs))).T
    return keys


def _details(thumbs: np.ndarray) -> np.ndarray:
    """Returns the Laplacians (N, 196) int64 of (N, 16, 16) thumbnails, without their borders."""
    grey = thumbs.astype(np.int64)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return (4 * grey[:, 1:-1, 1:-1] - around).reshape(len(grey), -1)


def _same(looks: Looks, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns for each pair of images whether they show the same picture, (N,) bool."""
    a, b = _details(looks.thumbs[first]), _details(looks.thumbs[second])
    squares = (a * a).sum(1).clip(1), (b * b).sum(1).clip(1)
    alike = (a * b).sum(1) >= _COSINE * np.sqrt(squares[0] * squares[1])
    # Each takes half of the ratio of contrasts, so that the order of both does not matter.
    factor = (squares[1] / squares[0])[:, None, None] ** 0.25
    mine, theirs = (looks.colours[rows].reshape(len(rows), -1, 3) for rows in (first, second))
    bright = np.maximum(mine.max(2), theirs.max(2))
    counts = np.maximum((bright < _CLIPPED).sum(1), 1)

    def size(chroma: np.ndarray) -> np.ndarray:
        return np.sqrt((np.square(chroma).mean(2) * (bright < _CLIPPED)).sum(1) / counts)

    a, b = _chroma(mine) * factor, _chroma(theirs) / factor
    largest = np.maximum(size(a), size(b)).clip(_LEVELS)
    return np.asarray(alike & (size(a - b) <= _CHROMA * largest))


def _chroma(colours: np.ndarray) -> np.ndarray:
    """Returns red and blue minus green, (N, cells, 2) int64, of (N, cells, 3) colours."""
    values = colours.astype(np.int64)
    return values[..., ::2] - values[..., 1:2]
