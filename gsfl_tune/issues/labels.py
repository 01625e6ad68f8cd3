"""Labels that are probably wrong: what other images say of an image, next to what it is given.

Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021 (arXiv 1911.00068). Predictions are out of
fold, and per-class thresholds say how many labels are wrong. They do not choose which: given their
share, the prediction gives every label a probability to be wrong, and those that are below a
threshold hold some of the wrong ones too (benchmarks/issues.py compares).
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
# Tried on the first fold.
_STRENGTHS = (1e-3, 1e-2, 1e-1)
# Principal components of the features that are kept: as good as all 1,280 of EfficientNet-Lite0, in
# an eighth of the time.
_COMPONENTS = 256
# Share of wrong labels that is believed, at least and at most: with none no label would be doubted,
# and where a tenth are doubted, the classifier is what is wrong with most of them.
_SHARES = (0.002, 0.1)
# Logarithms of the temperature; the likelihood may have a maximum on either side of the middle.
_TEMPERATURES = (math.log(0.05), math.log(0.3), math.log(20.0))
# Labels that are wrong with less probability than this are not listed, nor those that are not twice
# as probably wrong as any.
LEAST_SCORE = 0.1
# A classifier that is right less often finds few of the wrong labels.
_POOR = 0.6


@dataclass(frozen=True)
class Predictions:
    """What was predicted of N images by classifiers that had not seen them.

    Attributes:
        logits: (N, C).
        judged: (N,) bool, whether the classifier knew the image's class from other images.
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
        units: (N,) images of one number are in one fold.
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
    """Unit features in the axes of their largest variances; labels decide nothing."""
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
    """Regularisation by accuracy on a fold, then by NLL."""
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

    count = min(FOLDS, len(np.unique(units)), len(labels))
    folds = np.zeros(len(labels), dtype=np.int64)
    if count < 2:
        return folds
    cut = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # Classes with fewer images than folds: some of their folds have none.
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held) in enumerate(cut.split(labels, labels, units)):
            folds[held] = number
    return folds


def fold_units(grouping: Grouping, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """What stays in one fold: groups and bursts; where a class is one of them, its copies.

    Args:
        grouping: Of N images.
        labels: (N,) classes.
    """
    whole = np.isin(labels, crowded(grouping.units, labels))
    return np.where(whole, grouping.units.max(initial=0) + 1 + grouping.copies, grouping.units)


@dataclass(frozen=True)
class Noise:
    """How often labels are wrong, and how sure predictions may be.

    Attributes:
        share: Of labels that are wrong.
        temperature: That logits are divided by.
    """

    share: float
    temperature: float

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (N, C) of the true classes."""
        return np.exp(log_softmax(logits / self.temperature))

    def wrong(self, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability that a label is wrong, (N,)."""
        right = self.probabilities(logits)[np.arange(len(labels)), labels]
        as_given = (1 - self.share) * right
        in_error = self.share * (1 - right) / (logits.shape[1] - 1)
        return np.asarray(in_error / (as_given + in_error).clip(1e-300))


def confident_share(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Estimates how many labels are wrong, by confident learning.

    A class is believed of an image where its probability is at least the mean that it has for the
    images that are given this class; images are counted of which another class than the given one
    is believed.

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

    A given label is the true class, as the softmax says, or with the probability of the share any
    other; the temperature is the most likely one. Without the share, the wrong labels themselves
    would make all predictions less sure.

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
    """Labels that are not believed.

    Attributes:
        rows: (M,) positions of the images, the surest first.
        suggested: (M,) the most probable other classes.
        scores: (M,) probability that the given one is wrong, at least `LEAST_SCORE`.
        noise: What was estimated.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    scores: NDArray[np.float64]
    noise: Noise


def doubt(predictions: Predictions, labels: NDArray[np.int64]) -> Doubts:
    """Finds labels that are probably wrong.

    Args:
        predictions: Of N images.
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
    """Says how far the predictions can be believed, a line each.

    Args:
        predictions: Of N images.
        labels: (N,) given classes.
    """
    judged = predictions.judged
    told = []
    if not judged.all():
        told.append(
            f"{int((~judged).sum()):,} images, whose class has no others but copies, or images of "
            "the same group or burst: nothing says whether their labels are right"
        )
    right = predictions.logits[judged].argmax(1) == labels[judged]
    if judged.any() and right.mean() < _POOR:
        told.append(
            f"the features tell only {right.mean():.0%} of the images as they are labelled: few of "
            "the wrong labels will be listed; a backbone that knows such images (model.backbone, "
            "model.weights) finds more"
        )
    return told


def wrong_labels(images: Images, predictions: Predictions) -> list[Issue]:
    """Lists labels that are probably wrong, the surest first.

    Args:
        images: N images.
        predictions: Of the same.
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
            reason=f"predicted {classes[suggested]} ({probabilities[row, suggested]:.0%}), given "
            f"{classes[labels[row]]} ({probabilities[row, labels[row]]:.0%})",
        )
        for row, suggested, score in zip(
            found.rows.tolist(), found.suggested.tolist(), found.scores.tolist(), strict=True
        )
    ]
