"""Linear classifiers by ridge regression: many targets on the same features at one cost.

A ridge regression on one-hot targets needs one decomposition of the features, for any number of
targets, strengths and folds: its cross-validation is exact in closed form. Logistic regressions for
as many groupings, parts and seeds would take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Strengths of the penalty, for features with a mean squared distance of 1 from their mean.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5

Matrix = NDArray[np.float64]


class Ridge:
    """Fits ridge regressions with intercept on one table of features.

    The penalty is strength * N * scale^2 * |w|^2, where scale^2 is the mean squared distance of a
    feature from the mean.

    Args:
        features: (N, D), N at least 2.

    Raises:
        ValueError: If features are not (N, D) or not finite.
    """

    def __init__(self, features: ArrayLike) -> None:
        values = np.asarray(features, dtype=np.float64)
        if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"features must be finite, (N, D) and N > 1, got {values.shape}")
        self.mean = values.mean(axis=0)
        self._centred = values - self.mean
        scale = float(np.sqrt((self._centred**2).sum(axis=1).mean()))
        # Equal features have scale 0, which must not be divided by.
        self.scale = scale if scale > 1e-12 else 1.0
        self._centred /= self.scale
        count, dim = values.shape
        wide = dim >= count
        gram = self._centred @ self._centred.T if wide else self._centred.T @ self._centred
        squares, vectors = np.linalg.eigh(gram)
        kept = squares > 1e-10 * count
        self._squares: Matrix = squares[kept]
        vectors = vectors[:, kept]
        # (N, R) left singular vectors.
        self._left: Matrix = (
            vectors if wide else self._centred @ vectors / np.sqrt(self._squares)[None]
        )

    def cross_validated(
        self, targets: Matrix, folds: NDArray[np.int64], strengths: tuple[float, ...] = STRENGTHS
    ) -> Iterator[tuple[float, Matrix]]:
        """Predicts every row with a regression that has not seen its fold.

        H is the matrix that maps targets to fitted values. The held-out residuals of a fold B are
        (I - H_BB)^-1 times its residuals. This is exact and needs no second fit.

        Args:
            targets: (N, T).
            folds: (N,) fold of every row, at least two different ones.
            strengths: Strengths of the penalty.

        Yields:
            A strength and the predictions (N, T).
        """
        count = len(targets)
        mean = targets.mean(axis=0)
        projected = self._left.T @ (targets - mean)
        members = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        for strength in strengths:
            shrunk = self._squares / (self._squares + strength * count)
            residuals = targets - mean - self._left @ (shrunk[:, None] * projected)
            held_out = np.empty_like(residuals)
            for rows in members:
                left = self._left[rows]
                hat = (left * shrunk) @ left.T + 1 / count
                held_out[rows] = np.linalg.solve(np.eye(len(rows)) - hat, residuals[rows])
            yield strength, targets - held_out

    def fit(self, targets: Matrix, strength: float) -> tuple[Matrix, Matrix]:
        """Returns weights (D, T) and intercepts (T,) for features @ weights + intercepts."""
        mean = targets.mean(axis=0)
        count = len(targets)
        projected = self._left.T @ (targets - mean)
        solved = self._left @ (projected / (self._squares + strength * count)[:, None])
        weights = self._centred.T @ solved / self.scale
        return weights, mean - self.mean @ weights


def stratified_folds(labels: ArrayLike, seed: int, folds: int = FOLDS) -> NDArray[np.int64]:
    """Returns the fold of every row (N,); each class and all rows are spread evenly."""
    classes = np.asarray(labels)
    order = np.lexsort((np.random.default_rng(seed).random(len(classes)), classes))
    fold = np.empty(len(classes), dtype=np.int64)
    fold[order] = np.arange(len(classes)) % folds
    return fold


def probe_accuracy(
    features: ArrayLike, answers: ArrayLike, folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Computes the cross-validated accuracy of a linear classifier on the features.

    Each question's penalty has the strength with the least squared error on held-out rows, not the
    one with the best accuracy. So the accuracy of mere guesses is not biased upwards.

    Args:
        features: (N, D).
        answers: (Q, N) for Q questions, or (N,) for one; whole numbers from 0.
        folds: (N,) fold of every row.

    Returns:
        (Q,) shares of right answers.
    """
    asked = np.atleast_2d(np.asarray(answers, dtype=np.int64))
    kinds = int(asked.max()) + 1
    # (N, Q, kinds): all questions at once.
    targets = np.eye(kinds)[asked.T]
    flat = targets.reshape(len(targets), -1)
    least = np.full(len(asked), np.inf)
    accuracy = np.zeros(len(asked))
    for _, predicted in Ridge(features).cross_validated(flat, folds):
        scores = predicted.reshape(targets.shape)
        error = ((scores - targets) ** 2).mean(axis=(0, 2))
        right = (scores.argmax(axis=2) == asked.T).mean(axis=0)
        better = error < least
        least = np.where(better, error, least)
        accuracy = np.where(better, right, accuracy)
    return accuracy
