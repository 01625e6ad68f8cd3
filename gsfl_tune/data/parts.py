"""The parts of a source, and their problems."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from gsfl_tune.data.decoded import DecodedImages
from gsfl_tune.data.grouping import Grouping
from gsfl_tune.data.sources import Source
from gsfl_tune.data.sources._base import some
from gsfl_tune.data.splits import LEAST_TRAINING, Split, divide, size_problems
from gsfl_tune.experiment.data_config import SplitConfig


def divide_source(
    source: Source,
    digests: Sequence[bytes],
    config: SplitConfig,
    positions: Sequence[int],
    grouping: Grouping | None = None,
) -> Split:
    """Divides some images of a source into parts.

    Args:
        source: The source of the images.
        digests: Digests of all its images.
        config: The section ``data.split``.
        positions: The images to divide.
        grouping: Which of these belong together; default: byte-identical images.

    Returns:
        Positions in the list of the source.
    """
    samples = [source.samples[position] for position in positions]
    split = divide(
        [sample.label for sample in samples],
        [sample.part for sample in samples],
        [digests[position] for position in positions],
        config,
        grouping,
    )
    place = np.asarray(positions, dtype=np.int64)
    return dataclasses.replace(
        split,
        train=place[split.train],
        validation=place[split.validation],
        test=place[split.test],
        dropped=place[split.dropped],
        strayed=place[split.strayed],
    )


def listing_problems(source: Source) -> list[str]:
    """Lists the problems of a source that are known without a division."""
    twice = sorted(name for name, count in Counter(source.classes).items() if count > 1)
    told = [f"class names that appear more than once: {some(twice)}"] if twice else []
    return [*source.problems, *told]


def source_problems(
    source: Source, split: Split, may_lack: Collection[int] = (), shots: int | None = None
) -> list[str]:
    """Lists parts and classes with too few images.

    Args:
        source: The source of the images.
        split: The parts.
        may_lack: Classes from which no image can be held out.
        shots: ``data.shots``: whoever asks for one image of a class needs no second one.
    """
    if not source.samples and source.problems:
        return []

    def labels(positions: np.ndarray) -> list[int]:
        return [source.samples[position].label for position in positions.tolist()]

    test = labels(split.test)
    problems = size_problems(
        source.classes,
        labels(split.train),
        labels(split.validation),
        None if split.given_test else test,
        given_validation=split.given_validation,
        may_lack=may_lack,
        given_test=test if split.given_test else (),
        dropped=labels(split.dropped),
        strayed=labels(split.strayed),
        least_training=min(LEAST_TRAINING, shots or LEAST_TRAINING),
    )
    if split.given_validation and not len(split.validation):
        like = ", or of a group in it" if len(split.strayed) else ""
        problems.append(
            f"the given validation part has no image that is not in the test part too{like}"
        )
    return problems


def labels_of_test(source: Source, split: Split, decoded: DecodedImages | None) -> np.ndarray:
    """Returns labels of the test part, without decoding it.

    Args:
        source: The source of the images.
        split: Its parts.
        decoded: The test images where they are decoded already; then none of them is broken.
    """
    if decoded is not None:
        return np.asarray(decoded.labels)
    samples = source.samples
    return np.array([samples[position].label for position in split.test.tolist()], dtype=np.int64)
