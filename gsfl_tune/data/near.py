"""Photographs that are the same but for size and compression."""

from __future__ import annotations

import numpy as np

from gsfl_tune.data.looks import Looks

# Bits of 64 in which the hashes of two copies differ at most. Candidates have two neighbouring
# bytes of eight in common: all that differ in three bits have, and most that differ in six.
_BITS = 6
_BYTES = 8
# Copies correlate more than this in 16 x 16 grey pixels, and differ less, in levels of 255.
_CORRELATION = 0.985
_LEVELS = 30.0
# A picture with less contrast than this (levels) says nothing: all blank pages are alike.
_CONTRAST = 6.0
# More images with the same two bytes are of a kind (drawings on white), not copies of each other.
_CROWD = 500


def near_duplicates(looks: Looks) -> np.ndarray:
    """Puts re-encoded, resized and slightly brighter or darker copies of an image together.

    Args:
        looks: Of N images.

    Returns:
        (N,) int64: images of one number are copies of each other.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(looks.hashes)
    first, second = _candidates(looks)
    near = _distance(looks.hashes[first] ^ looks.hashes[second]) <= _BITS
    first, second = first[near], second[near]
    same = _alike(looks, first, second)
    first, second = first[same], second[same]
    ones = np.ones(len(first), bool)
    graph = coo_matrix((ones, (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1]).astype(np.int64)


def _candidates(looks: Looks) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images whose hashes have two neighbouring bytes in common."""
    telling = np.flatnonzero(
        looks.known & (looks.thumbs.reshape(len(looks.thumbs), -1).std(1) >= _CONTRAST)
    )
    words = looks.hashes[telling].view(np.uint8).reshape(-1, _BYTES)
    firsts, seconds = [], []
    for column in range(_BYTES):
        keys = words[:, column].astype(np.int64) * 256 + words[:, (column + 1) % _BYTES]
        order = np.argsort(keys, kind="stable")
        ends = np.flatnonzero(np.diff(keys[order], append=-1)) + 1
        start = 0
        for end in ends.tolist():
            members = telling[order[start:end]]
            start = end
            if 1 < len(members) <= _CROWD:
                upper = np.triu_indices(len(members), 1)
                firsts.append(members[upper[0]])
                seconds.append(members[upper[1]])
    if not firsts:
        empty = np.empty(0, np.int64)
        return empty, empty
    pairs = np.unique(np.stack([np.concatenate(firsts), np.concatenate(seconds)]), axis=1)
    return pairs[0], pairs[1]


def _distance(different: np.ndarray) -> np.ndarray:
    """Number of bits that are set, of (N,) uint64."""
    return np.unpackbits(different.view(np.uint8).reshape(-1, 8), axis=1).sum(1)


def _alike(looks: Looks, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether thumbnails are the same picture."""
    result = np.zeros(len(first), bool)
    for start in range(0, len(first), 10_000):
        rows = slice(start, start + 10_000)
        a, b = (
            looks.thumbs[which[rows]].reshape(-1, looks.thumbs[0].size).astype(np.float64)
            for which in (first, second)
        )
        levels = np.abs(a - b).mean(1)
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        correlation = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)).clip(1e-9)
        result[rows] = (levels <= _LEVELS) & (correlation >= _CORRELATION)
    return result
