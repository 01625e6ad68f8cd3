"""Which images train, which validate, which test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gsfl_tune.data.sources import Part
from gsfl_tune.data.sources._base import some
from gsfl_tune.experiment.config import SplitConfig

LEAST_TRAINING = 2
LEAST_HELD_OUT = 1


@dataclass(frozen=True)
class Split:
    """Positions in the list of a source, ascending, int64.

    Attributes:
        train: Images to train on.
        validation: Images to compare trials by.
        test: Images of the final test.
        dropped: Images left out because their twin is in a given test or validation part.
        given_validation: Whether the source has a validation part of its own.
        given_test: Whether the source has a test part of its own.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    dropped: np.ndarray
    given_validation: bool
    given_test: bool


@dataclass(frozen=True)
class Duplicates:
    """Byte-identical images.

    Attributes:
        groups: Paths of images with the same bytes, one list for each set of twins.
        dropped: Paths that were taken out of training (or of a given validation part) because a
            given test or validation part holds the same image.
        conflicting: Those of ``groups`` whose members have different labels.
    """

    groups: list[list[str]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    conflicting: list[list[str]] = field(default_factory=list)


def divide(
    labels: Sequence[int],
    parts: Sequence[Part | None],
    digests: Sequence[bytes],
    config: SplitConfig,
) -> Split:
    """Divides images, stratified by class, never putting byte-identical ones into two parts.

    A part that the source gives is kept. Otherwise each class gives its share, chosen by a
    hash of the seed and the image: the choice depends neither on the order nor on the names of
    the files, and hardly changes when images are added.

    Args:
        labels: Class of each image.
        parts: Part of each image as given by the source.
        digests: Digest of the bytes of each image.
        config: Shares and seed.
    """
    given_test = "test" in parts
    given_validation = "validation" in parts
    of_part: dict[str, set[bytes]] = {"test": set(), "validation": set()}
    for part, digest in zip(parts, digests, strict=True):
        if part in of_part:
            of_part[part].add(digest)
    dropped: list[int] = []
    free: list[int] = []
    held: dict[str, list[int]] = {"test": [], "validation": []}
    for position, (part, digest) in enumerate(zip(parts, digests, strict=True)):
        if part != "test" and digest in of_part["test"]:
            dropped.append(position)
        elif part in held:
            held[part].append(position)
        elif digest in of_part["validation"]:
            dropped.append(position)
        else:
            free.append(position)
    if not given_test:
        reserve = LEAST_TRAINING + (0 if given_validation else LEAST_HELD_OUT)
        held["test"], free = _take(free, labels, digests, config.test, reserve, config.seed, "test")
    if not given_validation:
        held["validation"], free = _take(
            free,
            labels,
            digests,
            config.validation_share,
            LEAST_TRAINING,
            config.seed,
            "validation",
        )
    return Split(
        train=_positions(free),
        validation=_positions(held["validation"]),
        test=_positions(held["test"]),
        dropped=_positions(dropped),
        given_validation=given_validation,
        given_test=given_test,
    )


def _take(
    free: list[int],
    labels: Sequence[int],
    digests: Sequence[bytes],
    share: float,
    reserve: int,
    seed: int,
    purpose: str,
) -> tuple[list[int], list[int]]:
    """Takes a share of each class, one image or more, leaving at least ``reserve`` others."""
    labels_of: dict[bytes, set[int]] = {}
    for position in free:
        labels_of.setdefault(digests[position], set()).add(labels[position])
    # A photograph of several classes (boxes) counts for the rarest, which could else get nothing.
    frequency = Counter(label for found in labels_of.values() for label in found)
    of_class: dict[int, list[bytes]] = {}
    for digest, found in labels_of.items():
        rarest = min(found, key=lambda label: (frequency[label], label))
        of_class.setdefault(rarest, []).append(digest)
    taken: set[bytes] = set()
    for members in of_class.values():
        count = max(LEAST_HELD_OUT, round(len(members) * share))
        count = max(0, min(count, len(members) - reserve))
        members.sort(key=lambda digest: _rank(seed, purpose, digest))
        taken.update(members[:count])
    return (
        [position for position in free if digests[position] in taken],
        [position for position in free if digests[position] not in taken],
    )


def _rank(seed: int, purpose: str, digest: bytes) -> bytes:
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
) -> list[str]:
    """Says which classes have too few images.

    Args:
        classes: Names of the classes.
        train: Labels of the training images.
        validation: Labels of the validation images.
        test: Labels of the test images; None if the source gave them, as it may give any number.
        given_validation: Whether the source gave the validation images: it may lack classes, see
            `missing_classes`.
    """
    if len(classes) < 2:
        return [f"at least 2 classes are needed, found {len(classes)}: {some(list(classes))}"]
    problems = []
    wanted = [
        ("training", train, LEAST_TRAINING),
        ("validation", validation, 0 if given_validation else LEAST_HELD_OUT),
    ]
    if test is not None:
        wanted.append(("test", test, LEAST_HELD_OUT))
    counts = {
        what: np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(classes))
        for what, labels, _ in wanted
    }
    total = np.sum(list(counts.values()), axis=0)
    empty = [name for name, count in zip(classes, total, strict=True) if not count]
    if empty:
        problems.append(f"{_classes(len(empty))} no images: {some(empty)}")
    for what, _, least in wanted:
        short = [
            f"{name} ({count})"
            for name, count, present in zip(classes, counts[what], total, strict=True)
            if present and count < least
        ]
        if short:
            problems.append(
                f"{_classes(len(short))} fewer than {least} different {what} "
                f"image{'s' if least > 1 else ''}: {some(short)}"
            )
    return problems


def missing_classes(classes: Sequence[str], part: str, labels: np.ndarray) -> str | None:
    """Says which classes a given part has no image of; None where it has all of them.

    Args:
        classes: Names of the classes.
        part: What people call the part.
        labels: (N,) labels of its images.
    """
    counts = np.bincount(labels, minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not missing:
        return None
    return (
        f"the given {part} part has no image of {len(missing)} of {len(classes)} classes and says "
        f"nothing of them: {some(missing)}"
    )


def _classes(count: int) -> str:
    return "1 class has" if count == 1 else f"{count} classes have"


def find_duplicates(
    paths: Sequence[str], labels: Sequence[int], digests: Sequence[bytes], split: Split
) -> Duplicates:
    """Lists byte-identical images."""
    members: dict[bytes, list[int]] = {}
    for position, digest in enumerate(digests):
        members.setdefault(digest, []).append(position)
    twins = [positions for positions in members.values() if len(positions) > 1]
    return Duplicates(
        groups=[[paths[position] for position in positions] for positions in twins],
        dropped=[paths[position] for position in split.dropped],
        conflicting=[
            [paths[position] for position in positions]
            for positions in twins
            if len({labels[position] for position in positions}) > 1
        ],
    )
