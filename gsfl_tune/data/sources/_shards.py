"""Lists the contents of tar shards, in one pass over each, and caches the lists."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.data.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES, heif, why_no_image
from gsfl_tune.data.sources._names import normal
from gsfl_tune.data.sources._remote import TAR, SourceFile
from gsfl_tune.data.sources._tables import NO_LABEL, NO_LABELS
from gsfl_tune.experiment.errors import UserError

# Part of the cached name; change it when a pass would find other contents.
_VERSION = 2
# Places of a label, the first that any sample has: suffixes, or the key `label` of the JSON.
LABELS = ("cls", "json", "txt")
KEY = "label"
# Longer files are not labels.
_LONGEST = 16 << 20
_COMPRESSED = {
    b"\x1f\x8b": ".tar.gz",
    b"BZh": ".tar.bz2",
    b"\xfd7z": ".tar.xz",
    b"\x28\xb5\x2f\xfd": ".tar.zst",
}


@dataclass(frozen=True)
class Place:
    """Locates a file inside a shard."""

    name: str
    offset: int
    size: int


@dataclass
class ShardSample:
    """Holds the files of one key: images by suffix, and labels by their place."""

    images: dict[str, Place] = field(default_factory=dict)
    labels: dict[str, int | str | None] = field(default_factory=dict)


@dataclass
class ShardListing:
    """Holds the result of one pass over a shard.

    Attributes:
        samples: Samples by key, in the order of the shard.
        unused: Number of files that are neither image nor label, by reason.
        problems: Errors that do not prevent listing the rest.
        notices: Messages that are not errors.
        suffixes: Number of files by suffix.
    """

    samples: dict[str, ShardSample] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Returns the stored form."""
        samples = {
            key: [
                {at: [each.name, each.offset, each.size] for at, each in sample.images.items()},
                sample.labels,
            ]
            for key, sample in self.samples.items()
        }
        others = {"problems": self.problems, "notices": self.notices}
        counts = {"unused": self.unused, "suffixes": self.suffixes}
        return {"samples": samples, **others, **counts}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ShardListing:
        """Makes a listing from `to_json`."""
        samples = {
            key: ShardSample({suffix: Place(*place) for suffix, place in images.items()}, labels)
            for key, (images, labels) in content["samples"].items()
        }
        return cls(
            samples,
            Counter(content["unused"]),
            content["problems"],
            content["notices"],
            Counter(content["suffixes"]),
        )


def list_shards(
    files: Sequence[SourceFile], cache: Path, image: str | None, label: str | None
) -> list[ShardListing]:
    """Lists the samples of shards; unchanged shards come from the cache.

    Args:
        files: The shards.
        cache: The cache directory.
        image: Suffix of the images; None: all suffixes of images.
        label: Suffix of the labels, or the key of the ``.json``; None: any of `LABELS`.

    Raises:
        UserError: If one is not a tar file.
    """
    state = hashlib.blake2b(f"{_VERSION} {image} {label} {heif()}\n".encode(), digest_size=16)
    for file in files:
        status = file.local.stat()
        state.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())

    def build(target: Path) -> None:
        with (
            activity("going through shards", len(files), "shards") as step,
            target.open("w", encoding="utf-8") as sink,
        ):
            for file in files:
                sink.write(json.dumps(_list_shard(file, image, label).to_json()) + "\n")
                step.done += 1

    index = cache / "digests" / f"{state.hexdigest()}.shards"
    with (
        acquire(index, build, what=f"contents of {len(files):,} shards") as path,
        path.open(encoding="utf-8") as lines,
    ):
        return [ShardListing.from_json(json.loads(line)) for line in lines]


def _list_shard(file: SourceFile, image: str | None, label: str | None) -> ShardListing:
    """Lists a shard in one pass over its headers, without reading images.

    Raises:
        UserError: If it is not a tar file.
    """
    found = ShardListing()
    try:
        with tarfile.open(file.local, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it keeps all of them
                if member.isdir():
                    continue
                if not member.isreg() or member.sparse is not None:
                    found.unused["links, sparse and special files"] += 1
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
    found: ShardListing,
    image: str | None,
    label: str | None,
) -> None:
    folder, slash, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")
    suffix = suffix.lower()
    if not stem or base.startswith("__"):
        found.unused["hidden"] += 1
        return
    found.suffixes[suffix] += 1
    key = f"{folder}{slash}{stem}"
    last = f".{suffix.rpartition('.')[2]}"
    is_image = suffix == image if image else last in IMAGE_SUFFIXES | HEIF_SUFFIXES
    wanted = {"json", label} if label else {*LABELS}
    if not is_image and suffix not in wanted:
        found.unused[f".{suffix}" if suffix else "no suffix"] += 1
        return
    if is_image and last in HEIF_SUFFIXES and not heif():
        found.unused[f"{last} (needs the extra `heic`)"] += 1
        return
    sample = found.samples.setdefault(key, ShardSample())
    if is_image:
        if suffix in sample.images:
            found.problems.append(f"{file.name}: {key}: two files .{suffix}, allowed is one")
        sample.images[suffix] = Place(member.name, member.offset_data, member.size)
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
    """Returns the label in a file.

    Raises:
        ValueError: If there is none.
    """
    if member.size > _LONGEST:
        raise ValueError(f"{member.size:,} bytes are too many for a label")
    stream = archive.extractfile(member)
    assert stream is not None, "a regular file has content"
    text = stream.read().decode("utf-8")
    if suffix != "json":
        text = text.strip()
        if not re.fullmatch(r"[+-]?\d+", text):
            return None if text in NO_LABELS else normal(text) or None
        return None if int(text) == NO_LABEL else int(text)
    content = json.loads(text)
    key = label or KEY
    value = content.get(key) if isinstance(content, dict) else content
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and not isinstance(value, int | str):
        raise ValueError(f"{key}: found {value!r}, allowed an integer or a name")
    if isinstance(value, str):
        text = value.strip()
        return None if text in NO_LABELS else normal(text) or None
    return None if value == NO_LABEL else value


def _check_end(file: SourceFile, offset: int, found: ShardListing) -> None:
    """Reports a shard with a wrong end, as `tarfile` takes a damaged header for the end."""
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
