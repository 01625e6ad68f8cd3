"""Finds a table's columns of images and labels, and reads labels."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gsfl_tune.data.sources._base import some
from gsfl_tune.data.sources._names import Part, normal
from gsfl_tune.data.sources._row_parts import (
    ALLOWED,
    SPLIT,
    SPLIT_TOO,
    counts_of,
    not_used,
    plain,
    told_part,
    unclear,
    words_and_others,
)
from gsfl_tune.experiment.errors import UserError

# Columns of pandas, which writes a frame's index into the file.
_INDEX = "__index_level_"
# The mark for "no label" in test files of the hub.
NO_LABEL = -1
# The same in text; the last one of pandas.
NO_LABELS = frozenset([str(NO_LABEL), f"{NO_LABEL}.0"])


@dataclass(frozen=True)
class Columns:
    """Holds column names given in the experiment: ``data.image_column`` and so on."""

    image: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Chosen:
    """Holds the chosen columns of a table.

    Attributes:
        image: Name of the column of images.
        label: Name of the column of labels.
        group: Name of the column of groups, if given.
        split: Name of the column that may tell the parts, if given or found by its name.
        has_path: Whether images have a path beside their bytes.
        classes: Names of integer labels, if the table has them.
        notices: Messages on the choice.
    """

    image: str
    label: str
    group: str | None
    split: str | None
    has_path: bool
    classes: list[str] | None
    notices: tuple[str, ...] = ()


def choose_columns(
    schema: pa.Schema, features: dict[str, Any], name: str, columns: Columns
) -> Chosen:
    """Finds the columns of images and labels.

    Args:
        schema: Schema of the table.
        features: Descriptions of the columns by the `datasets` library, see `features_of`.
        name: Name of the table for messages.
        columns: Columns given in the experiment.

    Raises:
        UserError: If there are none, or several candidates.
    """
    image = _image_column(schema, name, columns.image)
    label = _label_column(schema, features, name, columns.label)
    if columns.group is not None:
        _given(schema, name, columns.group, "group", lambda _: True, "any type")
    split = columns.split
    if split is not None:
        _given(schema, name, split, "split", _holds_text, "strings")
    else:
        known = [c for c in _named_splits(schema) if c not in (label, columns.group)]
        split = known[0] if known else None
    has_path = _has_field(schema.field(image).type, "path")
    classes = _class_names(features, label)
    finer = [
        _candidate(schema, features, column)
        for column in features
        if columns.label is None and len(_class_names(features, column) or ()) > len(classes or ())
    ]
    notices = [unclear(name, column) for column in _bits(schema) if split is None]
    if finer:
        notices.append(
            f"{name}: column {label} holds the labels, and not {some(finer)}; "
            "data.label_column chooses"
        )
    return Chosen(image, label, columns.group, split, has_path, classes, tuple(notices))


def images_of(schema: pa.Schema, name: str, given: str | None) -> tuple[str, bool]:
    """Finds the column of images, and whether they have a path beside their bytes.

    Args:
        schema: Schema of the table.
        name: Name of the table for messages.
        given: The column that the experiment names.

    Raises:
        UserError: If there is none, or several candidates.
    """
    image = _image_column(schema, name, given)
    return image, _has_field(schema.field(image).type, "path")


def class_names(
    schema: pa.Schema, features: dict[str, Any], name: str, columns: Columns
) -> list[str] | None:
    """Returns the names of the classes, if the schema has them.

    Raises:
        UserError: If there is no column of labels, or several candidates.
    """
    return _class_names(features, _label_column(schema, features, name, columns.label))


def parts_of(
    column: pa.ChunkedArray, name: str, of_name: Part | None, chosen: Chosen, given: bool
) -> tuple[list[Part | None] | None, list[str]]:
    """Returns the parts that a column tells, one per row, and notices.

    Args:
        column: Column of strings.
        name: Name of the table for messages.
        of_name: The part in the name of the file, which counts unless the column is given.
        chosen: Columns of the table.
        given: Whether the experiment names the column.

    Returns:
        None in place of the parts if the column does not tell them.

    Raises:
        UserError: If a word names no part, and others do or the column is given.
    """
    values = column.to_pylist()
    found, others = words_and_others(values)
    if not found and not given:
        usual = plain(chosen.split or "") in SPLIT
        return None, [not_used(name, f"{chosen.split}", others)] if others and usual else []
    if others and not given and plain(chosen.split or "") not in SPLIT:
        return None, []  # of the names of anything
    parts = [None if value is None else told_part(value.strip()) for value in values]
    if of_name is not None and not given:
        strayed = sum(part not in (None, of_name) for part in parts)
        return None, [
            f"{name}: column {chosen.split} tells another part of {strayed:,} rows than the name "
            f"of the file ({of_name}), which counts; data.split_column: {chosen.split} changes that"
        ] if strayed else []
    if others:
        raise UserError(
            f"{name}: column {chosen.split}: found the parts {some(others)}, allowed {ALLOWED}"
        )
    return parts, [f"{name}: column {chosen.split} tells the parts: {counts_of(parts)}"]


def labels_of(column: pa.ChunkedArray, name: str) -> list[int | str | None]:
    """Returns the labels of a column, one per row; None if a row has none (null, empty, or -1).

    Args:
        column: Column of integers, strings, booleans or whole floats.
        name: Name of the table for messages.

    Raises:
        UserError: If a float is not a whole number.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        return [None if value is None else str(value) for value in column.to_pylist()]
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        # pandas makes integers floats if one is missing.
        odd = [value for value in values if value is not None and value == value and value % 1]
        if odd:
            raise UserError(f"{name}: found the label {odd[0]}, allowed whole numbers or strings")
        values = [None if value is None or value != value else int(value) for value in values]
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return [None if value == NO_LABEL else value for value in values]
    return [_name(value) for value in values]


def _name(value: str | None) -> str | None:
    """Returns the label in a cell of text; None for an empty one, and for -1."""
    text = "" if value is None else value.strip()
    return None if not text or text in NO_LABELS else normal(value or "")


def groups_of(values: list[Any]) -> list[str | None]:
    """Converts groups to text; None if a row has none."""
    return [None if value is None else str(value) for value in values]


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """Returns the `datasets` library's descriptions of the columns from a schema; empty without."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if not metadata:
        return {}
    try:
        return known_features(json.loads(metadata)["info"])
    except (ValueError, KeyError, TypeError):
        return {}


def known_features(info: dict[str, Any]) -> dict[str, Any]:
    """Returns the features of a ``dataset_info``, by column."""
    features = info.get("features") or {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def _class_names(features: dict[str, Any], label: str) -> list[str] | None:
    given = features.get(label, {}).get("names")
    return [normal(str(name)) for name in given] if given else None


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


def _holds_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _bits(schema: pa.Schema) -> list[str]:
    """Returns the columns such as ``is_train`` that may tell the parts by 0 and 1."""
    return [
        field.name
        for field in schema
        if (pa.types.is_boolean(field.type) or pa.types.is_integer(field.type))
        and plain(field.name).startswith("is_")
        and told_part(plain(field.name).removeprefix("is_")) is not None
    ]


def _named_splits(schema: pa.Schema) -> list[str]:
    """Returns the columns of text that are called as if they told parts, the surest first."""
    text = [field.name for field in schema if _holds_text(field.type)]
    return [c for known in (*SPLIT, *SPLIT_TOO) for c in text if plain(c) == known]


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
    # Float columns only if their name says so: others are measurements.
    others = [c for c in found if not pa.types.is_floating(schema.field(c).type)]
    others = [c for c in others if c not in _named_splits(schema)] or others
    for candidates in (["label"], ["labels"], declared, others):
        present = [column for column in candidates if column in found]
        if len(present) == 1:
            return str(present[0])
        if len(present) > 1:
            shown = [_candidate(schema, features, column) for column in present]
            raise UserError(
                f"{name}: several columns may hold the labels: {some(shown, 20)}; "
                "data.label_column names the one that is meant"
            )
    for column in ("label", "labels"):
        # A column without any value, as in test files of competitions.
        if column in schema.names and pa.types.is_null(schema.field(column).type):
            return column
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
    """Lists the columns with their types."""
    shown = some([f"{field.name} ({_kind(field.type)})" for field in schema], 20)
    return f"the columns {shown}"


@functools.cache
def _kind(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 40 else f"{text[:37]}..."
