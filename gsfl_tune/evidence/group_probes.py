"""Linear probes for the group on the parts of a network, with random groups for comparison.

A part that separates classes also separates every grouping of them, even a random one. So compare a
probe's accuracy on the true groups with that on random groups of the same sizes, and the
discriminative part with that of the control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.evidence.ridge import FOLDS, probe_accuracy, stratified_folds
from gsfl_tune.evidence.threads import one_thread

RANDOM_GROUPINGS = 5


def group_probes(
    parts: Mapping[str, Sequence[NDArray[np.floating]]],
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Probes every part for the group of an image, cross-validated over the images.

    Args:
        parts: By name, one table (N, D) per seed of the retrain; rows are the same images.
        labels: (N,) classes of the images.
        groups: (C,) group of every class, at least two groups.
        seed: Seed of the folds and the random groups.

    Returns:
        ``chance`` (accuracy of the best constant guess), ``images``, ``folds``,
        ``random_groupings``, and ``parts``: for each ``part`` the mean and standard deviation of
        ``groups`` (over seeds) and of ``random_groups`` (over seeds and random groupings).

    Raises:
        ValueError: If there is only one group.
    """
    classes = np.asarray(labels, dtype=np.int64)
    group = np.asarray(groups, dtype=np.int64)
    if int(group.max()) < 1:
        raise ValueError("a probe for the group needs at least two groups")
    generator = np.random.default_rng(seed)
    groupings = np.stack([group, *(generator.permutation(group) for _ in range(RANDOM_GROUPINGS))])
    answers = groupings[:, classes]
    folds = stratified_folds(classes, seed)
    with one_thread():
        found = {
            name: np.stack([probe_accuracy(table, answers, folds) for table in tables])
            for name, tables in parts.items()
        }
    return {
        "chance": float(np.bincount(answers[0]).max() / len(classes)),
        "images": len(classes),
        "folds": FOLDS,
        "random_groupings": RANDOM_GROUPINGS,
        "parts": [
            {
                "part": name,
                "groups": _spread(accuracy[:, 0]),
                "random_groups": _spread(accuracy[:, 1:].ravel()),
            }
            for name, accuracy in found.items()
        ],
    }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    # Of equal values the deviation is 0, not the rounding of their mean.
    std = float(values.std(ddof=1)) if np.ptp(values) > 0 else 0.0
    return {"mean": float(values.mean()), "std": std}
