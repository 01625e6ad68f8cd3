"""The swap test: decodes the shared part of one image with the discriminative part of another.

decoder(s of image a + d of image b) is a feature like f. A judge classifies it: a linear classifier
that was fitted on the f of training images. If the parts contain what they should,

- for a and b of different groups, the judge sees the group of a, which gave the shared part;
- for a and b of different classes of one group, it sees the class of b, which gave the
  discriminative part: there the shared parts are interchangeable.

The two questions need different pairs: if the groups differ, a judge that sees the class of b also
sees its group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.evidence.ridge import Ridge, stratified_folds

PAIRS = 2000

Features = NDArray[np.floating]
Indices = NDArray[np.int64]
Decode = Callable[[Features], Features]


class Judge:
    """Classifies unit features linearly, by class and by group.

    Args:
        features: (N, D) f of training images.
        labels: (N,) their classes.
        groups: (C,) group of every class.
        seed: Seed of the folds on which the penalty is chosen.
    """

    def __init__(
        self, features: ArrayLike, labels: ArrayLike, groups: ArrayLike, *, seed: int = 0
    ) -> None:
        group = np.asarray(groups, dtype=np.int64)
        classes = np.asarray(labels, dtype=np.int64)
        targets = np.eye(len(group))[classes]
        ridge = Ridge(_unit(np.asarray(features)))
        folds = stratified_folds(classes, seed)
        errors = {
            strength: float(((predicted - targets) ** 2).mean())
            for strength, predicted in ridge.cross_validated(targets, folds)
        }
        self._weights, self._intercepts = ridge.fit(targets, min(errors, key=errors.__getitem__))
        # Least squares are linear in their targets: a group's score is the sum of its classes'.
        self._member = np.eye(int(group.max()) + 1)[group]

    def __call__(self, features: Features) -> tuple[Indices, Indices]:
        """Returns class and group, (M,) each, of features (M, D) of any length."""
        scores = _unit(features) @ self._weights + self._intercepts
        return scores.argmax(axis=1), (scores @ self._member).argmax(axis=1)


@dataclass(frozen=True)
class Swappable:
    """Holds what the swap test needs of one seed's network.

    Attributes:
        judge: Judge fitted on training images.
        features: (N, D) f of test images.
        shared: (N, H) their shared parts.
        discriminative: (N, H) their discriminative parts.
        decode: Makes features (M, D) from sums s + d (M, H).
    """

    judge: Judge
    features: Features
    shared: Features
    discriminative: Features
    decode: Decode


def swap_test(
    seeds: Sequence[Swappable],
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    pairs: int = PAIRS,
    seed: int = 0,
) -> dict[str, Any]:
    """Swaps the shared parts of random pairs of images and applies the judge.

    Args:
        seeds: One network per seed; the numbers are means over them.
        labels: (N,) classes of the test images.
        groups: (C,) group of every class.
        pairs: Number of pairs of each kind.
        seed: Seed of the pairs.

    Returns:
        ``pairs`` (of both kinds), ``group_follows_shared`` and ``group_follows_discriminative`` (of
        pairs across groups), ``class_follows_discriminative`` and ``class_follows_shared`` (of
        pairs inside a group), ``chance_group`` (agreement of unrelated pairs), ``chance_class``
        (a guess among the classes of the group), ``unswapped_group`` and ``unswapped_class`` (the
        judge on decoder(s + d) of the same image), ``judge_accuracy`` and
        ``judge_group_accuracy`` (on the images' own f). None if there is no such pair.
    """
    classes = np.asarray(labels, dtype=np.int64)
    group = np.asarray(groups, dtype=np.int64)
    generator = np.random.default_rng(seed)
    across = pairs_across_groups(group[classes], pairs, generator)
    inside = pairs_inside_groups(classes, group, pairs, generator)
    rows = [_asked(each, classes, group, across, inside) for each in seeds]
    sizes = np.bincount(group)
    numbers: dict[str, Any] = {
        name: None if rows[0][name] is None else float(np.mean([row[name] for row in rows]))
        for name in rows[0]
    }
    inner = group[classes[inside[0]]]
    numbers["chance_class"] = float((1 / sizes[inner]).mean()) if len(inner) else None
    return {"pairs": len(across[0]) + len(inside[0])} | numbers


def _asked(
    network: Swappable,
    classes: Indices,
    group: Indices,
    across: tuple[Indices, Indices],
    inside: tuple[Indices, Indices],
) -> dict[str, float | None]:
    def judged(givers: Indices, keepers: Indices) -> tuple[Indices, Indices]:
        return network.judge(
            network.decode(network.shared[givers] + network.discriminative[keepers])
        )

    groups = group[classes]
    own_class, own_group = network.judge(network.features)
    everything = np.arange(len(classes))
    same_class, same_group = judged(everything, everything)
    row: dict[str, float | None] = {
        "judge_accuracy": float((own_class == classes).mean()),
        "judge_group_accuracy": float((own_group == groups).mean()),
        "unswapped_class": float((same_class == classes).mean()),
        "unswapped_group": float((same_group == groups).mean()),
        "group_follows_shared": None,
        "group_follows_discriminative": None,
        "chance_group": None,
        "class_follows_discriminative": None,
        "class_follows_shared": None,
    }
    if len(across[0]):
        giver, keeper = across
        _, seen = judged(giver, keeper)
        kinds = int(group.max()) + 1
        row["group_follows_shared"] = float((seen == groups[giver]).mean())
        row["group_follows_discriminative"] = float((seen == groups[keeper]).mean())
        counts = (np.bincount(each, minlength=kinds) for each in (seen, groups[giver]))
        said, true = (each / len(seen) for each in counts)
        row["chance_group"] = float(said @ true)
    if len(inside[0]):
        giver, keeper = inside
        seen, _ = judged(giver, keeper)
        row["class_follows_discriminative"] = float((seen == classes[keeper]).mean())
        row["class_follows_shared"] = float((seen == classes[giver]).mean())
    return row


def pairs_across_groups(
    groups: Indices, count: int, generator: np.random.Generator
) -> tuple[Indices, Indices]:
    """Draws pairs of images of different groups; every image is first in about as many pairs.

    Args:
        groups: (N,) group of every image.
        count: Number of pairs.
        generator: Draws them.

    Returns:
        Two times (count,) positions; empty if all images are of one group.
    """
    return _pairs(groups, np.zeros_like(groups), count, generator)


def pairs_inside_groups(
    classes: Indices, group: Indices, count: int, generator: np.random.Generator
) -> tuple[Indices, Indices]:
    """Draws pairs of images of different classes of one group, like `pairs_across_groups`.

    Args:
        classes: (N,) class of every image.
        group: (C,) group of every class.
        count: Number of pairs.
        generator: Draws them.
    """
    return _pairs(classes, group[classes], count, generator)


def _pairs(
    inner: Indices,
    outer: Indices,
    count: int,
    generator: np.random.Generator,
) -> tuple[Indices, Indices]:
    """Draws partners of the same outer and another inner set; `inner` refines `outer`."""
    order = np.lexsort((inner, outer))
    place = np.argsort(order)
    # Both kinds of sets are ranges of `order`: [start, start + size).
    outer_start, outer_size = _stretch(outer[order])
    inner_start, inner_size = _stretch(inner[order])
    free = (outer_size - inner_size)[place]
    able = np.flatnonzero(free)
    if not len(able):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first = np.resize(generator.permutation(able), count)
    at = place[first]
    partner = outer_start[at] + generator.integers(0, free[first])
    # Skips the inner set.
    partner += np.where(partner >= inner_start[at], inner_size[at], 0)
    return first, order[partner]


def _stretch(values: Indices) -> tuple[Indices, Indices]:
    """Returns the start and length of the run of equal values around each position."""
    begins = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    sizes = np.diff(np.r_[begins, len(values)])
    return np.repeat(begins, sizes), np.repeat(sizes, sizes)


def _unit(features: Features) -> NDArray[np.float64]:
    values = np.asarray(features, dtype=np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
