"""Which source a path is meant for."""

from __future__ import annotations

import os
from pathlib import Path

from gsfl_tune.data.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES
from gsfl_tune.data.sources._base import expand
from gsfl_tune.data.sources._layouts import known_layout
from gsfl_tune.data.sources._names import JUNK_FOLDERS
from gsfl_tune.data.sources._remote import TAR
from gsfl_tune.experiment.errors import UserError

# So many files tell what a folder holds; of a million nobody has to ask all.
_ENOUGH = 2000
_ALLOWED = (
    "a folder of images, a public data set's folder, Parquet or tar files (file, folder, URL)"
)


def detect_source(path: str | list[str] | None) -> str:
    """Tells from what lies at a path how to read it.

    Args:
        path: A folder, a Parquet or tar file, a pattern, a URL, or a list of such files.

    Returns:
        A value of ``data.source``.

    Raises:
        UserError: If nothing lies there, nothing that is known, or more than one thing.
    """
    if path is None or path == []:
        raise UserError(f"data.path is missing: it must name {_ALLOWED}")
    if isinstance(path, list):
        return "webdataset" if all(_is_tar(name) for name in path) else "parquet"
    expanded = expand(path)
    local = Path(expanded)
    # What exists is a path, whatever characters its name has.
    if not local.exists():
        if "://" in expanded or any(c in expanded for c in "*?[{"):
            return "webdataset" if _is_tar(expanded) else "parquet"
        raise UserError(f"{expanded} does not exist (looked in {Path.cwd()})")
    if not local.is_dir():
        if local.suffix.lower() == ".parquet":
            return "parquet"
        if _is_tar(local.name):
            return "webdataset"
        raise UserError(
            f"{expanded} is neither an experiment (.yaml), nor a Parquet or tar file, nor a folder"
        )
    known = known_layout(local)
    if known is not None:
        return known.source
    images, tables, shards = _holds(expanded)
    if tables and images:
        raise UserError(
            f"{expanded} holds both Parquet files ({tables}) and images ({images}): set "
            "data.source to parquet or folder"
        )
    if tables and shards:
        raise UserError(
            f"{expanded} holds both Parquet files ({tables}) and tar files ({shards}): set "
            "data.source to parquet or webdataset"
        )
    # An archive beside folders of images is what they came in.
    return "parquet" if tables else "webdataset" if shards and not images else "folder"


def _is_tar(name: str) -> bool:
    return TAR.holds(name)


def _holds(root: str) -> tuple[str, str, str]:
    """An image, a Parquet and a tar file of a folder; empty where the first files are none."""
    image = table = shard = ""
    seen = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f.lower() not in JUNK_FOLDERS
        )
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if suffix == ".parquet":
                table = table or os.path.relpath(os.path.join(folder, name), root)
            elif _is_tar(name):
                shard = shard or os.path.relpath(os.path.join(folder, name), root)
            elif folder != root and suffix in IMAGE_SUFFIXES | HEIF_SUFFIXES:
                # A picture beside the Parquet files is of their description.
                image = image or os.path.relpath(os.path.join(folder, name), root)
            seen += 1
        if seen >= _ENOUGH:
            break
    return image, table, shard
