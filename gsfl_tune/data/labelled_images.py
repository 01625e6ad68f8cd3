"""Opens labelled images for an evaluation, without making or requiring a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gsfl_tune.cache.entries import cache_directory
from gsfl_tune.data.decoded import BrokenImage, DecodedImages, Geometry, decode_once
from gsfl_tune.data.digests import read_contents
from gsfl_tune.data.image_file import PLAIN, Fit, Reading
from gsfl_tune.data.sources import Source, create_source, detect_source
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError


@dataclass(frozen=True)
class LabelledImages:
    """Holds labelled images for an evaluation.

    Attributes:
        images: Decoded squares; their labels are positions in `classes`.
        classes: Class names of the source.
        part: ``test`` if the source has a test part, else ``all``.
        broken: Images that could not be read; they are not in `images`.
        notices: Messages that are no errors, such as on images without a label.
    """

    images: DecodedImages
    classes: list[str]
    part: Literal["test", "all"]
    broken: list[BrokenImage]
    notices: list[str]


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
        UserError: If nothing can be read.
    """
    crop: Literal["none", "box"] = "none" if margin is None else "box"
    config = DataConfig(source=detect_source(str(path)), path=str(path), crop=crop)
    cache = cache_dir or cache_directory()
    source = create_source(config, cache, scoring=True)
    if margin is not None and not any(sample.box for sample in source.samples):
        source.notices.append(
            "the bundle was trained on boxes cut out of images; these have none, and are scored "
            "whole"
        )
        margin = None
    # A test folder alone is enough here; missing training images are no problem.
    if source.problems and not source.samples:
        raise UserError("\n".join([*source.told(), *source.problems]))
    part: Literal["test", "all"] = "all"
    positions: Sequence[int] = range(len(source.samples))
    if any(sample.part == "test" for sample in source.samples):
        part = "test"
        positions = [i for i in positions if source.samples[i].part == "test"]
    how = replace(reading, cut_bottom=source.cut_bottom)
    return _decode(source, positions, Geometry(side, fit, how, margin), cache, part)


def _decode(
    source: Source,
    positions: Sequence[int],
    geometry: Geometry,
    cache: Path,
    part: Literal["test", "all"],
) -> LabelledImages:
    digests = read_contents(source, cache).digests
    file = decode_once(source, positions, geometry.identities(source, digests), geometry, cache)
    rows = np.array(
        [row for row, reason in enumerate(file.reasons) if reason is None], dtype=np.int64
    )
    if not len(rows):
        raise UserError(f"none of {len(positions)} images can be read")
    samples = [source.samples[position] for position in positions]
    broken = [
        BrokenImage(samples[row].path, reason)
        for row, reason in enumerate(file.reasons)
        if reason is not None
    ]
    images = DecodedImages(
        file,
        rows,
        [samples[row].label for row in rows],
        [samples[row].path for row in rows],
        digest=f"evaluation {geometry.key}",
    )
    return LabelledImages(images, source.classes, part, broken, source.told())
