"""Calibration of a classifier: whether its accuracy matches its confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gsfl_tune.run.results import Calibration
from gsfl_tune.training.metrics import ECE_BINS, classification_metrics, log_softmax
from gsfl_tune.training.temperature import answers, risk_coverage


def calibration(logits: ArrayLike, labels: ArrayLike, *, bins: int = ECE_BINS) -> dict[str, Any]:
    """Computes ECE, NLL, and the confidence and accuracy of each bin.

    Bins are those of the ECE in ``results.json``: equal width, upper bound included (Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017).

    Args:
        logits: (N, C), or (seeds, N, C) to count the answers of all seeds together.
        labels: (N,) classes.
        bins: Number of bins.

    Returns:
        ``ece``, ``nll`` (nats), and ``bins``: ``low``, ``high``, ``count``, mean ``confidence``
        and ``accuracy`` of each bin that is not empty, by rising confidence.

    Raises:
        ValueError: If shapes do not match or there is no image.
    """
    scores = np.asarray(logits, dtype=np.float64)
    seeds = 1 if scores.ndim == 2 else len(scores)
    scores = scores.reshape(-1, scores.shape[-1])
    truth = np.tile(np.asarray(labels, dtype=np.int64), seeds)
    metrics = classification_metrics(scores, truth)
    confidence = np.exp(log_softmax(scores).max(axis=1))
    correct = scores.argmax(axis=1) == truth
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    held = np.maximum(count, 1)
    mean = np.bincount(place, weights=confidence, minlength=bins) / held
    accuracy = np.bincount(place, weights=correct, minlength=bins) / held
    return {
        # `metrics["ece"]` has another number of bins.
        "ece": float((count * np.abs(accuracy - mean)).sum() / len(truth)),
        "nll": metrics["nll"],
        "bins": [
            {
                "low": each / bins,
                "high": (each + 1) / bins,
                "count": int(count[each]),
                "confidence": float(mean[each]),
                "accuracy": float(accuracy[each]),
            }
            for each in np.flatnonzero(count).tolist()
        ],
    }


def calibration_report(
    logits: ArrayLike, labels: ArrayLike, calibrated: Calibration | None
) -> dict[str, Any]:
    """Compares `calibration` before and after the temperature, and computes risk and coverage.

    Args:
        logits: (seeds, N, C), as the networks give them.
        labels: (N,) classes.
        calibrated: Temperature and thresholds from the validation images; None means 1.

    Returns:
        The result of `calibration`, and ``risk_coverage``: points ``[coverage, risk, threshold]``
        of the test images, the least confident answers left out first. With `calibrated` also
        ``temperature``, ``after`` (`calibration` of the scaled logits), and ``auto``, if there is
        a threshold: the ``threshold`` of ``--threshold auto`` with its ``coverage`` and ``risk``
        on the test images.
    """
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    temperature = 1.0 if calibrated is None else calibrated.temperature
    confidence, correct = answers(scores, truth, temperature)
    content = calibration(scores, truth)
    content["risk_coverage"] = risk_coverage(confidence, correct)
    if calibrated is None:
        return content
    content |= {"temperature": temperature, "after": calibration(scores / temperature, truth)}
    if calibrated.half is not None:
        kept = confidence >= calibrated.half.threshold
        content["auto"] = {
            "threshold": calibrated.half.threshold,
            "coverage": float(kept.mean()),
            "risk": float((~correct[kept]).mean()) if kept.any() else None,
        }
    return content
