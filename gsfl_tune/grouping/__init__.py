"""Methods that group classes; the classes of a group share features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsfl_tune.grouping._base import (
    Grouping,
    GroupingInput,
    Groups,
    fill_empty_groups,
    numbered_by_first_class,
)
from gsfl_tune.grouping.agglomerative import AgglomerativeGrouping
from gsfl_tune.grouping.confusion import confusion_matrix, held_out_posteriors
from gsfl_tune.grouping.kmeans import KMeansGrouping
from gsfl_tune.grouping.random import RandomGrouping
from gsfl_tune.grouping.single import SingleGrouping
from gsfl_tune.grouping.spectral import SpectralGrouping
from gsfl_tune.grouping.taxonomy import TaxonomyGrouping, load_taxonomy

__all__ = [
    "GROUPINGS",
    "Grouping",
    "confusion_matrix",
    "held_out_posteriors",
    "load_taxonomy",
    "make_groups",
]

GROUPINGS: list[type[Grouping]] = [
    KMeansGrouping,
    SpectralGrouping,
    AgglomerativeGrouping,
    TaxonomyGrouping,
    RandomGrouping,
    SingleGrouping,
]

# Methods with a fixed number of groups.
_UNCOUNTED = ("taxonomy", "single")


def make_groups(
    method: str,
    count: int,
    features: np.ndarray,
    labels: np.ndarray,
    class_count: int,
    *,
    seed: int = 0,
    taxonomy: Sequence[str] | None = None,
) -> Groups:
    """Puts every class into a group.

    Args:
        method: Name of one of `GROUPINGS`.
        count: Number of groups K; ``taxonomy`` and ``single`` have their own.
        features: (N, D) unit features of un-augmented training images; ``taxonomy``, ``random`` and
            ``single`` do not use them.
        labels: (N,) classes, 0 .. C - 1.
        class_count: Number of classes C.
        seed: Seed of all random choices.
        taxonomy: Group name of every class, for ``taxonomy``: see `load_taxonomy`.

    Returns:
        (C,) group of every class, int64. Groups are numbered in the order of their first classes
        and none is empty.

    Raises:
        ValueError: If there is no such method, there are more groups than classes, or the input
            of the method is missing.
    """
    known = {grouping.name: grouping for grouping in GROUPINGS}
    if method not in known:
        raise ValueError(f"grouping method is {method!r}, allowed are {', '.join(known)}")
    counted = method not in _UNCOUNTED
    if counted and not 1 <= count <= class_count:
        raise ValueError(f"cannot make {count} groups of {class_count} classes")
    if counted and count in (1, class_count):  # the only solution
        return (
            np.arange(class_count, dtype=np.int64) if count > 1 else np.zeros(class_count, np.int64)
        )
    given = GroupingInput(count, features, labels, class_count, seed, taxonomy)
    groups = known[method]().assign(given)
    return fill_empty_groups(groups, count) if counted else numbered_by_first_class(groups)
