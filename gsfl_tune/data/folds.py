"""Folds of a cross-validation: training and validation images, divided anew."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsfl_tune.data.dataset import Dataset
from gsfl_tune.data.grouping import together
from gsfl_tune.data.sources._base import some
from gsfl_tune.data.splits import LEAST_TRAINING, rank_of
from gsfl_tune.data.synthetic import made_within
from gsfl_tune.experiment.errors import UserError

# Part of the hash that orders images.
_PURPOSE = "folds"


@dataclass(frozen=True)
class Fold:
    """Names one fold.

    Attributes:
        number: Its number, 0..count-1.
        count: Number of folds.
    """

    number: int
    count: int


# What a data set computes of its training and validation parts.
_OF_PARTS = (
    "train_index", "validation_index", "final_index", "digest", "duplicates", "notices",
    "unlabelled", "_unlabelled",
)  # fmt: skip


def fold_of(dataset: Dataset, fold: Fold) -> Dataset:
    """Returns the images of a data set with other training and validation parts.

    Training and validation images together are divided into folds. The fold is the validation
    part, the other folds are the training part. ``pool`` and ``test`` are the same images in the
    same order, and so are the caches that are computed from them.

    Args:
        dataset: The images.
        fold: The fold that is held out.

    Raises:
        UserError: If the source has a validation part of its own, or a class has too few images,
            or groups of images that stay together.
    """
    if dataset.given_validation:
        raise UserError(
            f"search.folds: found {fold.count}, but the source has a validation part of its own; "
            "allowed nothing, or data.split.validation: resplit, which joins it with the training "
            "images"
        )
    pool = dataset.pool
    positions = dataset._pool_positions()
    folds = _folds_of(dataset, positions, fold.count)
    held = folds == fold.number
    # Synthetic images that were made from images of the fold tell of them.
    source = dataset._source
    told = set(source.synthetic)
    told -= set(made_within(source, dataset._digests, positions[~held].tolist()))
    trained = ~held & ~np.isin(positions, list(told))
    made = copy.copy(dataset)
    for name in _OF_PARTS:
        made.__dict__.pop(name, None)
    made.split = replace(dataset.split, train=positions[trained], validation=positions[held])
    # They are not opened or hashed again.
    made.pool = pool
    return made


def _folds_of(dataset: Dataset, positions: np.ndarray, count: int) -> np.ndarray:
    """Returns the fold of images, -1 for synthetic ones; takes some 20 ms for 3,000."""
    good, grouping = dataset._grouped
    digests = dataset._digests
    units: list[Hashable] = list(digests)
    synthetic = np.isin(positions, list(dataset._source.synthetic))
    found = np.full(len(positions), -1, dtype=np.int64)
    if grouping is not None:
        numbers = together(grouping.copies, grouping.units).tolist()
        for position, unit in zip(good, numbers, strict=True):
            units[position] = unit
    rows = positions[~synthetic].tolist()
    found[~synthetic] = make_folds(
        dataset.pool.labels[~synthetic].tolist(),
        [digests[position] for position in rows],
        [units[position] for position in rows],
        count,
        seed=dataset._config.split.seed,
        classes=dataset.classes,
        crowded=dataset._crowded(good, grouping),
    )
    return found


def make_folds(
    labels: Sequence[int],
    digests: Sequence[bytes],
    units: Sequence[Hashable],
    count: int,
    *,
    seed: int,
    classes: Sequence[str],
    crowded: Collection[int] = (),
) -> np.ndarray:
    """Divides images into folds, stratified by class; images that belong together share a fold.

    Units with images of one class go, the largest first, to the fold with the fewest images of
    that class. Units of several classes are divided by scikit-learn's `StratifiedGroupKFold`, as
    in `gsfl_tune.data.splits.divide`. The result does not depend on the order of the images.

    Args:
        labels: Class of each of N images.
        digests: Digest of each image.
        units: Images with equal units belong together.
        count: Number of folds.
        seed: Seed of the split.
        classes: Names of the classes.
        crowded: Classes whose images all belong together: they are trained on in every fold.

    Returns:
        (N,) int64 number of the fold; -1 for images that are never held out.

    Raises:
        UserError: If a class has fewer units than folds, or would be left with too few images to
            train on.
    """
    members: dict[Hashable, list[int]] = {}
    for position, unit in enumerate(units):
        members.setdefault(unit, []).append(position)
    free = {
        unit: positions
        for unit, positions in members.items()
        if not {labels[position] for position in positions} & set(crowded)
    }
    _refuse_few(labels, free, count, classes, crowded)
    several = any(len({labels[p] for p in positions}) > 1 for positions in free.values())
    if several:
        fold_of = _of_several(labels, digests, free, count, seed)
    else:
        fold_of = _of_each_class(labels, digests, free, count, seed)
    folds = np.array([fold_of.get(unit, -1) for unit in units], dtype=np.int64)
    _refuse_empty(np.asarray(labels), folds, count, classes, crowded)
    return folds


def _refuse_few(
    labels: Sequence[int],
    units: Mapping[Hashable, Sequence[int]],
    count: int,
    classes: Sequence[str],
    crowded: Collection[int],
) -> None:
    found: Counter[int] = Counter()
    for positions in units.values():
        found.update({labels[position] for position in positions})
    short = {
        label: found[label] for label in sorted(set(labels) - set(crowded)) if found[label] < count
    }
    if not short:
        return
    most = min(short.values())
    allowed = f"at most {most}" if most > 1 else "none with these images"
    names = [f"{classes[label]} ({number})" for label, number in short.items()]
    raise UserError(
        f"search.folds: found {count}, allowed {allowed}: {_classes(len(short))} fewer images, or "
        f"groups of images that stay together, than folds: {some(names)}"
    )


def _refuse_empty(
    labels: np.ndarray,
    folds: np.ndarray,
    count: int,
    classes: Sequence[str],
    crowded: Collection[int],
) -> None:
    problems = []
    for number in range(count):
        left = np.bincount(labels[folds != number], minlength=len(classes))
        for label in np.unique(labels).tolist():
            if left[label] < LEAST_TRAINING and label not in crowded:
                problems.append(f"{classes[label]} ({left[label]})")
    if problems:
        names = list(dict.fromkeys(problems))
        raise UserError(
            f"search.folds: found {count}, but without one of the folds {_classes(len(names))} "
            f"fewer than {LEAST_TRAINING} images to train on: {some(names)}; allowed other folds, "
            "or a data.split.by whose groups are smaller"
        )


def _of_each_class(
    labels: Sequence[int],
    digests: Sequence[bytes],
    units: Mapping[Hashable, Sequence[int]],
    count: int,
    seed: int,
) -> dict[Hashable, int]:
    of_class: dict[int, list[tuple[int, bytes, Hashable]]] = {}
    for unit, positions in units.items():
        rank = min(rank_of(seed, _PURPOSE, digests[position]) for position in positions)
        of_class.setdefault(labels[positions[0]], []).append((-len(positions), rank, unit))
    found: dict[Hashable, int] = {}
    total = [0] * count
    for label in sorted(of_class):
        own = [0] * count
        for size, _, unit in sorted(of_class[label], key=lambda each: each[:2]):
            number = min(range(count), key=lambda each: (own[each], total[each], each))
            found[unit] = number
            own[number] -= size
            total[number] -= size
    return found


def _of_several(
    labels: Sequence[int],
    digests: Sequence[bytes],
    units: Mapping[Hashable, Sequence[int]],
    count: int,
    seed: int,
) -> dict[Hashable, int]:
    from sklearn.model_selection import StratifiedGroupKFold

    ranked = sorted(
        units.items(),
        key=lambda each: min(rank_of(seed, _PURPOSE, digests[position]) for position in each[1]),
    )
    groups = np.repeat(np.arange(len(ranked)), [len(positions) for _, positions in ranked])
    own = [labels[position] for _, positions in ranked for position in positions]
    state = int.from_bytes(rank_of(seed, _PURPOSE, b"")[:4], "little")
    cut = StratifiedGroupKFold(count, shuffle=True, random_state=state)
    found: dict[Hashable, int] = {}
    with warnings.catch_warnings():
        # A class with fewer images than folds was refused; its units may still be few.
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held) in enumerate(cut.split(np.zeros(len(own)), own, groups)):
            for place in np.unique(groups[held]).tolist():
                found[ranked[place][0]] = number
    return found


def _classes(count: int) -> str:
    return "1 class has" if count == 1 else f"{count} classes have"
