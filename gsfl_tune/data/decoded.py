"""Decoded images: squares of bytes in a memory-mapped file that all processes share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
from PIL import Image

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data import image_file
from gsfl_tune.data.digests import in_threads
from gsfl_tune.data.formats import NEEDS_HEIF, heif, why_no_image
from gsfl_tune.data.sources import Reader, Source

# Most bytes of pixels in a record batch, which has at most 256 images.
_BATCH_BYTES = 64 << 20
_BATCH_IMAGES = 256
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BrokenImage:
    """Holds an image that could not be read, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Geometry:
    """Describes how an image becomes a square.

    Attributes:
        side: Side of the squares in pixels.
        fit: How an image that is not square is fitted.
        reading: Settings for reading files.
        margin: Margin of boxes that are cut out, as a share of their sides; None for whole images.
    """

    side: int
    fit: image_file.Fit
    reading: image_file.Reading = image_file.PLAIN
    margin: float | None = None

    @property
    def key(self) -> str:
        """Returns all settings that the pixels depend on."""
        basic = f"{self.side} {self.fit} bicubic {image_file.CODE_VERSION} pillow {PIL.__version__}"
        box = "" if self.margin is None else f"box {self.margin:.9g}"
        return " ".join(filter(None, [basic, self.reading.key, box]))

    def identities(self, source: Source, digests: Sequence[bytes]) -> list[bytes]:
        """Returns an identity for each sample of a source: its bytes, and its box in them.

        Args:
            source: The source.
            digests: Digests of all its images; empty for those that were not read, and so is
                their identity.
        """
        if self.margin is None:
            return list(digests)
        return [
            hashlib.blake2b(digest + repr(sample.box).encode(), digest_size=len(digest)).digest()
            if digest
            else b""
            for digest, sample in zip(digests, source.samples, strict=True)
        ]


class DecodedFile:
    """Reads the cache file: one row per listed image, including broken ones.

    Attributes:
        reasons: Why the image of a row is broken; None for a readable one.
        sizes: (N, 2) int32, width and height in pixels before decoding.
    """

    def __init__(self, path: Path, side: int) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.side = side
        batches = [self._reader.get_batch(i) for i in range(self._reader.num_record_batches)]
        self._pixels = [
            batch.column("pixels")
            .values.to_numpy(zero_copy_only=True)
            .reshape(batch.num_rows, side, side, 3)
            for batch in batches
        ]
        self._batch_rows = batches[0].num_rows if batches else 1
        self.reasons: list[str | None] = [
            reason for batch in batches for reason in batch.column("broken").to_pylist()
        ]
        sizes = [
            np.stack([batch.column("width"), batch.column("height")], axis=1) for batch in batches
        ]
        self.sizes: np.ndarray = (
            np.concatenate(sizes) if sizes else np.zeros((0, 2), dtype=np.int32)
        )

    def squares(self, rows: np.ndarray) -> list[np.ndarray]:
        """Returns squares as read-only views of the file, (side, side, 3) uint8 each."""
        return [
            self._pixels[row // self._batch_rows][row % self._batch_rows] for row in rows.tolist()
        ]


class DecodedImages:
    """Selects labelled squares from the rows of a cache file.

    Attributes:
        labels: (N,) int64.
        paths: Names of the images for messages.
        sizes: (N, 2) int32, width and height in pixels before decoding.
        side: Side of the squares in pixels.
        digest: Digest of the images and of the decoding, in this order.
        name: Name of the data set for people.
    """

    def __init__(
        self,
        file: DecodedFile,
        rows: np.ndarray,
        labels: Sequence[int],
        paths: Sequence[str],
        digest: str,
        name: str = "",
    ) -> None:
        self._file = file
        self._rows = np.asarray(rows, dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.paths = list(paths)
        self.sizes = file.sizes[self._rows]
        self.side = file.side
        self.digest = digest
        self.name = name

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, index: np.ndarray) -> DecodedImages:
        """Returns the images at ``index`` (positions 0..N-1), with a digest of their own."""
        index = np.asarray(index, dtype=np.int64)
        return DecodedImages(
            self._file,
            self._rows[index],
            self.labels[index].tolist(),
            [self.paths[position] for position in index.tolist()],
            hashlib.blake2b(self.digest.encode() + index.tobytes(), digest_size=16).hexdigest(),
            self.name,
        )

    def squares(self, index: np.ndarray) -> list[np.ndarray]:
        """Returns the squares at ``index`` (positions 0..N-1) without a copy.

        Returns:
            B times (side, side, 3) uint8: read-only views of the memory map.
        """
        return self._file.squares(self._rows[np.asarray(index, dtype=np.int64)])

    def gather(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copies the squares at ``index`` (positions 0..N-1): (B, side, side, 3) uint8.

        Args:
            index: (B,) positions.
            out: Where to write them; default: new memory.
        """
        squares = self.squares(index)
        if out is None:
            out = np.empty((len(squares), self.side, self.side, 3), dtype=np.uint8)
        for place, square in enumerate(squares):
            out[place] = square
        return out


def decode_once(
    source: Source,
    positions: Sequence[int],
    identities: Sequence[bytes],
    geometry: Geometry,
    cache: Path,
    progress: Progress | None = None,
    name: str = "",
) -> DecodedFile:
    """Opens the cache file of some images of a source, and decodes them if there is none.

    Args:
        source: Source of the images.
        positions: Positions of the images, ascending.
        identities: Identities of all samples of the source, see `Geometry.identities`.
        geometry: How images become squares.
        cache: The cache directory of this node.
        progress: Called from time to time with (images done, all images) while decoding.
        name: Name of the data set for people.

    Raises:
        EnvironmentProblem: If the disk is full, among others.
    """
    key = hashlib.blake2b(f"{geometry.key} {source.revision}\n".encode(), digest_size=16)
    for position in positions:
        key.update(identities[position])

    def build(target: Path) -> None:
        _decode(source, positions, geometry, target, progress)

    def opened() -> DecodedFile:
        what = f"{name or 'images'}, {len(positions):,} images"
        lock = acquire(
            cache / "decoded" / f"{key.hexdigest()}.arrow",
            build,
            what=f"{what}, {geometry.side} px, {geometry.fit}",
            size=len(positions) * geometry.side**2 * 3,
        )
        file = DecodedFile(lock.path, geometry.side)
        lock.keep_with(file)
        return file

    file = opened()
    if NEEDS_HEIF in file.reasons and heif():
        # Decoded before the package was there. Files without such images keep their key.
        key.update(b"heif")
        file = opened()
    return file


@dataclass(frozen=True)
class _Decoded:
    pixels: np.ndarray | None
    size: tuple[int, int]
    broken: str | None


def _decode(
    source: Source,
    positions: Sequence[int],
    geometry: Geometry,
    target: Path,
    progress: Progress | None,
) -> None:
    side = geometry.side
    values = side * side * 3
    rows = max(1, min(_BATCH_IMAGES, _BATCH_BYTES // values, len(positions)))
    schema = pa.schema(
        [
            ("pixels", pa.list_(pa.uint8(), values)),
            ("broken", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
        ]
    )

    def decode(item: tuple[Reader, image_file.Box | None]) -> _Decoded:
        reader, box = item
        content: bytes | Image.Image = b""
        try:
            content = reader()
            if isinstance(content, Image.Image):
                pixels = image_file.square(content, side, geometry.fit)
                return _Decoded(pixels, content.size, None)
            pixels, size = image_file.load_square(
                content,
                side,
                geometry.fit,
                reading=geometry.reading,
                box=box,
                margin=geometry.margin or 0.0,
            )
            return _Decoded(pixels, size, None)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise all kinds of errors on damaged files
            return _Decoded(
                None, (0, 0), why_unreadable(error, content, accepted=geometry.reading.truncated)
            )

    pixels = np.zeros((rows, values), dtype=np.uint8)
    described: list[_Decoded] = []
    with (
        activity("decoding images", len(positions), "images") as step,
        pa.OSFile(str(target), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):

        def flush() -> None:
            count = len(described)
            flat = pa.array(pixels[:count].reshape(-1))
            arrays = [
                pa.FixedSizeListArray.from_arrays(flat, values),
                pa.array([image.broken for image in described], pa.string()),
                pa.array([image.size[0] for image in described], pa.int32()),
                pa.array([image.size[1] for image in described], pa.int32()),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            described.clear()

        items = (
            (position, (reader, None if geometry.margin is None else source.samples[position].box))
            for position, reader in source.readers(positions)
        )
        for done, (position, image) in enumerate(in_threads(items, decode), start=1):
            step.done = done
            assert position == positions[done - 1], "a source must read in the given order"
            row = len(described)
            pixels[row] = 0 if image.pixels is None else image.pixels.reshape(-1)
            described.append(_Decoded(None, image.size, image.broken))
            if len(described) == rows:
                flush()
            if progress is not None and (done % 64 == 0 or done == len(positions)):
                progress(done, len(positions))
        if described:
            flush()


def why_unreadable(
    error: Exception, content: bytes | Image.Image, *, accepted: bool = False
) -> str:
    """Returns the reason why an image cannot be read, in words for people.

    Args:
        error: What reading or decoding raised.
        content: The bytes that were decoded; empty if there were none to read.
        accepted: Whether truncated files are accepted.
    """
    text = " ".join(str(error).split())
    name = type(error).__name__
    if name == "UnidentifiedImageError":
        # Pillow's own message shows the address of a buffer.
        known = why_no_image(content) if isinstance(content, bytes) else None
        return known or "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    if "truncated" in text and not accepted:
        text += "; data.truncated: accept reads what there is"
    return text or name
