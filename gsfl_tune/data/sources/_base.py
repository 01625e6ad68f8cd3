"""What every source of images offers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._names import Part, counted, some
from gsfl_tune.experiment.errors import UserError

__all__ = ["FileSource", "Part", "Reader", "Sample", "Source", "expand", "local_directory", "some"]

# The content of an image file, or an image that was never a file. Called in worker threads.
Reader = Callable[[], "bytes | Image.Image"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a source.

    Attributes:
        label: Position in the classes.
        part: The part that the source itself puts it into, if any.
        path: What messages call it, unique in the source.
        stamp: (size in bytes, time of change in ns) of the file that holds it; as long as they
            are the same, so is the image. None if there is no such file.
        group: What the source says it belongs to (an animal, a place, a photographer), if it does.
        box: (x0, y0, x1, y1) of what is seen, in pixels of the upright image; None without one.
    """

    label: int
    part: Part | None
    path: str
    stamp: tuple[int, int] | None
    group: str | None = None
    box: Box | None = None


class Source(ABC):
    """Images with labels; lists them when it is made, reads them on demand.

    Attributes:
        classes: Names of the classes; a label is a position in this list.
        samples: All images, in an order that depends on the source alone.
        problems: What is wrong with the source and does not keep it from listing the rest.
        notices: What is no fault but must be known, a line each.
        left_out: Files or rows that are not listed, by reason.
        kind: What `left_out` counts.
        known_groups: The group of each class, where the source knows a true grouping.
        revision: Anything beyond the digests that the pixels depend on.
        cut_bottom: Pixels at the lower edge of every image that are no part of the picture.
    """

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.samples: list[Sample] = []
        self.problems: list[str] = []
        self.notices: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.kind = "file"
        self.known_groups: list[str] | None = None
        self.revision = ""
        self.cut_bottom = 0

    @abstractmethod
    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields (position, reader) for ``positions``, which ascend, in their order."""

    def drop_empty_classes(self) -> None:
        """Leaves out classes without images: of a subset that kept the list of all."""
        used = sorted({sample.label for sample in self.samples})
        if not used or len(used) == len(self.classes):
            return
        empty = sorted(set(range(len(self.classes))) - set(used))
        self.notices.append(
            f"{len(empty)} of {len(self.classes)} classes have no images and are left out: "
            f"{some([self.classes[label] for label in empty], 3)}"
        )
        order = {label: place for place, label in enumerate(used)}
        self.classes = [self.classes[label] for label in used]
        if self.known_groups is not None:
            self.known_groups = [self.known_groups[label] for label in used]
        self.samples = [replace(each, label=order[each.label]) for each in self.samples]

    def told(self) -> list[str]:
        """Notices, and what is left out."""
        if not self.left_out:
            return list(self.notices)
        return [*self.notices, f"left out: {counted(self.left_out.items(), self.kind)}"]

    def annotations(self) -> Annotations:
        """Reads boxes, part points and attributes of all samples, in pixels of upright images.

        Read when it is asked for: most who list images do not ask.

        Raises:
            UserError: If a file that holds them cannot be read.
        """
        return Annotations.of([sample.box for sample in self.samples])

    def known_digests(self) -> list[bytes] | None:
        """Digests of all samples where they are known without reading (None: read and hash)."""
        return None


class FileSource(Source):
    """A source whose images are files of their own on a local disk."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Path] = []

    def add(
        self,
        file: Path,
        label: int,
        part: Part | None,
        stamp: tuple[int, int] | None = None,
        *,
        box: Box | None = None,
        group: str | None = None,
        name: str | None = None,
    ) -> None:
        """Lists a file; a missing one is kept and turns out to be broken when it is read.

        Args:
            file: Where it is.
            label: Position in the classes.
            part: The part that the source puts it into.
            stamp: Its size and time of change, where they are known.
            box: What of it is the sample.
            group: What it belongs to.
            name: What messages call the sample; default: the path.
        """
        if stamp is None:
            try:
                status = file.stat()
                stamp = (status.st_size, status.st_mtime_ns)
            except OSError:
                stamp = None
        self.files.append(file)
        self.samples.append(Sample(label, part, name or str(file), stamp, group, box))

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
    if "://" in path:
        raise UserError(f"data.path: {path}: must be a folder of this machine ({what}), not a URL")
    directory = Path(expand(path))
    if not directory.exists():
        raise UserError(
            f"data.path: {directory} does not exist (looked in {Path.cwd()}); it must name {what}"
        )
    if not directory.is_dir():
        raise UserError(f"data.path: {directory} is not a folder; it must name {what}")
    return directory
