"""The metrics of a table of logits: those that the whole project reports, and those of packages."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.experiment.metrics import COST, MetricOfPackage
from gsfl_tune.plugins import PluginError, make, plugins
from gsfl_tune.training.one_against_rest import auroc, average_precision

if TYPE_CHECKING:
    import torch

ECE_BINS = 15
# Share of the errors that the threshold of `--threshold auto` rejects.
HALF = 0.5


def classification_metrics(
    logits: torch.Tensor | ArrayLike,
    labels: torch.Tensor | ArrayLike,
    *,
    ranked: Collection[str] = (),
    costs: NDArray[np.float64] | None = None,
    own_threshold: bool = False,
) -> dict[str, float]:
    """Scores logits against labels, in float64 on the CPU.

    Means over classes leave out classes that do not occur in `labels`.

    Args:
        logits: (N, C) scores, before the softmax. Tensor of any device and dtype, or array.
        labels: (N,) true classes, 0..C-1.
        ranked: Which metrics that rank the images for every class are computed too: ``auroc``,
            ``average_precision``.
        costs: (C, C) costs of answers, see `gsfl_tune.data.cost_matrix.load_cost_matrix`.
        own_threshold: Whether the threshold of `--threshold auto` may be chosen on these images; on
            test images it must not.

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean recall of the classes; ``top5``, with all
        classes where there are fewer than five (ties go to the lower class number); ``nll``, the
        mean negative log-likelihood in nats; ``ece``, the expected calibration error over 15
        equal-width bins of the largest probability; ``top3``; ``macro_f1``, the mean over classes
        of 2 TP / (2 TP + FP + FN); ``worst_recall``, the smallest recall of a class. With
        `own_threshold` ``auto_coverage`` and ``auto_accuracy``, see `at_own_threshold`. Of `ranked`
        the means over classes, ``auroc`` only where more than one class occurs. With `costs`
        ``expected_cost``, the mean cost of the most probable class. Then the metrics of installed
        packages.

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
    ahead = ((scores > own) | ((scores == own) & (columns < truth[:, None]))).sum(axis=1)
    finite = np.isfinite(own[:, 0])
    recalls = class_recalls(correct, truth)
    confidence = np.exp(log_probabilities.max(axis=1))
    found = {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(recalls.mean()),
        "top5": float(((ahead < 5) & finite).mean()),
        "nll": float(-log_probabilities[rows, truth].mean()),
        "ece": expected_calibration_error(confidence, correct),
        "top3": float(((ahead < 3) & finite).mean()),
        "macro_f1": macro_f1(predicted, truth),
        "worst_recall": float(recalls.min()),
    }
    if own_threshold:
        found["auto_coverage"], found["auto_accuracy"] = at_own_threshold(confidence, correct)
    if "auroc" in ranked and (area := auroc(log_probabilities, truth)) is not None:
        found["auroc"] = area
    if "average_precision" in ranked:
        found["average_precision"] = average_precision(log_probabilities, truth)
    if costs is not None:
        found[COST] = float(costs[truth, predicted].mean())
    return found | {name: _added(name, scores, truth) for name in plugins("metric")}


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


def macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Returns the mean over the classes that occur of the harmonic mean of precision and recall.

    Args:
        predicted: (N,) answers; that of a class without images counts against other classes alone.
        labels: (N,) true classes.
    """
    size = int(max(predicted.max(), labels.max())) + 1
    counts, answered = (np.bincount(each, minlength=size) for each in (labels, predicted))
    hits = np.bincount(labels[predicted == labels], minlength=size)
    occurs = counts > 0
    return float((2 * hits[occurs] / (counts + answered)[occurs]).mean())


def at_own_threshold(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[float, float]:
    """Returns coverage and accuracy at the lowest threshold that rejects half of the errors.

    Args:
        confidence: (N,) probability of the answer.
        correct: (N,) whether it is right.

    Returns:
        The share of images that are answered, and the share of right answers among them: 0 where
        none is answered. Without errors all images are answered.
    """
    wrong = np.sort(confidence[~correct])
    if not len(wrong):
        return 1.0, 1.0
    return answered(confidence > wrong[math.ceil(HALF * len(wrong)) - 1], correct)


def answered(kept: NDArray[np.bool_], correct: NDArray[np.bool_]) -> tuple[float, float]:
    """Returns the share of images that are kept, and that of right ones among them (0 of none)."""
    return float(kept.mean()), float(correct[kept].mean()) if kept.any() else 0.0


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
