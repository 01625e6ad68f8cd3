"""WebDataset shards: tar files in which the files of a sample share a name."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsfl_tune.data.sources._base import Reader, some
from gsfl_tune.data.sources._names import NOT_UTF8, counted, is_structure, is_utf8, normal
from gsfl_tune.data.sources._remote import TAR, SourceFile, fetch_if_there, find_files
from gsfl_tune.data.sources._row_parts import counts_of, parts_of_folders
from gsfl_tune.data.sources._shards import KEY, LABELS, Place, ShardListing, list_shards
from gsfl_tune.data.sources._table_source import LabelledTable, TableSource
from gsfl_tune.experiment.errors import UserError

_CLASS_FILES = ("classes.txt", "classes.json")


@dataclass(frozen=True)
class _Shard(LabelledTable):
    """Holds one tar file.

    Attributes:
        local: Where it can be read.
        places: Place of every row's image in it.
    """

    local: Path
    places: list[Place]


class WebDatasetSource(TableSource[_Shard]):
    """Reads samples of tar files: an image, with its label in a ``.cls``, ``.json`` or ``.txt``.

    The files of a sample have the same name up to the first dot. The label is an integer or a name.
    Names of integers come from ``classes.txt`` (one name per line) or ``classes.json`` (a list, or
    a mapping in either direction) beside the shards. Every shard is scanned once and the places of
    its images are cached, so that reading one is one seek. Names of shards give the parts, see
    `part_of_name`.

    Args:
        path: A file, a folder, a pattern (``train-{000000..000003}.tar``, ``*.tar``), or a list of
            these; local or a URL.
        cache: Folder for copies of remote files.
        config: Name of the folder of shards, if there are several.
        image_column: Suffix of the images, if samples have several.
        label_column: Suffix of the labels, or the key of the ``.json``.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If nothing is found, or a file is not an uncompressed tar file.
    """

    def __init__(
        self,
        path: str | list[str] | None,
        cache: Path,
        *,
        config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        scoring: bool = False,
    ) -> None:
        left_out = Counter[str]()
        files = find_files(path, cache, TAR, config, left_out=left_out)
        image, label = _bare(image_column), _bare(label_column)
        # Suffixes are compared in lower case; a key of the JSON is not changed.
        image = image.lower() if image else None
        listed = list_shards(files, cache, image, label)
        chosen = _chosen_label(listed, label)
        classes = _class_names(files, cache)
        shards = [
            _shard(file, found, chosen, classes, image)
            for file, found in zip(files, listed, strict=True)
        ]
        super().__init__(shards, kind="sample", scoring=scoring)
        self.note_unread(left_out)
        blind = sum(not sample.images for found in listed for sample in found.samples.values())
        if blind:
            self.left_out["without an image"] += blind
        unused: Counter[str] = Counter()
        for found in listed:
            unused.update(found.unused)
            self.problems += found.problems
            self.notices += found.notices
        if unused:
            self.notices.append(f"not used of the shards: {counted(unused.items(), 'file')}")
        self._refuse_no_labels(files, listed, label, chosen)

    def _read(self, table: _Shard, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
        """Reads each image directly from its place."""
        for row, position in sorted(rows.items()):
            yield position, functools.partial(_read_at, table.local, table.places[row])

    def _refuse_no_labels(
        self,
        files: Sequence[SourceFile],
        listed: Sequence[ShardListing],
        label: str | None,
        chosen: str | None,
    ) -> None:
        """Refuses shards without labels, or with captions instead."""
        where = some([file.name for file in files], 2)
        if not self.samples and not self.problems:
            suffixes: Counter[str] = Counter()
            for found in listed:
                suffixes.update(found.suffixes)
            shown = some([f".{name}" for name, _ in suffixes.most_common()]) or "no files"
            wanted = (
                f"data.label_column: {label}, a suffix or a key of the .json"
                if label
                else f"a label in .cls, .txt or .json (key `{KEY}`); data.label_column names "
                "another suffix or key"
            )
            self.problems.append(
                f"{where}: no sample has an image and a label: found {shown}; expected an image "
                f"and {wanted}; an archive of folders has to be unpacked"
            )
        elif chosen == "txt" and label is None and len(self.samples) >= 10:
            different = len({sample.label for sample in self.samples})
            if different > len(self.samples) / 2:
                self.problems.append(
                    f"{where}: the .txt of {len(self.samples):,} samples hold {different:,} "
                    "different texts, which look like captions and not like labels; "
                    "data.label_column names where the labels are (`txt`: there all the same)"
                )


def webdataset_classes(path: str | list[str] | None, config: str | None) -> int | None:
    """Returns the number of classes that a file beside local shards names; or None.

    Raises:
        UserError: As for `WebDatasetSource`.
    """
    names = _class_names(find_files(path, Path(), TAR, config), Path())
    return len(names) if names else None


def _bare(suffix: str | None) -> str | None:
    return suffix.removeprefix(".") if suffix else None


def _chosen_label(listed: Sequence[ShardListing], label: str | None) -> str | None:
    """Returns the suffix of the files with the labels; None if there are none."""
    counts: Counter[str] = Counter()
    for found in listed:
        for sample in found.samples.values():
            counts.update(suffix for suffix, value in sample.labels.items() if value is not None)
    order = (label, "json") if label else LABELS
    return next((suffix for suffix in order if suffix and counts[suffix]), None)


def _shard(
    file: SourceFile,
    found: ShardListing,
    chosen: str | None,
    classes: list[str] | None,
    image: str | None,
) -> _Shard:
    labels: list[int | str | None] = []
    places: list[Place] = []
    several: list[str] = []
    for key, sample in found.samples.items():
        if not sample.images:
            continue
        if not all(is_utf8(place.name) for place in sample.images.values()):
            found.unused[NOT_UTF8] += len(sample.images)
            continue
        if len(sample.images) > 1:
            several.append(f"{key} ({', '.join(f'.{name}' for name in sample.images)})")
            continue
        places.append(next(iter(sample.images.values())))
        labels.append(sample.labels.get(chosen) if chosen else None)
    if several:
        found.problems.append(
            f"{file.name}: {len(several)} samples hold several images: {some(several, 3)}; "
            "data.image_column names the suffix that is meant"
        )
    status = file.local.stat()
    # As in tables: an archive of folders that were divided already.
    parts = parts_of_folders([place.name for place in places]) if file.part is None else None
    told = f"{file.name}: the folders in it tell the parts: {counts_of(parts or [])}"
    return _Shard(
        name=file.name,
        part=file.part,
        labels=labels,
        names=[place.name for place in places],
        classes=classes,
        stamp=(status.st_size, status.st_mtime_ns),
        folder=None,
        local=file.local,
        places=places,
        parts=parts,
        notices=[told] if parts else [],
    )


def _class_names(files: Sequence[SourceFile], cache: Path) -> list[str] | None:
    """Returns class names from a file beside the shards or their folder; None without one."""
    own = {file.name.rpartition("/")[0]: file.options for file in files}
    # Beside `train/` and `val/`, and never in a folder that the shards may share with other data.
    above = {
        folder.rpartition("/")[0]: options
        for folder, options in own.items()
        if is_structure(folder.rpartition("/")[2])
    }
    for folder, options in {**own, **above}.items():
        for name in _CLASS_FILES:
            local = fetch_if_there(folder, name, cache, options)
            if local is not None:
                return _read_classes(local, f"{folder}/{name}")
    return None


def _read_classes(file: Path, name: str) -> list[str]:
    """Returns the names in a file of class names.

    Raises:
        UserError: If it has other content.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        content: Any = json.loads(text) if name.endswith(".json") else text.splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be read: {error}") from error
    if isinstance(content, dict):
        pairs = [(str(key), value) for key, value in content.items()]
        if pairs and all(key.isdigit() for key, _ in pairs):
            pairs = [(str(value), int(key)) for key, value in pairs]
        if sorted(str(number) for _, number in pairs) != sorted(map(str, range(len(pairs)))):
            raise UserError(f"{name}: the numbers of the classes must be 0 to {len(pairs) - 1}")
        content = [key for key, number in sorted(pairs, key=lambda pair: int(pair[1]))]
    if not isinstance(content, list) or not all(isinstance(each, str) for each in content):
        raise UserError(f"{name}: expected a list of names, or names with their numbers")
    names = [normal(each.strip()) for each in content if each.strip()]
    twice = sorted(each for each, count in Counter(names).items() if count > 1)
    if not names or twice:
        reason = f"names that appear more than once: {some(twice)}" if twice else "no names"
        raise UserError(f"{name}: {reason}")
    return names


def _read_at(file: Path, place: Place) -> bytes:
    with file.open("rb") as stream:
        stream.seek(place.offset)
        content = stream.read(place.size)
    if len(content) < place.size:
        raise ValueError(f"the shard ends before {place.name} does")
    return content
