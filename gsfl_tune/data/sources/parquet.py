"""Parquet files in the image layout of the Hugging Face hub."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gsfl_tune.data.formats import why_no_image
from gsfl_tune.data.sources._base import Reader
from gsfl_tune.data.sources._remote import PARQUET, SourceFile, find_files
from gsfl_tune.data.sources._table_source import LabelledTable, TableSource
from gsfl_tune.data.sources._tables import (
    Columns,
    choose_columns,
    class_names,
    features_of,
    groups_of,
    images_of,
    labels_of,
    parts_of,
)
from gsfl_tune.experiment.errors import UserError

# Bytes that are read ahead. With its defaults pyarrow (26.0.1) keeps the whole column of a row
# group, half a gigabyte or more in common files. Both settings are needed.
_BUFFER = 4 << 20
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class _ParquetTable(LabelledTable):
    """Holds one file.

    Attributes:
        local: Where it can be read.
        image: Name of the column of images.
    """

    local: Path
    image: str


class ParquetSource(TableSource[_ParquetTable]):
    """Reads a column of images (struct<bytes, path> or binary) and one of labels.

    Names of integer labels come from the schema's ``huggingface`` metadata; without them a label's
    number is its name. Rows without a label (null, or -1) are left out and counted. Names of files
    give the parts, see `part_of_name`; otherwise the file's folder does, or a column.

    Args:
        path: A file, a folder, a pattern with ``*`` or ``{000..003}``, or a list of these; local or
            a URL.
        cache: Folder for copies of remote files.
        config: Name of the configuration, if there are several.
        image_column: Name of the column of images; default: found.
        label_column: Name of the column of labels; default: found.
        group_column: Name of the column of what an image belongs to, if any.
        split_column: Name of the column that tells the part; default: found.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If nothing is found or a file has another layout.
    """

    def __init__(
        self,
        path: str | list[str] | None,
        cache: Path,
        *,
        config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        split_column: str | None = None,
        scoring: bool = False,
    ) -> None:
        columns = Columns(image_column, label_column, group_column, split_column)
        left_out = Counter[str]()
        files = find_files(path, cache, PARQUET, config, left_out=left_out)
        super().__init__([_open(file, columns) for file in files], scoring=scoring)
        self.note_unread(left_out)

    def _read(self, table: _ParquetTable, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
        """Reads a few rows at a time."""
        with pq.ParquetFile(table.local, pre_buffer=False, buffer_size=_BUFFER) as file:
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if any(row in rows for row in range(start, start + count)):
                    row = start
                    for batch in file.iter_batches(
                        _ROWS_AT_ONCE, row_groups=[group], columns=[table.image]
                    ):
                        column = batch.column(0)
                        if pa.types.is_struct(column.type):
                            column = column.field("bytes")
                        for value in column:
                            if row in rows:
                                content = value.as_py()
                                yield rows[row], functools.partial(table.content, content, row)
                            row += 1
                start += count


class UnlabelledParquet(ParquetSource):
    """Reads the images alone, of one class; columns of labels and names of parts do not matter.

    Args:
        path: As for `ParquetSource`.
        cache: Folder for copies of remote files.
        image_column: Name of the column of images; default: found.

    Raises:
        UserError: If nothing is found or a file has another layout.
    """

    def __init__(
        self, path: str | list[str], cache: Path, *, image_column: str | None = None
    ) -> None:
        files = find_files(path, cache, PARQUET, divided=False)
        tables = [_open_images(file, image_column) for file in files]
        TableSource.__init__(self, tables)


def parquet_classes(
    path: str | list[str] | None, config: str | None, columns: Columns
) -> int | None:
    """Returns the number of classes local files name, without reading a row; or None.

    Raises:
        UserError: As for `ParquetSource`.
    """
    most = 0
    for file in find_files(path, Path(), PARQUET, config):
        try:
            schema = pq.read_schema(file.local)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
        names = class_names(schema, features_of(schema), file.name, columns)
        most = max(most, len(names or []))
    return most or None


def _open(file: SourceFile, columns: Columns) -> _ParquetTable:
    """Reads the labels of a file.

    Raises:
        UserError: If it is not a Parquet file, or lacks columns of images and labels.
    """
    try:
        with pq.ParquetFile(file.local) as opened:
            schema = opened.schema_arrow
            chosen = choose_columns(schema, features_of(schema), file.name, columns)
            wanted = [chosen.label, *([f"{chosen.image}.path"] if chosen.has_path else [])]
            wanted += [column for column in (chosen.group, chosen.split) if column is not None]
            table = opened.read(columns=wanted)
            lacking = chosen.has_path and _lacks_bytes(opened.metadata, chosen.image)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error
    names: list[str | None] = [None] * table.num_rows
    if chosen.has_path:
        names = [value and value.get("path") for value in table.column(chosen.image).to_pylist()]
    parts, notices = None, list(chosen.notices)
    if chosen.split is not None:
        told, given = table.column(chosen.split), columns.split is not None
        parts, more = parts_of(told, file.name, file.part, chosen, given)
        notices += more
    status = file.local.stat()
    return _ParquetTable(
        name=file.name,
        part=file.part,
        labels=labels_of(table.column(chosen.label), file.name),
        names=names,
        classes=chosen.classes,
        stamp=(status.st_size, status.st_mtime_ns),
        folder=Path(file.name).parent if lacking and "://" not in file.name else None,
        local=file.local,
        image=chosen.image,
        groups=None if chosen.group is None else groups_of(table.column(chosen.group).to_pylist()),
        parts=parts,
        notices=notices,
    )


def _open_images(file: SourceFile, given: str | None) -> _ParquetTable:
    """Opens a file for its images alone, which are all labelled 0.

    Raises:
        UserError: If it is not a Parquet file, or lacks a column of images.
    """
    try:
        with pq.ParquetFile(file.local) as opened:
            image, has_path = images_of(opened.schema_arrow, file.name, given)
            count = opened.metadata.num_rows
            names: list[str | None] = [None] * count
            if has_path:
                paths = opened.read(columns=[f"{image}.path"]).column(image).to_pylist()
                names = [value and value.get("path") for value in paths]
            lacking = has_path and _lacks_bytes(opened.metadata, image)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error
    status = file.local.stat()
    return _ParquetTable(
        name=file.name,
        part=None,
        labels=[0] * count,
        names=names,
        classes=None,
        stamp=(status.st_size, status.st_mtime_ns),
        folder=Path(file.name).parent if lacking and "://" not in file.name else None,
        local=file.local,
        image=image,
    )


def _unreadable(file: SourceFile, error: Exception) -> UserError:
    try:
        with file.local.open("rb") as stream:
            start = stream.read(256)
    except OSError:
        return UserError(f"{file.name}: cannot be read as Parquet: {error}")
    reason = why_no_image(start)
    said = reason.replace("the image itself", "the file itself") if reason else str(error)
    return UserError(f"{file.name}: cannot be read as Parquet: {said}")


def _lacks_bytes(metadata: pq.FileMetaData, image: str) -> bool:
    """Returns whether rows may have no image bytes; True if the file does not say."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for position in range(row_group.num_columns):
            column = row_group.column(position)
            if column.path_in_schema == f"{image}.bytes":
                statistics = column.statistics
                if statistics is None or not statistics.has_null_count or statistics.null_count:
                    return True
    return False
