"""Images that a bundle is adapted to; labels in files and folders are not read."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gsfl_tune.data.decoded import BrokenImage, DecodedImages, Geometry, decode_once
from gsfl_tune.data.digests import read_contents
from gsfl_tune.data.disk_errors import disk_error
from gsfl_tune.data.messages import unreadable_message
from gsfl_tune.data.sources import (
    Source,
    UnlabelledParquet,
    create_source,
    detect_source,
)
from gsfl_tune.data.sources._walk import why_left_out
from gsfl_tune.data.unlabelled import NamedFiles
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle

_NAME = "images to adapt to"
_FOLDER, _PARQUET = "folder", "parquet"
_TABLES = ("csv", "jsonl", "coco")
_MOST_NAMED = 5


@dataclass(frozen=True)
class AdaptedTo:
    """Holds the images that a bundle is adapted to.

    Attributes:
        images: Decoded; their labels say nothing.
        contents: Digest of the bytes of each of them.
        broken: Images that could not be read; they are not in `images`.
        notices: What people must know.
    """

    images: DecodedImages
    contents: list[bytes]
    broken: list[BrokenImage]
    notices: list[str]

    @property
    def digest(self) -> str:
        """Returns the digest (hex) of the images, whatever their names and order."""
        state = hashlib.blake2b(digest_size=16)
        for content in sorted(self.contents):
            state.update(content)
        return state.hexdigest()


def open_images(bundle: Bundle, names: Sequence[str], cache: Path) -> AdaptedTo:
    """Lists and decodes images as a bundle reads them.

    Args:
        bundle: Defines how images are read.
        names: Files, folders with all below them, patterns; or Parquet files; or one data set of
            another kind, as for an evaluation, all parts of which are used.
        cache: Root of the node's caches.

    Raises:
        UserError: If something named does not exist, kinds are mixed, or no image can be read.
    """
    source = _list(names, cache)
    if source.problems and (isinstance(source, NamedFiles) or not source.samples):
        raise UserError("\n".join([*source.told(), *source.problems]))
    how = bundle.preprocessing
    trained = bundle.config.get("data", {})
    boxes = trained.get("crop") == "box" and any(each.box for each in source.samples)
    reading = replace(how.reading, cut_bottom=source.cut_bottom)
    margin = trained["crop_margin"] if boxes else None
    geometry = Geometry(how.side, how.fit, reading, margin)
    try:
        contents = read_contents(source, cache).digests
        identities = geometry.identities(source, contents)
        every = range(len(source.samples))
        file = decode_once(source, every, identities, geometry, cache, name=_NAME)
    except OSError as error:
        raise disk_error(error, cache) from error
    paths = [sample.path for sample in source.samples]
    broken = [
        BrokenImage(path, reason)
        for path, reason in zip(paths, file.reasons, strict=True)
        if reason is not None
    ]
    rows = np.array([row for row in every if file.reasons[row] is None], dtype=np.int64)
    if not len(rows):
        raise UserError(unreadable_message(broken, source.told()))
    state = hashlib.blake2b(f"{geometry.key} {source.revision}".encode(), digest_size=16)
    for row in rows.tolist():
        state.update(identities[row])
    images = DecodedImages(
        file, rows, [0] * len(rows), [paths[row] for row in rows], state.hexdigest(), _NAME
    )
    notices = [*source.told(), *source.problems]
    if trained.get("crop") == "box" and not boxes:
        notices.append("the bundle was trained on boxes cut out of images; these have none")
    small = int((images.sizes.min(axis=1) < how.image_size).sum())
    if small:
        notices.append(
            f"{small:,} of {len(images):,} images are smaller than the {how.image_size} px that "
            "the bundle sees, and are enlarged"
        )
    return AdaptedTo(images, [contents[row] for row in rows.tolist()], broken, notices)


def _list(names: Sequence[str], cache: Path) -> Source:
    if not names:
        raise UserError("no image is named: give files, folders, patterns, or --files-from")
    kinds = {name: _kind(name) for name in names}
    found = set(kinds.values())
    if found == {_FOLDER}:
        return NamedFiles(names, "unknown")
    if found == {_PARQUET}:
        return UnlabelledParquet(list(names), cache)
    if len(names) > 1:
        shown = ", ".join(f"{name} ({kind})" for name, kind in list(kinds.items())[:_MOST_NAMED])
        raise UserError(
            f"found images of several kinds ({shown}), allowed: files and folders of images, or "
            "Parquet files, or one data set of another kind"
        )
    config = DataConfig.model_validate({"source": kinds[names[0]], "path": names[0]})
    return create_source(config, cache, scoring=True)


def _kind(name: str) -> str:
    """Returns ``folder`` for files and folders of images, else the source of a data set."""
    path = Path(name)
    if name.lower().endswith((".yaml", ".yml")):
        raise UserError(f"{name}: found an experiment file, allowed the images themselves")
    if path.is_file() and why_left_out(path) is None:
        return _FOLDER
    if not path.exists() and (glob.has_magic(name) or "://" in name):
        kind = detect_source(name)  # without a look: by its ending, Parquet for all but tar files
        return _FOLDER if kind == _PARQUET and not name.lower().endswith(".parquet") else kind
    try:
        kind = detect_source(name)
    except UserError:
        return _FOLDER  # which says that there is no such file, or why it is no image
    # Tables that lie in a folder leave out images without a label, which are wanted here.
    return _FOLDER if path.is_dir() and kind in _TABLES else kind
