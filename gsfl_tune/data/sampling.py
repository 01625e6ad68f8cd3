"""Chooses the images of an epoch and their order: each once, or classes more evenly."""

from __future__ import annotations

import numpy as np
import torch


def epoch_positions(
    positions: np.ndarray,
    labels: np.ndarray,
    generator: torch.Generator,
    *,
    balance: float = 0.0,
) -> np.ndarray:
    """Draws the order of the training images in an epoch.

    With ``balance`` b, a class of n images gets a share of the epoch that is proportional to n^(1 -
    b): at 0 by its number of images, at 1 equal for all classes. Source: Kang et al., "Decoupling
    Representation and Classifier for Long-Tailed Recognition", ICLR 2020, where q = 1 - b. An epoch
    keeps its number of images. Images of frequent classes are shown in some epochs only, those of
    rare classes several times. Within a class, counts of its images differ by at most one.

    Args:
        positions: (N,) int64 positions of the training images.
        labels: Labels of all images, indexed by ``positions``.
        generator: Random generator of the epoch.
        balance: b, 0 to 1.

    Returns:
        (N,) int64 positions; at ``balance`` 0 a permutation.
    """
    if balance > 0:
        positions = _drawn(positions, labels, generator, balance)
    order = torch.randperm(len(positions), generator=generator).numpy()
    return np.asarray(positions, dtype=np.int64)[order]


def _drawn(
    positions: np.ndarray, labels: np.ndarray, generator: torch.Generator, balance: float
) -> np.ndarray:
    own = labels[positions]
    classes, sizes = np.unique(own, return_counts=True)
    shares = sizes.astype(np.float64) ** (1 - balance)
    edges = np.cumsum(shares) / shares.sum() * len(positions)
    # Systematic sampling: counts sum to N, and the expectation of each is exactly its share.
    offset = float(torch.rand((), generator=generator, dtype=torch.float64))
    counts = np.diff(np.floor(np.concatenate([[0.0], edges[:-1], [len(positions)]]) + offset))
    drawn = []
    for label, count in zip(classes.tolist(), counts.astype(np.int64).tolist(), strict=True):
        members = positions[own == label]
        rounds, rest = divmod(count, len(members))
        some = torch.randperm(len(members), generator=generator).numpy()[:rest]
        drawn += [np.tile(members, rounds), members[some]]
    return np.concatenate(drawn)


def class_weights(labels: np.ndarray, class_count: int, balance: float) -> np.ndarray:
    """Computes a weight per class, proportional to n^-balance for n training images.

    0 gives equal weights, 1 scikit-learn's ``class_weight="balanced"``, 0.5 the inverse square
    root. Weights have a mean of 1 over the training images, so that the loss keeps its scale
    against other terms.

    Args:
        labels: (N,) labels of the training images.
        class_count: C.
        balance: 0 to 1.

    Returns:
        (C,) float32; 0 for a class without training images.
    """
    sizes = np.bincount(labels, minlength=class_count).astype(np.float64)
    weights = np.zeros(class_count)
    weights[sizes > 0] = sizes[sizes > 0] ** -balance
    return (weights * sizes.sum() / (weights * sizes).sum()).astype(np.float32)


def log_priors(labels: np.ndarray, class_count: int) -> np.ndarray:
    """Computes the logarithm of each class' share of the training images.

    Args:
        labels: (N,) labels of the training images.
        class_count: C.

    Returns:
        (C,) float32; a class without training images counts as if it had one.
    """
    sizes = np.bincount(labels, minlength=class_count).clip(min=1).astype(np.float64)
    return np.log(sizes / sizes.sum()).astype(np.float32)
