"""Metrics of each class against all others: area under the ROC curve, average precision.

Both are computed here and not by torchmetrics or scikit-learn, which take about three and five
times as long for many classes (benchmarks/results/metrics.md): they sort the scores of all images.
Only those of a class's own images, usually a few, are sorted here. The numbers are scikit-learn's;
torchmetrics, which would be one more dependency, has them in float32.

Source: Hand and Till, "A Simple Generalisation of the Area Under the ROC Curve for Multiple Class
Classification Problems", Machine Learning 45, 2001 (the area as a rank statistic, one class
against the rest as in Provost and Domingos, 2000); average precision as in Manning, Raghavan and
Schütze, "Introduction to Information Retrieval", 2008, section 8.4, without interpolation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


def auroc(scores: Scores, labels: Labels) -> float | None:
    """Returns the mean over classes of the area under the ROC curve, the class against the rest.

    The area is the probability that an image of the class has a higher score for it than an image
    of another class; equal scores count one half.

    Args:
        scores: (N, C) scores to rank images by, such as log-probabilities.
        labels: (N,) true classes.

    Returns:
        None where all images are of one class. Classes without images are left out.
    """
    count = len(labels)
    areas = []
    for label, own in _classes(scores, labels):
        others = count - len(own)
        if not others:
            return None
        distinct, below, up_to = _ranked(scores[:, label], own)
        held = np.searchsorted(distinct, own)
        # Pairs of own images count one half in both directions, as equal scores do.
        ahead = (below + up_to)[held].sum() / 2 - len(own) ** 2 / 2
        areas.append(ahead / (len(own) * others))
    return float(np.mean(areas))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Returns the mean over classes of the average precision, the class against the rest.

    The precision at every score of an image of the class, where all images with at least that score
    are taken, averaged over these images.

    Args:
        scores: (N, C) scores to rank images by.
        labels: (N,) true classes; classes without images are left out.
    """
    count = len(labels)
    found = []
    for label, own in _classes(scores, labels):
        distinct, below, _ = _ranked(scores[:, label], own)
        held = np.searchsorted(distinct, own)
        at_least = np.bincount(held, minlength=len(distinct))[::-1].cumsum()[::-1]
        found.append((at_least / (count - below))[held].mean())
    return float(np.mean(found))


def _classes(scores: Scores, labels: Labels) -> list[tuple[int, Scores]]:
    """Returns every class that occurs, with its own images' scores for it."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    own = scores[order, labels[order]]
    return list(zip(present.tolist(), np.split(own, starts[1:]), strict=True))


def _ranked(column: Scores, own: Scores) -> tuple[Scores, Scores, Scores]:
    """Returns the distinct scores of `own`, and how many of `column` are below, and at most, each.

    Args:
        column: (N,) scores of all images for one class.
        own: (P,) scores of the images of the class, which are in `column` too.
    """
    distinct = np.unique(own)
    first = np.bincount(np.searchsorted(distinct, column, "right"), minlength=len(distinct) + 1)
    last = np.bincount(np.searchsorted(distinct, column, "left"), minlength=len(distinct) + 1)
    return distinct, first.cumsum()[:-1].astype(float), last.cumsum()[:-1].astype(float)
