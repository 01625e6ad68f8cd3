"""Errors of a classifier: by class, by pair of classes, inside and across groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A matrix of more classes is too large to read.
MOST_CLASSES = 200
# Fewer classes have few columns, and fewer errors fall into one of them by chance.
_FEWEST_CLASSES = 5
_FEWEST_ERRORS = 20
_ONE_SIDED = 1.645


@dataclass(frozen=True)
class ConfusedPair:
    """Holds two classes that are confused with each other."""

    first: int
    second: int
    first_as_second: int
    second_as_first: int
    share: float  # of the images of both classes

    @property
    def count(self) -> int:
        """Counts confusions in both directions."""
        return self.first_as_second + self.second_as_first


@dataclass(frozen=True)
class GroupErrors:
    """Holds the error rate inside and across groups, and the share expected by chance.

    ``inside + across`` is the error rate. ``expected_inside`` is the share of errors that
    would be inside a group if every wrong answer were a random other class.
    """

    inside: float
    across: float
    share_inside: float | None  # of the errors; None if there is no error
    expected_inside: float | None


@dataclass(frozen=True)
class Attraction:
    """Holds a class that most wrong answers name.

    Attributes:
        target: Number of the class.
        share: Share of the wrong answers that name it.
        least: Its lower bound (one-sided 95 %).
        sources: True classes of these answers.
    """

    target: int
    share: float
    least: float
    sources: int

    def sentence(self, name: str) -> str:
        """Says what was found.

        Args:
            name: Name of the class.
        """
        return (
            f"{100 * self.share:.0f} % of the wrong answers name one class, {name}, for images of "
            f"{self.sources} other classes. Look whether its images show what others show, and "
            "whether it has many more of them."
        )


def confusion_matrix(
    predicted: ArrayLike, labels: ArrayLike, class_count: int
) -> NDArray[np.int64]:
    """Counts answers, (C, C); row: true class, column: predicted class."""
    truth, guess = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    cells = np.bincount(truth * class_count + guess, minlength=class_count**2)
    return cells.reshape(class_count, class_count)


def per_class_accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the share of right answers (C,); NaN for a class without images."""
    totals = matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.diag(matrix) / np.where(totals, totals, np.nan))


def worst_classes(matrix: NDArray[np.int64], share: float = 0.1) -> tuple[float, list[int]]:
    """Returns the mean accuracy of the worst `share` of the classes (at least one), and them.

    Raises:
        ValueError: If no class has an image.
    """
    accuracy = per_class_accuracy(matrix)
    present = np.flatnonzero(~np.isnan(accuracy))
    if not len(present):
        raise ValueError("no class has an image")
    order = present[np.argsort(accuracy[present], kind="stable")]
    worst = order[: math.ceil(share * len(present))]
    return float(accuracy[worst].mean()), [int(each) for each in worst]


def most_confused(matrix: NDArray[np.int64], top: int = 10) -> list[ConfusedPair]:
    """Returns unordered pairs that occur, most confusions first."""
    totals = matrix.sum(axis=1)
    first, second = np.triu_indices(len(matrix), k=1)
    counts = matrix[first, second] + matrix[second, first]
    order = np.argsort(-counts, kind="stable")[:top]
    return [
        ConfusedPair(
            int(a),
            int(b),
            int(matrix[a, b]),
            int(matrix[b, a]),
            float((matrix[a, b] + matrix[b, a]) / (totals[a] + totals[b])),
        )
        for a, b in ((first[k], second[k]) for k in order if counts[k])
    ]


def attraction(matrix: NDArray[np.int64], *, answers: int = 1) -> Attraction | None:
    """Returns the class that takes most errors of many classes; None if there is none.

    With few classes or few errors one class takes many of them by chance. Two classes that are
    confused with each other are a pair, which `most_confused` lists.

    Args:
        matrix: (C, C) confusion counts.
        answers: Answers per image that the matrix counts, such as those of several seeds.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    errors = int(wrong.sum())
    if len(matrix) < _FEWEST_CLASSES or errors / answers < _FEWEST_ERRORS:
        return None
    target = int(wrong.sum(axis=0).argmax())
    column = wrong[:, target]
    share = int(column.sum()) / errors
    least = share - _ONE_SIDED * math.sqrt(share * (1 - share) * answers / errors)
    # No class may give half of the column: that would be one pair.
    if least <= 0.5 or 2 * int(column.max()) > int(column.sum()):
        return None
    return Attraction(target, share, least, int(np.count_nonzero(column)))


def group_errors(matrix: NDArray[np.int64], groups: ArrayLike) -> GroupErrors:
    """Splits the error rate by whether the predicted class shares the true one's group.

    Args:
        matrix: (C, C) confusion counts.
        groups: (C,) group of every class.
    """
    group = np.asarray(groups)
    same = group[:, None] == group[None, :]
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    total, errors = int(matrix.sum()), int(wrong.sum())
    inside = int(wrong[same].sum())
    expected = None
    if errors and len(matrix) > 1:
        companions = same.sum(axis=1) - 1
        expected = float((wrong.sum(axis=1) * companions).sum() / (len(matrix) - 1) / errors)
    return GroupErrors(
        inside / total, (errors - inside) / total, inside / errors if errors else None, expected
    )


def confusion_report(
    logits: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    groups: ArrayLike | None = None,
    *,
    top: int = 10,
) -> dict[str, Any]:
    """Returns worst classes, confused pairs and group errors as JSON, with class names.

    Args:
        logits: (N, C), or (seeds, N, C) to count the confusions of all seeds together.
        labels: (N,) classes.
        classes: C names.
        groups: (C,) group of every class, if there are groups.
        top: Number of pairs to list.
    """
    predicted = np.atleast_2d(np.asarray(logits).argmax(axis=-1))
    matrix = np.sum([confusion_matrix(row, labels, len(classes)) for row in predicted], axis=0)
    worst, worst_members = worst_classes(matrix)
    return {
        "per_class_accuracy": {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(classes, per_class_accuracy(matrix), strict=True)
        },
        "worst_tenth": {"mean": worst, "classes": [classes[each] for each in worst_members]},
        "most_confused": [
            {
                "classes": [classes[pair.first], classes[pair.second]],
                "counts": [pair.first_as_second, pair.second_as_first],
                "share": pair.share,
            }
            for pair in most_confused(matrix, top)
        ],
        "group_errors": None if groups is None else asdict(group_errors(matrix, groups)),
    }


def confusion_table(
    logits: ArrayLike, labels: ArrayLike, class_count: int, groups: ArrayLike | None = None
) -> dict[str, Any]:
    """Returns the confusion matrix, and an order that puts classes of a group side by side.

    Args:
        logits: (N, C), or (seeds, N, C) to count the confusions of all seeds together.
        labels: (N,) classes.
        class_count: C.
        groups: (C,) group of every class, if there are groups.

    Returns:
        ``confusion``: ``order``, the classes by group, then by number, and ``matrix``, counts by
        true class (row) and predicted class (column), both by class number. For more than 200
        classes only ``order``. With groups also ``confusion_groups``, the counts by group.
    """
    predicted = np.atleast_2d(np.asarray(logits).argmax(axis=-1))
    matrix = np.sum([confusion_matrix(row, labels, class_count) for row in predicted], axis=0)
    group = np.zeros(class_count, np.int64) if groups is None else np.asarray(groups, np.int64)
    table: dict[str, Any] = {"order": np.argsort(group, kind="stable").tolist()}
    if class_count <= MOST_CLASSES:
        table["matrix"] = matrix.tolist()
    if groups is None:
        return {"confusion": table}
    member = np.eye(int(group.max()) + 1, dtype=np.int64)[group]
    return {"confusion": table, "confusion_groups": (member.T @ matrix @ member).tolist()}
