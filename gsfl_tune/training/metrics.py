"""The metrics of a table of logits: five that the whole project reports, and those of packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.experiment.metrics import MetricOfPackage
from gsfl_tune.plugins import PluginError, make, plugins

if TYPE_CHECKING:
    import torch

ECE_BINS = 15
TOP = 5


def classification_metrics(
    logits: torch.Tensor | ArrayLike, labels: torch.Tensor | ArrayLike
) -> dict[str, float]:
    """Scores logits against labels, in float64 on the CPU.

    Args:
        logits: (N, C) scores, before the softmax. Tensor of any device and dtype, or array.
        labels: (N,) true classes, 0..C-1.

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean recall of the classes that occur in
        `labels`; ``top5``, with all classes where there are fewer than five (ties go to the
        lower class number); ``nll``, the mean negative log-likelihood in nats; ``ece``, the
        expected calibration error over 15 equal-width bins of the largest probability. Then the
        metrics of installed packages.

    Raises:
        ValueError: If shapes do not fit, there is no row, or a label is out of range.
        PluginError: If a metric of a package cannot be computed or is not a finite number.
    """
    scores, truth = _as_arrays(logits, labels)
    rows = np.arange(len(truth))
    log_probabilities = log_softmax(scores)
    predicted = scores.argmax(axis=1)
    correct = predicted == truth
    # The number of classes ranked before the true one; this needs no argsort.
    own = scores[rows, truth][:, None]
    columns = np.arange(scores.shape[1])
    ahead = (scores > own) | ((scores == own) & (columns < truth[:, None]))
    in_top = ~(ahead.sum(axis=1) >= TOP) & np.isfinite(own[:, 0])
    return {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(class_recalls(correct, truth).mean()),
        "top5": float(in_top.mean()),
        "nll": float(-log_probabilities[rows, truth].mean()),
        "ece": expected_calibration_error(np.exp(log_probabilities.max(axis=1)), correct),
        **{name: _added(name, scores, truth) for name in plugins("metric")},
    }


def _added(name: str, scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    metric: MetricOfPackage = make("metric", name, MetricOfPackage, made="without arguments")
    value = metric.of(scores, truth)
    if not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise PluginError(f"{plugins('metric')[name]} gave {value!r}, allowed is a finite number")
    return float(value)


def class_recalls(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the share of correct predictions of each class that occurs, by class number.

    Args:
        correct: (N,) whether the prediction was right.
        labels: (N,) true classes.
    """
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    hits = np.bincount(position, weights=correct, minlength=len(counts))
    return np.asarray(hits / counts)


def expected_calibration_error(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Returns the mean gap between confidence and accuracy over equal bins, weighted by size.

    A bin includes its upper bound, as in Guo et al. 2017.
    """
    place = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=correct - confidences, minlength=bins)
    return float(np.abs(gap).sum() / len(confidences))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns log-probabilities of (N, C) logits, without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _as_arrays(
    logits: torch.Tensor | ArrayLike, labels: torch.Tensor | ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores, truth = to_numpy(logits).astype(np.float64), to_numpy(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(
            f"logits must be (N, C) and labels (N,): got {scores.shape} and {truth.shape}"
        )
    if not scores.size:
        raise ValueError(f"no metrics of empty logits, shape {scores.shape}")
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise ValueError(
            f"labels run from {truth.min()} to {truth.max()}, logits have {scores.shape[1]} classes"
        )
    return scores, truth.astype(np.int64)


def to_numpy(values: torch.Tensor | ArrayLike) -> NDArray[np.generic]:
    """Returns the values as an array on the CPU; bfloat16, which numpy lacks, becomes float64."""
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        return np.asarray(tensor.double() if tensor.is_floating_point() else tensor)
    return np.asarray(values)
