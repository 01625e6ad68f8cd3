"""Labels that are probably wrong, by out-of-fold predictions from other images.

Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021 (arXiv 1911.00068). Per-class thresholds
estimate how many labels are wrong, but they do not choose which. Given this share, the prediction
gives every label a probability of being wrong, because labels below a threshold can also be wrong
(benchmarks/issues.py compares).
"""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.activity import activity
from gsfl_tune.data.grouping import Grouping
from gsfl_tune.data.units import crowded
from gsfl_tune.evidence.linear_probe import LinearProbe, fit_probe
from gsfl_tune.issues._base import Images, Issue
from gsfl_tune.training.metrics import classification_metrics, log_softmax
from gsfl_tune.training.temperature import fit_temperature

FOLDS = 5
# Strengths tried on the first fold.
_STRENGTHS = (1e-3, 1e-2, 1e-1)
# Principal components of the features: as good as all 1,280 features of EfficientNet-Lite0, in an
# eighth of the time.
_COMPONENTS = 256
# Bounds of the estimated share of wrong labels. At 0, no label would be listed; above a tenth, the
# classifier causes most doubts.
_SHARES = (0.002, 0.1)
# Logarithms of the temperature; the likelihood may have a maximum on each side of the middle one.
_TEMPERATURES = (math.log(0.05), math.log(0.3), math.log(20.0))
# Labels are listed only if they are wrong with at least this probability, and with at least twice
# the probability of an average label.
LEAST_SCORE = 0.1
# A classifier with lower accuracy finds few of the wrong labels.
_POOR = 0.6


@dataclass(frozen=True)
class Predictions:
    """Holds predictions for N images by classifiers that had not seen them.

    Attributes:
        logits: (N, C).
        judged: (N,) bool, whether the classifier saw other images of the image's class.
    """

    logits: NDArray[np.float64]
    judged: NDArray[np.bool_]


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int64], units: NDArray[np.int64], count: int
) -> Predictions:
    """Predicts every image by a logistic regression on the features of other folds.

    Args:
        features: (N, D).
        labels: (N,) classes.
        units: (N,) images with the same number are in one fold.
        count: C.
    """
    features = _principal(features)
    folds = _folds(labels, units)
    logits = np.zeros((len(labels), count), dtype=np.float64)
    judged = np.zeros(len(labels), dtype=bool)
    strength = None
    for fold in np.unique(folds).tolist():
        held, rest = folds == fold, folds != fold
        if not rest.any():
            continue
        if strength is None:
            strength = _best_strength(features, labels, rest, held, count)
        with activity(f"predicting labels, fold {fold + 1} of {int(folds.max()) + 1}"):
            probe = fit_probe(features[rest], labels[rest], strength, count)
        logits[held] = probe.logits(features[held])
        judged[held] = np.isin(labels[held], labels[rest])
    return Predictions(logits, judged)


def _principal(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Projects unit features on the axes of largest variance, without the labels."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    if unit.shape[1] <= _COMPONENTS:
        return np.asarray(unit)
    centred = unit - unit.mean(0)
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    return np.asarray(unit @ axes[:, -_COMPONENTS:].astype(np.float32))


def _best_strength(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    rest: NDArray[np.bool_],
    held: NDArray[np.bool_],
    count: int,
) -> float:
    """Chooses the regularisation by accuracy on a fold, then by NLL."""
    latest: LinearProbe | None = None
    best: tuple[tuple[float, float], float] | None = None
    for strength in _STRENGTHS:
        with activity(f"fitting a linear probe, C = {strength:g}"):
            latest = fit_probe(features[rest], labels[rest], strength, count, start=latest)
        metrics = classification_metrics(latest.logits(features[held]), labels[held])
        quality = (metrics["accuracy"], -metrics["nll"])
        if best is None or quality > best[0]:
            best = (quality, strength)
    assert best is not None
    return best[1]


def _folds(labels: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    # More folds than the largest class has images are refused by the cut.
    largest = int(np.bincount(labels).max(initial=0))
    count = min(FOLDS, len(np.unique(units)), largest)
    folds = np.zeros(len(labels), dtype=np.int64)
    if count < 2:
        return folds
    cut = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # Classes with fewer images than folds are missing in some folds.
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held) in enumerate(cut.split(labels, labels, units)):
            folds[held] = number
    return folds


def fold_units(grouping: Grouping, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns units for folds: groups and bursts, or copies if a class is a single unit.

    Args:
        grouping: Grouping of N images.
        labels: (N,) classes.
    """
    whole = np.isin(labels, crowded(grouping.units, labels))
    return np.where(whole, grouping.units.max(initial=0) + 1 + grouping.copies, grouping.units)


@dataclass(frozen=True)
class Noise:
    """Holds the share of wrong labels and the temperature of the predictions.

    Attributes:
        share: Share of wrong labels.
        temperature: Divisor of the logits.
    """

    share: float
    temperature: float

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Computes probabilities (N, C) of the true classes."""
        return np.exp(log_softmax(logits / self.temperature))

    def wrong(self, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Computes the probability that each label is wrong, (N,)."""
        right = self.probabilities(logits)[np.arange(len(labels)), labels]
        as_given = (1 - self.share) * right
        in_error = self.share * (1 - right) / (logits.shape[1] - 1)
        return np.asarray(in_error / (as_given + in_error).clip(1e-300))


def confident_share(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Estimates how many labels are wrong, by confident learning.

    A class is confident for an image if its probability is at least its mean over the images with
    this label. Images with another confident class than the given one are counted.

    Args:
        logits: (N, C), out of fold.
        labels: (N,) given classes.
    """
    temperature = fit_temperature(logits[None], labels)
    probabilities = np.exp(log_softmax(logits / temperature))
    thresholds = np.full(logits.shape[1], np.inf)
    for label in np.unique(labels):
        thresholds[label] = probabilities[labels == label, label].mean()
    believed = np.where(probabilities >= thresholds, probabilities, -1.0)
    return float(((believed.max(1) > 0) & (believed.argmax(1) != labels)).mean())


def fit_noise(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> Noise:
    """Estimates the share of wrong labels, and with it the temperature of the predictions.

    The model: a given label is the true class, distributed as the softmax, or, with the probability
    of the share, any other class. The temperature maximises the likelihood. Without the share,
    wrong labels would make all predictions less confident.

    Args:
        logits: (N, C), out of fold.
        labels: (N,) given classes.
    """
    from scipy.optimize import minimize_scalar

    share = float(np.clip(confident_share(logits, labels), *_SHARES))
    rows, others = np.arange(len(labels)), logits.shape[1] - 1

    def loss(temperature: float) -> float:
        right = np.exp(log_softmax(logits / math.exp(temperature))[rows, labels])
        likely = (1 - share) * right + share * (1 - right) / others
        return -float(np.log(likely.clip(1e-300)).mean())

    found = [
        minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
        for bounds in itertools.pairwise(_TEMPERATURES)
    ]
    return Noise(share, math.exp(min(found, key=lambda each: float(each.fun)).x))


@dataclass(frozen=True)
class Doubts:
    """Holds the labels that are probably wrong.

    Attributes:
        rows: (M,) positions of the images, the most certain first.
        suggested: (M,) the most probable other classes.
        scores: (M,) probability that the given one is wrong, at least `LEAST_SCORE`.
        noise: The estimate.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    scores: NDArray[np.float64]
    noise: Noise


def doubt(predictions: Predictions, labels: NDArray[np.int64]) -> Doubts:
    """Finds labels that are probably wrong.

    Args:
        predictions: Predictions for N images.
        labels: (N,) given classes.
    """
    judged = np.flatnonzero(predictions.judged)
    if not len(judged):
        return Doubts(judged, judged, np.zeros(0), Noise(0.0, 1.0))
    logits, given = predictions.logits[judged], labels[judged]
    noise = fit_noise(logits, given)
    scores = noise.wrong(logits, given)
    others = logits.copy()
    others[np.arange(len(given)), given] = -np.inf
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= max(LEAST_SCORE, 2 * noise.share)]
    return Doubts(judged[order], others.argmax(1)[order], scores[order], noise)


def judgement(predictions: Predictions, labels: NDArray[np.int64]) -> list[str]:
    """Says how reliable the predictions are, one fact per line.

    Args:
        predictions: Predictions for N images.
        labels: (N,) given classes.
    """
    judged = predictions.judged
    told = []
    if not judged.all():
        told.append(
            f"{int((~judged).sum()):,} images are alone in their class, except for copies and "
            "images of the same group or burst: their labels cannot be checked"
        )
    right = predictions.logits[judged].argmax(1) == labels[judged]
    if judged.any() and right.mean() < _POOR:
        told.append(
            f"the features predict the label of only {right.mean():.0%} of the images: few of the "
            "wrong labels will be listed; a backbone trained on similar images (model.backbone, "
            "model.weights) finds more"
        )
    return told


def wrong_labels(images: Images, predictions: Predictions) -> list[Issue]:
    """Lists labels that are probably wrong, the most certain first.

    Args:
        images: N images.
        predictions: Predictions for the same images.
    """
    labels = np.asarray(images.labels, dtype=np.int64)
    found = doubt(predictions, labels)
    probabilities = found.noise.probabilities(predictions.logits)
    paths, parts, classes = images.paths, images.part_names, images.classes
    return [
        Issue(
            path=paths[row],
            class_name=classes[labels[row]],
            part=parts[row],
            issue="label",
            score=score,
            suggestion=classes[suggested],
            reason=f"predicted {classes[suggested]} ({_percent(probabilities[row, suggested])}); "
            f"the given class has {_percent(probabilities[row, labels[row]])}",
        )
        for row, suggested, score in zip(
            found.rows.tolist(), found.suggested.tolist(), found.scores.tolist(), strict=True
        )
    ]


def _percent(probability: float) -> str:
    """Writes a probability; none is certain, so there is no 0 and no 100 %."""
    if probability < 0.005:
        return "below 1 %"
    return "over 99 %" if probability > 0.995 else f"{100 * probability:.0f} %"
