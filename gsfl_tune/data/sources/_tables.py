"""Which columns of a Parquet file hold images and labels, and what the labels are."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gsfl_tune.data.sources._base import some
from gsfl_tune.data.sources._names import normal
from gsfl_tune.data.sources._remote import ParquetFile
from gsfl_tune.experiment.errors import UserError

# Of pandas, which writes the index of a frame into the file.
_INDEX = "__index_level_"
_NO_LABEL = -1


@dataclass(frozen=True)
class Columns:
    """Names of columns that the experiment gives: ``data.image_column`` and so on."""

    image: str | None = None
    label: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class LabelledTable:
    """Labels and image names of one file; the images stay on the disk.

    Attributes:
        file: The file.
        image: Name of the column of images.
        labels: One a row; None where the row has none.
        names: Path of every image as the file gives it.
        classes: Names of integer labels, where the file has them.
        stamp: Size and time of change of the file.
        groups: What every image belongs to, where the experiment names a column of it.
        beside_it: Whether some rows have no bytes, and their path may lead to the image.
    """

    file: ParquetFile
    image: str
    labels: list[int | str | None]
    names: list[str | None]
    classes: list[str] | None
    stamp: tuple[int, int]
    groups: list[str | None] | None
    beside_it: bool

    def where(self, row: int) -> str:
        """What messages call a row."""
        name = self.names[row]
        return f"{self.file.name}#{row}" + (f" ({name})" if name else "")

    def beside(self, row: int) -> Path | None:
        """The file that a row names instead of holding it; None where it does not exist."""
        name = self.names[row]
        if not name or not self.beside_it or "://" in self.file.name:
            return None
        file = Path(self.file.name).parent / name  # an absolute path stays what it is
        return file if file.is_file() else None

    def stamp_of(self, row: int) -> tuple[int, int]:
        """Size and time of change of what holds a row's image."""
        file = self.beside(row)
        if file is None:
            return self.stamp
        status = file.stat()
        # Both: whether the row itself has bytes is not known before it is read.
        return self.stamp[0] + status.st_size, max(self.stamp[1], status.st_mtime_ns)


def open_table(file: ParquetFile, columns: Columns) -> LabelledTable:
    """Reads the labels of a file.

    Raises:
        UserError: If it is no Parquet file, or its columns are not those of images and labels.
    """
    try:
        with pq.ParquetFile(file.local) as opened:
            schema = opened.schema_arrow
            features = _features(schema)
            image = _image_column(schema, file.name, columns.image)
            label = _label_column(schema, features, file.name, columns.label)
            wanted = [label]
            named = _has_field(schema.field(image).type, "path")
            if named:
                wanted.append(f"{image}.path")
            if columns.group is not None:
                wanted.append(_given(schema, file.name, columns.group, "group", _any, "any type"))
            table = opened.read(columns=wanted)
            beside_it = named and _lacks_bytes(opened.metadata, image)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.name}: cannot be read as Parquet: {_why(file, error)}") from error
    names: list[str | None] = [None] * table.num_rows
    if named:
        names = [value and value.get("path") for value in table.column(image).to_pylist()]
    given = features.get(label, {}).get("names")
    status = file.local.stat()
    return LabelledTable(
        file=file,
        image=image,
        labels=_labels(table.column(label), file.name),
        names=names,
        classes=[normal(str(name)) for name in given] if given else None,
        stamp=(status.st_size, status.st_mtime_ns),
        groups=_groups(table.column(columns.group)) if columns.group is not None else None,
        beside_it=beside_it,
    )


def class_names(file: ParquetFile, columns: Columns) -> list[str] | None:
    """Names of the classes as the schema gives them, without reading a row; None without any.

    Raises:
        UserError: As `open_table`.
    """
    try:
        schema = pq.read_schema(file.local)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.name}: cannot be read as Parquet: {_why(file, error)}") from error
    features = _features(schema)
    label = _label_column(schema, features, file.name, columns.label)
    given = features.get(label, {}).get("names")
    return [normal(str(name)) for name in given] if given else None


def _why(file: ParquetFile, error: Exception) -> str:
    from gsfl_tune.data.formats import why_no_image

    try:
        with file.local.open("rb") as stream:
            start = stream.read(256)
    except OSError:
        return str(error)
    reason = why_no_image(start)
    return reason.replace("the image itself", "the file itself") if reason else str(error)


def _labels(column: pa.ChunkedArray, name: str) -> list[int | str | None]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        return [None if value is None else str(value) for value in column.to_pylist()]
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        # pandas makes floats of integers where one is missing.
        odd = [value for value in values if value is not None and value == value and value % 1]
        if odd:
            raise UserError(f"{name}: found the label {odd[0]}, allowed whole numbers or strings")
        values = [None if value is None or value != value else int(value) for value in values]
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return [None if value == _NO_LABEL else value for value in values]
    return [None if value is None else normal(value) for value in values]


def _groups(column: pa.ChunkedArray) -> list[str | None]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _any(kind: pa.DataType) -> bool:
    return True


def _lacks_bytes(metadata: pq.FileMetaData, image: str) -> bool:
    """Whether rows may have no image bytes; True where the file does not say."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for position in range(row_group.num_columns):
            column = row_group.column(position)
            if column.path_in_schema == f"{image}.bytes":
                statistics = column.statistics
                if statistics is None or not statistics.has_null_count or statistics.null_count:
                    return True
    return False


def _features(schema: pa.Schema) -> dict[str, Any]:
    metadata = (schema.metadata or {}).get(b"huggingface")
    if not metadata:
        return {}
    try:
        features = json.loads(metadata)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def _has_field(kind: pa.DataType, name: str) -> bool:
    return pa.types.is_struct(kind) and name in [field.name for field in kind]


def _holds_images(kind: pa.DataType) -> bool:
    return (
        _has_field(kind, "bytes")
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _holds_labels(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        pa.types.is_integer,
        pa.types.is_boolean,
        pa.types.is_floating,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
    )
    return any(test(kind) for test in tests)


def _image_column(schema: pa.Schema, name: str, given: str | None) -> str:
    if given is not None:
        return _given(schema, name, given, "image", _holds_images, "struct<bytes, path> or binary")
    found = [field.name for field in schema if _holds_images(field.type)]
    for preferred in ("image", "img"):
        if preferred in found:
            return preferred
    if len(found) > 1:
        raise UserError(
            f"{name}: several columns hold images: {some(found, 20)}; data.image_column names the "
            "one that is meant"
        )
    if not found:
        raise UserError(
            f"{name}: expected a column of images (struct<bytes, path> or binary), found "
            f"{_described(schema)}"
        )
    return str(found[0])


def _label_column(schema: pa.Schema, features: dict[str, Any], name: str, given: str | None) -> str:
    if given is not None:
        allowed = "integers, strings, booleans or whole floats"
        return _given(schema, name, given, "label", _holds_labels, allowed)
    found = [
        field.name
        for field in schema
        if _holds_labels(field.type) and not field.name.startswith(_INDEX)
    ]
    declared = [c for c in found if features.get(c, {}).get("_type") == "ClassLabel"]
    # Of floats only those that are called so: others measure something.
    plain = [c for c in found if not pa.types.is_floating(schema.field(c).type)]
    for candidates in (["label"], ["labels"], declared, plain):
        present = [column for column in candidates if column in found]
        if len(present) == 1:
            return str(present[0])
        if len(present) > 1:
            shown = [_candidate(schema, features, column) for column in present]
            raise UserError(
                f"{name}: several columns may hold the labels: {some(shown, 20)}; "
                "data.label_column names the one that is meant"
            )
    raise UserError(
        f"{name}: expected a column of labels (integers or strings), found {_described(schema)}"
    )


def _given(schema: pa.Schema, name: str, column: str, what: str, test: Any, allowed: str) -> str:
    if column not in schema.names:
        raise UserError(f"{name}: data.{what}_column: no column {column}, but {_described(schema)}")
    kind = schema.field(column).type
    if not test(kind):
        raise UserError(f"{name}: data.{what}_column: column {column} is {kind}, allowed {allowed}")
    return column


def _candidate(schema: pa.Schema, features: dict[str, Any], column: str) -> str:
    names = features.get(column, {}).get("names")
    return f"{column} ({f'{len(names)} classes' if names else schema.field(column).type})"


def _described(schema: pa.Schema) -> str:
    """The columns with their types."""
    shown = some([f"{field.name} ({_kind(field.type)})" for field in schema], 20)
    return f"the columns {shown}"


@functools.cache
def _kind(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 40 else f"{text[:37]}..."
