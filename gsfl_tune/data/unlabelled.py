"""Images without labels, of ``data.unlabelled``."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from gsfl_tune.data.decoded import BrokenImage, DecodedImages, Geometry, decode_once
from gsfl_tune.data.digests import read_contents
from gsfl_tune.data.disk_errors import disk_error
from gsfl_tune.data.looks import Looks, looks_of
from gsfl_tune.data.marks import MADE
from gsfl_tune.data.messages import reasons_told
from gsfl_tune.data.named_images import NamedImages, NotFound
from gsfl_tune.data.near import near_duplicates
from gsfl_tune.data.sources import FileSource, Source, UnlabelledParquet
from gsfl_tune.data.sources._base import expand, some
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError

_NAME = "images without labels"
_PARQUET = ".parquet"


@dataclass(frozen=True)
class Unlabelled:
    """Holds images without labels.

    Attributes:
        images: Decoded as the labelled ones; their labels say nothing.
        identities: Digest of each of them.
        notices: What was left out, one line each.
    """

    images: DecodedImages
    identities: list[bytes]
    notices: list[str]


class NamedFiles(FileSource):
    """Lists images of files, folders and patterns, all of one class.

    Args:
        names: As `gsfl_tune.data.named_images.NamedImages` takes them.
        label: Name of the class.
        key: What begins a message about a name that is not found, such as ``data.unlabelled: ``.
    """

    def __init__(self, names: Iterable[str], label: str, key: str = "") -> None:
        super().__init__()
        self.classes = [label]
        named = NamedImages(names)
        for each in named:
            if isinstance(each, NotFound):
                self.problems.append(f"{key}{each.name}: {each.reason}")
            else:
                self.add(Path(each), 0, None)
        self.left_out = named.left_out


def list_unlabelled(config: DataConfig, cache: Path) -> Source:
    """Lists the images of ``data.unlabelled``; labels in the files are not read.

    Args:
        config: The section ``data``.
        cache: Folder for copies of remote files.

    Raises:
        UserError: If a path names nothing, or folders of images and Parquet files are mixed.
    """
    given = config.unlabelled
    paths = [expand(path) for path in ([given] if isinstance(given, str) else given or [])]
    tables = [path for path in paths if _is_parquet(path)]
    if tables and len(tables) < len(paths):
        raise UserError(
            f"data.unlabelled: found Parquet files ({some(tables, 2)}) and others, allowed one kind"
        )
    if tables:
        return UnlabelledParquet(tables, cache, image_column=config.image_column)
    source = NamedFiles(paths, "unlabelled", "data.unlabelled: ")
    if source.problems:
        told = [f"data.unlabelled: {line}" for line in source.told()]
        raise UserError("\n".join([*told, *source.problems]))
    return source


def _is_parquet(path: str) -> bool:
    if path.lower().endswith(_PARQUET):
        return True
    folder = glob.escape(path) if Path(path).is_dir() else path
    return any(glob.iglob(f"{folder}/**/*{_PARQUET}", recursive=True))


def prepare_unlabelled(
    config: DataConfig, geometry: Geometry, cache: Path, looks: Looks, digests: set[bytes]
) -> Unlabelled:
    """Lists and decodes images without labels, and leaves out copies of held-out images.

    Args:
        config: The section ``data``.
        geometry: How labelled images are decoded.
        cache: The cache directory.
        looks: Looks of all images that are held out, for validation or test.
        digests: Digests of their bytes.

    Raises:
        UserError: If no image is left, or files cannot be read.
    """
    geometry = replace(geometry, margin=None, reading=replace(geometry.reading, cut_bottom=0))
    try:
        source = list_unlabelled(config, cache)
        contents = read_contents(source, cache)
        found = contents.digests
        own = looks_of(source, found, geometry.reading, cache, _NAME, None)
        numbers = near_duplicates(_joined(looks, own))
        count = len(looks.known)
        same = np.array([digest in digests for digest in found], dtype=bool)
        copies = same | np.isin(numbers[count:], numbers[:count])
        marked = np.isin(np.arange(len(found)), list(contents.marked))
        kept = np.flatnonzero(~copies & ~marked)
        notices = [f"data.unlabelled: {line}" for line in source.told()]
        if copies.any():
            notices.append(
                f"data.unlabelled: {int(copies.sum()):,} of {len(found):,} images are left out, as "
                "they are copies of validation or test images"
            )
        if marked.any():
            # What they were made from may be held out.
            notices.append(f"data.unlabelled: {int(marked.sum()):,} images are left out: {MADE}")
        file = decode_once(source, kept.tolist(), found, geometry, cache, name=_NAME)
    except OSError as error:
        raise disk_error(error, cache) from error
    readable = np.array([reason is None for reason in file.reasons], dtype=bool)
    if not readable.all():
        notices.append(
            f"data.unlabelled: {int((~readable).sum()):,} images cannot be read and are left out"
        )
    paths = [source.samples[position].path for position in kept.tolist()]
    if not readable.any():
        broken = [BrokenImage(*each) for each in zip(paths, map(str, file.reasons), strict=True)]
        lines = [*reasons_told(broken), *notices, "data.unlabelled: no image is left"]
        raise UserError("\n".join(lines))
    rows = np.flatnonzero(readable)
    identities = [found[position] for position in kept[rows].tolist()]
    paths = [paths[row] for row in rows.tolist()]
    state = hashlib.blake2b(f"{geometry.key} {source.revision}".encode(), digest_size=16)
    state.update(b"".join(identities))
    images = DecodedImages(file, rows, [0] * len(rows), paths, state.hexdigest(), _NAME)
    return Unlabelled(images, identities, notices)


def _joined(one: Looks, other: Looks) -> Looks:
    names = [each.name for each in fields(Looks)]
    return Looks(**{n: np.concatenate([getattr(one, n), getattr(other, n)]) for n in names})
