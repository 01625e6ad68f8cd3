"""Temperature scaling, and thresholds for answers of "unknown".

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Geifman and El-Yaniv,
"Selective Classification for Deep Neural Networks", NeurIPS 2017 (risk and coverage).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.run.results import Calibration, Rejection, Score
from gsfl_tune.training.metrics import HALF, answered, classification_metrics, log_softmax

# Shares of the errors that thresholds reject; `auto` is one half.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_LEAST, _MOST = 0.05, 20.0
_TOLERANCE = 1e-6


def calibrate(
    validation: ArrayLike,
    validation_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    *,
    ensemble: bool = False,
) -> Calibration:
    """Fits a temperature and thresholds on validation images, and scores test images with them.

    Test images are not used for any choice.

    Args:
        validation: (seeds, V, C) logits of networks trained without these images.
        validation_labels: (V,) their classes.
        test: (seeds, N, C) logits of the final networks; their number may differ.
        test_labels: (N,) classes.
        ensemble: Whether the prediction is the mean of the seeds' probabilities.
    """
    held, truth = np.asarray(validation, dtype=np.float64), np.asarray(validation_labels)
    temperature = fit_temperature(held, truth, ensemble=ensemble)
    confidence, correct = answers(held, truth, temperature, ensemble=ensemble)
    tested, tested_truth = np.asarray(test, dtype=np.float64), np.asarray(test_labels)
    scaled, right = answers(tested, tested_truth, temperature, ensemble=ensemble)
    found = thresholds(confidence, correct)
    return Calibration(
        temperature=temperature,
        images=len(truth),
        seeds=len(held),
        wrong=int((~correct).sum()),
        before=_scores(tested, tested_truth, 1.0, ensemble=ensemble),
        after=_scores(tested, tested_truth, temperature, ensemble=ensemble)
        | _at_threshold(scaled, right, found.get(HALF), 1 if ensemble else len(tested)),
        rejections=[
            Rejection(
                errors=share,
                threshold=threshold,
                rejected_errors=_share(confidence[~correct] < threshold) or 0.0,
                rejected_right=_share(confidence[correct] < threshold) or 0.0,
                test_errors=_share(scaled[~right] < threshold),
                test_right=_share(scaled[right] < threshold),
            )
            for share, threshold in found.items()
        ],
    )


def fit_temperature(logits: ArrayLike, labels: ArrayLike, *, ensemble: bool = False) -> float:
    """Finds the temperature with the lowest NLL, between 1/20 and 20.

    Without a wrong prediction ever lower temperatures would be better. The temperature is then 1.

    Args:
        logits: (seeds, N, C).
        labels: (N,) classes.
        ensemble: Whether the prediction is the mean of the seeds' probabilities.
    """
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    _, correct = answers(scores, truth, 1.0, ensemble=ensemble)
    if correct.all():
        return 1.0
    rows = np.arange(len(truth))

    def nll(exponent: float) -> float:
        found = log_probabilities(scores, math.exp(exponent), ensemble=ensemble)
        return float(-found[:, rows, truth].mean())

    # Golden section search. The NLL of each network is convex in 1 / T, so it has one minimum. The
    # NLL of an ensemble may not be convex; the minimum found may not be the lowest.
    low, high = math.log(_LEAST), math.log(_MOST)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = nll(left), nll(right)
    while high - low > _TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = nll(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = nll(right)
    return float(f"{math.exp((low + high) / 2):.5g}")


def log_probabilities(
    logits: NDArray[np.float64], temperature: float, *, ensemble: bool = False
) -> NDArray[np.float64]:
    """Returns log-probabilities (seeds, N, C) of logits; for an ensemble (1, N, C)."""
    found = np.stack([log_softmax(each / temperature) for each in logits])
    if not ensemble:
        return found
    # Not the logarithm of a mean, as small probabilities may underflow.
    total = np.logaddexp.reduce(found, axis=0, keepdims=True)
    return np.asarray(total - math.log(len(found)))


def answers(
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    temperature: float,
    *,
    ensemble: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns the confidence of each prediction, and whether it is right: (seeds * N,) or (N,).

    Args:
        logits: (seeds, N, C).
        labels: (N,) classes.
        temperature: Divisor of the logits.
        ensemble: Whether the prediction is the mean of the seeds' probabilities, one per image.
    """
    found = log_probabilities(logits, temperature, ensemble=ensemble)
    confidence = np.exp(found.max(axis=2)).reshape(-1)
    return confidence, np.asarray(found.argmax(axis=2) == labels).reshape(-1)


def thresholds(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> dict[float, float]:
    """Returns the lowest threshold that rejects each share of the errors; none without errors.

    Args:
        confidence: (N,) confidence of predictions.
        correct: (N,) whether they are right.
    """
    wrong = np.sort(confidence[~correct])
    if not len(wrong):
        return {}
    ordered = np.unique(confidence)
    found = {}
    for share in SHARES:
        last = wrong[math.ceil(round(share * len(wrong), 9)) - 1]
        above = np.searchsorted(ordered, last, side="right")
        # Half-way to the next confidence, as export formats differ in the last digits.
        following = ordered[above] if above < len(ordered) else 1.0
        found[share] = float((last + following) / 2) if following > last else np.nextafter(last, 2)
    return found


def risk_coverage(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], points: int = 100
) -> list[list[float]]:
    """Returns how often predictions are wrong if the least confident ones are left out.

    Args:
        confidence: (N,) confidence of predictions.
        correct: (N,) whether they are right.
        points: Largest number of points returned.

    Returns:
        Points ``[coverage, risk, threshold]`` by rising coverage: the share of images that are
        answered, the share of wrong answers among them, and the lowest confidence among them.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~correct[order])
    count = len(order)
    # With only a few answers the risk is noise.
    first = max(1, round(count / points))
    places = np.unique(np.linspace(first, count, min(points, count)).round().astype(np.int64))
    return [
        [float(n / count), float(wrong[n - 1] / n), float(confidence[order[n - 1]])] for n in places
    ]


def _scores(
    logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float, *, ensemble: bool
) -> dict[str, Score]:
    rows = log_probabilities(logits, temperature, ensemble=ensemble)
    return Score.table([classification_metrics(each, labels) for each in rows])


def _at_threshold(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    threshold: float | None,
    rows: int,
) -> dict[str, Score]:
    """Returns coverage and accuracy of test images at a threshold of the validation images.

    Args:
        confidence: (rows * N,) confidence of predictions.
        correct: (rows * N,) whether they are right.
        threshold: The threshold; without one, as there was no error, there are no scores.
        rows: Number of seeds, 1 for an ensemble.
    """
    if threshold is None:
        return {}
    kept = confidence >= threshold
    each = zip(np.split(kept, rows), np.split(correct, rows), strict=True)
    pairs = [answered(*one) for one in each]
    return Score.table([{"auto_coverage": c, "auto_accuracy": a} for c, a in pairs])


def _share(rejected: NDArray[np.bool_]) -> float | None:
    return float(rejected.mean()) if len(rejected) else None
