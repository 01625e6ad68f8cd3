"""Labels that are probably wrong: what other images say of an image, next to what it is given.

Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021 (arXiv 1911.00068). Its thresholds say how many
labels are wrong. They do not choose which: images whose prediction is less sure than the threshold
hold a sixth of the wrong labels that can be found (benchmarks/issues.py).
"""

from __future__ import annotations

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
# Of labels that are believed to be wrong, at least: with none the score would be 0 everywhere.
_LEAST_WRONG = 0.002
# And at most: where more are doubted, the classifier is what is wrong with most of them.
_MOST_WRONG = 0.1


@dataclass(frozen=True)
class Predictions:
    """What was predicted of N images by classifiers that had not seen them.

    Attributes:
        log_probabilities: (N, C), their temperature fitted to the given labels.
        judged: (N,) bool, whether the classifier knew the image's class from other images.
    """

    log_probabilities: NDArray[np.float64]
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
    if judged.any():
        logits /= fit_temperature(logits[judged][None], labels[judged])
    return Predictions(log_softmax(logits), judged)


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
class Doubts:
    """Labels that are not believed.

    Attributes:
        rows: (M,) positions of the images, the surest first.
        suggested: (M,) the classes that are believed instead.
        scores: (M,) how probable it is that the suggested class is right, not the given one; at
            least one half.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    scores: NDArray[np.float64]


def wrong_share(predictions: Predictions, labels: NDArray[np.int64]) -> float:
    """Estimates how many labels are wrong, by confident learning.

    A class is believed of an image where its probability is at least the mean that it has for the
    images that are given this class; images are counted of which another class than the given one
    is believed.

    Args:
        predictions: Of N images.
        labels: (N,) given classes.

    Returns:
        Their share; what the classifier cannot tell apart is in it.
    """
    judged = predictions.judged
    probabilities = np.exp(predictions.log_probabilities[judged])
    given = labels[judged]
    if not len(given):
        return 0.0
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(given):
        thresholds[label] = probabilities[given == label, label].mean()
    believed = np.where(probabilities >= thresholds, probabilities, -1.0)
    other = (believed.max(1) > 0) & (believed.argmax(1) != given)
    return float(other.mean())


def doubt(predictions: Predictions, labels: NDArray[np.int64]) -> Doubts:
    """Finds labels that are more probably wrong than right.

    The odds of another class against the given one are those of the prediction, times the odds that
    a label is wrong (`wrong_share`, but 0.002 to 0.1).

    Args:
        predictions: Of N images.
        labels: (N,) given classes.
    """
    logs, rows = predictions.log_probabilities, np.arange(len(labels))
    others = logs.copy()
    others[rows, labels] = -np.inf
    suggested = others.argmax(1)
    wrong = float(np.clip(wrong_share(predictions, labels), _LEAST_WRONG, _MOST_WRONG))
    margins = others.max(1) - logs[rows, labels] + np.log(wrong / (1 - wrong))
    scores = 1 / (1 + np.exp(-np.clip(margins, -500, 500)))
    order = np.flatnonzero(predictions.judged & (scores >= 0.5))
    order = order[np.argsort(-scores[order], kind="stable")]
    return Doubts(order, suggested[order], scores[order])


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
    if judged.any() and wrong_share(predictions, labels) > _MOST_WRONG:
        right = predictions.log_probabilities[judged].argmax(1) == labels[judged]
        told.append(
            f"the features tell only {right.mean():.0%} of the classes as they are labelled: many "
            "of the labels that are listed will be right; a backbone that knows such images "
            "(model.backbone, model.weights) judges better"
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
    probabilities = np.exp(predictions.log_probabilities)
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
