"""The race of the finalists: paired differences on the same validation images decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.training import Predictions
from gsfl_tune.training.metrics import log_softmax

# Quantile of a one-sided test: chance explains a larger deficit only once in twenty times.
_QUANTILE = 1.645

Scores = NDArray[np.float64]


def image_scores(metric: str, predictions: Predictions) -> Scores | None:
    """Returns what every image contributes to a metric, larger is better, (N,).

    Args:
        metric: The objective, such as ``validation/accuracy``.
        predictions: Predictions of the validation part.

    Returns:
        Scores whose mean is the metric (nll: its negative); None for a metric that is not a
        mean over images.
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
    if name in ("top3", "top5"):
        own = predictions.logits[rows, predictions.labels][:, None]
        return np.asarray((predictions.logits > own).sum(axis=1) < int(name[3]), dtype=np.float64)
    return None


def beaten(scores: Mapping[str, Sequence[Scores]]) -> set[str]:
    """Returns the names of finalists that are further behind the leader than chance explains.

    The standard error of a difference has two parts: the images (paired, averaged over seeds) and
    the seeds (a single seed gives no estimate).

    Args:
        scores: By name, one array (N,) per seed, on the same images.
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
    """Returns the deficit in standard errors, 0 without one."""
    difference = np.mean(leader, axis=0) - np.mean(other, axis=0)
    mean = float(difference.mean())
    if mean <= 0 or len(difference) < 2:
        return 0.0
    variance = float(difference.var(ddof=1)) / len(difference)
    for own in (leader, other):
        if len(own) > 1:
            variance += float(np.var([each.mean() for each in own], ddof=1)) / len(own)
    return mean / max(variance, 1e-12) ** 0.5
