"""Images that a backbone takes for the same picture: cropped, mirrored, or of one moment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.issues._base import Images, Issue
from gsfl_tune.issues.copies import listed

# Two images are alike where they are nearer to each other than this share of the distance that half
# of all images have to their nearest. Copies that were mirrored or cut by 3 % are; where everything
# is photographed in bursts, only what is hardly told apart.
_SHARE = 0.4
_ROWS = 2000


def alike_limit(features: NDArray[np.float32], copies: NDArray[np.int64]) -> float:
    """Computes the cosine from which two images count as the same picture.

    Args:
        features: (N, D), of length 1.
        copies: (N,) images of one number are copies, and not compared.

    Returns:
        Above 1 where there are fewer than three pictures.
    """
    if len(np.unique(copies)) < 3:
        return 2.0
    nearest = np.concatenate([rows.max(1) for _, rows in _cosines(features, copies)])
    return float(1 - _SHARE * (1 - np.median(nearest)))


def alike(images: Images, features: NDArray[np.float32], copies: NDArray[np.int64]) -> list[Issue]:
    """Lists images that are the same picture by their features and no copies to the eye.

    Args:
        images: N images.
        features: (N, D), of length 1.
        copies: (N,) images of one number are copies of each other, which are listed elsewhere.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    limit = alike_limit(features, copies)
    firsts, seconds = [], []
    for start, rows in _cosines(features, copies):
        first, second = np.nonzero(rows >= limit)
        firsts.append(first + start)
        seconds.append(second)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(copies),) * 2)
    numbers = connected_components(graph, directed=False)[1]
    members: dict[int, list[int]] = {}
    for row in np.unique(first).tolist():
        members.setdefault(int(numbers[row]), []).append(row)
    paths, parts, classes = images.paths, images.part_names, images.labels
    sets = [([paths[row] for row in rows], "shows the same as") for rows in members.values()]
    class_of = {path: images.classes[label] for path, label in zip(paths, classes, strict=True)}
    return listed(sets, "alike", class_of, dict(zip(paths, parts, strict=True)))


def _cosines(
    features: NDArray[np.float32], copies: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Cosines of every image with all others, some rows at a time; copies have -1."""
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS] @ features.T
        rows[copies[start : start + _ROWS][:, None] == copies[None]] = -1
        yield start, rows
