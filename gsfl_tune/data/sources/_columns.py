"""Finds the columns of a text table with files, labels, parts and boxes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gsfl_tune.data.formats import IMAGE_SUFFIXES
from gsfl_tune.data.sources._names import some
from gsfl_tune.data.sources._row_parts import (
    SPLIT,
    may_tell_parts,
    not_used,
    tell_parts,
    unclear,
    words_and_others,
)
from gsfl_tune.data.sources._row_parts import plain as _plain
from gsfl_tune.data.sources._rows import Rows
from gsfl_tune.experiment.errors import UserError

BoxFormat = Literal["auto", "xywh", "xyxy"]

# fmt: off
# The first existing column is used.
_IMAGE = (
    "file_name", "filename", "file", "image", "image_path", "img_path", "file_path", "filepath",
    "path", "img", "image_name", "img_name", "image_file", "image_filename",
)
# Used if no column has names of images, as `id` is often beside such a column.
_ID = ("image_id", "img_id", "imageid", "id_code", "id", "uuid")
_LABEL = ("label", "labels")
# Used if no column is called label.
_LABEL_TOO = (
    "class", "classes", "category", "target", "species", "breed", "variety", "choice", "choices",
    "class_name", "label_name", "category_name", "class_id", "label_id", "category_id", "dx",
    "classid", "classname", "labelid", "labelname", "categoryid", "categoryname",
)
# Other columns that programs write: the index of pandas, fields of Label Studio, sizes.
_BESIDE = frozenset([
    "", "id", "index", "annotation_id", "annotator", "created_at", "updated_at", "lead_time",
    "agreement", "width", "height", "depth", "image_width", "image_height",
])
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"),
    ("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"),
    ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), ("left", "top", "right", "bottom"),
)
_SIZES = (
    ("x", "y", "width", "height"), ("x", "y", "w", "h"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"), ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
    ("left", "top", "width", "height"),
)
# fmt: on
_ONE_HOT_FILE = "_classes.csv"
_ASKED = 20
_BIT = re.compile(r"\s*[01](?:\.0*)?\s*")


@dataclass(frozen=True)
class Given:
    """Holds column names given in the experiment: ``data.image_column`` and similar keys."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    boxes: tuple[str, ...] = ()
    box_format: BoxFormat = "auto"
    points: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roles:
    """Holds the roles of a table's columns.

    Attributes:
        image: Column of paths, names or ids of files.
        label: Column of labels; None if there is none.
        one_hot: Columns of classes, one of which is 1; empty if there are none.
        split: Column of parts.
        group: Column of groups of images.
        boxes: Four columns, or one of lists; empty if there are none.
        corners: Whether boxes are two corners; else they are a corner and a size.
        points: Pairs of columns of x and y, one for each part.
        attributes: Columns of attributes.
        notices: Messages on the choice.
    """

    image: str
    label: str | None = None
    one_hot: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None
    boxes: tuple[str, ...] = ()
    corners: bool = False
    points: tuple[tuple[str, str], ...] = ()
    attributes: tuple[str, ...] = ()
    notices: tuple[str, ...] = field(default=())

    @property
    def labelled(self) -> bool:
        """Returns whether rows may have labels."""
        return self.label is not None or bool(self.one_hot)


def find_roles(rows: Rows, given: Given) -> Roles:
    """Finds the roles of the columns from names and values.

    Raises:
        UserError: If a column is missing or its role is ambiguous.
    """
    if given == Given() and {"data", "annotations"} <= set(rows.columns):
        raise UserError(f"{rows.name}: Label Studio's JSON: export as JSON-MIN or CSV instead")
    image = _image(rows, given.image)
    boxes, corners = _boxes(rows, given)
    split, notice = _split(rows, given)
    group = None if given.group is None else _known(rows, given.group, "data.group_column")
    points = tuple(
        (
            _known(rows, f"{name}_x", "data.point_columns"),
            _known(rows, f"{name}_y", "data.point_columns"),
        )
        for name in given.points
    )
    attributes = tuple(_known(rows, name, "data.attribute_columns") for name in given.attributes)
    roles = Roles(
        image,
        split=split,
        group=group,
        boxes=boxes,
        corners=corners,
        points=points,
        attributes=attributes,
        notices=notice,
    )
    of_points = [column for pair in points for column in pair]
    taken = {image, *boxes, *of_points, *attributes, *filter(None, [split, group])}
    rest = [column for column in rows.columns if column not in taken]
    bits = [c for c in rest if c != given.label and may_tell_parts(c, rows.values[c])]
    # Where columns are classes, one of them may be called train.
    doubt = [unclear(rows.name, column) for column in bits if split is None]
    doubted = replace(roles, notices=(*notice, *doubt))
    if given.label is not None:
        # A test table may lack labels.
        return replace(doubted, label=given.label if given.label in rows.columns else None)
    if Path(rows.name).name == _ONE_HOT_FILE:
        return replace(roles, one_hot=tuple(rest))
    called = _called(rows, _LABEL)
    if called in rest:
        passed = [c for c in rest if c != called and _plain(c) in (*_LABEL, *_LABEL_TOO)]
        return _passing(doubted, rows, called, passed)
    found = [column for column in rest if _plain(column) in _LABEL_TOO]
    others = [column for column in rest if _plain(column) not in _BESIDE]
    if not found and len(others) > 1 and all(_is_bits(rows, column) for column in others):
        return replace(roles, one_hot=tuple(others))
    if not found and len(rows.columns) == 2:
        found = rest
    found = found or others
    if len(found) > 1:
        raise UserError(
            f"{rows.name}: several columns may hold the labels: {some(found, 20)}; "
            "data.label_column names the one that is meant"
        )
    passed = [column for column in others if column not in found]
    return _passing(doubted, rows, found[0] if found else None, passed)


def _passing(roles: Roles, rows: Rows, label: str | None, passed: list[str]) -> Roles:
    """Returns the roles with the column of labels, and a notice of others that may hold some."""
    if label is not None and passed:
        text = f"{rows.name}: column {label} holds the labels, and not {some(passed, 3)}"
        roles = replace(roles, notices=(*roles.notices, f"{text}; data.label_column chooses"))
    return replace(roles, label=label)


def described(rows: Rows) -> str:
    """Lists the columns, for messages."""
    return f"the columns {some([column or '(no name)' for column in rows.columns], 20)}"


def _known(rows: Rows, column: str, key: str) -> str:
    if column not in rows.columns:
        raise UserError(f"{rows.name}: {key}: no column {column}, but {described(rows)}")
    return column


def _called(rows: Rows, names: tuple[str, ...]) -> str | None:
    """Returns the column with the first of some names that exists."""
    for name in names:
        found = [column for column in rows.columns if _plain(column) == name]
        if len(found) == 1:
            return found[0]
    return None


def _image(rows: Rows, given: str | None) -> str:
    if given is not None:
        return _known(rows, given, "data.image_column")
    holding = [column for column in rows.columns if _holds_names(rows.values[column])]
    found = _called(rows, _IMAGE) or (holding[0] if len(holding) == 1 else _called(rows, _ID))
    if found is not None:
        return found
    raise UserError(
        f"{rows.name}: expected a column of files (such as file_name, image or id), found "
        f"{described(rows)}; data.image_column names another one"
    )


def _split(rows: Rows, given: Given) -> tuple[str | None, tuple[str, ...]]:
    if given.split is not None:
        return _known(rows, given.split, "data.split_column"), ()
    notices = []
    for column in rows.columns:
        if _plain(column) in SPLIT:
            parts, others = words_and_others(rows.values[column])
            if parts:  # other words are problems of their rows
                return column, ()
            if others:
                notices.append(not_used(rows.name, column, others))
    known = {*_LABEL, *_LABEL_TOO, *_IMAGE, *_ID}
    asked = {given.image, given.label, given.group, *given.attributes}
    found = [
        column
        for column in rows.columns
        if column not in asked and _plain(column) not in known and tell_parts(rows.values[column])
    ]
    if len(found) > 1:
        raise UserError(
            f"{rows.name}: several columns may tell the parts: {some(found, 20)}; "
            "data.split_column names the one that is meant"
        )
    if found:
        notices.append(f"{rows.name}: column {found[0]} tells the parts")
    return (found[0] if found else None), tuple(notices)


def _boxes(rows: Rows, given: Given) -> tuple[tuple[str, ...], bool]:
    names = {_plain(column): column for column in rows.columns}
    if not given.boxes:
        for kinds, corners in ((_CORNERS, True), (_SIZES, False)):
            for four in kinds:
                if all(name in names for name in four):
                    return tuple(names[name] for name in four), corners
        return (), False
    for column in given.boxes:
        _known(rows, column, "data.box_columns")
    if given.box_format != "auto":
        return given.boxes, given.box_format == "xyxy"
    plain = tuple(_plain(column) for column in given.boxes)
    if plain in _CORNERS or plain in _SIZES:
        return given.boxes, plain in _CORNERS
    raise UserError(
        f"{rows.name}: data.box_format: {some(given.boxes)} do not say whether they are x, y, "
        "width, height (xywh) or two corners (xyxy); allowed: xywh, xyxy"
    )


def _holds_names(values: list[Any]) -> bool:
    """Returns whether values are names of images, judged by the first ones."""
    first = [value for value in values if value not in (None, "")][:_ASKED]
    return bool(first) and all(
        isinstance(value, str) and Path(value.strip()).suffix.lower() in IMAGE_SUFFIXES
        for value in first
    )


def _is_bits(rows: Rows, column: str) -> bool:
    values: list[Any] = rows.values[column]
    return bool(values) and all(_BIT.fullmatch(str(value)) for value in values)
