"""Classes by the vote of the nearest neighbours: what a representation is worth as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of the weights of neighbours, as usual since Wu et al.
_TEMPERATURE = 0.1
# Rows of similarities at a time.
_ROWS = 1024

Unit = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledFeatures:
    """Holds unit features of images with their classes.

    Attributes:
        features: (N, C) float32, rows of length 1.
        labels: (N,) classes.
    """

    features: Unit
    labels: Labels


def knn_predictions(train: LabelledFeatures, features: Unit, k: int, class_count: int) -> Labels:
    """Predicts classes by the k training images of largest cosine, at most all of them.

    A neighbour of cosine s votes with exp(s / 0.1). Source: Wu et al., "Unsupervised Feature
    Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4.

    Args:
        train: The images that vote.
        features: (M, C) unit features of other images.
        k: Number of neighbours.
        class_count: Number of classes.

    Returns:
        (M,) classes; of equal sums of votes the first.
    """
    k = min(k, len(train.labels))
    found = []
    for start in range(0, len(features), _ROWS):
        similarities = features[start : start + _ROWS] @ train.features.T
        nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        weights = np.take_along_axis(similarities, nearest, axis=1).astype(np.float64)
        # The largest is 1: exponents of a float cannot overflow, whatever the temperature.
        weights = np.exp((weights - weights.max(axis=1, keepdims=True)) / _TEMPERATURE)
        votes = np.zeros((len(nearest), class_count))
        rows = np.arange(len(nearest))[:, None]
        np.add.at(votes, (rows, train.labels[nearest]), weights)
        found.append(votes.argmax(axis=1))
    return np.concatenate(found).astype(np.int64)


def knn_accuracy(
    train: LabelledFeatures, validation: LabelledFeatures, k: int, class_count: int
) -> float:
    """Returns the share of the validation images whose class `knn_predictions` finds.

    Args:
        train: The images that vote.
        validation: The images that are judged.
        k: Number of neighbours.
        class_count: Number of classes.
    """
    guessed = knn_predictions(train, validation.features, k, class_count)
    return float((guessed == validation.labels).mean())
