"""Finds the source for a path."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from gsfl_tune.data.disk_errors import unreadable
from gsfl_tune.data.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES
from gsfl_tune.data.sources._base import expand
from gsfl_tune.data.sources._columns import Given, find_roles
from gsfl_tune.data.sources._described import METADATA, is_coco, is_csv, is_jsonl
from gsfl_tune.data.sources._layouts import known_layout
from gsfl_tune.data.sources._names import JUNK_FOLDERS, are_shards, is_structure, is_utf8
from gsfl_tune.data.sources._remote import TAR
from gsfl_tune.data.sources._row_parts import told_part
from gsfl_tune.data.sources._rows import read_rows
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.url_options import split_options

# Number of files that are examined to identify a folder.
_ENOUGH = 2000
_ALLOWED = (
    "a folder of images, a public data set's folder, tables (.csv, .tsv, .jsonl), COCO's JSON, "
    "Parquet or tar files (file, folder, URL)"
)
# Tables are beside the images or in the folders of parts.
_TABLE_DEPTH = 2
# Columns that Label Studio writes into every table.
_LABEL_STUDIO = frozenset(["annotation_id", "annotator", "lead_time"])


@dataclass
class _Held:
    """Holds the first file of each kind in a folder.

    Attributes:
        image: An image in a folder.
        parquet: A Parquet file.
        shard: A tar file.
        coco: A JSON file of COCO.
        tables: Tables with columns of files and labels, by source.
        declared: Tables whose names or columns say that they describe images or a part.
        classes: Uppermost folders with images whose names may be classes.
    """

    image: str = ""
    parquet: str = ""
    shard: str = ""
    coco: str = ""
    tables: dict[str, str] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)


def detect_source(path: str | list[str] | None) -> str:
    """Finds the source that can read a path, from its content.

    Args:
        path: A folder, a table, a JSON file of COCO, a Parquet or tar file, a pattern, a URL, or a
            list of such files.

    Returns:
        A value of ``data.source``.

    Raises:
        UserError: If the path does not exist or cannot be read, or its content is unknown or
            ambiguous.
    """
    try:
        return _detected(path)
    except OSError as error:
        raise unreadable(error) from error


def _detected(path: str | list[str] | None) -> str:
    if path is None or path == []:
        raise UserError(f"data.path is missing: it must name {_ALLOWED}")
    if isinstance(path, list):
        return _of_list(path)
    expanded = expand(path)
    if not is_utf8(expanded):
        raise UserError(f"{expanded!r}: found a name that is not UTF-8; rename it")
    local = Path(expanded)
    # An existing path is a path, whatever characters it has.
    if not local.exists():
        if "://" in expanded or any(c in expanded for c in "*?[{"):
            return "webdataset" if _is_tar(expanded) else "parquet"
        raise UserError(f"{expanded} does not exist (looked in {Path.cwd()})")
    if not local.is_dir():
        return _of_file(local)
    known = known_layout(local)
    if known is None:
        return _of_folder(expanded)
    if not known.source:
        raise UserError(f"{expanded}: {known.told}")
    return known.source


def _of_list(paths: list[str]) -> str:
    """Returns the source of several entries, which must be of one kind."""
    kinds: dict[str, str] = {}
    for path in paths:
        there = Path(expand(path)).exists()
        kind = detect_source(path) if there else "webdataset" if _is_tar(path) else "parquet"
        kinds.setdefault(kind, path)
    if len(kinds) > 1:
        shown = ", ".join(f"{path} ({kind})" for kind, path in kinds.items())
        raise UserError(f"data.path: entries of different kinds: {shown}; set data.source to one")
    kind = next(iter(kinds))
    return kind if kind in ("csv", "jsonl", "coco", "webdataset") else "parquet"


def _of_file(file: Path) -> str:
    if file.suffix.lower() == ".parquet":
        return "parquet"
    if _is_tar(file.name):
        return "webdataset"
    if is_csv(file):
        return "csv"
    if is_coco(file):
        return "coco"
    if is_jsonl(file):
        return "jsonl"
    if file.suffix.lower() == ".json":
        raise UserError(
            f"{file} is neither COCO's JSON (an object with images, annotations and categories) "
            "nor a list of objects"
        )
    raise UserError(
        f"{file} is neither an experiment (.yaml), nor a table (.csv, .tsv, .jsonl, .json), nor a "
        "Parquet file, nor a folder"
    )


def _of_folder(root: str) -> str:
    held = _holds(root)
    if held.parquet and held.image:
        raise UserError(
            f"{root} holds both Parquet files ({held.parquet}) and images ({held.image}): set "
            "data.source to parquet or folder"
        )
    if held.parquet and held.shard:
        raise UserError(
            f"{root} holds both Parquet files ({held.parquet}) and tar files ({held.shard}): set "
            "data.source to parquet or webdataset"
        )
    if held.parquet:
        return "parquet"
    found = {**({"coco": held.coco} if held.coco else {}), **held.declared}
    several = len(held.classes) > 1 and not are_shards(held.classes)
    if not found and not several:
        # Other tables describe the images only if folders do not.
        found = held.tables
    if found and several:
        shown = " and ".join(sorted(held.classes)[:2])
        found = {**found, "folder": f"folders such as {shown}"}
    if len(found) > 1:
        shown = ", ".join(f"{kind} ({what})" for kind, what in found.items())
        raise UserError(
            f"{root} may be read in several ways: {shown}; set data.source to one, or name the file"
        )
    # An archive beside folders of images is their original archive.
    otherwise = "webdataset" if held.shard and not held.image else "folder"
    return next(iter(found), otherwise)


def _is_tar(name: str) -> bool:
    return TAR.holds(split_options(name)[0])


def _holds(root: str) -> _Held:
    """Examines the first files of a folder."""
    held = _Held()
    seen = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f.lower() not in JUNK_FOLDERS
        )
        inside = os.path.relpath(folder, root)
        depth = 0 if inside == "." else inside.count(os.sep) + 1
        for name in sorted(files):
            file = Path(folder, name)
            suffix = file.suffix.lower()
            shown = os.path.relpath(file, root)
            if suffix == ".parquet":
                held.parquet = held.parquet or shown
            elif _is_tar(name):
                held.shard = held.shard or shown
            elif suffix in IMAGE_SUFFIXES | HEIF_SUFFIXES:
                # A picture beside Parquet files belongs to their documentation.
                if folder != root:
                    held.image = held.image or shown
                    names = (each for each in Path(inside).parts if not is_structure(each))
                    held.classes.update(itertools.islice(names, 1))
            elif depth < _TABLE_DEPTH:
                _note_table(held, file, shown)
            seen += 1
        if seen >= _ENOUGH:
            break
    return held


def _note_table(held: _Held, file: Path, shown: str) -> None:
    if is_coco(file):
        held.coco = held.coco or shown
        return
    kind = "csv" if is_csv(file) else "jsonl" if is_jsonl(file) else None
    if kind is None or kind in held.declared:
        return
    declared = METADATA.fullmatch(file.name) or told_part(file.stem)
    if not declared and kind in held.tables:
        return
    labels, annotated = _labels_images(file)
    if not labels:
        return
    held.tables.setdefault(kind, shown)
    if declared or annotated:
        held.declared[kind] = shown


def _labels_images(file: Path) -> tuple[bool, bool]:
    """Examines a table.

    Returns:
        Whether it has columns of files and of labels, or may have several; whether Label Studio
        wrote it, which has any name.
    """
    try:
        rows = read_rows(file)
        annotated = set(rows.columns) >= _LABEL_STUDIO
        return find_roles(rows, Given()).labelled, annotated
    except UserError as error:
        return "data.label_column" in str(error), False
