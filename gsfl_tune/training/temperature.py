"""Temperature scaling, and when to say that one does not know.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Geifman and El-Yaniv,
"Selective Classification for Deep Neural Networks", NeurIPS 2017 (risk and coverage).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.run.results import Calibration, Rejection, Score
from gsfl_tune.training.metrics import classification_metrics, log_softmax

# Of errors, that thresholds are chosen to reject; `auto` is the half.
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

    Test images decide nothing.

    Args:
        validation: (seeds, V, C) logits of networks that were not trained on these images.
        validation_labels: (V,) their classes.
        test: (seeds, N, C) logits of the networks that are kept; not always as many.
        test_labels: (N,) classes.
        ensemble: Whether the mean of the seeds' probabilities is the answer, not each seed's.
    """
    held, truth = np.asarray(validation, dtype=np.float64), np.asarray(validation_labels)
    temperature = fit_temperature(held, truth, ensemble=ensemble)
    confidence, correct = answers(held, truth, temperature, ensemble=ensemble)
    tested, tested_truth = np.asarray(test, dtype=np.float64), np.asarray(test_labels)
    scaled, right = answers(tested, tested_truth, temperature, ensemble=ensemble)
    return Calibration(
        temperature=temperature,
        images=len(truth),
        seeds=len(held),
        wrong=int((~correct).sum()),
        before=_scores(tested, tested_truth, 1.0, ensemble=ensemble),
        after=_scores(tested, tested_truth, temperature, ensemble=ensemble),
        rejections=[
            Rejection(
                errors=share,
                threshold=threshold,
                rejected_errors=_share(confidence[~correct] < threshold) or 0.0,
                rejected_right=_share(confidence[correct] < threshold) or 0.0,
                test_errors=_share(scaled[~right] < threshold),
                test_right=_share(scaled[right] < threshold),
            )
            for share, threshold in thresholds(confidence, correct).items()
        ],
    )


def fit_temperature(logits: ArrayLike, labels: ArrayLike, *, ensemble: bool = False) -> float:
    """Finds the temperature with the lowest NLL, between 1/20 and 20.

    Where no answer is wrong there is nothing to fit: ever lower temperatures would be better. The
    temperature is 1 then.

    Args:
        logits: (seeds, N, C).
        labels: (N,) classes.
        ensemble: Whether the mean of the seeds' probabilities is the answer.
    """
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    _, correct = answers(scores, truth, 1.0, ensemble=ensemble)
    if correct.all():
        return 1.0
    rows = np.arange(len(truth))

    def nll(exponent: float) -> float:
        found = log_probabilities(scores, math.exp(exponent), ensemble=ensemble)
        return float(-found[:, rows, truth].mean())

    # Golden section: the NLL of each network is convex in 1 / T, so that there is one minimum. That
    # of an ensemble need not be convex: what is found there is a minimum, perhaps not the lowest.
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
    """Computes log-probabilities (seeds, N, C) of logits; of an ensemble (1, N, C)."""
    found = np.stack([log_softmax(each / temperature) for each in logits])
    if not ensemble:
        return found
    # Not the logarithm of a mean: probabilities may be too small for a number.
    total = np.logaddexp.reduce(found, axis=0, keepdims=True)
    return np.asarray(total - math.log(len(found)))


def answers(
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    temperature: float,
    *,
    ensemble: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Gives the confidence of every answer, and whether it is right: both (seeds * N,) or (N,).

    Args:
        logits: (seeds, N, C).
        labels: (N,) classes.
        temperature: That the logits are divided by.
        ensemble: Whether the mean of the seeds' probabilities is the answer: one an image.
    """
    found = log_probabilities(logits, temperature, ensemble=ensemble)
    confidence = np.exp(found.max(axis=2)).reshape(-1)
    return confidence, np.asarray(found.argmax(axis=2) == labels).reshape(-1)


def thresholds(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> dict[float, float]:
    """Finds the lowest threshold that rejects each share of the errors; none without errors.

    Args:
        confidence: (N,) of answers.
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
        # Half-way to the next answer: formats differ in the last digits.
        following = ordered[above] if above < len(ordered) else 1.0
        found[share] = float((last + following) / 2) if following > last else np.nextafter(last, 2)
    return found


def risk_coverage(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], points: int = 100
) -> list[list[float]]:
    """Counts how often answers are wrong when the least confident ones are left out.

    Args:
        confidence: (N,) of answers.
        correct: (N,) whether they are right.
        points: At most so many are returned.

    Returns:
        Points ``[coverage, risk, threshold]``, from few answers to all: the share that is
        answered, the share of these that is wrong, and the confidence of the last of them.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~correct[order])
    count = len(order)
    # At coverages of a few answers the risk is noise.
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


def _share(rejected: NDArray[np.bool_]) -> float | None:
    return float(rejected.mean()) if len(rejected) else None
