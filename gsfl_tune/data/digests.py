"""Digests of image files, kept for files that have not changed."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
from PIL import Image

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import publish
from gsfl_tune.cache.entries import lock_file, touch
from gsfl_tune.cache.locks import file_lock
from gsfl_tune.cores import usable_cores
from gsfl_tune.data.image_file import deep_extremes
from gsfl_tune.data.marks import is_marked
from gsfl_tune.data.sources import Reader, Source

DIGEST_SIZE = 16
_COLUMNS = ("path", "size", "time", "digest", "low", "high")
# Files of earlier versions, when nothing could be marked, do not have it.
_MARKED = "marked"
# Replaces the bytes of an image that cannot be read, together with its path.
_UNREADABLE = b"unreadable"

Item = TypeVar("Item")
Work = TypeVar("Work")


@dataclass(frozen=True)
class Contents:
    """Holds what was read from the images of a source, in its order.

    Attributes:
        digests: Digest of the bytes of every image.
        extremes: Smallest and largest value of images whose type does not define white.
        marked: Positions of images that carry the mark of synthetic ones.
    """

    digests: list[bytes]
    extremes: dict[int, tuple[float, float]] = field(default_factory=dict)
    marked: set[int] = field(default_factory=set)

    def rows(self, positions: Sequence[int]) -> Contents:
        """Selects what was read from some images."""
        places = {position: place for place, position in enumerate(positions)}
        return Contents(
            [self.digests[position] for position in positions],
            {places[p]: found for p, found in self.extremes.items() if p in places},
            {places[p] for p in self.marked if p in places},
        )


class _Seen(NamedTuple):
    digest: bytes
    extremes: tuple[float, float] | None
    marked: bool = False


def digest_of_images(identities: Iterable[bytes]) -> str:
    """Returns the digest of a set of images, whatever their order.

    Args:
        identities: Identity of each image, see `Geometry.identities`.
    """
    state = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for identity in sorted(set(identities)):
        state.update(identity)
    return state.hexdigest()


def read_contents(source: Source, cache: Path, positions: Sequence[int] | None = None) -> Contents:
    """Reads the digests and the extreme values of the images of a source.

    Both are kept in ``cache`` under (path, size, time of change). So a second start reads no image,
    except those that could not be read: a repair of rights or of a mount changes neither size nor
    time.

    Args:
        source: The source.
        cache: Root of the node's caches.
        positions: Images to read; default: all. What is returned of the others is an empty digest,
            whether they were read before or not.
    """
    known = source.known_digests()
    if known is not None:
        return Contents(known)
    paths = "\n".join(sample.path for sample in source.samples)
    file = cache / "digests" / f"{_hash(paths.encode()).hex()}.arrow"
    remembered = _load(file)
    found: list[_Seen | None] = []
    for sample in source.samples:
        entry = remembered.get(sample.path)
        fresh = entry is not None and sample.stamp is not None and entry[0] == sample.stamp
        seen = entry[1] if fresh and entry is not None else None
        # Earlier versions kept what could not be read.
        found.append(None if seen and seen.digest == _unreadable(sample.path) else seen)
    wanted = set(range(len(found)) if positions is None else positions)
    missing = [at for at, seen in enumerate(found) if seen is None and at in wanted]
    if missing:
        with activity("reading images", len(missing), "images") as step:
            for position, seen in in_threads(source.readers(missing), _see):
                found[position] = seen
                step.done += 1
        if any(found[position] for position in missing):
            _save(file, source, found)
    every = [
        (seen or _Seen(_unreadable(sample.path), None)) if at in wanted else _Seen(b"", None)
        for at, (seen, sample) in enumerate(zip(found, source.samples, strict=True))
    ]
    extremes = {place: seen.extremes for place, seen in enumerate(every) if seen.extremes}
    marked = {place for place, seen in enumerate(every) if seen.marked}
    return Contents([seen.digest for seen in every], extremes, marked)


def in_threads(
    items: Iterable[tuple[int, Item]], work: Callable[[Item], Work]
) -> Iterator[tuple[int, Work]]:
    """Applies ``work`` in one thread per core, in order, with bounded memory.

    Threads are enough: reading, hashing, decoding and resizing release the interpreter lock.
    Processes would have to send every square through a pipe.
    """
    count = usable_cores()
    waiting: deque[tuple[int, Future[Work]]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="images") as pool:
        try:
            for position, item in items:
                waiting.append((position, pool.submit(work, item)))
                if len(waiting) >= 8 * (count or 1):
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def _unreadable(path: str) -> bytes:
    return _hash(_UNREADABLE + path.encode())


def _see(reader: Reader) -> _Seen | None:
    try:
        content = reader()
    except (OSError, ValueError):
        return None  # decoding finds it broken and says why
    if isinstance(content, Image.Image):
        return _Seen(_hash(content.tobytes()), None)
    return _Seen(_hash(content), deep_extremes(content), is_marked(content))


def _load(file: Path) -> dict[str, tuple[tuple[int, int], _Seen]]:
    if not file.exists():
        return {}
    try:
        with pa.memory_map(str(file)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
            columns = [table.column(name).to_pylist() for name in _COLUMNS]
            known = _MARKED in table.column_names
            columns.append(table.column(_MARKED).to_pylist() if known else [False] * len(table))
            found = {
                path: ((size, time), _Seen(digest, None if low is None else (low, high), marked))
                for path, size, time, digest, low, high, marked in zip(*columns, strict=True)
            }
    except (pa.ArrowException, KeyError, OSError):
        return {}
    touch(file, f"digests of {len(found):,} images")
    return found


def _save(file: Path, source: Source, found: list[_Seen | None]) -> None:
    rows = [
        (sample.path, *sample.stamp, seen.digest, *(seen.extremes or (None, None)), seen.marked)
        for sample, seen in zip(source.samples, found, strict=True)
        if sample.stamp is not None and seen is not None
    ]
    if not rows:
        return
    columns = list(zip(*rows, strict=True))
    table = pa.table(
        {
            "path": pa.array(columns[0], pa.string()),
            "size": pa.array(columns[1], pa.int64()),
            "time": pa.array(columns[2], pa.int64()),
            "digest": pa.array(columns[3], pa.binary(DIGEST_SIZE)),
            "low": pa.array(columns[4], pa.float64()),
            "high": pa.array(columns[5], pa.float64()),
            _MARKED: pa.array(columns[6], pa.bool_()),
        }
    )
    # Under the builder's lock, as temporary files without a lock are removed.
    with file_lock(lock_file(file), "writes digests of images"):
        temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        publish(temporary, file)
    touch(file, f"digests of {len(rows):,} images")
