"""Images that are far from all others of their class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.issues._base import LIMIT, Images, Issue, beyond

_NEIGHBOURS = 10
_ROWS = 2000
# Least spread of distances of unit features, because the images of a class may be nearly equal.
_LEAST_SPREAD = 0.01


def class_distances(
    features: NDArray[np.float32], labels: NDArray[np.int64], copies: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Computes the distance of every image to the nearest others of its class.

    Args:
        features: (N, D), of length 1.
        labels: (N,) classes.
        copies: (N,) images with the same number are copies and not neighbours of each other.

    Returns:
        (N,) mean of 1 - cosine to the ten nearest of the class (or fewer if there are fewer); NaN
        for an image without any.
    """
    found = np.full(len(labels), np.nan)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        theirs = features[members]
        for start in range(0, len(members), _ROWS):
            rows = members[start : start + _ROWS]
            distances = 1.0 - (features[rows] @ theirs.T).astype(np.float64)
            distances[copies[rows][:, None] == copies[members][None]] = np.inf
            count = min(_NEIGHBOURS, len(members))
            nearest = np.partition(distances, count - 1, axis=1)[:, :count]
            known = np.isfinite(nearest)
            sums = np.where(known, nearest, 0.0).sum(1)
            counts = known.sum(1)
            found[rows] = np.where(counts > 0, sums / counts.clip(1), np.nan)
    return found


def outliers(
    images: Images, features: NDArray[np.float32], copies: NDArray[np.int64]
) -> list[Issue]:
    """Lists images that are much farther from their class than most images are.

    A distance is compared with the median of the class, in robust standard deviations of all
    images, because classes may be compact, spread out or small.

    Args:
        images: N images.
        features: (N, D), of length 1.
        copies: (N,) images with the same number are copies of each other.
    """
    labels = np.asarray(images.labels, dtype=np.int64)
    distances = class_distances(features, labels, copies)
    middles = np.array(
        [
            np.nanmedian(distances[labels == label])
            if np.isfinite(distances[labels == label]).any()
            else np.nan
            for label in range(len(images.classes))
        ]
    )
    away = distances - middles[labels]
    if not np.isfinite(away).any():
        return []
    limit = LIMIT * max(1.4826 * float(np.nanmedian(np.abs(away))), _LEAST_SPREAD)
    paths, parts = images.paths, images.part_names
    return [
        Issue(
            path=paths[row],
            class_name=images.classes[labels[row]],
            part=parts[row],
            issue="outlier",
            score=beyond(float(away[row]), limit),
            suggestion="",
            reason=f"{distances[row]:.2f} from its nearest of {images.classes[labels[row]]} "
            f"(1 - cosine); median of the class {middles[labels[row]]:.2f}",
        )
        for row in np.flatnonzero(np.nan_to_num(away, nan=-np.inf) > limit).tolist()
    ]
