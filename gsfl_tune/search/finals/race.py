"""Which finalists still can win: decided by paired differences on the same validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.training import Predictions
from gsfl_tune.training.metrics import log_softmax

# Of a one-sided test: a finalist that is further behind than chance explains once in twenty times.
_QUANTILE = 1.645

Scores = NDArray[np.float64]


def image_scores(metric: str, predictions: Predictions) -> Scores | None:
    """What every image adds to a metric, larger is better, (N,).

    Args:
        metric: The objective, such as ``validation/accuracy``.
        predictions: Of the validation part.

    Returns:
        Scores whose mean is the metric (nll: its negative); None for a metric that is no mean
        over images.
    """
    name = metric_of(metric).name
    rows = np.arange(len(predictions.labels))
    if name == "accuracy":
        return predictions.correct.astype(np.float64)
    if name == "balanced_accuracy":
        counts = np.bincount(predictions.labels)
        weights = len(rows) / (np.count_nonzero(counts) * counts[predictions.labels])
        return np.asarray(predictions.correct * weights)
    if name == "nll":
        return np.asarray(
            log_softmax(predictions.logits.astype(np.float64))[rows, predictions.labels]
        )
    if name == "top5":
        own = predictions.logits[rows, predictions.labels][:, None]
        return np.asarray((predictions.logits > own).sum(axis=1) < 5, dtype=np.float64)
    return None


def beaten(scores: Mapping[str, Sequence[Scores]]) -> set[str]:
    """Names of those that chance alone does not explain being behind the leader.

    The standard error of a difference has two parts: the images (paired, averaged over seeds) and
    the seeds (of which the first alone says nothing).

    Args:
        scores: By name, one array (N,) a seed, on the same images.
    """
    means = {name: float(np.mean([each.mean() for each in own])) for name, own in scores.items()}
    if len(means) < 2:
        return set()
    leader = max(means, key=lambda name: means[name])
    return {
        name
        for name in scores
        if name != leader and _behind(scores[leader], scores[name]) > _QUANTILE
    }


def _behind(leader: Sequence[Scores], other: Sequence[Scores]) -> float:
    """Difference in standard errors; 0 where there is none."""
    difference = np.mean(leader, axis=0) - np.mean(other, axis=0)
    mean = float(difference.mean())
    if mean <= 0 or len(difference) < 2:
        return 0.0
    variance = float(difference.var(ddof=1)) / len(difference)
    for own in (leader, other):
        if len(own) > 1:
            variance += float(np.var([each.mean() for each in own], ddof=1)) / len(own)
    return mean / max(variance, 1e-12) ** 0.5
