"""Classification datasets exported by FiftyOne (`FiftyOneImageClassificationDataset`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsfl_tune.data.sources._base import Reader, local_directory, some
from gsfl_tune.data.sources._file_parts import refuse_glued
from gsfl_tune.data.sources._names import AmbiguousName, Part, normal, part_of_name
from gsfl_tune.data.sources._table_source import LabelledTable, TableSource
from gsfl_tune.data.sources._walk import Listing, walk
from gsfl_tune.experiment.errors import UserError

LABELS = "labels.json"
WHAT = f"a folder with data/ and {LABELS}, as FiftyOne exports it, or one for each part"
# COCO exports use files with the same names.
_BEGINNING = re.compile(r'\s*\{\s*"(classes|labels)"\s*:')


@dataclass(frozen=True)
class _Export(LabelledTable):
    """Holds one exported folder.

    Attributes:
        files: The image of every row.
        stamps: Size and time of change of each; None for a missing one.
    """

    files: list[Path]
    stamps: list[tuple[int, int] | None]

    def where(self, row: int) -> str:
        """Returns the path of the file."""
        return str(self.files[row])

    def stamp_of(self, row: int) -> tuple[int, int] | None:
        """Returns size and time of change of the file."""
        return self.stamps[row]


class FiftyOneSource(TableSource[_Export]):
    """Reads images in ``data/`` and their labels in ``labels.json``.

    Names of images may lack their suffix. Labels are positions in ``classes``, names, or mappings
    with the key ``label``. Folders for the parts, each a separate export, are recognised by their
    names.

    Args:
        path: The folder, or the folder around those of the parts.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If a file is missing or has another format.
    """

    def __init__(self, path: str | list[str] | None, *, scoring: bool = False) -> None:
        listings: list[tuple[Listing, list[str]]] = []
        exports = [
            _open(folder, part, listings) for folder, part in _folders(local_directory(path, WHAT))
        ]
        super().__init__(exports, kind="image", scoring=scoring)
        self.kind = "file"  # left-out entries need not be images
        for listing, problems in listings:
            self.left_out.update(listing.left_out)
            self.problems += problems

    def _read(self, table: _Export, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
        for row, position in sorted(rows.items()):
            yield position, table.files[row].read_bytes


def is_export(root: Path) -> bool:
    """Returns whether a folder, or one for a part in it, looks like such an export."""
    return _looks_like(root) or any(
        _looks_like(folder.parent) and _told(folder.parent.name)
        for folder in root.glob(f"*/{LABELS}")
    )


def fiftyone_classes(path: str | list[str] | None) -> int | None:
    """Returns the number of classes an export names, without opening images; or None.

    Raises:
        UserError: As for `FiftyOneSource`.
    """
    folders = _folders(local_directory(path, WHAT))
    return max((len(_content(folder)[0] or []) for folder, _ in folders), default=0) or None


def _looks_like(folder: Path) -> bool:
    if not (folder / "data").is_dir() or not (folder / LABELS).is_file():
        return False
    with (folder / LABELS).open(encoding="utf-8", errors="replace") as stream:
        return _BEGINNING.match(stream.read(4096)) is not None


def _told(name: str) -> Part | None:
    try:
        return part_of_name(name)
    except AmbiguousName:
        return None


def _folders(root: Path) -> list[tuple[Path, Part | None]]:
    """Returns the exports of a folder, with the parts in their names."""
    if (root / LABELS).is_file():
        return [(root, None)]
    found = sorted(file.parent for file in root.glob(f"*/{LABELS}"))
    if not found:
        raise UserError(f"data.path: {root} has no {LABELS}; it must name {WHAT}")
    told = [(folder, _told(folder.name)) for folder in found]
    if not any(part for _, part in told):
        refuse_glued([str(folder) for folder in found])
    return told


def _content(folder: Path) -> tuple[list[str] | None, dict[str, Any]]:
    """Returns class names, and the target of every image."""
    file = folder / LABELS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON: {error}") from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict):
        found = some(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{file}: expected `labels`, a mapping of images to labels, and maybe `classes`, "
            f"found {found}"
        )
    classes = content.get("classes")
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    ):
        raise UserError(f"{file}: classes: expected a list of names")
    return [normal(name) for name in classes] if classes else None, labels


def _open(folder: Path, part: Part | None, listings: list[tuple[Listing, list[str]]]) -> _Export:
    if not (folder / "data").is_dir():
        raise UserError(f"data.path: {folder} has no data/; it must name {WHAT}")
    classes, targets = _content(folder)
    listing = walk(folder / "data")
    problems: list[str] = []
    listings.append((listing, problems))
    files = {
        normal(str(found.file.relative_to(folder / "data"))): found for found in listing.images
    }
    by_stem: dict[str, list[str]] = {}
    for name in files:
        by_stem.setdefault(str(Path(name).with_suffix("")), []).append(name)
    labels: list[int | str | None] = []
    chosen: list[tuple[Path, tuple[int, int] | None]] = []
    used: set[str] = set()
    wrong: list[str] = []
    several: list[str] = []
    for key, target in targets.items():
        spelt = normal(key)
        names = [spelt] if spelt in files else by_stem.get(spelt, [])
        used.update(names)
        if len(names) > 1:
            several.append(f"{key} ({', '.join(sorted(names))})")
            continue
        try:
            label = _target(target)
        except ValueError:
            wrong.append(f"{key}: {target!r}"[:80])
            continue
        labels.append(label)
        # A missing image is found broken when it is read.
        found = files[names[0]] if names else None
        chosen.append((found.file, found.stamp) if found else (folder / "data" / key, None))
    if several:
        problems.append(f"{folder / LABELS}: names that are of several files: {some(several, 3)}")
    if wrong:
        problems.append(
            f"{folder / LABELS}: {len(wrong)} images without one label: {some(wrong, 3)}; allowed "
            "is the number or name of one class"
        )
    unlisted = len(files) - len(used)
    if unlisted:
        listing.leave_out(f"not in {LABELS}", unlisted)
    return _Export(
        name=str(folder),
        part=part,
        labels=labels,
        names=[file.name for file, _ in chosen],
        classes=classes,
        stamp=(0, 0),
        folder=None,
        files=[file for file, _ in chosen],
        stamps=[stamp for _, stamp in chosen],
    )


def _target(value: Any) -> int | str | None:
    """Returns the label of an image; None if it has none.

    Raises:
        ValueError: If it has several, or another kind of value.
    """
    if isinstance(value, dict):
        value = value.get("label")
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError("several labels")
        return _target(value[0])
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        return normal(value)
    raise ValueError("no label")
