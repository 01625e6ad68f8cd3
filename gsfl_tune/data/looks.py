"""What photographs look like, without a network: for copies, bursts and distances of parts.

All of it is integers until the last step, so that every machine finds the same clusters.
"""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data._pillow import any_size
from gsfl_tune.data.digests import in_threads
from gsfl_tune.data.image_file import Reading, load_square
from gsfl_tune.data.sources import Reader, Source

# Enters the cache key: change it whenever what comes out of this file changes.
_VERSION = 1
_SIDE = 32
_CELL = 8
_COLOURS = 64
_DIRECTIONS = 8
_WIDTH = _COLOURS + _DIRECTIONS * (_SIDE // _CELL) ** 2
_THUMB = 16


@dataclass(frozen=True)
class Looks:
    """Of N images.

    Attributes:
        descriptors: (N, 192) int8: roots of a histogram of 4 x 4 x 4 colours, and of histograms of
            8 directions of the gradient in 4 x 4 cells, each of about equal length.
        hashes: (N,) uint64, signs of the horizontal differences of 9 x 8 grey pixels ("dHash").
        thumbs: (N, 16, 16) uint8 grey.
        known: (N,) bool, whether the image could be read.
        taken: (N,) float64, when EXIF says that it was taken, in seconds; not a number where it
            does not say so.
        cameras: (N,) uint32, equal for one camera's images; 0 where EXIF does not name it.
    """

    descriptors: np.ndarray
    hashes: np.ndarray
    thumbs: np.ndarray
    known: np.ndarray
    taken: np.ndarray
    cameras: np.ndarray

    def of(self, rows: np.ndarray) -> Looks:
        """Those of some images."""
        return Looks(**{name: values[rows] for name, values in vars(self).items()})

    def similarity(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Cosines of descriptors, (len(rows), len(others)) float64, equal on every machine.

        Products of such small integers are exact in float32.
        """
        a, b = (self.descriptors[r].astype(np.float32) for r in (rows, others))
        lengths = [np.sqrt(np.square(x).sum(1, dtype=np.float64)).clip(1) for x in (a, b)]
        return (a @ b.T).astype(np.float64) / np.outer(*lengths)


def look(image: np.ndarray) -> tuple[np.ndarray, np.uint64, np.ndarray]:
    """Describes one image.

    Args:
        image: (32, 32, 3) uint8.

    Returns:
        Descriptor, hash and thumbnail, see `Looks`.
    """
    small = image >> 6
    codes = (small[..., 0] * 16 + small[..., 1] * 4 + small[..., 2]).ravel()
    colours = np.bincount(codes, minlength=_COLOURS)
    grey = Image.fromarray(image).convert("L")
    values = np.asarray(grey).astype(np.int64)
    across = np.zeros_like(values)
    down = np.zeros_like(values)
    across[:, 1:-1] = values[:, 2:] - values[:, :-2]
    down[1:-1] = values[2:] - values[:-2]
    steep = np.abs(down) > np.abs(across)
    octant = (across < 0) * 4 + (down < 0) * 2 + steep
    cells = _SIDE // _CELL
    rows, columns = np.indices(values.shape) // _CELL
    bins = (rows * cells + columns) * _DIRECTIONS + octant
    weights = (np.abs(across) + np.abs(down)).ravel()
    edges = np.bincount(bins.ravel(), weights=weights, minlength=_WIDTH - _COLOURS)
    descriptor = np.concatenate([_roots(colours), _roots(edges)]).astype(np.int8)
    hashed = np.asarray(grey.resize((9, 8), Image.Resampling.BOX)).astype(np.int64)
    signs = np.packbits((hashed[:, 1:] > hashed[:, :-1]).ravel())
    thumb = np.asarray(grey.resize((_THUMB, _THUMB), Image.Resampling.BOX))
    return descriptor, signs.view(np.uint64)[0], thumb


def looks_of(
    source: Source, digests: Sequence[bytes], reading: Reading, cache: Path, name: str
) -> Looks:
    """Looks of all images of a source, computed once.

    They do not depend on the size at which images are trained, so that no split does.

    Args:
        source: Where to read them.
        digests: Digests of all its images.
        reading: How the files are read.
        cache: The cache directory.
        name: What people call the data set.
    """
    state = hashlib.blake2b(f"{_VERSION} {reading.key} {source.revision}".encode(), digest_size=16)
    for digest in digests:
        state.update(digest)

    def build(target: Path) -> None:
        with target.open("wb") as sink:
            np.savez(sink, **vars(_compute(source, len(digests), reading)))

    file = cache / "looks" / f"{state.hexdigest()}.npz"
    with (
        acquire(file, build, what=f"looks of {name}, {len(digests):,} images") as path,
        np.load(path, allow_pickle=False) as stored,
    ):
        return Looks(**{key: stored[key] for key in stored.files})


def _compute(source: Source, count: int, reading: Reading) -> Looks:
    looks = Looks(
        np.zeros((count, _WIDTH), np.int8),
        np.zeros(count, np.uint64),
        np.zeros((count, _THUMB, _THUMB), np.uint8),
        np.zeros(count, bool),
        np.full(count, np.nan),
        np.zeros(count, np.uint32),
    )

    def work(reader: Reader) -> tuple[Any, ...] | None:
        try:
            content = reader()
            square = load_square(content, _SIDE, "squash", reading=reading)[0]
            return (*look(square), True, *when_taken(content))
        except MemoryError:
            raise
        except Exception:  # decoding says why
            return None

    with activity("looking for photographs that are alike", count, "images") as step:
        for position, found in in_threads(source.readers(range(count)), work):
            if found is not None:
                for values, value in zip(vars(looks).values(), found, strict=True):
                    values[position] = value
            step.done += 1
    return looks


def when_taken(content: bytes | Image.Image) -> tuple[float, int]:
    """When a photograph was taken, in seconds, and by which camera, as its EXIF block says.

    Returns:
        The time is not a number, and the camera 0, where it does not say so.
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
    except Exception:  # a damaged block says nothing
        return math.nan, 0


def _roots(counts: np.ndarray) -> np.ndarray:
    """Square roots of shares, 0 to 127, rounded: the product of two is Bhattacharyya's."""
    total = counts.sum()
    if not total:
        return np.zeros(len(counts))
    return np.floor(127 * np.sqrt(counts / total) + 0.5)
