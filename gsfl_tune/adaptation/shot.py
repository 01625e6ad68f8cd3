"""The equations of SHOT: entropy, diversity, and pseudo-labels of centroids.

Source: Liang, Hu and Feng, "Do We Really Need to Access the Source Data? Source Hypothesis Transfer
for Unsupervised Domain Adaptation", ICML 2020 (arXiv 2002.08546), equations 3 to 7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Images whose distances to all centroids are in memory at a time.
_ROWS = 8192


class Terms(NamedTuple):
    """Holds the terms of the loss of a batch, each a scalar.

    Attributes:
        entropy: Mean entropy of the answers, in nats; it falls.
        diversity: Entropy of the mean answer, in nats; it rises.
        pseudo: Cross-entropy of the pseudo-labels.
    """

    entropy: Tensor
    diversity: Tensor
    pseudo: Tensor

    def loss(self, beta: float) -> Tensor:
        """Returns L_ent + L_div + beta * L_pseudo, where L_div is the negative diversity."""
        return self.entropy - self.diversity + beta * self.pseudo


def terms(logits: Tensor, labels: Tensor) -> Terms:
    """Computes the terms of a batch.

    Args:
        logits: (B, C) class scores.
        labels: (B,) pseudo-labels.
    """
    scores = logits.log_softmax(dim=1)
    return Terms(
        entropy_of(scores).mean(), diversity_of(scores), functional.nll_loss(scores, labels)
    )


def entropy_of(scores: Tensor) -> Tensor:
    """Returns the entropies (N,) in nats of log-probabilities (N, C)."""
    return -(scores.exp() * scores).sum(dim=1)


def diversity_of(scores: Tensor) -> Tensor:
    """Returns the entropy in nats of the mean of probabilities, from their logarithms (N, C)."""
    # Of logarithms, as the slope of p log p is infinite where a probability is rounded to 0.
    means = scores.logsumexp(dim=0) - math.log(len(scores))
    return -(means.exp() * means).sum()


def pseudo_labels(features: Tensor, probabilities: Tensor) -> Tensor:
    """Labels images by the nearest of the centroids of classes.

    A first centroid is the mean of all features, weighted by the probability of its class. Images
    take the label of the nearest one, by cosine. Then a centroid is the mean of the images that
    took its label, and images take the label of the nearest one again. A class that no image took
    keeps its first centroid: the paper leaves this open.

    Args:
        features: (N, H) what the classifier reads.
        probabilities: (N, C) answers.

    Returns:
        (N,) int64.
    """
    weighted = probabilities.T @ features
    mass = probabilities.sum(dim=0).clamp_min(torch.finfo(features.dtype).tiny)
    first = weighted / mass[:, None]
    labels = _nearest(features, first)
    sums = torch.zeros_like(first).index_add_(0, labels, features)
    counts = torch.bincount(labels, minlength=len(first)).to(features.dtype)
    own = sums / counts.clamp_min(1)[:, None]
    return _nearest(features, torch.where(counts[:, None] > 0, own, first))


def _nearest(features: Tensor, centroids: Tensor) -> Tensor:
    unit = functional.normalize(centroids, dim=1).T
    # The length of a feature does not change which centroid has the largest cosine.
    return torch.cat([(rows @ unit).argmax(dim=1) for rows in features.split(_ROWS)])
