"""What every source of images offers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from gsfl_tune.experiment.errors import UserError

Part = Literal["train", "validation", "test"]
# The content of an image file, or an image that was never a file. Called in worker threads.
Reader = Callable[[], "bytes | Image.Image"]

PART_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif",
])
# fmt: on


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a source.

    Attributes:
        label: Position in the classes.
        part: The part that the source itself puts it into, if any.
        path: What messages call it, unique in the source.
        stamp: (size in bytes, time of change in ns) of the file that holds it; as long as they
            are the same, so is the image. None if there is no such file.
    """

    label: int
    part: Part | None
    path: str
    stamp: tuple[int, int] | None


class Source(ABC):
    """Images with labels; lists them when it is made, reads them on demand.

    Attributes:
        classes: Names of the classes; a label is a position in this list.
        samples: All images, in an order that depends on the source alone.
        problems: What is wrong with the source and does not keep it from listing the rest.
        known_groups: The group of each class, where the source knows a true grouping.
        revision: Anything beyond the digests that the pixels depend on.
    """

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.samples: list[Sample] = []
        self.problems: list[str] = []
        self.known_groups: list[str] | None = None
        self.revision = ""

    @abstractmethod
    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields (position, reader) for ``positions``, which ascend, in their order."""

    def known_digests(self) -> list[bytes] | None:
        """Digests of all samples where they are known without reading (None: read and hash)."""
        return None


class FileSource(Source):
    """A source whose images are files of their own on a local disk."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Path] = []

    def add(self, file: Path, label: int, part: Part | None) -> None:
        """Lists a file; a missing one is kept and turns out to be broken when it is read."""
        try:
            status = file.stat()
            stamp = (status.st_size, status.st_mtime_ns)
        except OSError:
            stamp = None
        self.files.append(file)
        self.samples.append(Sample(label, part, str(file), stamp))

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields a reader of each file."""
        for position in positions:
            yield int(position), self.files[int(position)].read_bytes


def expand(path: str) -> str:
    """Replaces environment variables and ``~``; URLs keep everything else."""
    return os.path.expanduser(os.path.expandvars(path))


def local_directory(path: str | list[str] | None, what: str) -> Path:
    """The existing directory that ``data.path`` names, relative to the current directory.

    Raises:
        UserError: If there is none.
    """
    if path is None:
        raise UserError(f"data.path is missing: it must name {what}")
    if not isinstance(path, str):
        raise UserError(f"data.path must be one folder ({what}), not a list")
    directory = Path(expand(path))
    if not directory.exists():
        raise UserError(
            f"data.path: {directory} does not exist (looked in {Path.cwd()}); it must name {what}"
        )
    if not directory.is_dir():
        raise UserError(f"data.path: {directory} is not a folder; it must name {what}")
    return directory


def some(names: Sequence[str], limit: int = 10) -> str:
    """Joins at most ``limit`` names and says how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
