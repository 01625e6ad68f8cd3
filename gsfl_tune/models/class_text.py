"""A classifier that starts from embeddings of class descriptions.

Image and text rarely share a space, so texts are mapped to features first. With class means m_c of
the features, their mean m and the embeddings t_c (unit length) with mean t, a ridge regression
gives ``A = argmin sum_c |A (t_c - t) - (m_c - m)|^2 + a |A|^2``. Row c of the classifier is the
direction of ``A (t_c - t)``; scores are ``w_c (x - m)``, a cosine up to the length of x - m.
Classes whose texts are alike lend each other their images; a class without an image has a row too.
The strength a has the smallest leave-one-class-out error, in closed form (Golub, Heath and Wahba,
"Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter", Technometrics 1979).
A classifier that starts from texts is that of Wortsman et al., "Robust Fine-tuning of Zero-shot
Models", CVPR 2022, where both encoders share a space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Strengths of the penalty, relative to the embeddings' sum of squared distances from their mean.
_STRENGTHS = np.logspace(-5, 1, 13)
# Of lengths: no division by zero.
_LEAST = 1e-12


@dataclass(frozen=True)
class ClassMoments:
    """Holds sums over the vectors of each class.

    Attributes:
        counts: (C,) number of vectors.
        sums: (C, H) their sums.
        squares: (C,) sums of their squared lengths.
    """

    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls, classes: int, size: int) -> ClassMoments:
        """Returns the sums of no vector."""
        return cls(np.zeros(classes), np.zeros((classes, size)), np.zeros(classes))

    def add(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        """Adds vectors (N, H) of the classes `labels` (N,)."""
        values = vectors.astype(np.float64)
        np.add.at(self.counts, labels, 1)
        np.add.at(self.sums, labels, values)
        np.add.at(self.squares, labels, np.square(values).sum(1))


def classifier_of_texts(
    embeddings: np.ndarray, moments: ClassMoments, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the first weights and biases of a classifier.

    Args:
        embeddings: (C, E) of the class descriptions, not zero.
        moments: Of the vectors that are classified, by class; at least two classes have some.
        scale: The size of the scores: scale times the cosine, about.

    Returns:
        Weights (C, H) and biases (C,), float64.

    Raises:
        ValueError: If fewer than two classes have vectors.
    """
    from sklearn.linear_model import RidgeCV  # slow to import

    seen = moments.counts > 0
    if seen.sum() < 2:
        raise ValueError("texts are mapped to images by two classes or more")
    texts = embeddings.astype(np.float64)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    means = moments.sums[seen] / moments.counts[seen, None]
    spread = float(np.square(texts[seen] - texts[seen].mean(0)).sum())
    ridge = RidgeCV(alphas=_STRENGTHS * max(spread, _LEAST)).fit(texts[seen], means)
    centre = means.mean(0)
    rows = (texts - texts[seen].mean(0)) @ np.atleast_2d(ridge.coef_).T
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _LEAST)
    # The root mean square distance of a vector from the centre.
    about = moments.squares.sum() - 2 * moments.sums.sum(0) @ centre
    size = np.sqrt(max(0.0, about / moments.counts.sum() + centre @ centre))
    rows *= scale / max(float(size), _LEAST)
    return rows, -rows @ centre
