"""Similar images by the features of a backbone: cropped, mirrored, or from one moment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.data.near import components
from gsfl_tune.issues._base import Images, Issue
from gsfl_tune.issues.copies import BY_FEATURES, listed

# Two images are alike if their distance is below this share of the median distance of an image to
# its nearest. This finds copies that were mirrored or cropped by 3 %. If all images come from
# bursts, it finds only images that are almost identical.
_SHARE = 0.4
_ROWS = 2000


def alike_limit(features: NDArray[np.float32], copies: NDArray[np.int64]) -> float:
    """Computes the cosine from which two images count as the same picture.

    Args:
        features: (N, D), of length 1.
        copies: (N,) images with the same number are copies and are not compared.

    Returns:
        Above 1 if there are fewer than three different images.
    """
    if len(np.unique(copies)) < 3:
        return 2.0
    nearest = np.concatenate([rows.max(1) for _, rows in _cosines(features, copies)])
    return float(1 - _SHARE * (1 - np.median(nearest)))


def alike(images: Images, features: NDArray[np.float32], copies: NDArray[np.int64]) -> list[Issue]:
    """Lists images that are the same by their features but are not visible copies.

    A set is a chain: each of its images is alike another one of it, but not all are alike. So no
    image is suggested to be left out.

    Args:
        images: N images.
        features: (N, D), of length 1.
        copies: (N,) images with the same number are copies, which are listed elsewhere.
    """
    limit = alike_limit(features, copies)
    firsts, seconds = [], []
    for start, rows in _cosines(features, copies):
        first, second = np.nonzero(rows >= limit)
        firsts.append(first + start)
        seconds.append(second)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    numbers = components(first, second, len(copies))
    members: dict[int, list[int]] = {}
    for row in np.unique(first).tolist():
        members.setdefault(int(numbers[row]), []).append(row)
    paths, parts, classes = images.paths, images.part_names, images.labels
    sets = [([paths[row] for row in rows], BY_FEATURES) for rows in members.values()]
    class_of = {path: images.classes[label] for path, label in zip(paths, classes, strict=True)}
    return listed(sets, "alike", class_of, dict(zip(paths, parts, strict=True)))


def _cosines(
    features: NDArray[np.float32], copies: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yields cosines of every image with all others, some rows at a time; copies have -1."""
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS] @ features.T
        rows[copies[start : start + _ROWS][:, None] == copies[None]] = -1
        yield start, rows
