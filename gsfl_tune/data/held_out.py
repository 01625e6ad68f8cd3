"""Finds out which images are held out together, as ``data.split.by`` says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gsfl_tune.cache.building import acquire
from gsfl_tune.data.grouping import (
    Grouping,
    alike_clusters,
    copies_of,
    nearest_is_right,
    nearness,
    together,
)
from gsfl_tune.data.image_file import Reading
from gsfl_tune.data.looks import Looks, looks_of
from gsfl_tune.data.sources import Sample, Source
from gsfl_tune.data.splits import Split, divide
from gsfl_tune.data.units import bursts, by_folder, by_group, by_time
from gsfl_tune.experiment.data_config import SplitConfig

# Enters the cache key: change it whenever other images are found to belong together.
_VERSION = 2
# Of shelves (grocery) 0.83 are right and 0.30 with clusters; of garments 0.48 and 0.03, of drawings
# 0.48 and 0.21.
_NEAR, _FALL = 0.65, 0.4


def find_grouping(
    source: Source,
    digests: Sequence[bytes],
    positions: Sequence[int],
    config: SplitConfig,
    reading: Reading,
    cache: Path,
    name: str,
) -> Grouping | None:
    """Which of some images belong together.

    Args:
        source: Lists and reads the images.
        digests: Digests of all of them.
        positions: Which ones are divided: those that can be read.
        config: The section ``data.split``.
        reading: How the files are read.
        cache: The cache directory.
        name: What people call the data set.

    Returns:
        None where byte-identical images alone do: with ``by: image``, where the source gives all
        parts itself, or where ``auto`` meets rendered images.

    Raises:
        UserError: If the images do not say what is asked for.
    """
    samples = [source.samples[position] for position in positions]
    given = {sample.part for sample in samples}
    # What is rendered on the spot (and so knows its digests) was never photographed in bursts.
    rendered = config.by == "auto" and source.known_digests() is not None
    if config.by == "image" or rendered or {"validation", "test"} <= given:
        return None
    theirs = [digests[position] for position in positions]
    key = hashlib.blake2b(
        f"{_VERSION} {config.model_dump_json()} {reading.key} {source.revision}".encode(),
        digest_size=16,
    )
    for sample, digest in zip(samples, theirs, strict=True):
        key.update(f"{sample.label} {sample.part} {sample.group} {sample.path}\n".encode() + digest)

    def build(target: Path) -> None:
        rows = np.asarray(positions, dtype=np.int64)
        looks = looks_of(source, digests, reading, cache, name).of(rows)
        found = _find(samples, theirs, looks, config)
        with target.open("wb") as sink:
            notices = np.array(json.dumps(found.notices))
            np.savez(sink, copies=found.copies, units=found.units, notices=notices)

    file = cache / "splits" / f"{key.hexdigest()}.npz"
    what = f"what belongs together in {name}, {len(samples):,} images"
    with acquire(file, build, what=what) as path, np.load(path, allow_pickle=False) as stored:
        notices = json.loads(str(stored["notices"]))
        return Grouping(stored["copies"], stored["units"], notices)


def belonging(
    source: Source, digests: Sequence[bytes], reading: Reading, cache: Path, name: str
) -> Grouping:
    """Which images are copies, and which are of one group or burst, as far as they tell.

    For who compares images with each other, whatever ``data.split.by`` says: arguments as of
    `find_grouping`.
    """
    looks = looks_of(source, digests, reading, cache, name)
    copies = copies_of(looks, digests)
    groups = {sample.group for sample in source.samples}
    if len(groups - {None}) > 1:
        return Grouping(copies, together(copies, by_group(source.samples)))
    return Grouping(copies, together(copies, bursts(source.samples, looks)[0]))


def _find(
    samples: Sequence[Sample], digests: Sequence[bytes], looks: Looks, config: SplitConfig
) -> Grouping:
    copies = copies_of(looks, digests)
    alone = np.arange(len(samples))
    match config.by:
        case "group":
            return Grouping(copies, by_group(samples))
        case "folder":
            return Grouping(copies, by_folder(samples))
        case "time":
            return Grouping(copies, by_time(samples, looks))
        case "near_duplicate":
            return Grouping(copies, _clusters(samples, looks, config))
    found = Grouping(copies, alone)
    if any(sample.group is not None for sample in samples):
        told = "images of one group are held out together (data.group_column)"
        found = Grouping(copies, by_group(samples), [told])
    else:
        units, count = bursts(samples, looks)
        several = len(np.unique(units)) < len(np.unique(copies))
        if count >= 0.5 * len(samples) and several:
            told = (
                f"{len(np.unique(units)):,} bursts of photographs (EXIF times or a camera's "
                "numbers): each is held out whole or not at all; data.split.by: image divides them"
            )
            found = Grouping(copies, units, [told])
    return _as_far_as_the_test_part(samples, digests, looks, config, found)


def _as_far_as_the_test_part(
    samples: Sequence[Sample],
    digests: Sequence[bytes],
    looks: Looks,
    config: SplitConfig,
    found: Grouping,
) -> Grouping:
    """Holds out whole clusters where validation images would be nearer than a given test part's."""
    labels = [sample.label for sample in samples]
    parts = [sample.part for sample in samples]
    split = divide(labels, parts, digests, config, found)
    if split.given_validation:
        return found
    if not split.given_test:
        whole = Grouping(found.copies, together(found.units, _clusters(samples, looks, config)))
        clusters = divide(labels, parts, digests, config, whole)
        bursts_told = _fall(looks, np.asarray(labels), split, clusters)
        return replace(found, notices=[*found.notices, *bursts_told])
    near = nearness(looks, split.train, split.validation, split.test)
    if near is None:
        return found
    if not near.too_near:
        return found
    told = (
        "validation images drawn one by one would be nearer to the training images than the test "
        f"part's are, {near.nearer:.0%} of the time (50 % were right), and say too much good of "
        "every model: clusters of photographs that look alike are held out whole; "
        "data.split.by: image draws them one by one"
    )
    units = together(found.units, _clusters(samples, looks, config))
    return Grouping(found.copies, units, [told])


def _fall(looks: Looks, labels: np.ndarray, single: Split, clusters: Split) -> list[str]:
    """Says when what is held out has its neighbours in training, and what to do."""
    near, far = (
        nearest_is_right(looks, labels, split.train, split.validation)
        for split in (single, clusters)
    )
    if near is None or far is None or near < _NEAR or near - far < _FALL:
        return []
    return [
        f"of validation images {near:.0%} have the class of the training photograph that is most "
        f"alike by colours and edges alone, and {far:.0%} where clusters are held out whole: "
        "photographs probably come in bursts, and validation says too much good of every model; "
        "data.split.by: near_duplicate holds out clusters, group or folder what you know of them"
    ]


def _clusters(samples: Sequence[Sample], looks: Looks, config: SplitConfig) -> np.ndarray:
    """Clusters of what is not in a given part; each of the others is one of its own."""
    free = np.array([sample.part in (None, "train") for sample in samples])
    labels = np.array([sample.label for sample in samples])
    units = len(samples) + np.arange(len(samples))
    rows = np.flatnonzero(free)
    units[rows] = alike_clusters(looks.of(rows), labels[rows], config.validation_share)
    return units
