"""Finds which images are held out together, as ``data.split.by`` says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gsfl_tune.cache.building import acquire
from gsfl_tune.data.apart import BOTH, burst_units, kept_apart, straddling_bursts
from gsfl_tune.data.formats import heif_key
from gsfl_tune.data.grouping import (
    Grouping,
    Nearness,
    alike_clusters,
    copies_of,
    identical,
    nearest_is_right,
    nearness,
    together,
)
from gsfl_tune.data.image_file import Reading
from gsfl_tune.data.looks import Looks, looks_of
from gsfl_tune.data.sources import Sample, Source
from gsfl_tune.data.splits import Split, divide
from gsfl_tune.data.together import sets_of
from gsfl_tune.data.units import bursts, by_group
from gsfl_tune.experiment.data_config import SplitConfig

# Part of the cache key; change it when other images are found to belong together.
_VERSION = 8
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
    margin: float | None,
) -> Grouping | None:
    """Finds which of some images belong together.

    Args:
        source: Lists and reads the images.
        digests: Digests of all of them.
        positions: The images to divide, which are readable.
        config: The section ``data.split``.
        reading: Settings for reading files.
        cache: The cache directory.
        name: Name of the data set for people.
        margin: Margin of boxes that are cut out, as a share of their sides; None for whole images.

    Returns:
        None if only byte-identical images belong together: with ``by: image``, if ``auto`` finds
        rendered images, or if no image is readable. If the source gives all parts itself, copies
        alone belong together.

    Raises:
        UserError: If the images lack the information that ``by`` needs.
    """
    samples = [source.samples[position] for position in positions]
    theirs = [digests[position] for position in positions]
    sets = sets_of(samples)
    # Rendered images (whose digests are known) were never photographed in bursts; a source may
    # still tell their groups.
    grouped = any(sample.group is not None for sample in samples)
    rendered = config.by == "auto" and not grouped and source.known_digests() is not None
    if config.by == "image" or rendered or not samples:
        if sets is None:
            return None
        return Grouping(together(identical(theirs), sets), np.arange(len(samples)))
    cut = "" if margin is None else f" box {margin:.9g}"
    key = hashlib.blake2b(
        f"{_known(config)} {reading.key} {source.revision}{cut}".encode(), digest_size=16
    )
    for sample, digest in zip(samples, theirs, strict=True):
        key.update(f"{sample.label} {sample.part} {sample.group} {sample.path}\n".encode() + digest)
        if sample.together is not None:
            key.update(f"together {sample.together}".encode())
        if margin is not None:
            key.update(repr(sample.box).encode())

    def build(target: Path) -> None:
        rows = np.asarray(positions, dtype=np.int64)
        looks = looks_of(source, digests, reading, cache, name, margin).of(rows)
        found = _find(samples, theirs, looks, config)
        with target.open("wb") as sink:
            told = np.array(json.dumps([found.notices, found.measured]))
            bound = found.copies if found.bound is None else found.bound
            np.savez(sink, copies=found.copies, units=found.units, bound=bound, told=told)

    file = cache / "splits" / f"{key.hexdigest()}.npz"
    what = f"what belongs together in {name}, {len(samples):,} images"
    with acquire(file, build, what=what) as path, np.load(path, allow_pickle=False) as stored:
        notices, measured = json.loads(str(stored["told"]))
        found = Grouping(stored["copies"], stored["units"], notices, measured, stored["bound"])
    with acquire(
        _told_file(source, config, cache),
        lambda target: _write(target, notices),
        what="what was said of a split",
    ):
        return found


def told_before(source: Source, config: SplitConfig, cache: Path) -> list[str] | None:
    """Returns what `find_grouping` said of these images, without reading one; None if unknown.

    Args:
        source: The images; `settle_validation` was called.
        config: The section ``data.split``.
        cache: The cache directory.
    """
    try:
        found = json.loads(_told_file(source, config, cache).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return [str(line) for line in found]


def _told_file(source: Source, config: SplitConfig, cache: Path) -> Path:
    """Names the notices by sizes and times of change of the files instead of their content."""
    key = hashlib.blake2b(_known(config).encode(), digest_size=16)
    # Synthetic images do not change what is said of the others.
    for each in (source.samples[position] for position in source.originals):
        key.update(f"{each.label} {each.part} {each.group} {each.stamp} {each.path}\n".encode())
        if each.together is not None:
            key.update(f"together {each.together}".encode())
    return cache / "splits" / f"{key.hexdigest()}.told"


def _known(config: SplitConfig) -> str:
    """Returns how keys of the cache begin: the code, the packages and the settings."""
    # Of `together` the sets count, not the place of their file.
    return f"{_VERSION}{heif_key()} {config.model_dump_json(exclude={'together'})}"


def _write(target: Path, notices: list[str]) -> None:
    target.write_text(json.dumps(notices), encoding="utf-8")


def belonging(
    source: Source,
    digests: Sequence[bytes],
    reading: Reading,
    cache: Path,
    name: str,
    margin: float | None,
) -> Grouping:
    """Finds copies, and images of one group or burst as far as the source tells.

    For comparisons between images, with any ``data.split.by``. Arguments are those of
    `find_grouping`.
    """
    looks = looks_of(source, digests, reading, cache, name, margin)
    copies = copies_of(looks, digests, [sample.label for sample in source.samples])
    groups = {sample.group for sample in source.samples}
    if len(groups - {None}) > 1:
        return Grouping(copies, together(copies, by_group(source.samples)))
    return Grouping(copies, together(copies, bursts(source.samples, looks)[0]))


def _find(
    samples: Sequence[Sample], digests: Sequence[bytes], looks: Looks, config: SplitConfig
) -> Grouping:
    copies = copies_of(looks, digests, [sample.label for sample in samples])
    sets = sets_of(samples)
    if sets is not None:
        copies = together(copies, sets)
    known = kept_apart(samples, looks, copies, config)
    found = known or Grouping(copies, np.arange(len(samples)))
    if {sample.part for sample in samples} >= BOTH:
        return _of_given_parts(samples, digests, looks, config, found)
    if config.by == "near_duplicate":
        return Grouping(copies, _clusters(samples, looks, config))
    if config.by != "auto":
        return found
    if known is not None:
        told = "images of one group are held out together (data.group_column)"
        found = replace(known, notices=[told, *known.notices])
    elif (units := burst_units(samples, looks, copies)) is not None:
        told = (
            f"{len(np.unique(units)):,} bursts of photographs (EXIF times or camera numbers): "
            "each burst is held out as a whole or not at all; data.split.by: image divides them"
        )
        crossing = straddling_bursts(samples, units)
        found = Grouping(copies, units, [told, *([crossing] if crossing else [])])
    return _as_far_as_the_test_part(samples, digests, looks, config, found)


def _of_given_parts(
    samples: Sequence[Sample],
    digests: Sequence[bytes],
    looks: Looks,
    config: SplitConfig,
    found: Grouping,
) -> Grouping:
    """Says what given parts share, and with ``auto`` how near they are to training."""
    labels = [sample.label for sample in samples]
    parts = [sample.part for sample in samples]
    split = divide(labels, parts, digests, config, found)
    of_bytes = divide(labels, parts, digests, config).dropped
    notices = list(found.notices)
    if config.by == "near_duplicate":
        notices.append(
            "data.split.by: near_duplicate divides nothing, as the source gives both parts"
        )
    if config.by == "auto" and found.bound is None:
        units = burst_units(samples, looks, found.copies)
        crossing = None if units is None else straddling_bursts(samples, units)
        notices += [] if crossing is None else [crossing]
    measured: dict[str, float] = {}
    copies = len(np.setdiff1d(split.dropped, np.union1d(split.strayed, of_bytes)))
    if copies:
        # Not whether a table is named: what is said is kept by what it says of these images.
        listed = sets_of(samples) is not None
        also, sets = (", or by data.split.together", " and those sets") if listed else ("", "")
        notices.append(
            f"{copies:,} image{'s are' if copies > 1 else ' is'} left out, of which a given test "
            "or validation part has a copy (of another size, compression, brightness or contrast, "
            f"mirrored, or cut{also}); data.split.by: image leaves out byte-identical copies{sets} "
            "alone"
        )
    near = nearness(looks, split.train, split.validation, split.test)
    if config.by == "auto" and near is not None:
        measured = _nearer(near)
        notices += _near_told(near, "the given validation images")
        if near.too_near:
            notices[-1] += (
                "; validation is too optimistic, and what is chosen by it may be worse on test: "
                "data.split.validation: resplit joins it with the training images and holds out "
                "clusters of similar photographs"
            )
    return replace(found, notices=notices, measured=measured)


def _nearer(near: Nearness) -> dict[str, float]:
    return {"validation_nearer": near.nearer, "validation_nearer_p": near.surely}


def optimistic(measured: Mapping[str, float]) -> bool:
    """Returns whether results on the validation part are probably too good, by what was measured.

    Args:
        measured: `Grouping.measured`.
    """
    if "validation_nearer_clusters" in measured:
        return False  # clusters are held out because of it
    if "validation_nearer" in measured:
        return Nearness(measured["validation_nearer"], measured["validation_nearer_p"]).too_near
    right, falls = measured.get("nearest_right", 0.0), measured.get("accuracy_falls", 0.0)
    return right >= _NEAR and falls >= _FALL


def _near_told(near: Nearness, whose: str) -> list[str]:
    """Says how near validation and test images are to training images, where they surely differ."""
    if not near.differ:
        return []
    if near.nearer < 0.5:
        return [
            f"{whose} are farther from the training images than test images in "
            f"{100 * (1 - near.nearer):.0f} % of pairs (50 % would be equal): validation may be "
            "harder than the test"
        ]
    return [
        f"{whose} are nearer to the training images than test images in "
        f"{100 * near.nearer:.0f} % of pairs (50 % would be equal)"
    ]


def _as_far_as_the_test_part(
    samples: Sequence[Sample],
    digests: Sequence[bytes],
    looks: Looks,
    config: SplitConfig,
    found: Grouping,
) -> Grouping:
    """Holds out whole clusters if validation images would be nearer than a given test part's."""
    labels = [sample.label for sample in samples]
    parts = [sample.part for sample in samples]
    split = divide(labels, parts, digests, config, found)
    if split.given_validation:
        return found
    if not split.given_test:
        whole = replace(found, units=together(found.units, _clusters(samples, looks, config)))
        clusters = divide(labels, parts, digests, config, whole)
        bursts_told, measured = _fall(looks, np.asarray(labels), split, clusters)
        return replace(found, notices=[*found.notices, *bursts_told], measured=measured)
    near = nearness(looks, split.train, split.validation, split.test)
    if near is None:
        return found
    if not near.too_near:
        notices = [*found.notices, *_near_told(near, "validation images")]
        return replace(found, notices=notices, measured=_nearer(near))
    told = (
        "single validation images would be more similar to the training images than test images, "
        f"in {near.nearer:.0%} of pairs (50 % would be fair), and validation would be too "
        "optimistic: clusters of similar photographs are held out as a whole; data.split.by: image "
        "draws single images"
    )
    units = together(found.units, _clusters(samples, looks, config))
    whole = Grouping(found.copies, units, [*found.notices, told], _nearer(near), bound=found.bound)
    split = divide(labels, parts, digests, config, whole)
    after = nearness(looks, split.train, split.validation, split.test)
    if after is not None:
        whole.measured["validation_nearer_clusters"] = after.nearer
    return whole


def _fall(
    looks: Looks, labels: np.ndarray, single: Split, clusters: Split
) -> tuple[list[str], dict[str, float]]:
    """Warns if held-out images have near neighbours in training, and says what to do.

    Returns:
        Notices, and what was measured.
    """
    near, far = (
        nearest_is_right(looks, labels, split.train, split.validation)
        for split in (single, clusters)
    )
    if near is None or far is None:
        return [], {}
    measured = {
        "nearest_right": near,
        "nearest_right_clusters": far,
        "accuracy_falls": near - far,
    }
    if not optimistic(measured):
        return [], measured
    told = (
        f"of validation images {near:.0%} have the class of the training photograph most similar "
        f"in colours and edges, but only {far:.0%} if whole clusters are held out: photographs "
        "probably come in bursts, and validation is too optimistic; data.split.by: near_duplicate "
        "holds out clusters, group or folder holds out what you know to belong together"
    )
    return [told], measured


def _clusters(samples: Sequence[Sample], looks: Looks, config: SplitConfig) -> np.ndarray:
    """Clusters images outside given parts; each other image is its own cluster."""
    free = np.array([sample.part in (None, "train") for sample in samples])
    labels = np.array([sample.label for sample in samples])
    units = len(samples) + np.arange(len(samples))
    rows = np.flatnonzero(free)
    units[rows] = alike_clusters(looks.of(rows), labels[rows], config.validation_share)
    sets = sets_of(samples)
    if sets is not None:
        # A set goes into the cluster of its first image. If sets joined clusters, soon all images
        # would be in one.
        _, first, places = np.unique(sets, return_index=True, return_inverse=True)
        units = units[first[places]]
    return units
