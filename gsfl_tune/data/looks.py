"""Describes photographs without a network, to find copies, bursts and distances of parts.

All values are integers until the last step, so that every machine finds the same clusters.
"""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data._pillow import any_size
from gsfl_tune.data.digests import in_threads
from gsfl_tune.data.formats import heif_key
from gsfl_tune.data.image_file import Box, Reading, load_square
from gsfl_tune.data.sources import Reader, Source

# Part of the cache key; change it when this file computes other values.
_VERSION = 3
SIDE = 32
_CELL = 8
_COLOURS = 64
_DIRECTIONS = 8
_WIDTH = _COLOURS + _DIRECTIONS * (SIDE // _CELL) ** 2
_THUMB = 16
_ROWS = 1000
# Rows of cosines that are computed at once: three copies of a large result take gigabytes.
_COMPARED = 100
# A picture with less contrast than this (levels of 255) is not compared: blank pages are alike.
_CONTRAST = 6.0


@dataclass(frozen=True)
class Looks:
    """Holds descriptions of N images.

    Attributes:
        descriptors: (N, 192) int8: square roots of a histogram of 4 x 4 x 4 colours, and of
            histograms of 8 gradient directions in 4 x 4 cells, both of about equal length.
        greys: (N, 32, 32) uint8 grey images.
        thumbs: (N, 16, 16) uint8 grey thumbnails.
        colours: (N, 4, 4, 3) uint8 mean colours of 4 x 4 cells.
        known: (N,) bool, whether the image could be read.
        taken: (N,) float64, time of the photograph by EXIF, in seconds; NaN if unknown.
        cameras: (N,) uint32, equal for one camera's images; 0 if EXIF does not name it.
    """

    descriptors: np.ndarray
    greys: np.ndarray
    thumbs: np.ndarray
    colours: np.ndarray
    known: np.ndarray
    taken: np.ndarray
    cameras: np.ndarray

    def of(self, rows: np.ndarray) -> Looks:
        """Returns the looks of some images."""
        return Looks(**{name: values[rows] for name, values in vars(self).items()})

    def telling(self) -> np.ndarray:
        """Returns (N,) bool, whether an image shows enough to be compared."""
        contrast = self.thumbs.reshape(len(self.thumbs), (SIDE // 2) ** 2).std(1)
        return np.asarray(self.known & (contrast >= _CONTRAST))

    def similarity(
        self, rows: np.ndarray, others: np.ndarray, theirs: Looks | None = None
    ) -> np.ndarray:
        """Returns cosines of descriptors, (len(rows), len(others)) float64.

        They are equal on every machine, as products of such small integers are exact in float32.

        Args:
            rows: Images.
            others: Images to compare them with.
            theirs: Looks of the latter; default: these.
        """
        a = self.descriptors[rows].astype(np.float32)
        b = (theirs or self).descriptors[others].astype(np.float32)
        lengths = [np.sqrt(np.square(x).sum(1, dtype=np.float64)).clip(1) for x in (a, b)]
        cosines = np.empty((len(a), len(b)))
        for start in range(0, len(a), _COMPARED):
            some = slice(start, start + _COMPARED)
            np.divide(a[some] @ b.T, np.outer(lengths[0][some], lengths[1]), out=cosines[some])
        return cosines

    def mirrored(self) -> Looks:
        """Returns the looks of the images with left and right exchanged."""
        descriptors = self.descriptors.copy()
        greys = self.greys[:, :, ::-1]
        for start in range(0, len(greys), _ROWS):
            descriptors[start : start + _ROWS, _COLOURS:] = _edges(greys[start : start + _ROWS])
        return replace(
            self,
            descriptors=descriptors,
            greys=greys,
            thumbs=self.thumbs[:, :, ::-1],
            colours=self.colours[:, :, ::-1],
        )


def look(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Describes one image.

    Args:
        image: (32, 32, 3) uint8.

    Returns:
        Descriptor, grey image, thumbnail and colours, see `Looks`.
    """
    small = image >> 6
    codes = (small[..., 0] * 16 + small[..., 1] * 4 + small[..., 2]).ravel()
    colours = _roots(np.bincount(codes, minlength=_COLOURS)[None])
    grey = Image.fromarray(image).convert("L")
    edges = _edges(np.asarray(grey)[None])
    descriptor = np.concatenate([colours[0], edges[0]]).astype(np.int8)
    thumb = np.asarray(grey.resize((_THUMB, _THUMB), Image.Resampling.BOX))
    cells = SIDE // _CELL
    squares = image.reshape(cells, _CELL, cells, _CELL, 3).sum((1, 3), dtype=np.int64)
    return descriptor, np.asarray(grey), thumb, (squares // _CELL**2).astype(np.uint8)


def _edges(greys: np.ndarray) -> np.ndarray:
    """Returns the second parts of descriptors, (N, 128), of (N, 32, 32) grey levels."""
    values = greys.astype(np.int64)
    across = np.zeros_like(values)
    down = np.zeros_like(values)
    across[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    steep = np.abs(down) > np.abs(across)
    octant = (across < 0) * 4 + (down < 0) * 2 + steep
    cells, width = SIDE // _CELL, _WIDTH - _COLOURS
    rows, columns = np.indices((SIDE, SIDE)) // _CELL
    bins = (rows * cells + columns) * _DIRECTIONS + octant
    bins += width * np.arange(len(values))[:, None, None]
    weights = (np.abs(across) + np.abs(down)).ravel()
    counts = np.bincount(bins.ravel(), weights=weights, minlength=width * len(values))
    return _roots(counts.reshape(-1, width))


def looks_of(
    source: Source,
    digests: Sequence[bytes],
    reading: Reading,
    cache: Path,
    name: str,
    margin: float | None,
) -> Looks:
    """Returns the looks of all images of a source, computed once.

    They do not depend on the image size of the training, so that no split does.

    Args:
        source: The source of the images.
        digests: Digests of all its images.
        reading: Settings for reading files.
        cache: The cache directory.
        name: Name of the data set for people.
        margin: Margin of boxes that are cut out, as a share of their sides; None for whole images.
    """
    cut = "" if margin is None else f" box {margin:.9g}"
    key = f"{_VERSION} {reading.key} {source.revision}{cut}{heif_key()}"
    state = hashlib.blake2b(key.encode(), digest_size=16)
    for digest, sample in zip(digests, source.samples, strict=True):
        state.update(digest)
        if margin is not None:
            state.update(repr(sample.box).encode())

    def build(target: Path) -> None:
        with target.open("wb") as sink:
            np.savez(sink, **vars(_compute(source, len(digests), reading, margin)))

    file = cache / "looks" / f"{state.hexdigest()}.npz"
    with (
        acquire(file, build, what=f"looks of {name}, {len(digests):,} images") as path,
        np.load(path, allow_pickle=False) as stored,
    ):
        return Looks(**{key: stored[key] for key in stored.files})


def _compute(source: Source, count: int, reading: Reading, margin: float | None) -> Looks:
    looks = Looks(
        np.zeros((count, _WIDTH), np.int8),
        np.zeros((count, SIDE, SIDE), np.uint8),
        np.zeros((count, _THUMB, _THUMB), np.uint8),
        np.zeros((count, SIDE // _CELL, SIDE // _CELL, 3), np.uint8),
        np.zeros(count, bool),
        np.full(count, np.nan),
        np.zeros(count, np.uint32),
    )

    def work(item: tuple[Reader, Box | None]) -> tuple[Any, ...] | None:
        reader, box = item
        try:
            content = reader()
            if isinstance(content, Image.Image):
                box = None  # as decoding does
            pixels = load_square(
                content, SIDE, "squash", reading=reading, box=box, margin=margin or 0.0
            )[0]
            return (*look(pixels), True, *when_taken(content))
        except MemoryError:
            raise
        except Exception:  # decoding reports the reason
            return None

    items = (
        (position, (reader, None if margin is None else source.samples[position].box))
        for position, reader in source.readers(range(count))
    )

    with activity("looking for photographs that are alike", count, "images") as step:
        for position, found in in_threads(items, work):
            if found is not None:
                for values, value in zip(vars(looks).values(), found, strict=True):
                    values[position] = value
            step.done += 1
    return looks


def when_taken(content: bytes | Image.Image) -> tuple[float, int]:
    """Returns the time of a photograph in seconds, and a number of its camera, from EXIF.

    The time is NaN, and the camera 0, if EXIF does not have it.
    """
    try:
        if isinstance(content, Image.Image):
            exif = content.getexif()
        else:
            with any_size(), Image.open(io.BytesIO(content)) as image:
                exif = image.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        text = inner.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        name = f"{exif.get(ExifTags.Base.Make, '')} {exif.get(ExifTags.Base.Model, '')}".strip()
        camera = zlib.crc32(name.encode()) if name else 0
        if not text:
            return math.nan, camera
        day = datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
        return day.replace(tzinfo=UTC).timestamp(), camera
    except Exception:  # a damaged block has no information
        return math.nan, 0


def _roots(counts: np.ndarray) -> np.ndarray:
    """Returns square roots of shares of a row, 0 to 127.

    A product of two rows is Bhattacharyya's coefficient.
    """
    total = counts.sum(1, keepdims=True)
    return np.floor(127 * np.sqrt(counts / np.maximum(total, 1)) + 0.5)
