"""What test-time flip gives: the mean of the probabilities of an image and of its mirror image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.evidence.interval import difference
from gsfl_tune.evidence.trained import TrainedModel
from gsfl_tune.training.metrics import classification_metrics
from gsfl_tune.training.temperature import log_probabilities


def flip_report(
    model: TrainedModel,
    logits: NDArray[np.floating],
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
) -> dict[str, Any]:
    """Measures a network with and without flip, on the same test images.

    Args:
        model: The first seed's network.
        logits: (N, C) its logits of all test images.
        labels: (N,) classes.
        index: (n,) positions of the test images that are mirrored.

    Returns:
        ``images``, the metrics ``plain`` and ``test`` (with flip), and the ``difference`` in
        accuracy (``mean``, ``low``, ``high``; 95 %, over images).
    """
    own = np.asarray(logits, dtype=np.float64)[index]
    both = np.stack([own, model.mirrored_logits(index).astype(np.float64)])
    (mean,) = log_probabilities(both, 1.0, ensemble=True)
    true = labels[index]
    change = difference(mean.argmax(axis=1) == true, own.argmax(axis=1) == true)
    return {
        "images": len(index),
        "plain": classification_metrics(own, true),
        "test": classification_metrics(mean, true),
        "difference": {
            "mean": change.mean,
            "low": change.interval.low,
            "high": change.interval.high,
        },
    }
