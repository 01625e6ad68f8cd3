"""Datasets saved by the `datasets` library: a `Dataset` or `DatasetDict` as Arrow streams."""

from __future__ import annotations

import functools
import json
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from gsfl_tune.data.sources._base import Reader, local_directory
from gsfl_tune.data.sources._file_parts import refuse_glued
from gsfl_tune.data.sources._names import AmbiguousName, Part, part_of_name, some
from gsfl_tune.data.sources._table_source import LabelledTable, TableSource
from gsfl_tune.data.sources._tables import (
    Columns,
    choose_columns,
    class_names,
    features_of,
    groups_of,
    known_features,
    labels_of,
    parts_of,
)
from gsfl_tune.experiment.errors import UserError

STATE = "state.json"
SPLITS = "dataset_dict.json"
# The end mark of an Arrow stream: the next message has length zero.
_END = b"\xff\xff\xff\xff\0\0\0\0"
WHAT = "the folder that `save_to_disk` of the datasets library wrote"


@dataclass(frozen=True)
class _Saved(LabelledTable):
    """Holds one saved `Dataset`.

    Attributes:
        files: Its Arrow streams, in order.
        image: Name of the column of images.
        order: Row in the files for each row; None if they are the same.
    """

    files: list[Path]
    image: str
    order: list[int] | None


class ArrowSource(TableSource[_Saved]):
    """Reads datasets that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` wrote.

    The names of splits give the parts, see `part_of_name`; a single `Dataset` has no split, unless
    a column tells it. Class names come from ``dataset_info.json``. An indices mapping, which old
    versions of the library saved for a shuffled dataset, is applied. Files are memory-mapped, so
    that only the images in use are read.

    Args:
        path: The folder.
        image_column: Name of the column of images; default: found.
        label_column: Name of the column of labels; default: found.
        group_column: Name of the column of groups of images, if any.
        split_column: Name of the column that tells the part; default: found.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If a file is missing or damaged, or has other columns.
    """

    def __init__(
        self,
        path: str | list[str] | None,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        split_column: str | None = None,
        scoring: bool = False,
    ) -> None:
        columns = Columns(image_column, label_column, group_column, split_column)
        saved = _datasets(local_directory(path, WHAT))
        super().__init__([_open(folder, part, columns) for folder, part in saved], scoring=scoring)

    def _read(self, table: _Saved, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
        """Reads one image at a time from the mapped files."""
        batches = [batch for file in table.files for batch in _batches(file)]
        ends = list(accumulate(batch.num_rows for batch in batches))
        for row, position in sorted(rows.items()):
            place = row if table.order is None else table.order[row]
            number = bisect_right(ends, place)
            column = batches[number].column(table.image)
            if pa.types.is_struct(column.type):
                column = column.field("bytes")
            value = column[place - ends[number] + batches[number].num_rows].as_py()
            yield position, functools.partial(table.content, value, row)


def arrow_classes(path: str | list[str] | None, columns: Columns) -> int | None:
    """Returns the number of classes a saved dataset names, without reading a row; or None.

    Raises:
        UserError: As for `ArrowSource`.
    """
    most = 0
    for folder, _ in _datasets(local_directory(path, WHAT)):
        files = _files(folder, _json(folder / STATE), "_data_files")
        schema = next((_stream(file).schema for file in files), None)
        if schema is not None:
            names = class_names(schema, _features(folder, schema), str(folder), columns)
            most = max(most, len(names or []))
    return most or None


def is_saved(root: Path) -> bool:
    """Returns whether `save_to_disk` wrote a folder."""
    return (root / SPLITS).is_file() or (
        (root / STATE).is_file() and (root / "dataset_info.json").is_file()
    )


def _datasets(root: Path) -> list[tuple[Path, Part | None]]:
    """Returns the datasets of a folder, with the parts in the names of their splits."""
    if (root / STATE).is_file():
        return [(root, None)]
    if (root / SPLITS).is_file():
        splits = _json(root / SPLITS).get("splits")
        if not isinstance(splits, list) or not splits:
            raise UserError(f"{root / SPLITS}: expected a list of splits, found {splits!r}")
        splits = [str(name) for name in splits]
        missing = [
            name
            for name in splits
            if PurePath(name).name != name or not (root / name / STATE).is_file()
        ]
        if missing:
            raise UserError(
                f"{root / SPLITS}: names splits without a folder with {STATE}: {some(missing)}"
            )
    else:
        # Without a `DatasetDict`: one saved `Dataset` per part.
        splits = sorted(folder.parent.name for folder in root.glob(f"*/{STATE}"))
        if not splits:
            raise UserError(
                f"data.path: {root} has neither {SPLITS} nor {STATE}; it must name {WHAT}"
            )
    try:
        told = [(root / name, part_of_name(name)) for name in splits]
    except AmbiguousName as error:
        raise UserError(
            f"data.path: {root}: the split {error} holds a word for a part (train, validation, "
            "test) and cannot be understood; rename it"
        ) from None
    if not any(part for _, part in told):
        refuse_glued([str(folder) for folder, _ in told])
    return told


def _open(folder: Path, part: Part | None, columns: Columns) -> _Saved:
    """Reads the labels of a dataset."""
    state = _json(folder / STATE)
    files = _files(folder, state, "_data_files")
    if not files:
        raise UserError(f"{folder / STATE}: names no data files")
    batches = [batch for file in files for batch in _batches(file)]
    schema = _stream(files[0]).schema
    chosen = choose_columns(schema, _features(folder, schema), str(folder), columns)
    column = pa.chunked_array(
        [batch.column(chosen.label) for batch in batches], schema.field(chosen.label).type
    )
    names: list[str | None] = [None] * len(column)
    lacking = False
    if chosen.has_path:
        images = [batch.column(chosen.image) for batch in batches]
        names = [name for each in images for name in each.field("path").to_pylist()]
        lacking = any(each.field("bytes").null_count for each in images)
    labels = labels_of(column, str(folder))
    groups = None
    if chosen.group is not None:
        groups = groups_of([v for b in batches for v in b.column(chosen.group).to_pylist()])
    parts, notices = None, list(chosen.notices)
    if chosen.split is not None:
        told = pa.chunked_array(
            [batch.column(chosen.split) for batch in batches], schema.field(chosen.split).type
        )
        parts, more = parts_of(told, str(folder), part, chosen, columns.split is not None)
        notices += more
    order = _order(folder, state, len(labels))
    if order is not None:
        parts = None if parts is None else [parts[place] for place in order]
        labels = [labels[place] for place in order]
        names = [names[place] for place in order]
        groups = None if groups is None else [groups[place] for place in order]
    statuses = [file.stat() for file in files]
    return _Saved(
        name=str(folder),
        part=part,
        labels=labels,
        names=names,
        classes=chosen.classes,
        stamp=(
            sum(status.st_size for status in statuses),
            max(status.st_mtime_ns for status in statuses),
        ),
        folder=folder if lacking else None,
        files=files,
        image=chosen.image,
        order=order,
        groups=groups,
        parts=parts,
        notices=notices,
    )


def _order(folder: Path, state: dict[str, Any], count: int) -> list[int] | None:
    """Returns the indices mapping of a selected or shuffled dataset; None without one."""
    files = _files(folder, state, "_indices_data_files")
    if not files:
        return None
    found = [batch.column(0).to_pylist() for file in files for batch in _batches(file)]
    order = [place for each in found for place in each]
    wrong = [place for place in order if not isinstance(place, int) or not 0 <= place < count]
    if wrong:
        raise UserError(
            f"{folder}: its indices name row {wrong[0]}, allowed are 0 to {count - 1}, the rows of "
            "its data files"
        )
    return order


def _files(folder: Path, state: dict[str, Any], key: str) -> list[Path]:
    """Returns the files in a dataset's state, which are in its folder."""
    entries = state.get(key) or []
    names = [
        entry.get("filename") if isinstance(entry, dict) else None
        for entry in (entries if isinstance(entries, list) else [None])
    ]
    files = []
    for name in names:
        if not isinstance(name, str) or PurePath(name).name != name:
            raise UserError(f"{folder / STATE}: {key}: found {name!r}, allowed names of files")
        if not (folder / name).is_file():
            raise UserError(f"{folder / STATE}: {key}: {name} is not there")
        files.append(folder / name)
    return files


def _features(folder: Path, schema: pa.Schema) -> dict[str, Any]:
    file = folder / "dataset_info.json"
    return (known_features(_json(file)) if file.is_file() else {}) or features_of(schema)


def _batches(file: Path) -> list[pa.RecordBatch]:
    """Returns all batches of a stream: views of the mapped file, not read yet."""
    try:
        batches = list(_stream(file))
        with file.open("rb") as stream:
            stream.seek(-len(_END), os.SEEK_END)
            ended = stream.read() == _END
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read as an Arrow stream: {error}") from error
    if not ended:
        # Cut off between two batches, which the reader takes for the end.
        raise UserError(f"{file}: ends too early: the end mark of an Arrow stream is missing")
    return batches


def _stream(file: Path) -> Any:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(file)))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read as an Arrow stream: {error}") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: found {type(content).__name__}, allowed a mapping")
    return content
