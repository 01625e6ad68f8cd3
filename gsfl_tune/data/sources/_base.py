"""The interface of all sources of images."""

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
from gsfl_tune.data.sources._spelling import respelled
from gsfl_tune.experiment.errors import UserError

__all__ = ["FileSource", "Part", "Reader", "Sample", "Source", "expand", "local_directory", "some"]

# The content of an image file, or an image that was never a file. Called in worker threads.
Reader = Callable[[], "bytes | Image.Image"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")
_UNLABELLED = "without a label"


def without_label(part: Part | None) -> str:
    """Returns the reason in `Source.left_out` of images of a part that have no label."""
    return _UNLABELLED + (f" ({part} part)" if part else "")


@dataclass(frozen=True, slots=True)
class Sample:
    """Describes one image of a source.

    Attributes:
        label: Position in the classes.
        part: Its part, if the source gives one.
        path: Its name for messages, unique in the source.
        stamp: (size in bytes, time of change in ns) of its file. The image has not changed if both
            are the same. None if there is no such file.
        group: Its group (an animal, a place, a photographer), if the source gives one.
        box: (x0, y0, x1, y1) of the object, in pixels of the upright image; None without one.
        together: Number of its set in ``data.split.together``, if any.
    """

    label: int
    part: Part | None
    path: str
    stamp: tuple[int, int] | None
    group: str | None = None
    box: Box | None = None
    together: int | None = None


class Source(ABC):
    """Gives labelled images; lists them when it is made, and reads them on demand.

    Attributes:
        classes: Names of the classes; a label is a position in this list.
        samples: All images, in an order that depends on the source alone.
        problems: Errors that do not prevent listing the rest.
        notices: Messages that are not errors, one line each.
        left_out: Number of files or rows that are not listed, by reason.
        kind: What `left_out` counts.
        known_groups: The group of each class, if the source knows a true grouping.
        revision: Whatever the pixels depend on besides the digests.
        cut_bottom: Rows of pixels at the lower edge of every image that are not part of it.
        synthetic: Positions of images of ``data.synthetic``, with the digests of the files that
            each was made from.
        marked: Number of images that were listed, and then left out for the mark of synthetic ones.
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
        self.synthetic: dict[int, frozenset[bytes]] = {}
        self.marked = 0

    @property
    def originals(self) -> list[int]:
        """Returns the positions of all images but synthetic ones: those that a split divides."""
        return [place for place in range(len(self.samples)) if place not in self.synthetic]

    @property
    def listed(self) -> int:
        """Returns how many images a listing finds: marked ones too, none of ``data.synthetic``."""
        return len(self.originals) + self.marked

    @abstractmethod
    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields (position, reader) for the ascending ``positions``, in their order."""

    def drop_empty_classes(self) -> None:
        """Removes classes without images, for subsets that come with the list of all classes."""
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

    def note_unread(self, reasons: Counter[str]) -> None:
        """Notes how many whole files are not read, by reason, where `left_out` counts rows."""
        if reasons:
            self.notices.append(f"not read: {counted(reasons.items(), 'file')}")

    def unlabelled(self, part: Part | None = None) -> int:
        """Counts what is left out because it has no label.

        Args:
            part: Only images of this part; default: all.
        """
        reasons = (
            [_UNLABELLED, *map(without_label, PARTS)] if part is None else [without_label(part)]
        )
        return sum(self.left_out[reason] for reason in reasons)

    def told(self) -> list[str]:
        """Returns the notices and the counts of what is left out."""
        if not self.left_out:
            return list(self.notices)
        return [*self.notices, f"left out: {counted(self.left_out.items(), self.kind)}"]

    def annotations(self) -> Annotations:
        """Reads boxes, part points and attributes of all samples, in pixels of upright images.

        They are read only on request, as most callers need only the list of images.

        Raises:
            UserError: If a file that holds them cannot be read.
        """
        return Annotations.of([sample.box for sample in self.samples])

    def known_digests(self) -> list[bytes] | None:
        """Returns digests of all samples if known without reading; None: read and hash."""
        return None


class FileSource(Source):
    """Lists images that are single files on a local disk."""

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
        """Lists a file; a missing file stays in the list and is found broken when read.

        Args:
            file: Path of the file.
            label: Position in the classes.
            part: Its part.
            stamp: Its size and time of change, if known.
            box: Box of the sample in the image.
            group: Its group.
            name: Name for messages; default: the path.
        """
        if stamp is None:
            try:
                status = file.stat()
                stamp = (status.st_size, status.st_mtime_ns)
            except OSError:
                other = respelled(str(file))
                if other is not None:
                    self.add(Path(other), label, part, box=box, group=group, name=name)
                    return
                stamp = None
        self.files.append(file)
        self.samples.append(Sample(label, part, name or str(file), stamp, group, box))

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields a reader of each file."""
        for position in positions:
            yield int(position), self.files[int(position)].read_bytes


def expand(path: str) -> str:
    """Replaces environment variables and ``~``; URLs keep all other characters."""
    return os.path.expanduser(os.path.expandvars(path))


def local_directory(path: str | list[str] | None, what: str) -> Path:
    """Returns the existing directory of ``data.path``, relative to the current directory.

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
