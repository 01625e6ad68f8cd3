"""Divides images into training, validation and test parts."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gsfl_tune.data.grouping import Grouping, together
from gsfl_tune.data.sources import Part
from gsfl_tune.data.sources._base import some
from gsfl_tune.experiment.data_config import SplitConfig

LEAST_TRAINING = 2
LEAST_HELD_OUT = 1

# Parts of a source in which images stay, and whose copies are left out elsewhere.
_GIVEN = "given test or validation part"


@dataclass(frozen=True)
class Split:
    """Holds positions in the list of a source, ascending, int64.

    Attributes:
        train: Images to train on.
        validation: Images to compare trials by.
        test: Images of the final test.
        dropped: Images left out because a given test or validation part has a copy, or others of
            their unit (`Grouping.bound`).
        strayed: Those of `dropped` of which it has no copy, only others of their unit.
        spare: Training images beyond ``data.shots`` of their class, which are not used.
        given_validation: Whether the source has a validation part of its own.
        given_test: Whether the source has a test part of its own.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    dropped: np.ndarray
    given_validation: bool
    given_test: bool
    strayed: np.ndarray = field(default_factory=lambda: _positions([]))
    spare: np.ndarray = field(default_factory=lambda: _positions([]))


def divide(
    labels: Sequence[int],
    parts: Sequence[Part | None],
    digests: Sequence[bytes],
    config: SplitConfig,
    grouping: Grouping | None = None,
) -> Split:
    """Divides images, stratified by class; images that belong together stay in one part.

    A part given by the source is kept. Otherwise each class gives its share, chosen by a hash of
    the seed and the image. The choice does not depend on the order or names of the files, and
    hardly changes when images are added.

    Args:
        labels: Class of each image.
        parts: Part of each image as given by the source.
        digests: Digest of the bytes of each image.
        config: Shares and seed of the split.
        grouping: Images that belong together; default: byte-identical ones.
    """
    # Numbers of the grouping; without one, digests of byte-identical images.
    copies: Sequence[Hashable] = digests if grouping is None else grouping.copies.tolist()
    units = copies if grouping is None else together(grouping.copies, grouping.units).tolist()
    given_test = "test" in parts
    given_validation = "validation" in parts
    copied = strays(parts, copies)
    bound = grouping.bound if grouping is not None else None
    out = copied if bound is None else strays(parts, bound.tolist())
    crossed = grouping is not None and _cross(labels, grouping.units)
    take = _Taker(labels, digests, units, config.seed, crossed=crossed)
    dropped: list[int] = []
    free: list[int] = []
    held: dict[str, list[int]] = {"test": [], "validation": []}
    for position, part in enumerate(parts):
        if out[position] or copied[position]:
            dropped.append(position)
        elif part in held:
            held[part].append(position)
        else:
            free.append(position)
    if not given_test:
        reserve = LEAST_TRAINING + (0 if given_validation else LEAST_HELD_OUT)
        held["test"], free = take(free, config.test, reserve, "test")
    if not given_validation:
        share = config.validation_share
        held["validation"], free = take(free, share, LEAST_TRAINING, "validation")
    return Split(
        train=_positions(free),
        validation=_positions(held["validation"]),
        test=_positions(held["test"]),
        dropped=_positions(dropped),
        strayed=_positions([position for position in dropped if not copied[position]]),
        given_validation=given_validation,
        given_test=given_test,
    )


def strays(parts: Sequence[Part | None], keys: Sequence[Hashable]) -> list[bool]:
    """Returns for each image whether a given part has an image with its key and keeps both apart.

    A given test part keeps all its images, a given validation part those that the test part lacks.

    Args:
        parts: Part of each image as given by the source.
        keys: Equal keys for images that must not be in several parts.
    """
    of_part: dict[str, set[Hashable]] = {"test": set(), "validation": set()}
    for part, key in zip(parts, keys, strict=True):
        if part in of_part:
            of_part[part].add(key)
    return [
        (part != "test" and key in of_part["test"])
        or (part not in of_part and key in of_part["validation"])
        for part, key in zip(parts, keys, strict=True)
    ]


class _Taker:
    """Holds out a share of the images as whole units, stratified by class.

    Units with images of one class are chosen by a hash, units of several classes by scikit-learn's
    `StratifiedGroupKFold`.
    """

    def __init__(
        self,
        labels: Sequence[int],
        digests: Sequence[bytes],
        units: Sequence[Hashable],
        seed: int,
        *,
        crossed: bool,
    ) -> None:
        self._labels, self._digests, self._units, self._seed = labels, digests, units, seed
        self._crossed = crossed

    def __call__(
        self, free: list[int], share: float, reserve: int, purpose: str
    ) -> tuple[list[int], list[int]]:
        """Returns held-out positions and the rest.

        Args:
            free: Positions of the images.
            share: Share of each class, at least one image.
            reserve: Images per class that must be left.
            purpose: Part of the hash.
        """
        members: dict[Hashable, list[int]] = {}
        for position in free:
            members.setdefault(self._units[position], []).append(position)
        if self._crossed:
            taken = self._folds(free, share, purpose)
        else:
            taken = self._of_each_class(members, share, reserve, purpose)
        return (
            [position for position in free if self._units[position] in taken],
            [position for position in free if self._units[position] not in taken],
        )

    def _of_each_class(
        self, members: dict[Hashable, list[int]], share: float, reserve: int, purpose: str
    ) -> set[Hashable]:
        # A photograph of several classes (boxes) counts for the rarest, which else might get none.
        found = {unit: {self._labels[p] for p in each} for unit, each in members.items()}
        frequency = Counter(label for labels in found.values() for label in labels)
        of_class: dict[int, list[tuple[bytes, int, Hashable]]] = {}
        for unit, positions in members.items():
            images = {self._digests[position] for position in positions}
            rank = min(rank_of(self._seed, purpose, digest) for digest in images)
            label = min(found[unit], key=lambda label: (frequency[label], label))
            of_class.setdefault(label, []).append((rank, len(images), unit))
        taken: set[Hashable] = set()
        for units in of_class.values():
            total = sum(size for _, size, _ in units)
            count, got = max(LEAST_HELD_OUT, round(total * share)), 0
            for _, size, unit in sorted(units, key=lambda each: each[0]):
                if abs(got + size - count) < abs(got - count) and total - got - size >= reserve:
                    taken.add(unit)
                    got += size
            smallest = min(units, key=lambda each: (each[1], each[0]))
            if not got and total - smallest[1] >= reserve:
                taken.add(smallest[2])
        return taken

    def _folds(self, free: list[int], share: float, purpose: str) -> set[Hashable]:
        if not free:  # all were left out because of the given parts
            return set()
        from sklearn.model_selection import StratifiedGroupKFold

        labels = [self._labels[position] for position in free]
        _, groups = np.unique([str(self._units[p]) for p in free], return_inverse=True)
        largest = int(np.bincount(np.unique(labels, return_inverse=True)[1]).max())
        folds = min(max(2, round(1 / share)), int(groups.max()) + 1, largest)
        if folds < 2:
            return set()
        state = int.from_bytes(rank_of(self._seed, purpose, b"")[:4], "little")
        cut = StratifiedGroupKFold(folds, shuffle=True, random_state=state)
        with warnings.catch_warnings():
            # A class with fewer images than folds; `missing_classes` reports it.
            warnings.simplefilter("ignore", UserWarning)
            _, held = next(cut.split(np.zeros(len(free)), labels, groups))
        return {self._units[free[place]] for place in held.tolist()}


def _cross(labels: Sequence[int], units: np.ndarray) -> bool:
    """Returns whether some units have images of several classes."""
    pairs = np.unique(np.stack([units, np.asarray(labels)]), axis=1)
    return len(np.unique(units)) < pairs.shape[1]


def rank_of(seed: int, purpose: str, digest: bytes) -> bytes:
    """Returns the rank of an image in an order given by seed and purpose.

    It does not depend on the other images.
    """
    return hashlib.blake2b(f"{seed} {purpose} ".encode() + digest, digest_size=16).digest()


def _positions(positions: list[int]) -> np.ndarray:
    return np.asarray(positions, dtype=np.int64)


def size_problems(
    classes: Sequence[str],
    train: Sequence[int],
    validation: Sequence[int],
    test: Sequence[int] | None,
    *,
    given_validation: bool = False,
    may_lack: Collection[int] = (),
    given_test: Sequence[int] = (),
    dropped: Sequence[int] = (),
    strayed: Sequence[int] = (),
    least_training: int = LEAST_TRAINING,
) -> list[str]:
    """Lists classes with too few images.

    Args:
        classes: Names of the classes.
        train: Labels of the training images.
        validation: Labels of the validation images.
        test: Labels of the test images; None if the source gave them, as it may give any number.
        given_validation: Whether the source gave the validation images: it may lack classes, see
            `missing_classes`.
        may_lack: Classes from which no image can be held out.
        given_test: Labels of the test images if the source gave them.
        dropped: Labels of the images left out because of given test or validation images.
        strayed: Labels of those of them that are no copies, but of the same group.
        least_training: How many training images a class needs.
    """
    if len(classes) < 2:
        return [f"at least 2 classes are needed, found {len(classes)}: {some(list(classes))}"]

    def per_class(labels: Sequence[int]) -> np.ndarray:
        return np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(classes))

    wanted = [
        ("training", train, least_training),
        ("validation", validation, 0 if given_validation else LEAST_HELD_OUT),
    ]
    if test is not None:
        wanted.append(("test", test, LEAST_HELD_OUT))
    counts = {what: per_class(labels) for what, labels, _ in wanted}
    total = np.sum(list(counts.values()), axis=0)
    gone, groups = per_class(dropped), per_class(strayed)
    problems = _without_images(classes, total, per_class(given_test), gone, groups)
    for what, _, least in wanted:
        short = [
            f"{name} ({count}, and {lost} left out as {_like(alike)} the {_GIVEN})"
            if lost
            else f"{name} ({count})"
            for label, (name, count, present, lost, alike) in enumerate(
                zip(classes, counts[what], total, gone, groups, strict=True)
            )
            if present and count < least and (what == "training" or label not in may_lack)
        ]
        if short:
            problems.append(
                f"{_classes(len(short))} fewer than {least} different {what} "
                f"image{'s' if least > 1 else ''}: {some(short)}"
            )
    return problems


def _without_images(
    classes: Sequence[str],
    total: np.ndarray,
    given_test: np.ndarray,
    dropped: np.ndarray,
    strayed: np.ndarray,
) -> list[str]:
    """Lists classes with nothing to train on, by the reason.

    Args:
        classes: Names of the classes.
        total: (C,) images of each class that can be trained on or held out.
        given_test: (C,) images of each class in a given test part.
        dropped: (C,) images of each class left out because of given parts.
        strayed: (C,) those of them that are no copies.
    """
    nothing: list[str] = []
    copied: dict[str, list[str]] = {}
    tested: list[str] = []
    rows = zip(classes, total, given_test, dropped, strayed, strict=True)
    for name, count, test, gone, alike in rows:
        if count:
            continue
        if gone:
            copied.setdefault(_why(alike), []).append(f"{name} ({gone})")
        elif test:
            tested.append(f"{name} ({test})")
        else:
            nothing.append(name)
    problems = []
    if nothing:
        problems.append(f"{_classes(len(nothing))} no images: {some(nothing)}")
    if tested:
        problems.append(
            f"{_classes(len(tested))} images in the given test part only: {some(tested)}"
        )
    problems += [
        f"{_classes(len(names))} no training image left, as each has {why} in the {_GIVEN}, "
        f"where it stays: {some(names)}"
        for why, names in copied.items()
    ]
    return problems


def missing_classes(
    classes: Sequence[str], part: str, labels: np.ndarray, *, given: bool
) -> str | None:
    """Lists classes without an image in a part; None if there is none.

    Args:
        classes: Names of the classes.
        part: Name of the part for people.
        labels: (N,) labels of its images.
        given: Whether the source has this part.
    """
    counts = np.bincount(labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not missing:
        return None
    whose = "given " if given else ""
    return (
        f"the {whose}{part} part has no image of {len(missing)} of {len(classes)} classes and says "
        f"nothing of them: {some(missing)}"
    )


def _like(alike: int) -> str:
    return "copies, or of the groups, of images of" if alike else "copies of"


def _why(alike: int) -> str:
    return "a copy or an image of its group" if alike else "a copy"


def _classes(count: int) -> str:
    return "1 class has" if count == 1 else f"{count} classes have"
