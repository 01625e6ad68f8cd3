"""Opens labelled images for an evaluation, without making or requiring a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gsfl_tune.cache.entries import cache_directory
from gsfl_tune.data.decoded import (
    BrokenImage,
    DecodedFile,
    DecodedImages,
    Geometry,
    decode_once,
)
from gsfl_tune.data.digests import Contents, digest_of_images, read_contents
from gsfl_tune.data.image_file import PLAIN, Fit, Reading
from gsfl_tune.data.marks import MADE
from gsfl_tune.data.messages import unreadable_message
from gsfl_tune.data.sources import Part, Source, create_source, detect_source
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError

UNBOXED = "the bundle was trained on boxes cut out of images; these have none, and are scored whole"


@dataclass(frozen=True)
class Drawn:
    """Tells where images that are scored were drawn from, as `Dataset.trained_on` has it.

    Attributes:
        test: Digest of the images that are scored.
        images: Returns the digest of all images of the source; reads those that were not read yet.
        count: Their number, of which the listing knows: see `Source.listed`.
    """

    test: str
    images: Callable[[], str]
    count: int


@dataclass(frozen=True)
class LabelledImages:
    """Holds labelled images for an evaluation.

    Attributes:
        images: Decoded squares; their labels are positions in `classes`.
        classes: Class names of the source.
        part: ``test`` if the source has a test part, else ``all``.
        broken: Images that could not be read; they are not in `images`.
        notices: Messages that are not errors, such as on images without a label.
        unlabelled: Number of images of this part that have no label; they are not in `images`.
        contents: Digest of the bytes of each of `images`; empty where they were not read for this.
        drawn_from: Where they were drawn from; None if unknown.
    """

    images: DecodedImages
    classes: list[str]
    part: Literal["test", "all"]
    broken: list[BrokenImage]
    notices: list[str]
    unlabelled: int = 0
    contents: list[bytes] = field(default_factory=list)
    drawn_from: Drawn | None = None


def open_for_evaluation(
    path: str | Path,
    side: int,
    fit: Fit,
    cache_dir: Path | None = None,
    *,
    reading: Reading = PLAIN,
    margin: float | None = None,
) -> LabelledImages:
    """Opens what `detect_source` knows: folders of images, tables, shards, public data sets.

    Uses the test part if the source has one, else all images.

    Args:
        path: A path, or a pattern or URL of Parquet or tar files.
        side: Side of the decoded squares in pixels.
        fit: How an image becomes a square, see `square`.
        cache_dir: Root of the node's caches.
        reading: Settings for reading, as in the bundle's training.
        margin: Margin of the boxes that the bundle was trained on, as a share of their sides; None
            for whole images.

    Raises:
        UserError: If nothing can be read, or a test part has no label but other parts have: they
            may have been trained on.
    """
    crop: Literal["none", "box"] = "none" if margin is None else "box"
    config = DataConfig(source=detect_source(str(path)), path=str(path), crop=crop)
    cache = cache_dir or cache_directory()
    source = create_source(config, cache, scoring=True)
    if margin is not None and not any(sample.box for sample in source.samples):
        source.notices.append(UNBOXED)
        margin = None
    # A test folder alone is enough here; missing training images are not a problem.
    if source.problems and not source.samples:
        raise UserError("\n".join([*source.told(), *source.problems]))
    part: Literal["test", "all"] = "all"
    positions: Sequence[int] = range(len(source.samples))
    parts = {sample.part for sample in source.samples}
    if "test" in parts:
        part = "test"
        positions = [i for i in positions if source.samples[i].part == "test"]
    else:
        _refuse_trained_on(source, parts)
    how = replace(reading, cut_bottom=source.cut_bottom)
    return _decode(source, positions, Geometry(side, fit, how, margin), cache, part)


def _refuse_trained_on(source: Source, parts: set[Part | None]) -> None:
    """Refuses other images in place of a test part without labels, and says that they are used."""
    unlabelled = source.unlabelled("test")
    if unlabelled and source.samples:
        last = (
            f"none of {unlabelled:,} images of the test part has a label, so none can be scored; "
            f"the other {len(source.samples):,} images are not the test part, and a model may have "
            "been trained on them: name their file or folder to score them all the same"
        )
        raise UserError("\n".join([*source.told(), *source.problems, last]))
    if not source.samples and source.unlabelled():
        last = f"none of {source.unlabelled():,} images has a label"
        raise UserError("\n".join([*source.told(), *source.problems, last]))
    if "train" in parts:
        source.notices.append(
            "there is no test part: images of a training part are scored, which a model that was "
            "trained on them knows"
        )


def _decode(
    source: Source,
    positions: Sequence[int],
    geometry: Geometry,
    cache: Path,
    part: Literal["test", "all"],
) -> LabelledImages:
    contents = read_contents(source, cache, positions)
    marked = [position for position in positions if position in contents.marked]
    if marked:
        source.left_out[MADE] += len(marked)
        positions = [position for position in positions if position not in contents.marked]
    if not positions and marked:
        path = source.samples[marked[0]].path
        last = (
            f"found synthetic images alone ({len(marked):,}, such as {path}), allowed are others: "
            "a score on images that a model has made says nothing"
        )
        raise UserError("\n".join([*source.told(), last]))
    identities = geometry.identities(source, contents.digests)
    file = decode_once(source, positions, identities, geometry, cache)
    return labelled(source, positions, contents, file, geometry, cache, part)


def labelled(
    source: Source,
    positions: Sequence[int],
    contents: Contents,
    file: DecodedFile,
    geometry: Geometry,
    cache: Path,
    part: Literal["test", "all"],
) -> LabelledImages:
    """Returns the readable ones of some images of a source, with what must be said of them.

    Args:
        source: The source.
        positions: The images.
        contents: What was read from them, at least.
        file: These images, decoded.
        geometry: How they were decoded.
        cache: Root of the node's caches.
        part: ``test`` if they are the source's test part.

    Raises:
        UserError: If none of them can be read.
    """
    identities = geometry.identities(source, contents.digests)
    rows = np.array(
        [row for row, reason in enumerate(file.reasons) if reason is None], dtype=np.int64
    )
    samples = [source.samples[position] for position in positions]
    broken = [
        BrokenImage(samples[row].path, reason)
        for row, reason in enumerate(file.reasons)
        if reason is not None
    ]
    if not len(rows):
        raise UserError(unreadable_message(broken, source.told()))
    images = DecodedImages(
        file,
        rows,
        [samples[row].label for row in rows],
        [samples[row].path for row in rows],
        digest=f"evaluation {geometry.key}",
    )
    unlabelled = source.unlabelled("test" if part == "test" else None)
    return LabelledImages(
        images,
        source.classes,
        part,
        broken,
        # Problems too: they name rows that are not scored.
        [*source.told(), *source.problems, *unlabelled_told(unlabelled, len(positions))],
        unlabelled,
        [contents.digests[positions[row]] for row in rows.tolist()],
        Drawn(
            digest_of_images(identities[position] for position in positions),
            lambda: _digest_of_all(source, geometry, cache),
            source.listed,
        ),
    )


def _digest_of_all(source: Source, geometry: Geometry, cache: Path) -> str:
    contents = read_contents(source, cache)
    identities = geometry.identities(source, contents.digests)
    return digest_of_images(
        each for place, each in enumerate(identities) if place not in contents.marked
    )


def unlabelled_told(unlabelled: int, labelled: int) -> list[str]:
    """Says how many images of how many have no label; nothing where every image has one."""
    if not unlabelled:
        return []
    return [f"{unlabelled:,} of {labelled + unlabelled:,} images have no label and are not scored"]


def as_trained(
    config: DataConfig, trained: Mapping[str, Any], fit: Fit, cache_dir: Path | None = None
) -> DataConfig:
    """Returns a configuration that cuts images as those of a bundle were cut.

    Args:
        config: The section ``data`` of an experiment.
        trained: That of the bundle.
        fit: How the images of the bundle became squares.
        cache_dir: Root of the node's caches.

    Returns:
        For a bundle that was trained on boxes ``crop`` is ``box`` with its margin, or ``none``
        where the images have no boxes.
    """
    config = config.model_copy(update={"fit": fit})
    if trained.get("crop") != "box":
        return config
    margin = trained["crop_margin"]
    boxed = config.model_copy(update={"crop": "box", "crop_margin": margin})
    source = create_source(boxed, cache_dir or cache_directory(), scoring=True)
    if any(sample.box for sample in source.samples):
        return boxed
    return config.model_copy(update={"crop": "none"})
