"""WebDataset shards: tar files in which the files of one sample share a name."""

from __future__ import annotations

import functools
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsfl_tune.data.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES, heif, why_no_image
from gsfl_tune.data.sources._base import Reader, some
from gsfl_tune.data.sources._names import is_structure, normal
from gsfl_tune.data.sources._remote import TAR, SourceFile, fetch_if_there, find_files
from gsfl_tune.data.sources._table_source import LabelledTable, TableSource
from gsfl_tune.data.sources._tables import NO_LABEL
from gsfl_tune.experiment.errors import UserError

# Where a label may be, the first that any sample has: suffixes, or the key `label` of the JSON.
_LABELS = ("cls", "json", "txt")
_KEY = "label"
# What is longer is no label.
_LONGEST = 16 << 20
_COMPRESSED = {
    b"\x1f\x8b": ".tar.gz",
    b"BZh": ".tar.bz2",
    b"\xfd7z": ".tar.xz",
    b"\x28\xb5\x2f\xfd": ".tar.zst",
}
_CLASS_FILES = ("classes.txt", "classes.json")


@dataclass(frozen=True)
class _Place:
    """Where a file lies inside a shard."""

    name: str
    offset: int
    size: int


@dataclass
class _Sample:
    """The files of one key: images by suffix, and labels by where they were found."""

    images: dict[str, _Place] = field(default_factory=dict)
    labels: dict[str, int | str | None] = field(default_factory=dict)


@dataclass
class _Listed:
    """What one pass over a shard finds."""

    samples: dict[str, _Sample] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Shard(LabelledTable):
    """One tar file.

    Attributes:
        local: Where it can be read.
        places: Where the image of every row lies in it.
    """

    local: Path
    places: list[_Place]


class WebDatasetSource(TableSource[_Shard]):
    """Samples of tar files: an image, and its label in a ``.cls``, ``.json`` or ``.txt`` beside it.

    The files of a sample have the same name up to the first dot. The label is an integer or a
    name; names of integers come from ``classes.txt`` (a name a line) or ``classes.json`` (a
    list, or a mapping of one to the other) beside the shards. Every shard is gone through once,
    and where its images lie is remembered: reading one is one seek. Names of shards tell the
    parts, see `part_of_name`.

    Args:
        path: A file, a folder, a pattern (``train-{000000..000003}.tar``, ``*.tar``), or a list of
            those; local or a URL.
        cache: Where files of other machines are kept.
        config: Which of several folders of shards side by side.
        image_column: Suffix of the images, where samples have several.
        label_column: Suffix of the labels, or the key of the ``.json``.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If nothing is found, or a file is no tar file or a compressed one.
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
        files = find_files(path, cache, TAR, config)
        image, label = _bare(image_column), _bare(label_column)
        listed = [_list_shard(file, image, label) for file in files]
        chosen = _chosen_label(listed, label)
        classes = _class_names(files, cache)
        shards = [
            _shard(file, found, chosen, classes, image)
            for file, found in zip(files, listed, strict=True)
        ]
        super().__init__(shards, kind="sample", scoring=scoring)
        for found in listed:
            self.left_out.update(found.left_out)
            self.problems += found.problems
            self.notices += found.notices
        self._refuse_no_labels(files, listed, label, chosen)

    def _read(self, table: _Shard, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
        """Reads each image by itself, where it lies."""
        for row, position in sorted(rows.items()):
            yield position, functools.partial(_read_at, table.local, table.places[row])

    def _refuse_no_labels(
        self,
        files: Sequence[SourceFile],
        listed: Sequence[_Listed],
        label: str | None,
        chosen: str | None,
    ) -> None:
        """Refuses shards without labels, or with captions in their place."""
        where = some([file.name for file in files], 2)
        if not self.samples and not self.problems:
            suffixes: Counter[str] = Counter()
            for found in listed:
                suffixes.update(found.suffixes)
            shown = some([f".{name}" for name, _ in suffixes.most_common()]) or "no files"
            wanted = (
                f"data.label_column: {label}, a suffix or a key of the .json"
                if label
                else f"a label in .cls, .txt or .json (key `{_KEY}`); data.label_column names "
                "another suffix or key"
            )
            self.problems.append(
                f"{where}: no sample has an image and a label: found {shown}; expected an image "
                f"and {wanted}"
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
    """How many classes a file beside local shards names; None where there is none.

    Raises:
        UserError: As `WebDatasetSource`.
    """
    names = _class_names(find_files(path, Path(), TAR, config), Path())
    return len(names) if names else None


def _bare(suffix: str | None) -> str | None:
    return suffix.removeprefix(".") if suffix else None


def _list_shard(file: SourceFile, image: str | None, label: str | None) -> _Listed:
    """Goes through a shard once, from header to header; of its images nothing is read.

    Raises:
        UserError: If it is no tar file.
    """
    found = _Listed()
    try:
        with tarfile.open(file.local, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it keeps all of them
                if member.isdir():
                    continue
                if not member.isreg() or member.sparse is not None:
                    found.left_out["links, sparse and special files"] += 1
                    continue
                _list_member(file, archive, member, found, image, label)
            _check_end(file, archive.offset, found)
    except (tarfile.TarError, OSError) as error:
        raise _unreadable(file, error) from error
    return found


def _list_member(
    file: SourceFile,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    found: _Listed,
    image: str | None,
    label: str | None,
) -> None:
    folder, slash, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")
    suffix = suffix.lower()
    if not stem or base.startswith("__"):
        found.left_out["hidden"] += 1
        return
    found.suffixes[suffix] += 1
    key = f"{folder}{slash}{stem}"
    last = f".{suffix.rpartition('.')[2]}"
    is_image = suffix == image if image else last in IMAGE_SUFFIXES | HEIF_SUFFIXES
    wanted = {"json", label} if label else {*_LABELS}
    if not is_image and suffix not in wanted:
        found.left_out[f".{suffix}" if suffix else "no suffix"] += 1
        return
    if is_image and last in HEIF_SUFFIXES and not heif():
        found.left_out[f"{last} (needs the extra `heic`)"] += 1
        return
    sample = found.samples.setdefault(key, _Sample())
    if is_image:
        if suffix in sample.images:
            found.problems.append(f"{file.name}: {key}: two files .{suffix}, allowed is one")
        sample.images[suffix] = _Place(member.name, member.offset_data, member.size)
        return
    if suffix in sample.labels:
        found.problems.append(f"{file.name}: {key}: two files .{suffix}, allowed is one")
        return
    try:
        sample.labels[suffix] = _label(archive, member, suffix, label)
    except ValueError as error:
        sample.labels[suffix] = None
        found.problems.append(f"{file.name}: {member.name}: {error}")


def _label(
    archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, label: str | None
) -> int | str | None:
    """The label that a file holds.

    Raises:
        ValueError: If it holds none.
    """
    if member.size > _LONGEST:
        raise ValueError(f"{member.size:,} bytes are too many for a label")
    stream = archive.extractfile(member)
    assert stream is not None, "a regular file has content"
    text = stream.read().decode("utf-8")
    if suffix != "json":
        text = text.strip()
        if not re.fullmatch(r"[+-]?\d+", text):
            return normal(text) or None
        return None if int(text) == NO_LABEL else int(text)
    content = json.loads(text)
    key = label or _KEY
    value = content.get(key) if isinstance(content, dict) else content
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and not isinstance(value, int | str):
        raise ValueError(f"{key}: found {value!r}, allowed an integer or a name")
    if isinstance(value, str):
        return normal(value.strip()) or None
    return None if value == NO_LABEL else value


def _check_end(file: SourceFile, offset: int, found: _Listed) -> None:
    """Says when a shard does not end as one does: `tarfile` takes a damaged header for the end."""
    with file.local.open("rb") as stream:
        stream.seek(offset)
        rest = stream.read(tarfile.BLOCKSIZE)
    if not rest:
        found.notices.append(f"{file.name}: has no mark of its end: it may have been cut off")
    elif rest.strip(b"\0"):
        found.problems.append(f"{file.name}: damaged at byte {offset:,}; what follows is not read")


def _unreadable(file: SourceFile, error: Exception) -> UserError:
    try:
        with file.local.open("rb") as stream:
            start = stream.read(256)
    except OSError:
        return UserError(f"{file.name}: cannot be read: {error}")
    for beginning, suffix in _COMPRESSED.items():
        if start.startswith(beginning):
            reason = next(text for known, text in TAR.refused if known == suffix)
            return UserError(f"{file.name}: is a {suffix}: {reason}")
    reason = (why_no_image(start) or str(error)).replace("the image itself", "the file itself")
    return UserError(f"{file.name}: cannot be read as a tar file: {reason}")


def _chosen_label(listed: Sequence[_Listed], label: str | None) -> str | None:
    """The suffix of the files that hold the labels; None where none do."""
    counts: Counter[str] = Counter()
    for found in listed:
        for sample in found.samples.values():
            counts.update(suffix for suffix, value in sample.labels.items() if value is not None)
    order = (label, "json") if label else _LABELS
    return next((suffix for suffix in order if suffix and counts[suffix]), None)


def _shard(
    file: SourceFile,
    found: _Listed,
    chosen: str | None,
    classes: list[str] | None,
    image: str | None,
) -> _Shard:
    labels: list[int | str | None] = []
    places: list[_Place] = []
    several: list[str] = []
    for key, sample in found.samples.items():
        if not sample.images:
            found.left_out["without an image"] += 1
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
    )


def _class_names(files: Sequence[SourceFile], cache: Path) -> list[str] | None:
    """Names of the classes, from a file beside the shards or their folder; None without one."""
    own = dict.fromkeys(file.name.rpartition("/")[0] for file in files)
    # Beside `train/` and `val/`, and never in a folder that the shards may share with others.
    above = dict.fromkeys(
        folder.rpartition("/")[0] for folder in own if is_structure(folder.rpartition("/")[2])
    )
    for folder in {**own, **above}:
        for name in _CLASS_FILES:
            local = fetch_if_there(folder, name, cache)
            if local is not None:
                return _read_classes(local, f"{folder}/{name}")
    return None


def _read_classes(file: Path, name: str) -> list[str]:
    """The names in a file of class names.

    Raises:
        UserError: If it holds something else.
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


def _read_at(file: Path, place: _Place) -> bytes:
    with file.open("rb") as stream:
        stream.seek(place.offset)
        content = stream.read(place.size)
    if len(content) < place.size:
        raise ValueError(f"the shard ends before {place.name} does")
    return content
