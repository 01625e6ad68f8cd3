"""Parquet files in the image layout of the Hugging Face hub."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsfl_tune.data.sources._base import Reader, Sample, Source, some
from gsfl_tune.data.sources._remote import ParquetFile, find_parquet
from gsfl_tune.experiment.errors import UserError

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class _Table:
    """Labels and image names of one file; the images stay on the disk."""

    file: ParquetFile
    image: str
    labels: list[int | str | None]
    names: list[str | None]
    classes: list[str] | None
    stamp: tuple[int, int]


class ParquetSource(Source):
    """A column of images (struct<bytes, path> or binary) and one of labels (integers or strings).

    Names of integer labels come from the schema's ``huggingface`` metadata; without them a
    label's number is its name. Names of files tell the parts (``train*``, ``validation*``,
    ``valid*``, ``val*``, ``test*``; failing that, the folder that a file lies in).

    Args:
        path: A file, a folder, a pattern with ``*``, or a list of those; local or a URL.
        cache: Where files of other machines are kept.

    Raises:
        UserError: If nothing is found or a file does not have this layout.
    """

    def __init__(self, path: str | list[str] | None, cache: Path) -> None:
        super().__init__()
        self._tables = [_open(file) for file in find_parquet(path, cache)]
        unsplit = [table.file.name for table in self._tables if table.file.part is None]
        if unsplit and len(unsplit) < len(self._tables):
            self.problems.append(
                "data.path: some names of files tell their part (train, validation, test) and "
                f"these do not: {some(unsplit)}"
            )
        self.classes = self._merge_classes()
        index = {name: number for number, name in enumerate(self.classes)}
        self._rows: list[tuple[int, int]] = []
        for number, table in enumerate(self._tables):
            outside: list[str] = []
            for row, value in enumerate(table.labels):
                label = self._label(table, value, index)
                if label is None:
                    outside.append(f"row {row} ({value!r})")
                    continue
                name = table.names[row]
                where = f"{table.file.name}#{row}" + (f" ({name})" if name else "")
                self.samples.append(Sample(label, table.file.part, where, table.stamp))
                self._rows.append((number, row))
            if outside:
                self.problems.append(
                    f"{table.file.name}: labels outside the {len(self.classes)} classes: "
                    f"{some(outside)}"
                )

    def _merge_classes(self) -> list[str]:
        named = [table for table in self._tables if table.classes is not None]
        if named:
            first = named[0]
            assert first.classes is not None
            for table in named[1:]:
                if table.classes != first.classes:
                    self.problems.append(
                        f"{table.file.name}: its class names differ from those of {first.file.name}"
                    )
            return first.classes
        # Labels that only validation or test files have are outside the list.
        training = [table for table in self._tables if table.file.part in (None, "train")]
        values = {
            value
            for table in training or self._tables
            for value in table.labels
            if value is not None
        }
        ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
        return [str(value) for value in ordered]

    def _label(self, table: _Table, value: int | str | None, index: dict[str, int]) -> int | None:
        if value is None:
            return None
        if table.classes is not None and not isinstance(value, str):
            return value if 0 <= value < len(self.classes) else None
        return index.get(str(value))

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Reads the rows in the order of the files, a few at a time."""
        wanted: dict[int, dict[int, int]] = {}
        for position in positions:
            number, row = self._rows[int(position)]
            wanted.setdefault(number, {})[row] = int(position)
        for number in sorted(wanted):
            yield from _read(self._tables[number], wanted[number])


def _read(table: _Table, rows: dict[int, int]) -> Iterator[tuple[int, Reader]]:
    with pq.ParquetFile(table.file.local) as file:
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
                            yield rows[row], functools.partial(_content, value.as_py())
                        row += 1
            start += count


def _content(value: bytes | None) -> bytes:
    if value is None:
        raise ValueError("the row has no image bytes")
    return value


def _open(file: ParquetFile) -> _Table:
    try:
        with pq.ParquetFile(file.local) as opened:
            schema = opened.schema_arrow
            features = _features(schema)
            image = _image_column(schema, file.name)
            label = _label_column(schema, features, file.name)
            columns = [label]
            if pa.types.is_struct(schema.field(image).type) and "path" in [
                field.name for field in schema.field(image).type
            ]:
                columns.append(f"{image}.path")
            table = opened.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.name}: cannot be read as Parquet: {error}") from error
    labels = table.column(label)
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    names: list[str | None] = [None] * table.num_rows
    if len(columns) == 2:
        names = [value and value.get("path") for value in table.column(image).to_pylist()]
    given = features.get(label, {}).get("names")
    status = file.local.stat()
    return _Table(
        file=file,
        image=image,
        labels=labels.to_pylist(),
        names=names,
        classes=[str(name) for name in given] if given else None,
        stamp=(status.st_size, status.st_mtime_ns),
    )


def _features(schema: pa.Schema) -> dict[str, Any]:
    metadata = (schema.metadata or {}).get(b"huggingface")
    if not metadata:
        return {}
    try:
        features = json.loads(metadata)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def _image_column(schema: pa.Schema, name: str) -> str:
    def holds_images(field: pa.Field) -> bool:
        if pa.types.is_struct(field.type):
            return "bytes" in [inner.name for inner in field.type]
        return bool(pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))

    found = [field.name for field in schema if holds_images(field)]
    for preferred in ("image", "img"):
        if preferred in found:
            return preferred
    if len(found) != 1:
        raise UserError(
            f"{name}: expected a column `image` of struct<bytes, path>, found the columns "
            f"{some(schema.names, 20)}"
        )
    return str(found[0])


def _label_column(schema: pa.Schema, features: dict[str, Any], name: str) -> str:
    def holds_labels(field: pa.Field) -> bool:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        return bool(
            pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        )

    found = [field.name for field in schema if holds_labels(field)]
    declared = (
        [column for column in found if features[column].get("_type") == "ClassLabel"]
        if (features and all(column in features for column in found))
        else []
    )
    for candidates in (["label"], ["labels"], declared, found):
        candidates = [column for column in candidates if column in found]
        if len(candidates) == 1:
            return str(candidates[0])
    raise UserError(
        f"{name}: expected a column `label` of integers or strings, found the columns "
        f"{some(schema.names, 20)}"
    )
