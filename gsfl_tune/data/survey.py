"""Surveys the images at a path, by a listing and a few images, to write an experiment."""

from __future__ import annotations

import io
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from gsfl_tune.activity import activity
from gsfl_tune.cache.entries import cache_directory
from gsfl_tune.data._pillow import any_size
from gsfl_tune.data.decoded import BrokenImage, why_unreadable
from gsfl_tune.data.formats import heif
from gsfl_tune.data.sources import Reader, Source, create_source, detect_source
from gsfl_tune.data.splits import divide, size_problems
from gsfl_tune.experiment.data_config import DataConfig, SplitConfig
from gsfl_tune.experiment.errors import UserError

# Number of images that are opened for their sizes.
SAMPLE = 64


@dataclass(frozen=True)
class Survey:
    """Describes the images found at a path.

    Attributes:
        source: The value of ``data.source`` that reads it.
        classes: Names of the classes.
        parts: Number of images by part that the source gives; "" for those without a part.
        short_side: Median of the shorter sides of a sample of images in pixels; None if none could
            be opened.
        sampled: Number of images of that sample that could be opened.
        notices: Messages that are not errors.
        problems: Reasons for a search to refuse the data, one line each.
        largest_class: Images of the largest class.
        smallest_class: Images of the smallest class.
        broken: Images of the sample that could not be opened.
    """

    source: str
    classes: list[str]
    parts: dict[str, int]
    short_side: int | None
    sampled: int
    notices: list[str]
    problems: list[str]
    largest_class: int
    smallest_class: int
    broken: list[BrokenImage] = field(default_factory=list)

    @property
    def images(self) -> int:
        """Returns the number of images of all parts."""
        return sum(self.parts.values())


def survey(config: DataConfig, cache: Path | None = None) -> Survey:
    """Lists the images that a configuration names, and opens some of them for their sizes.

    Args:
        config: The section ``data``; ``source`` may be ``auto``.
        cache: Folder for copies of remote files; default: the node's cache.

    Raises:
        UserError: If nothing can be read there, or there are fewer than two classes.
    """
    if config.source == "auto":
        config = config.model_copy(update={"source": detect_source(config.path)})
    with activity("listing the images"):
        source = create_source(config, cache or cache_directory())
    if not source.samples or len(source.classes) < 2:
        lines = [*source.told(), *source.problems]
        found = f"{len(source.samples):,} images of {len(source.classes)} classes"
        where = config.path if isinstance(config.path, str) else "data.path"
        lines.append(f"{where}: found {found}, needed are images of at least 2 classes")
        raise UserError("\n".join(lines))
    with activity("opening some of the images"):
        sides, broken = _short_sides(source)
    unopened = [] if sides else [f"none of {len(broken)} images looked at can be opened"]
    parts = Counter(sample.part or "" for sample in source.samples)
    sizes = Counter(sample.label for sample in source.samples)
    return Survey(
        source=config.source,
        classes=list(source.classes),
        parts={part: parts[part] for part in ("train", "validation", "test", "") if parts[part]},
        short_side=round(statistics.median(sides)) if sides else None,
        sampled=len(sides),
        notices=source.told(),
        problems=[*source.problems, *unopened, *_too_few(source, config.split)],
        largest_class=max(sizes.values()),
        smallest_class=min(sizes.values()),
        broken=broken,
    )


def _short_sides(source: Source) -> tuple[list[int], list[BrokenImage]]:
    """Returns the shorter sides of images evenly spaced in the list, and the unreadable ones."""
    heif()
    count = min(SAMPLE, len(source.samples))
    positions = np.unique(np.linspace(0, len(source.samples) - 1, count).astype(int)).tolist()
    sides, broken = [], []
    for position, reader in source.readers(positions):
        found = _short_side(reader)
        if isinstance(found, int):
            sides.append(found)
        else:
            broken.append(BrokenImage(source.samples[position].path, found))
    return sides, broken


def _short_side(read: Reader) -> int | str:
    """Returns the shorter side of an image, or the reason why it cannot be opened."""
    content: bytes | Image.Image = b""
    try:
        content = read()
        if isinstance(content, Image.Image):
            return min(content.size)
        with any_size(), Image.open(io.BytesIO(content)) as image:
            return min(image.size)
    except MemoryError:
        raise
    except Exception as error:  # `gsfl-tune data` opens all of them and lists their problems
        return why_unreadable(error, content)


def _too_few(source: Source, config: SplitConfig) -> list[str]:
    """Lists classes that are too small to divide; identical images, not known yet, count twice."""
    labels = [sample.label for sample in source.samples]
    digests = [position.to_bytes(8, "little") for position in range(len(labels))]
    split = divide(labels, [sample.part for sample in source.samples], digests, config)

    def of(positions: np.ndarray) -> Sequence[int]:
        return [labels[position] for position in positions.tolist()]

    return size_problems(
        source.classes,
        of(split.train),
        of(split.validation),
        None if split.given_test else of(split.test),
        given_validation=split.given_validation,
        given_test=of(split.test) if split.given_test else (),
    )
