"""The interface of groupings and their common functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Groups = NDArray[np.int64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class GroupingInput:
    """Holds the input of a grouping.

    Attributes:
        count: Number of groups wanted, at most `class_count`.
        features: (N, D) unit features of un-augmented training images.
        labels: (N,) class of every feature.
        class_count: Number of classes C.
        seed: Seed of all random choices.
        taxonomy: Group name of every class, or None.
    """

    count: int
    features: np.ndarray
    labels: np.ndarray
    class_count: int
    seed: int
    taxonomy: Sequence[str] | None = None


class Grouping(ABC):
    """Puts every class into a group."""

    name: ClassVar[str]

    @abstractmethod
    def assign(self, given: GroupingInput) -> Groups:
        """Returns any integer label per class (C,); the caller renumbers the groups.

        Raises:
            ValueError: If its input is incomplete.
        """


def class_means(features: np.ndarray, labels: np.ndarray, class_count: int) -> Matrix:
    """Returns the means (C, D) of the features of every class, float64.

    Raises:
        ValueError: If a class has no feature.
    """
    counts = np.bincount(labels, minlength=class_count)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise ValueError(f"class {empty[0]} has no training image, it cannot be grouped")
    sums = np.zeros((class_count, features.shape[1]))
    for start in range(0, len(features), 4096):  # in pieces: features may be a memory map
        piece = slice(start, start + 4096)
        np.add.at(sums, labels[piece], features[piece].astype(np.float64))
    return sums / counts[:, None]


def numbered_by_first_class(groups: np.ndarray) -> Groups:
    """Renumbers groups in the order of their first classes."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def fill_empty_groups(groups: np.ndarray, count: int) -> Groups:
    """Splits the last class off the largest group until there are ``count`` groups.

    Clustering finds too few groups when classes coincide.
    """
    groups = numbered_by_first_class(groups)
    for number in range(int(groups.max()) + 1, count):
        largest = int(np.bincount(groups).argmax())
        groups[np.flatnonzero(groups == largest)[-1]] = number
    return groups
