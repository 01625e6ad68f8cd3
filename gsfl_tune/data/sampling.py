"""Chooses the images of an epoch and their order: each once, or classes more evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch

from gsfl_tune.data.sources import Sample
from gsfl_tune.data.splits import Split, rank_of
from gsfl_tune.experiment.data_config import DataConfig


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


def with_shots(
    split: Split,
    samples: Sequence[Sample],
    identities: Sequence[bytes],
    copies: tuple[Sequence[int], np.ndarray] | None,
    config: DataConfig,
) -> Split:
    """Makes a split with ``data.shots`` training images per class; the others become spare.

    Args:
        split: The split of all images.
        samples: All images.
        identities: A unique digest of each of them.
        copies: Positions of some of them, with (N,) numbers that are equal for copies of each
            other; None if byte-identical images alone are copies.
        config: The section ``data``.
    """
    numbers: list[Hashable] = list(identities)
    if copies is not None:
        for position, number in zip(copies[0], copies[1].tolist(), strict=True):
            numbers[position] = number
    train = few_shots(
        split.train,
        [sample.label for sample in samples],
        identities,
        numbers,
        shots=config.shots or 0,
        seed=config.split.seed,
    )
    return replace(split, train=train, spare=np.setdiff1d(split.train, train))


def few_shots(
    positions: np.ndarray,
    labels: Sequence[int],
    digests: Sequence[bytes],
    copies: Sequence[Hashable],
    *,
    shots: int,
    seed: int,
) -> np.ndarray:
    """Chooses the same number of training images per class, by a hash of seed and image.

    The choice for fewer images is a part of the choice for more. A copy of a chosen image is used
    only if its class has no other images.

    Args:
        positions: Positions of the training images.
        labels: Classes of all images, indexed by ``positions``.
        digests: A unique digest of each image.
        copies: Equal numbers for copies of each other.
        shots: Images per class; a class with fewer gives all.
        seed: Seed of the choice.

    Returns:
        Ascending positions.
    """
    members: dict[int, list[int]] = {}
    for position in positions.tolist():
        members.setdefault(labels[position], []).append(position)
    chosen: list[int] = []
    for own in members.values():
        own.sort(key=lambda position: rank_of(seed, "shots", digests[position]))
        seen: Counter[Hashable] = Counter()
        turns = []
        for position in own:
            turns.append(seen[copies[position]])
            seen[copies[position]] += 1
        # Stable: first new images, then second copies, then third ones.
        chosen += [own[place] for place in np.argsort(turns, kind="stable")[:shots].tolist()]
    return np.sort(np.asarray(chosen, dtype=np.int64))
